"""After an attempt that failed: another backend, the same one after a short wait, or the end.

    failed ─► may it be repeated? ─► another backend ─► at once, or as soon as the retry budget allows
                    │ no                └─ none is left, and the failure is one of a backend that restarts (refused,
                    │                      dropped, 503): all of them again after 0.2, 0.8, 1, 1 … s, for
                    └─► the end            `retry.same_backend` in all

What is stored is asked about once: there a drop or a 503 is an answer that decides what becomes of it, and a restart
only in a pool that has just refused connections.

One rule: what a backend may have acted on counts as an attempt and needs the budget; a refused connection carried
nothing, so while everybody is waited for it does neither, and the wait alone bounds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.balance.retry import FailedRequest, NoRetry, may_retry
from edge.errors import Repeat, UpstreamError

if TYPE_CHECKING:
    from edge.dataplane.upstream.attempting import Attempting

RESTARTING_S = 10.0  # after a refused connection a drop or a 503 means a restart, not what the origin has to say
PAUSES_S = (0.2, 0.8, 1.0)  # before each further round; the last one again and again. A tick more or less is no matter


def why_not(fetch: Attempting, error: UpstreamError, now: float) -> NoRetry | None:
    """Why there may be no further attempt (method, body, count, deadline, budget); None: there may."""
    exchange, retry, upload = fetch.exchange, fetch.route.retry, fetch.exchange.upload
    failed = FailedRequest(
        error,
        exchange.method,
        sent=True,  # as far as is known; an error of connecting says by itself that nothing was
        body_replayable=upload is None or upload.replayable,
        head_passed=fetch.head_passed,
        # A kept connection that was closing is no attempt: a region that dies with kept connections to each of its
        # backends would use them all up. It happens once, for after it only new connections are used.
        attempts=fetch.attempts + fetch.hedges_lost - fetch.fresh_only - fetch.uncounted,
        deadline=exchange.started_at + retry.deadline,
    )
    return may_retry(failed, retry.attempts, fetch.pool.budget, now)


def proceed(fetch: Attempting, error: UpstreamError, now: float) -> None:
    """Continue after a failed attempt, whose backend is in `tried`."""
    fetch.error = error
    against = why_not(fetch, error, now)
    if against is None:
        elsewhere(fetch, now)
        return
    if against is NoRetry.BUDGET and fetch.pool.postpone(fetch, now):
        return
    refused = error.repeat is Repeat.ALWAYS
    if not (refused and against in (NoRetry.ATTEMPTS, NoRetry.BUDGET) and wait(fetch, error, now)):
        fetch.give_up(error)


def elsewhere(fetch: Attempting, now: float) -> None:
    """Try another backend; if there is none, wait for those that failed, or give up."""
    error = fetch.error
    assert error is not None
    other = fetch.pool.select(fetch.exchange, fetch.tried, now)
    if other is not None:
        fetch.use(other, now)
    elif not wait(fetch, error, now):
        fetch.give_up(error)


def wait(fetch: Attempting, error: UpstreamError, now: float) -> bool:
    """Try all backends again after a pause; False when that is not worthwhile or too late."""
    retry = fetch.route.retry
    if not error.passing or not fetch.patient or retry.same_backend <= 0:
        return False
    if error.repeat is Repeat.ALWAYS:
        fetch.pool.refused_at = now
    elif fetch.validates and now - fetch.pool.refused_at > RESTARTING_S:
        return False
    if not fetch.rounds:
        fetch.rounds_until = min(now + retry.same_backend, fetch.exchange.started_at + retry.deadline)
    due = now + PAUSES_S[min(fetch.rounds, len(PAUSES_S) - 1)]
    if due > fetch.rounds_until or not fetch.pool.come_back(fetch, due):
        return False
    fetch.rounds += 1
    fetch.tried = ()
    fetch.error = error
    if error.repeat is Repeat.ALWAYS:
        fetch.uncounted += 1
    return True


def back(fetch: Attempting, now: float) -> None:
    """The pause is over: try all backends again."""
    error = fetch.error
    if fetch.canceled or error is None:
        return
    against = why_not(fetch, error, now)
    if against is NoRetry.BUDGET and error.repeat is Repeat.ALWAYS:
        against = None
    if against is None:
        elsewhere(fetch, now)
    elif against is not NoRetry.BUDGET or not fetch.pool.postpone(fetch, now):
        fetch.give_up(error)


def again(fetch: Attempting, now: float) -> None:
    """The retry budget allows the postponed attempt."""
    if not fetch.canceled:
        elsewhere(fetch, now)


def expired(fetch: Attempting) -> None:
    """The budget allowed no further attempt in time: give up."""
    if not fetch.canceled and fetch.error is not None:
        fetch.give_up(fetch.error)
