"""What a worker tells the outside of itself, from a checked configuration: traces, and what the operator hears.

One rule: as in `app`, nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.config.loader import Config
from edge.dataplane.worker.tracing import Tracing
from edge.dataplane.worker.worker import Worker


def tracing(config: Config, worker: Worker) -> Tracing | None:
    """Who traces requests, where somebody is to take the spans."""
    log = config.log
    if log.otlp is None:
        return None
    from edge.adapters.otlp import OtlpSink  # not cheap, and an extra

    return Tracing(OtlpSink(log.otlp, worker.spans, warner(worker)), log.sample, log.sampled_by == "anyone")


def warner(worker: Worker) -> Callable[[str, str], None]:
    """Tells the operator, from whatever thread: a kind of event, and a text."""

    def warn(kind: str, text: str) -> None:
        if worker.store is not None:
            worker.store.events.append({"kind": kind, "evidence": text})

    return warn
