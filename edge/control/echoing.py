"""Which events go to the process's own output, for who looks at a terminal or the journal of the service manager.

    severity ─► at least `log.level`? ─► one line on stderr

One rule: what failed is an error whatever it is called; what nobody needs to act on is info, and what is only for who
looks for it (`edge events`) is debug. A kind that is not named here is a warning: rather told than missed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from edge.config.loader import Config

LEVELS = ("debug", "info", "warning", "error")
ERRORS = frozenset(("bug", "died", "hung", "link_lost", "cannot_start", "not_started", "failed", "unusable", "damaged"))
INFO = frozenset(
    (
        *("ready", "reloaded", "logs_reopened", "stopping", "upgrading", "upgraded"),
        *("taken", "drilled", "filled", "pruned", "alert_over", "issued", "in_step"),
    )
)
LOUD = (
    *("disk.", "worker.", "app.", "gateway.", "region.", "backend.", "ejected", "panic", "journal."),
    *("recovery.", "certificate.", "fleet.", "shared.", "traces."),
)


class Echo:
    """Prints events, from `level` up."""

    def __init__(self, config: Config) -> None:
        self.level = config.log.level

    def reload(self, config: Config, before: Config) -> None:
        """Take on another level."""
        self.level = config.log.level

    def __call__(self, event: dict[str, Any]) -> None:
        """Print the event, if it is severe enough for `log.level`."""
        found = severity(event)
        if LEVELS.index(found) < LEVELS.index(self.level):
            return
        facts = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("id", "time", "kind"))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["time"]))
        print(f"{stamp} {found} {event['kind']} {facts}", file=sys.stderr, flush=True)


def severity(event: dict[str, Any]) -> str:
    """How severe an event is: one of LEVELS."""
    kind = str(event["kind"])
    word = kind.rpartition(".")[2]
    if word in ERRORS or word.endswith(("_failed", "_died")):
        return "error"
    if not kind.startswith(LOUD):
        return "debug"
    if kind in ("backend.health", "region.health"):
        first_look = event.get("was") == "unknown" and event.get("is") == "healthy"
        return "debug" if first_look else "info" if event.get("is") == "healthy" else "warning"
    return "info" if word in INFO else "warning"
