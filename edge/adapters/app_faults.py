"""What one application did wrong, and how often it was asked: counted always, told as events.

One rule: an application that fails on every request does not drown the events. A few are told each second, and the next
one says how many were not.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

TOLD_PER_S = 10
TRACE_LINES = 40
TRACE_CHARS = 16 * 1024
EVIDENCE_CHARS = 200
OWN_NAMES, OWN_CHARS = 64, 64
OTHER = "other"

RAISED = "raised"  # an exception left the handler
NO_RESPONSE = "no response"  # it returned something else
LENGTH = "length"  # its body is not as long as its head says
CLOSED = "closed"  # it closed its connection before its answer was whole
LATE = "late"  # a deadline passed
LOOP = "loop"  # it asks for itself
HOOK = "hook"  # a hook took too long, or returned what cannot be done
BLOCKED = "blocked"  # nothing else ran in the worker meanwhile

Tell = Callable[[str, dict[str, Any]], None]


class Faults:
    """The counts of one application in one worker."""

    def __init__(self, app: str, tell: Tell) -> None:
        self.app = app
        self.requests = 0
        self.running = 0
        self.blocked_s = 0.0
        self.counts: Counter[str] = Counter()
        self.own: Counter[str] = Counter()  # what the application counts itself (`edge.sdk.Edge.count`)
        self._tell = tell
        self._since = 0.0
        self._told = 0
        self._untold = 0

    def add(self, fault: str, request_id: str, evidence: str, trace: str = "") -> None:
        """One fault: an `app.blocked` for what held up the worker, an `app.error` for all others."""
        self.counts[fault] += 1
        now = monotonic()
        if now - self._since >= 1.0:
            self._since, self._told = now, 0
        if self._told >= TOLD_PER_S:
            self._untold += 1
            return
        self._told += 1
        facts: dict[str, Any] = {
            "app": self.app,
            "fault": fault,
            "request": request_id,
            "evidence": evidence[:EVIDENCE_CHARS],
        }
        if trace:
            facts["trace"] = trace[-TRACE_CHARS:]
        if self._untold:
            facts["untold"], self._untold = self._untold, 0
        self._tell("app.blocked" if fault == BLOCKED else "app.error", facts)

    def add_own(self, name: str, amount: int) -> None:
        """Add to a counter of the application's own. The number of such counters is bounded."""
        known = name in self.own or (len(self.own) < OWN_NAMES and len(name) <= OWN_CHARS and name.isprintable())
        self.own[name if known else OTHER] += max(amount, 0)

    def raised(self, error: BaseException, request_id: str, fault: str = RAISED) -> None:
        """Count and tell an exception, with its place."""
        self.add(fault, request_id, said(error), trace_of(error))


def said(error: BaseException) -> str:
    """An exception as one line. Its own text is the application's code, and may fail."""
    try:
        return repr(error)
    except Exception:
        return f"{type(error).__name__} (whose text cannot be made)"


def trace_of(error: BaseException) -> str:
    """Its traceback, the innermost lines only."""
    try:
        return "".join(traceback.format_exception(error, limit=-TRACE_LINES))
    except Exception:
        return "".join(traceback.format_tb(error.__traceback__, limit=-TRACE_LINES))
