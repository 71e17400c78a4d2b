"""The rules of the purge stream one by one: what a machine does with what the server says."""

from __future__ import annotations

import pytest

from edge.cache.fleet.stream import Entry, Follower, Head, Lost, StreamPlace, Todo

HOME = StreamPlace("h", 5, "m5")


def entry(position: int, mark: str = "") -> Entry:
    return Entry(position, mark or f"m{position}", b"")


def entries(first: int, last: int) -> list[Entry]:
    return [entry(number) for number in range(first, last + 1)]


def follower(place: StreamPlace | None = HOME, known: bool = True) -> Follower:
    """A machine at its place, which has read all that the stream holds, at time 0 where `known`."""
    made = Follower(place, 30.0, 0.0)
    if known and place is not None:
        made.on_head(Head(place.history, place.position, place.mark), 0.0)
        made.on_load(entries(1, place.position))
        made.applied([])
        assert made.in_step
    return made


@pytest.mark.parametrize(
    ("place", "head", "todo"),
    [
        (None, Head("", 0, ""), Todo.BEGIN),  # nobody was here before
        (None, Head("h", 5, "m5"), Todo.JOIN),
        (None, Head("h", 5, "m5", same_run=False), Todo.BEGIN),  # nobody says that it is whole
        (HOME, Head("", 0, ""), Todo.BEGIN),  # the server was emptied
        (HOME, Head("other", 9, "m9"), Todo.JOIN),
        (HOME, Head("other", 9, "m9", same_run=False), Todo.BEGIN),
        (HOME, Head("h", 4, "m4"), Todo.BEGIN),  # it has gone back
        (HOME, Head("h", 5, "x5"), Todo.BEGIN),  # gone back and on again
        (HOME, Head("h", 5, "m5"), Todo.NOTHING),
        (HOME, Head("h", 7, "m7"), Todo.READ),
        (HOME, Head("h", 5, "m5", same_run=False), Todo.CERTIFY),
        (HOME, Head("h", 7, "m7", same_run=False), Todo.READ),
    ],
)
def test_what_the_head_of_the_stream_says(place: StreamPlace | None, head: Head, todo: Todo) -> None:
    assert follower(place).on_head(head, 1.0) is todo


def test_a_restarted_or_blind_machine_does_not_vouch_for_another_server_process() -> None:
    unsure = Head("h", 5, "m5", same_run=False)
    assert follower(known=False).on_head(unsure, 1.0) is Todo.BEGIN
    blind = follower()
    assert blind.on_head(unsure, 29.9) is Todo.CERTIFY
    blind.cut()
    assert blind.on_time(30.1)
    assert blind.on_head(unsure, 30.2) is Todo.BEGIN
    late = follower()
    late.cut()
    assert late.on_head(unsure, 30.2) is Todo.BEGIN, "it has not noticed yet that it is blind"


def test_after_a_cut_the_own_entry_is_read_again_and_must_be_the_same() -> None:
    made = follower()
    made.cut()
    assert made.on_head(Head("h", 7, "m7"), 1.0) is Todo.READ
    assert made.reads_from == 5
    with pytest.raises(Lost):
        made.on_entries([entry(5, "x5"), *entries(6, 7)])
    with pytest.raises(Lost):
        made.on_entries(entries(6, 7))  # dropped: nobody knows what was at our position
    with pytest.raises(Lost):
        made.on_entries([])
    assert [one.position for one in made.on_entries(entries(5, 7))] == [6, 7]
    made.applied(entries(6, 7))
    assert made.in_step and made.place == StreamPlace("h", 7, "m7") and made.reads_from == 8


def test_each_entry_is_the_next_one() -> None:
    made = follower()
    with pytest.raises(Lost):
        made.on_entries([entry(7)])
    with pytest.raises(Lost):
        made.on_entries([entry(6), entry(8)])
    assert made.on_head(Head("h", 7, "m7"), 1.0) is Todo.READ
    with pytest.raises(Lost):
        made.on_entries([])  # the server had two more


def test_a_first_read_must_hold_the_own_entry_and_all_after_it() -> None:
    def started() -> Follower:
        made = Follower(HOME, 30.0, 0.0)
        assert made.on_head(Head("h", 7, "m7"), 1.0) is Todo.READ
        return made

    whole, known, after = started().on_load(entries(3, 7))
    assert (whole, [one.position for one in known], [one.position for one in after]) == (2, [3, 4, 5], [6, 7])
    whole, known, after = started().on_load([entry(1), *entries(4, 7)])  # a hole long before
    assert (whole, [one.position for one in known]) == (3, [4, 5])
    for wrong in (entries(6, 7), [entry(5, "x"), *entries(6, 7)], [entry(5), entry(7)], entries(1, 5), []):
        with pytest.raises(Lost):
            started().on_load(wrong)


def test_who_joins_knows_what_the_stream_holds_and_distrusts_what_was_before() -> None:
    made = Follower(HOME, 30.0, 0.0)
    head = Head("new", 7, "m7")
    assert made.on_head(head, 1.0) is Todo.JOIN
    assert not made.in_step
    whole, known = made.join(head, 1.0, entries(3, 9))  # two came meanwhile, and are read later
    assert (whole, [one.position for one in known]) == (2, [3, 4, 5, 6, 7])
    assert made.in_step and made.place == StreamPlace("new", 7, "m7") and made.reads_from == 8
    nothing = Follower(None, 30.0, 0.0)
    nothing.on_head(head, 1.0)
    assert nothing.join(head, 1.0, entries(3, 6)) == (7, [])  # its last entry is missing: nothing before is known


def test_in_step_lasts_as_long_as_the_server_is_heard() -> None:
    made = follower()
    assert not made.on_time(29.9)
    assert made.on_head(Head("h", 5, "m5"), 20.0) is Todo.NOTHING
    assert made.blind_at == 50.0
    assert not made.on_time(49.9)
    made.on_head(Head("h", 6, "m6"), 40.0)
    made.on_head(Head("h", 7, "m7"), 45.0)  # nothing is applied: what was known at 20 is all that is known
    assert made.blind_at == 50.0
    made.on_entries(entries(6, 7))
    made.applied([entry(6)])
    assert made.blind_at == 70.0
    assert made.on_time(70.0) and made.blind and not made.in_step
    assert not made.on_time(71.0), "told once"
    made.applied([entry(7)])
    made.on_head(Head("h", 7, "m7"), 72.0)
    assert made.in_step and not made.blind


def test_a_start_knows_nothing() -> None:
    assert follower(known=False).on_time(0.0)
    assert Follower(None, 30.0, 100.0).on_time(100.0)
