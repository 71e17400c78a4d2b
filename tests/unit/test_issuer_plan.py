"""When a certificate is asked for: pure decisions, over whole lives and many failures."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge.adapters.acme_files import Attempts
from edge.adapters.certificate_pem import Life
from edge.issuer.plan import AWAY_MAX_S, REFUSED_MAX_S, WAIT_MAX_S, begun, failed, next_at, renewal_at, soonest

DAY = 86400.0
NOW = 1_800_000_000.0
LIFE = Life(NOW, NOW + 90 * DAY, False)


@given(st.floats(60, 400 * DAY), st.text(min_size=1, max_size=20))
def test_a_renewal_is_due_between_two_thirds_of_a_life_and_a_thirtieth_more(length: float, name: str) -> None:
    life = Life(NOW, NOW + length, False)
    at = renewal_at(life, Attempts(), name)
    assert length * 2 / 3 - 1e-3 <= at - NOW <= length * (2 / 3 + 1 / 30) + 1e-3
    assert at == renewal_at(life, Attempts(), name)  # the same after a restart


def test_many_names_are_not_renewed_at_once() -> None:
    due = sorted(renewal_at(LIFE, Attempts(), f"{n}.test") for n in range(100))
    assert len(set(due)) == 100 and due[-1] - due[0] > 2 * DAY


def test_the_servers_suggestion_counts_but_never_past_nine_tenths() -> None:
    soon = Attempts(suggested_at=NOW + DAY)
    late = Attempts(suggested_at=NOW + 89 * DAY)
    assert renewal_at(LIFE, soon, "a") == NOW + DAY
    assert renewal_at(LIFE, late, "a") == NOW + 81 * DAY


def test_what_nobody_signed_and_what_is_not_there_is_due_at_once() -> None:
    assert next_at(Life(NOW, NOW + 90 * DAY, True), Attempts(), "a", NOW) <= NOW
    assert next_at(None, Attempts(), "a", NOW) <= NOW
    assert soonest(LIFE, Attempts(), "a", NOW) <= NOW  # the suggestion was not asked for yet
    assert soonest(LIFE, Attempts(ask_again_at=NOW + 60), "a", NOW) == NOW + 60


@given(st.integers(0, 10_000), st.booleans(), st.floats(0, 1), st.none() | st.floats(0, 1e12))
def test_the_next_attempt_is_later_with_each_failure_and_bounded(
    failures: int, refused: bool, share: float, wait_s: float | None
) -> None:
    before = Attempts(failures=failures, suggested_at=1.0)
    after = failed(before, "no", refused, wait_s, NOW, share)
    least, most = (60.0, REFUSED_MAX_S) if refused else (5.0, AWAY_MAX_S)
    assert after.failures == failures + 1 and after.suggested_at == 1.0
    asked = min(wait_s or 0.0, WAIT_MAX_S)
    assert max(least, asked) <= after.next_at - NOW <= max(1.5 * most, asked)
    assert next_at(None, after, "a", NOW) == after.next_at


def test_refusals_stay_below_five_in_an_hour() -> None:
    """Let's Encrypt allows five failed proofs of a name in an hour."""
    now, attempts = NOW, Attempts()
    at = []
    for _ in range(8):
        at.append(now)
        attempts = failed(attempts, "no", True, None, now, 0.0)
        now = attempts.next_at
    assert at[5] - at[0] >= 31 * 60 and at[6] - at[1] >= 3600


def test_an_attempt_that_was_killed_counts() -> None:
    after = begun(Attempts(), NOW, 0.0)
    assert (after.failures, after.next_at) == (1, NOW + 5.0)


def test_a_clock_that_went_back_does_not_stop_everything() -> None:
    far = replace(Attempts(), next_at=NOW + 1000 * DAY)
    assert next_at(None, far, "a", NOW) <= NOW
