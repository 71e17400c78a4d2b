"""Points: what each kind needs, what is built on, and that a chain is what it was when it was taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ChainBroken, NoRecoveryPoint
from edge.recovery.points import (
    Evidence,
    Point,
    PointKind,
    base_for,
    closure,
    needed,
    newest_first,
    point_at,
)

KINDS = st.sampled_from(list(PointKind))


def add(points: dict[str, Point], kind: PointKind, history: str = "h", longest: int = 100) -> Point:
    """Take the next point, as `take` does."""
    base = base_for(points, kind, history, longest)
    number = len(points) + 1
    point = Point(
        id=f"p{number:03d}",
        hash=f"hash{number}",
        kind=base.kind,
        taken_at=float(number),
        history=history,
        sequence_from=base.parent.sequence_to if base.parent else 0,
        sequence_to=number * 10,
        parent=base.parent.id if base.parent else None,
        parent_hash=base.parent.hash if base.parent else "",
        needs=base.needs,
        promoted=base.promoted,
    )
    points[point.id] = point
    return point


def taken(*kinds: PointKind) -> dict[str, Point]:
    points: dict[str, Point] = {}
    for kind in kinds:
        add(points, kind)
    return points


FULL, DIFF, INCR = PointKind.FULL, PointKind.DIFFERENTIAL, PointKind.INCREMENTAL


def test_what_each_kind_needs() -> None:
    points = taken(FULL, INCR, INCR, DIFF, INCR, FULL, INCR)
    assert {name: point.needs for name, point in points.items()} == {
        "p001": (),
        "p002": ("p001",),
        "p003": ("p001", "p002"),
        "p004": ("p001",),
        "p005": ("p001", "p004"),
        "p006": (),
        "p007": ("p006",),
    }
    assert [link.id for link in closure(points, "p005")] == ["p001", "p004", "p005"]


@pytest.mark.parametrize("kind", [DIFF, INCR])
def test_without_anything_to_build_on_a_point_is_full_and_says_so(kind: PointKind) -> None:
    assert (point := add({}, kind)).kind is FULL and "there is no" in point.promoted
    points = taken(FULL)
    other = add(points, kind, history="another")
    assert other.kind is FULL and "another history" in other.promoted


def test_a_damaged_parent_is_not_built_on() -> None:
    points = taken(FULL, INCR)
    points["p001"] = points["p001"].with_evidence(Evidence(corrupt="a bit flipped"))
    assert (point := add(points, INCR)).kind is FULL and "p002" in point.promoted


def test_a_long_chain_begins_anew() -> None:
    points: dict[str, Point] = {}
    kinds = [add(points, INCR, longest=3).kind for _ in range(9)]
    assert kinds == [FULL, INCR, INCR, INCR, FULL, INCR, INCR, INCR, FULL]
    assert "more than 3" in points["p005"].promoted


@settings(deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=12), st.data())
def test_the_closure_is_enough_and_each_link_of_it_is_needed(kinds: list[PointKind], data: st.DataObject) -> None:
    points = taken(*kinds)
    wanted = data.draw(st.sampled_from(sorted(points)))
    chain = closure(points, wanted)
    alone = {link.id: link for link in chain}
    assert closure(alone, wanted) == chain
    assert chain[0].kind is FULL and chain[-1].id == wanted
    for link in chain[:-1]:
        with pytest.raises(ChainBroken, match=link.id):
            closure({name: point for name, point in alone.items() if name != link.id}, wanted)
    with pytest.raises(NoRecoveryPoint):
        closure({name: point for name, point in alone.items() if name != wanted}, wanted)
    assert needed(points, [wanted]) == set(alone)


@pytest.mark.parametrize("field", ["hash", "history", "sequence_to"])
def test_a_link_that_is_another_than_it_was_breaks_the_chain(field: str) -> None:
    points = taken(FULL, INCR, INCR)
    points["p002"] = replace(points["p002"], **{field: 7 if field == "sequence_to" else "another"})
    with pytest.raises(ChainBroken):
        closure(points, "p003")


def test_a_chain_must_begin_with_a_full_point() -> None:
    points = taken(FULL, INCR)
    points["p002"] = replace(points["p002"], needs=())
    with pytest.raises(ChainBroken, match="not full"):
        closure(points, "p002")


def test_the_point_at_a_time_is_the_newest_sound_one_before_it() -> None:
    points = taken(FULL, INCR, FULL, INCR)
    assert point_at(points, None).id == "p004"
    assert point_at(points, 3.5).id == "p003"
    points["p003"] = points["p003"].with_evidence(Evidence(corrupt="x"))
    assert point_at(points, None).id == "p002"
    with pytest.raises(NoRecoveryPoint, match="old enough"):
        point_at(points, 0.5)
    with pytest.raises(NoRecoveryPoint, match="snapshot take"):
        point_at({}, None)
    assert [point.id for point in newest_first(points.values())] == ["p004", "p003", "p002", "p001"]
