"""Reading field values: lists, delta-seconds, Age, entity tags, Vary, languages, codings, Cache-Control."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.heads import fields

from edge.http.cache_control import ANY_S, parse_cache_control, request_control
from edge.http.fields import (
    LARGEST_S,
    age_value,
    delta_seconds,
    encoding_key,
    joined_normal,
    language_key,
    members,
    one_tag,
    preferred_language,
    strong_match,
    tag_listed,
    tag_members,
    vary_names,
    weak_match,
)
from edge.http.hopbyhop import HOP_BY_HOP, dropped_names, storable

TOKENS = st.text("abcz09-_", min_size=1, max_size=8).map(str.encode)


@given(st.lists(TOKENS, max_size=6), st.sampled_from([b",", b", ", b" ,", b",,\t"]))
def test_members_read_back_what_was_joined(parts: list[bytes], comma: bytes) -> None:
    assert members(comma.join(parts)) == parts


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'a="x, y", b', [b'a="x, y"', b"b"]),
        (b'a="x\\", y", b', [b'a="x\\", y"', b"b"]),
        (b'a="never closed, b', [b'a="never closed, b']),
        (b'"\\', [b'"\\']),
        (b" , ,", []),
        (b"", []),
    ],
)
def test_members_keep_quoted_strings_whole(value: bytes, expected: list[bytes]) -> None:
    assert members(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0", 0),
        (b"003600", 3600),
        (b"2147483648", LARGEST_S),
        (b"99999999999", LARGEST_S),
        (b"9" * 6000, LARGEST_S),
        (b"0" * 6000 + b"7", 7),
        (b"0" * 20, 0),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.0", None),
        (b"1a", None),
        (b"'1'", None),
        (b" 1", None),
        ("١".encode(), None),
    ],
)
def test_delta_seconds(value: bytes, expected: int | None) -> None:
    assert delta_seconds(value) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Age: 30"], 30),
        (["Age: 30, 7200"], 30),
        (["Age: 7200", "Age: 30"], 7200),
        (["Age: 0030"], 30),
        (["Age: 99999999999"], LARGEST_S),
        (["Age: -7200"], None),
        (["Age: 7200.0"], None),
        (["Age: 7200;foo=bar"], None),
        (["Age: abc"], None),
        (["Age: abc, 7200"], None),
        (["Age:"], None),
        ([], None),
    ],
)
def test_age(lines: list[str], expected: int | None) -> None:
    assert age_value(fields(*lines)) == expected


# -- entity tags --


@pytest.mark.parametrize(
    ("value", "tag", "weak", "strong"),
    [
        (b'"a"', b'"a"', True, True),
        (b'"a"', b'W/"a"', True, False),
        (b'W/"a"', b'W/"a"', True, False),
        (b'"b"', b'"a"', False, False),
        (b'"x", "a", "y"', b'"a"', True, True),
        (b'"x", "y", "a"', b'"a"', True, True),
        (b'"x,y", "a"', b'"x,y"', True, True),
        (b'"a\\", "b"', b'"a\\"', True, True),  # a backslash escapes nothing in an entity tag
        (b"*", b'"a"', True, True),
        (b"*", None, True, True),
        (b'"a"', None, False, False),
        (b"a", b"a", True, False),  # malformed but the same bytes
        (b"a", b'"a"', False, False),
        (b'"a"', b"a", False, False),
        (b'w/"a"', b'w/"a"', True, False),
        (b'w/"a"', b'W/"a"', False, False),
        (b'W\\"a"', b'W\\"a"', True, False),
        (b'W"a"', b'W"a"', True, False),
        (b"a,b", b"a,b", True, False),
        (b'"abcdef\xfc"', b'"abcdef\xfc"', True, True),
    ],
)
def test_listed_tags(value: bytes, tag: bytes | None, weak: bool, strong: bool) -> None:
    assert tag_listed(value, tag, strong=False) is weak
    assert tag_listed(value, tag, strong=True) is strong


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_comparisons_are_symmetric_and_strong_implies_weak(one: bytes, other: bytes) -> None:
    assert weak_match(one, other) == weak_match(other, one)
    assert strong_match(one, other) == strong_match(other, one)
    assert weak_match(one, other) or not strong_match(one, other)


def test_two_etag_lines_are_no_etag() -> None:
    assert one_tag(fields('ETag: "a"', 'ETag: "b"')) is None
    assert one_tag(fields('ETag: "a"')) == b'"a"'


# -- Vary and selecting fields --


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ()),
        (["Vary: Foo, Bar"], (b"bar", b"foo")),
        (["Vary: Bar", "Vary: foo, FOO"], (b"bar", b"foo")),
        (["Vary: "], ()),
        (["Vary: *"], None),
        (["Vary: *, *"], None),
        (["Vary: *", "Vary: *"], None),
        (["Vary: , *"], None),
        (["Vary:", "Vary: *"], None),
        (["Vary: *, Foo"], None),
        (["Vary: Foo, *"], None),
        (["Vary: Foo Bar"], None),
    ],
)
def test_vary_names(lines: list[str], expected: tuple[bytes, ...] | None) -> None:
    assert vary_names(fields(*lines)) == expected


def test_joined_normal_drops_white_space_only_where_it_means_nothing() -> None:
    assert joined_normal((b" 1, 2 ",)) == joined_normal((b"1", b"2")) == b"1,2"
    assert joined_normal((b'"1, 2"',)) == b'"1, 2"'
    assert joined_normal((b"a b",)) != joined_normal((b"ab",))


def test_language_key_ignores_case_spaces_and_order_of_equals() -> None:
    assert language_key(b"en, de") == language_key(b"eN, De") == language_key(b"de,en") == language_key(b"de;q=1.0,en")
    assert language_key(b"en;q=0.5, de") == language_key(b"de, en;q=0.5")
    assert language_key(b"en;q=0.5, de") != language_key(b"en, de;q=0.5")
    assert language_key(b"en;q=broken, de") != language_key(b"de, en;q=broken")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"fr;q=0.5, de;q=1.0", b"de"),
        (b"DE", b"de"),
        (b"en, de", None),
        (b"*", None),
        (b"de;q=0", None),
        (b"de;q=2", None),
        (b"", None),
    ],
)
def test_preferred_language(value: bytes, expected: bytes | None) -> None:
    assert preferred_language(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"gzip, deflate, br", b"br,gzip"),
        (b"br;q=0, gzip", b"gzip"),
        (b"*", b"br,gzip"),
        (b"*;q=0, gzip;q=0.1", b"gzip"),
        (b"GZIP", b"gzip"),
        (b"deflate", b""),
        (b"", b""),
        (None, b""),
        (b"gzip;level=9", b""),
    ],
)
def test_encoding_key(value: bytes | None, expected: bytes) -> None:
    assert encoding_key(value, (b"br", b"gzip")) == expected


# -- Cache-Control --


@pytest.mark.parametrize(
    ("values", "max_age"),
    [
        ([b"max-age=60"], 60),
        ([b"MaX-aGe=60"], 60),
        ([b"max-age=003600"], 3600),
        ([b'max-age="60"'], 60),
        ([b"max-age=2147483649"], LARGEST_S),
        ([b"max-age=99999999999"], LARGEST_S),
        ([b"max-age=-1"], 0),
        ([b"max-age='60'"], 0),
        ([b"max-age=a60"], 0),
        ([b"max-age=60a"], 0),
        ([b"max-age=60.0"], 0),
        ([b"max-age=60.5"], 0),
        ([b"max-age="], 0),
        ([b"max-age"], 0),
        ([b"max-age =60"], None),
        ([b"max-age= 60"], None),
        ([b"max-age\t=60"], None),
        ([b"max-age=1800, max-age=1"], 1),
        ([b"max-age=1", b"max-age=1800"], 1),
        ([b'extension="max-age=3600", max-age=1'], 1),
        ([b'max-age=1, extension="max-age=3600"'], 1),
        ([b'extension="a, max-age=3600"'], None),
        ([b'extension="never closed', b"max-age=5"], 5),
        ([b"foobar, max-age=60"], 60),
        ([b"nothing-to-see-here"], None),
        ([b""], None),
    ],
)
def test_max_age(values: list[bytes], max_age: int | None) -> None:
    assert parse_cache_control(tuple(values)).max_age == max_age


def test_flags_and_qualified_forms() -> None:
    control = parse_cache_control((b'No-StOrE, private="A, b", NO-CACHE=c, public',))
    assert control.no_store and control.public and control.shared
    assert not control.private and not control.no_cache
    assert control.left_out == {b"a", b"b", b"c"}
    assert parse_cache_control((b'no-cache="a", no-cache',)).no_cache
    assert parse_cache_control((b'private=""',)).private
    assert parse_cache_control((b'no-store="x"',)).no_store


@pytest.mark.parametrize(
    ("value", "revalidate", "shared"),
    [
        (b"must-revalidate", True, True),
        (b"proxy-revalidate", True, False),
        (b"s-maxage=2", True, True),
        (b"max-age=2", False, False),
        (b"public", False, True),
    ],
)
def test_what_forbids_stale_and_permits_sharing(value: bytes, revalidate: bool, shared: bool) -> None:
    control = parse_cache_control((value,))
    assert (control.revalidate, control.shared) == (revalidate, shared)


def test_request_directives() -> None:
    assert request_control(fields("Cache-Control: max-stale")).max_stale == ANY_S
    assert request_control(fields("Cache-Control: max-stale=5")).max_stale == 5
    assert request_control(fields("Cache-Control: only-if-cached")).only_if_cached
    assert request_control(fields("Pragma: no-cache")).no_cache
    assert not request_control(fields("Pragma: no-cache", "Cache-Control: foo")).no_cache
    assert not request_control(fields("Pragma: foo")).no_cache


@settings(max_examples=200)
@given(st.binary(max_size=40))
def test_no_value_of_any_field_raises(value: bytes) -> None:
    members(value), tag_members(value), language_key(value), preferred_language(value)
    encoding_key(value, (b"gzip",)), parse_cache_control((value, value)), joined_normal((value, value))
    tag_listed(value, value, strong=True)
    name = "X"
    for name in ("Age", "Vary", "Connection", "Pragma"):
        head = fields(f"{name}: {value.decode('latin-1')}")
        age_value(head), vary_names(head), dropped_names(head), request_control(head)


# -- hop by hop --


def test_hop_by_hop_and_connection_named_fields_are_dropped() -> None:
    head = fields("Connection: A, close", "A: 1", "B: 2", "Keep-Alive: x", "TE: x", "Upgrade: x", "Trailer: x")
    assert [name for name, _ in storable(head)] == [b"B"]


def test_connection_may_name_what_nobody_sent_but_not_framing_or_host() -> None:
    assert dropped_names(fields("Connection: absent")) == HOP_BY_HOP | {b"absent"}
    assert dropped_names(fields("Connection: content-length, HOST")) == HOP_BY_HOP
    plain = fields("Set-Cookie: a=b", "X-Foo: 1")
    assert storable(plain) is plain
