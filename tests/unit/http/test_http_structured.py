"""Structured Fields, strictly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.http.structured import TRUE, Item, ItemKind, parse_dictionary, parse_list


def test_each_type_of_member() -> None:
    found = parse_dictionary(
        b'a=1, b=-2.5, c="x\\"y", d=tok/en, e=:aGk=:, f, g=?0, h=@1659578233, i=%"f%c3%bc", j=(1 "2";p);q=3'
    )
    assert found == {
        b"a": Item(ItemKind.INTEGER, 1),
        b"b": Item(ItemKind.DECIMAL, -2.5),
        b"c": Item(ItemKind.STRING, b'x"y'),
        b"d": Item(ItemKind.TOKEN, b"tok/en"),
        b"e": Item(ItemKind.BYTES, b"hi"),
        b"f": TRUE,
        b"g": Item(ItemKind.BOOLEAN, False),
        b"h": Item(ItemKind.DATE, 1659578233),
        b"i": Item(ItemKind.DISPLAY, "fü"),
        b"j": Item(ItemKind.INNER_LIST, (Item(ItemKind.INTEGER, 1), Item(ItemKind.STRING, b"2"))),
    }


@pytest.mark.parametrize(
    "value",
    [
        b"max-age=10000, &&&&&",
        b"MaX-aGe=3600",
        b"max-age =100",
        b"max-age= 100",
        b"a=1,",
        b",a=1",
        b"a=1,,b=2",
        b"a=1 b=2",
        b"a=",
        b'a="open',
        b'a="bad\\x"',
        b'a="\xc3\xbc"',
        b"a=1000000000000000",
        b"a=1.",
        b"a=1.2345",
        b"a=1234567890123.1",
        b"a=--1",
        b"a=?2",
        b"a=:*:",
        b"a=@1.5",
        b'a=%"%ff"',
        b'a=%"%C3"',
        b"a=(1 2",
        b"a=(1,2)",
        b"a;=1",
        b"a;B=1",
        b"=1",
        b"\ta=1",
    ],
)
def test_any_error_makes_the_whole_field_invalid(value: bytes) -> None:
    assert parse_dictionary(value) is None


def test_the_last_of_equal_keys_wins_and_white_space_may_stand_round_commas() -> None:
    assert parse_dictionary(b" a=1 \t,\t b;x=2;y , a=3 ") == {b"b": TRUE, b"a": Item(ItemKind.INTEGER, 3)}
    assert parse_dictionary(b"") == {}


def test_lists() -> None:
    assert parse_list(b'"a", "b"') == [Item(ItemKind.STRING, b"a"), Item(ItemKind.STRING, b"b")]
    assert parse_list(b'"a" "b"') is None


ITEMS = st.one_of(
    st.integers(-999, 10**15 - 1).map(lambda n: (b"%d" % n, Item(ItemKind.INTEGER, n))),
    st.booleans().map(lambda b: (b"?%d" % b, Item(ItemKind.BOOLEAN, b))),
    st.text('ab \\"', max_size=5).map(
        lambda s: (
            b'"%b"' % s.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"'),
            Item(ItemKind.STRING, s.encode()),
        )
    ),
)


@given(st.dictionaries(st.text("abc*", min_size=1, max_size=3).map(str.encode), ITEMS, max_size=4))
def test_what_is_written_is_read(members: dict[bytes, tuple[bytes, Item]]) -> None:
    text = b", ".join(b"%b=%b" % (key, written) for key, (written, _) in members.items())
    assert parse_dictionary(text) == {key: item for key, (_, item) in members.items()}


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=30), st.text('a=1,;"()?@%: *', max_size=20).map(str.encode)))
def test_any_bytes(value: bytes) -> None:
    parse_dictionary(value)
    parse_list(value)
