"""What came before is known for a while, what did not is not, and nothing grows."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from edge.seen import PLACES, SeenBefore


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=50))
def test_what_came_last_is_known_and_only_that(marks: list[int]) -> None:
    seen = SeenBefore()
    for mark in marks:
        seen.came(mark)
        assert seen.came(mark)


def test_of_many_that_never_came_none_is_known_and_no_memory_is_taken() -> None:
    seen = SeenBefore()
    tracemalloc.start()
    known = sum(seen.came(hash(b"%d" % number)) for number in range(100_000))
    own = [tracemalloc.Filter(True, "*/seen.py"), tracemalloc.Filter(True, __file__)]  # other threads have theirs
    grown = sum(each.size for each in tracemalloc.take_snapshot().filter_traces(own).statistics("filename"))
    tracemalloc.stop()
    assert known <= 2  # the chance of one is 1 in 20,000
    assert grown < 10_000


def test_most_of_the_last_thousand_are_known() -> None:
    seen = SeenBefore()
    for number in range(PLACES // 8):
        seen.came(hash(b"%d" % number))
    assert sum(seen.came(hash(b"%d" % number)) for number in range(PLACES // 8)) > PLACES // 10
