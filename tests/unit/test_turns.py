"""Work that is shared among turns of the loop: who asks for another part of it gets that in another turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.builds import pure_only

from edge.dataplane.core.turns import Turns


async def test_a_further_part_is_never_done_in_the_same_turn() -> None:
    turns, seen = Turns(lambda error: seen.append(-1)), list[int]()

    def part(number: int) -> None:
        if number:
            turns.again(lambda: part(number - 1))
        seen.append(number)
        if number == 1:
            raise ValueError

    turns.again(lambda: part(2))
    for done in ([2], [2, 1, -1], [2, 1, -1, 0], [2, 1, -1, 0]):
        turns.run()
        assert seen == done
    assert not len(turns)


@pure_only
async def test_small_work_is_done_at_once_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = [100.0], list[str]()
    monkeypatch.setattr("edge.dataplane.core.turns.monotonic", lambda: now[0])
    turns = Turns(lambda error: seen.append(str(error)))

    def work(name: str, seconds: float) -> Callable[[], None]:
        def do() -> None:
            now[0] += seconds
            seen.append(name)

        return do

    turns.soon(work("first", 2.0))
    assert seen == ["first"]
    now[0] += 1.5
    turns.soon(work("too early", 0.0))
    now[0] += 10.0
    turns.soon(work("behind it", 0.0))
    assert seen == ["first"], "what waits is never overtaken"
    turns.run()
    assert seen == ["first", "too early", "behind it"]
    turns.soon(work("rested", 1.0))
    assert seen[-1] == "rested"
    now[0] += 1.0

    def fails() -> None:
        raise ValueError("a bug")

    turns.soon(fails)
    assert seen[-1] == "a bug"
