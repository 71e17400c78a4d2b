"""Range, Content-Range, and cutting bodies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.http.ranges import (
    ContentRange,
    coalesce,
    content_range,
    cut,
    parse_content_range,
    parse_range,
    satisfy,
    within,
)

SPECS = st.one_of(
    st.tuples(st.integers(0, 30), st.none()),
    st.tuples(st.none(), st.integers(0, 30)),
    st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda s: s[0] <= s[1]),
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"bytes=0-1", ((0, 1),)),
        (b"BYTES=0-1", ((0, 1),)),
        (b"bytes=1-", ((1, None),)),
        (b"bytes=-5", ((None, 5),)),
        (b"bytes=0-1 ,, 3-4", ((0, 1), (3, 4))),
        (b"bytes=", None),
        (b"bytes=-", None),
        (b"bytes=2-1", None),
        (b"bytes=0-1, x", None),
        (b"bytes 0-1", None),
        (b"items=0-1", None),
        (b"bytes=1-99999999999999999999", None),
        (None, None),
    ],
)
def test_parse_range(value: bytes | None, expected: object) -> None:
    assert parse_range(value) == expected


@given(st.lists(SPECS, max_size=5), st.integers(0, 25))
def test_satisfied_and_coalesced_ranges_cover_the_same_bytes_once(specs: list[tuple[int, int]], length: int) -> None:
    wanted = {
        byte
        for first, last in specs
        for byte in range(length)
        if (byte >= length - last if first is None else byte >= first and (last is None or byte <= last))
    }
    found = [byte for first, last in coalesce(satisfy(specs, length)) for byte in range(first, last + 1)]
    assert sorted(found) == sorted(wanted)


def test_disjoint_ranges_keep_the_order_asked() -> None:
    assert coalesce(((8, 9), (0, 1), (1, 3))) == ((8, 9), (0, 3))


@given(st.integers(0, 99), st.integers(0, 99), st.one_of(st.none(), st.integers(100, 200)))
def test_content_range_round_trip(one: int, other: int, complete: int | None) -> None:
    first, last = sorted((one, other))
    assert parse_content_range(content_range(first, last, complete)) == ContentRange(first, last, complete)


@pytest.mark.parametrize(
    "value", [None, b"", b"bytes */10", b"bytes 5-4/10", b"bytes 0-10/10", b"items 0-1/10", b"bytes 0-1"]
)
def test_no_content_range(value: bytes | None) -> None:
    assert parse_content_range(value) is None


@given(st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=5), st.data())
def test_cut_gives_the_bytes(chunks: list[bytes], data: st.DataObject) -> None:
    body = b"".join(chunks)
    first = data.draw(st.integers(0, len(body) - 1))
    last = data.draw(st.integers(first, len(body) - 1))
    assert b"".join(cut(chunks, first, last)) == body[first : last + 1]


BODY = bytes(range(100))


@settings(max_examples=200)
@given(SPECS, st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_a_part_gives_what_the_whole_would(
    spec: tuple[int | None, int | None], first: int, size: int, known: bool
) -> None:
    part = ContentRange(first, min(first + size, 24), 25 if known else None)
    found = within((spec,), part, len(part))
    if found is None:
        return
    (low, high), shift = found
    assert satisfy((spec,), 25) == ((low, high),)
    held = BODY[part.first : part.last + 1]
    assert held[low - shift : high - shift + 1] == BODY[low : high + 1]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ((5, 9), ((5, 9), 5)),
        ((6, 8), ((6, 8), 5)),
        ((6, None), ((6, 9), 5)),
        ((None, 5), ((5, 9), 5)),
        ((None, 1), ((9, 9), 5)),
        ((None, 6), None),
        ((4, 8), None),
        ((6, 99), ((6, 9), 5)),
        ((0, None), None),
    ],
)
def test_a_part_at_the_end(spec: tuple[int | None, int | None], expected: object) -> None:
    assert within((spec,), ContentRange(5, 9, 10), 5) == expected


def test_a_part_in_the_middle_has_no_end() -> None:
    middle = ContentRange(2, 5, 10)
    assert within(((None, 1),), middle, 4) is None
    assert within(((2, None),), middle, 4) is None
    assert within(((2, 5), (2, 3)), middle, 4) is None
    assert within(((2, 3),), ContentRange(2, 5, None), 4) == ((2, 3), 2)


def test_a_part_shorter_than_its_content_range_counts_from_both_ends() -> None:
    odd = ContentRange(4, 9, 10)  # told six bytes, sent "01234"
    body = b"01234"
    for spec, expected in [((None, 5), b"01234"), ((6, 8), b"234"), ((6, None), b"234"), ((None, 1), b"4")]:
        found = within((spec,), odd, 5)
        assert found is not None
        (low, high), shift = found
        assert body[low - shift : high - shift + 1] == expected
        assert high - low + 1 == len(expected)


@given(st.binary(max_size=30))
def test_any_bytes(value: bytes) -> None:
    parse_range(value)
    parse_range(b"bytes=" + value)
    parse_content_range(value)
