"""Whether a failed attempt may be made again, with a name for every no.

One rule: never a request twice that the backend may have acted on, unless its method says that this is harmless
(RFC 9110 9.2.2), and never once the client saw a byte. The budget bounds what retries add to an outage (Envoy: 20 % of
what is active, at least 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge.errors import EdgeError, Repeat

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"QUERY", b"PROPFIND", b"SEARCH"))


class NoRetry(Enum):
    """Why an attempt is not repeated."""

    HEAD_PASSED = "head-passed"  # the client has seen a response
    NOT_REPEATABLE = "not-repeatable"  # this kind of failure never is
    NOT_IDEMPOTENT = "not-idempotent"
    BODY_GONE = "body-gone"  # the body was longer than what is kept
    ATTEMPTS = "attempts"
    DEADLINE = "deadline"
    BUDGET = "budget"


class RetryBudget:
    """Retries under way against requests under way. `began` and `ended` come in pairs."""

    __slots__ = ("_minimum", "_ratio", "active", "retrying")

    def __init__(self, ratio: float = 0.2, minimum: int = 3) -> None:
        self._ratio = ratio
        self._minimum = minimum
        self.active = 0  # attempts under way, retries included
        self.retrying = 0

    def renew(self, ratio: float, minimum: int) -> None:
        """Use other settings from now on."""
        self._ratio = ratio
        self._minimum = minimum

    def began(self, retry: bool) -> None:
        """Count an attempt that begins."""
        self.active += 1
        if retry:
            self.retrying += 1

    def ended(self, retry: bool) -> None:
        """Count an attempt that ended."""
        assert self.active > 0, "an attempt ended twice"
        self.active -= 1
        if retry:
            assert self.retrying > 0, "a retry ended twice"
            self.retrying -= 1

    def allows(self) -> bool:
        """Whether one more retry may begin."""
        return self.retrying < self._minimum or self.retrying < self._ratio * self.active


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request whose last attempt failed."""

    error: EdgeError
    method: bytes
    sent: bool  # a byte of the request may have reached the backend
    body_replayable: bool = True
    head_passed: bool = False  # the client got a byte of a response
    attempts: int = 1  # made so far
    deadline: float | None = None  # monotonic seconds


def may_retry(failed: FailedRequest, retries: int, budget: RetryBudget, now: float) -> NoRetry | None:
    """None when the request may be sent again, otherwise the first reason against it."""
    if failed.head_passed:
        return NoRetry.HEAD_PASSED
    repeat = failed.error.repeat
    if repeat is Repeat.NEVER:
        return NoRetry.NOT_REPEATABLE
    if failed.sent and repeat is not Repeat.ALWAYS and failed.method not in IDEMPOTENT:
        return NoRetry.NOT_IDEMPOTENT
    if not failed.body_replayable:
        return NoRetry.BODY_GONE
    if failed.attempts > retries:
        return NoRetry.ATTEMPTS
    if failed.deadline is not None and now >= failed.deadline:
        return NoRetry.DEADLINE
    return None if budget.allows() else NoRetry.BUDGET
