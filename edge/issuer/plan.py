"""When a certificate is asked for, and when again after a failure. Time comes in as `now`, chance as `share` (0 to 1).

    two thirds of its life, and up to a thirtieth more ─► renew; earlier where the server says so (ARI)
    refused 1 m, 2 m … 6 h        not reached, or killed half-way 5 s, 10 s … 30 m        as long as the server says

One rule: nothing here makes a server angry. What failed is on disk before and after it is tried, so that a restart, or
a hundred, ask no sooner.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from edge.adapters.acme_files import Attempts
from edge.adapters.certificate_pem import Life

RENEWED_AFTER = 2 / 3  # of its life
SPREAD = 1 / 30  # of it, so that many do not come at once
LATEST = 9 / 10  # whatever the server suggests
AWAY_S, AWAY_MAX_S = 5.0, 1800.0
REFUSED_S, REFUSED_MAX_S = 60.0, 6 * 3600.0
WAIT_MAX_S = 24 * 3600.0  # a server may ask for so much patience


def renewal_at(life: Life, attempts: Attempts, name: str) -> float:
    """When a certificate is to be renewed; the same however often it is asked."""
    if life.self_signed:
        return 0.0
    length = life.ends - life.begins
    lot = int.from_bytes(sha256(f"{name} {life.begins}".encode()).digest()[:8], "big") / 2**64
    at = life.begins + length * (RENEWED_AFTER + SPREAD * lot)
    if attempts.suggested_at is not None:
        at = min(attempts.suggested_at, life.begins + length * LATEST)
    return at


def next_at(life: Life | None, attempts: Attempts, name: str, now: float) -> float:
    """When a name is asked for next. A clock that went back does not make a wait longer than it can be."""
    due = 0.0 if life is None else renewal_at(life, attempts, name)
    wait = attempts.next_at if attempts.next_at <= now + WAIT_MAX_S else 0.0
    return max(due, wait)


def soonest(life: Life | None, attempts: Attempts, name: str, now: float) -> float:
    """When there is anything to do for a name: to ask for it, or when the server would like that."""
    due = next_at(life, attempts, name, now)
    return due if life is None or life.self_signed else min(due, attempts.ask_again_at)


def begun(attempts: Attempts, now: float, share: float) -> Attempts:
    """An attempt that begins now: written down first, for whoever is killed half-way."""
    return failed(attempts, "it was ended half-way", False, None, now, share)


def failed(attempts: Attempts, error: str, refused: bool, wait_s: float | None, now: float, share: float) -> Attempts:
    """The attempts after one more failure: when the next one is due, and why this one failed."""
    least, most = (REFUSED_S, REFUSED_MAX_S) if refused else (AWAY_S, AWAY_MAX_S)
    wait = min(most, least * 2.0 ** min(attempts.failures, 20)) * (1 + share / 2)
    wait = max(wait, min(wait_s or 0.0, WAIT_MAX_S))
    return replace(attempts, failures=attempts.failures + 1, failed_at=now, next_at=now + wait, error=error)
