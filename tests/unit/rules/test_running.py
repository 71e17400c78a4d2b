"""What runs in several workers, against a plain count; and what is left of a worker that was killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from edge.dataplane.rules.running import LOOK_S, SIZE, SLOTS, WAYS, Together

WORKERS = 3


class Places:
    """Workers of a test: each claims the column of its turn."""

    def __init__(self) -> None:
        self.next = 0
        self.gone: list[int] = []

    def claim(self, memory: object, columns: int) -> int:
        self.next += 1
        return self.next - 1

    def free(self, memory: object, columns: int, empty: Callable[[int], None]) -> bool:
        gone, self.gone = self.gone, []
        for each in gone:
            empty(each)
        return bool(gone)


@given(st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from("abcdefgh"), st.booleans()), max_size=60))
def test_all_see_what_all_run(steps: list[tuple[int, str, bool]]) -> None:
    memory, places = bytearray(SIZE), Places()
    workers = [Together(memory, places) for _ in range(WORKERS)]
    runs: Counter[str] = Counter()
    begun: dict[tuple[int, str], list[int | str]] = {}
    most = 6
    for at, key, begins in steps:
        mine = begun.setdefault((at, key), [])
        if begins:
            found = workers[at].begin(key, most)
            assert (found is None) == (runs[key] >= most)
            if found is not None:
                mine.append(found)
                runs[key] += 1
        elif mine:
            workers[at].end(mine.pop())
            runs[key] -= 1
        assert [each.of(key) for each in workers] == [runs[key]] * WORKERS


def test_what_a_killed_worker_ran_is_not_counted_for_long() -> None:
    memory, places = bytearray(SIZE), Places()
    killed, lives = Together(memory, places), Together(memory, places)
    for each in (killed, killed, lives):
        each.begin("a")
    assert not lives.without_dead(10.0)
    places.gone = [0]
    assert not lives.without_dead(10.0 + LOOK_S / 2), "who refuses very often does not look each time"
    assert lives.without_dead(10.0 + LOOK_S)
    assert lives.of("a") == 1


def test_without_a_slot_a_worker_counts_by_itself() -> None:
    memory, places = bytearray(SIZE), Places()
    one, other = Together(memory, places), Together(memory, places)
    bucket = hash("0") % (SLOTS // WAYS)
    keys = [str(each) for each in range(40 * SLOTS) if (hash(str(each)) or 1) % (SLOTS // WAYS) == bucket][: WAYS + 1]
    begun = [one.begin(key) for key in keys]
    assert [one.of(key) for key in keys] == [1] * (WAYS + 1)
    assert [other.of(key) for key in keys] == [1] * WAYS + [0]
    for each in begun:
        assert each is not None
        one.end(each)
    assert [one.of(key) for key in keys] == [0] * (WAYS + 1)
