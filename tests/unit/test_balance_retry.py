"""Retries: every no has its name; the budget bounds them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.balance.retry import FailedRequest, NoRetry, RetryBudget, may_retry
from edge.errors import (
    ClientGone,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    EdgeError,
    ResponseIncomplete,
    ResponseInvalid,
    ResponseTimeout,
)

GET = FailedRequest(ConnectionLost(), b"GET", sent=True)
POST = replace(GET, method=b"POST")


@pytest.mark.parametrize(
    ("failed", "answer"),
    [
        (GET, None),
        (replace(GET, error=ResponseTimeout()), None),
        (POST, NoRetry.NOT_IDEMPOTENT),
        (replace(POST, error=ResponseTimeout()), NoRetry.NOT_IDEMPOTENT),
        (replace(POST, sent=False), None),
        (replace(POST, error=ConnectFailed(), sent=False), None),
        (replace(POST, error=ConnectTimeout()), None),  # nothing was sent, by its kind
        (replace(GET, error=ClientGone()), NoRetry.NOT_REPEATABLE),
        (replace(GET, error=ResponseInvalid()), NoRetry.NOT_REPEATABLE),
        (replace(GET, error=ResponseIncomplete()), NoRetry.NOT_REPEATABLE),
        (replace(GET, error=EdgeError()), NoRetry.NOT_REPEATABLE),
        (replace(GET, head_passed=True), NoRetry.HEAD_PASSED),
        (replace(GET, body_replayable=False), NoRetry.BODY_GONE),
        (replace(GET, attempts=2), None),
        (replace(GET, attempts=3), NoRetry.ATTEMPTS),
        (replace(GET, deadline=10.1), None),
        (replace(GET, deadline=10.0), NoRetry.DEADLINE),
    ],
)
def test_each_no_has_its_name(failed, answer):
    assert may_retry(failed, 2, RetryBudget(), 10.0) is answer


def test_an_empty_budget_is_a_no():
    budget = RetryBudget()
    for _ in range(3):
        assert may_retry(GET, 2, budget, 0.0) is None
        budget.began(True)
    assert may_retry(GET, 2, budget, 0.0) is NoRetry.BUDGET
    budget.ended(True)
    assert may_retry(GET, 2, budget, 0.0) is None


@given(st.integers(0, 300))
def test_at_most_a_fifth_of_what_is_active_or_three(active):
    budget = RetryBudget()
    for _ in range(active):
        budget.began(False)
    while budget.allows():
        budget.began(True)
    retrying = budget.retrying
    assert retrying == 3 or retrying - 1 < 0.2 * budget.active
    assert retrying >= max(3, 0.2 * active)


def test_ending_twice_is_an_error():
    budget = RetryBudget()
    budget.began(False)
    budget.ended(False)
    with pytest.raises(AssertionError):
        budget.ended(False)
