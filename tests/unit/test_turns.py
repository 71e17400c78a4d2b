"""Work that is shared among turns of the loop: who asks for another part of it gets that in another turn."""

from __future__ import annotations

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
