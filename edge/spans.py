"""What a trace is made of: spans as plain values, and who takes them.

One rule: a span that was given is either sent or lost, and both are counted (`SpanCounts`); nobody waits for either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

Value = str | int | float


@dataclass(slots=True)
class Span:
    """One request of a client, or one attempt at a backend. Ids are numbers; times are nanoseconds since 1970."""

    name: str
    of_client: bool
    trace_id: int
    span_id: int
    parent_id: int  # 0: it begins the trace
    state: str  # tracestate, as it came
    start_ns: int
    end_ns: int = 0
    attributes: dict[str, Value] = field(default_factory=dict)
    failed: bool = False


class SpanCounts:
    """What a worker's spans came to, over reloads."""

    __slots__ = ("dropped", "failed", "sent")

    def __init__(self) -> None:
        self.sent = 0  # a collector took them
        self.failed = 0  # none did
        self.dropped = 0  # too many waited

    @property
    def lost(self) -> int:
        """Spans that no collector has."""
        return self.failed + self.dropped


class SpanSink(Protocol):
    """Takes spans, and sends them on from a thread of its own."""

    def give(self, span: Span) -> None:
        """Take a span that has ended; never waits, never fails."""

    def close(self) -> None:
        """Take no more; what waits is still sent, within bounds."""

    def settle(self) -> None:
        """Wait, within bounds, until that is done. Not for a loop."""
