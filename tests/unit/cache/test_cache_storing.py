"""What may be stored, and what of it is kept."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.heads import DATE, LM, MA, OPEN, at_home, date, fields, lifetime, outcome, request, response, stored, times

from edge.cache import stored as stored_module
from edge.cache.rules import Directives, Rules, SetCookie
from edge.cache.stored import MAX_SHARED, SHARED_BYTES, Plan, build
from edge.cache.storing import storing
from edge.cache.verdict import Reason

# -- section 2 --


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Cache-Control: no-store"], Reason.NO_STORE),
        (["Cache-Control: No-StOrE, max-age=10000", f"Expires: {date(9)}"], Reason.NO_STORE),
        (["Cache-Control: private, max-age=3600"], Reason.PRIVATE),
        ([MA, "Vary: *"], Reason.VARY_STAR),
        ([MA, "Vary: Foo", "Vary: , *"], Reason.VARY_STAR),
        ([MA, "Vary: X-Forwarded-For"], Reason.VARY_STAR),
        ([], Reason.NO_FRESHNESS),
        ([DATE], Reason.NO_FRESHNESS),
        (["Cache-Control: no-cache"], Reason.NO_FRESHNESS),
    ],
)
def test_not_stored(lines: list[str], reason: Reason) -> None:
    assert outcome(*lines) is reason


@pytest.mark.parametrize(
    "lines",
    [
        [MA],
        [f"Expires: {date(60)}", DATE],
        ["Cache-Control: max-age=0"],
        ['ETag: "a"'],
        [LM],
        ["Cache-Control: public"],
        ["Cache-Control: no-cache", 'ETag: "a"'],
        [MA, 'Cache-Control: private="x"'],
        [MA, "Set-Cookie: a=b"],
        [MA, "Content-Disposition: attachment"],
        [MA, "Vary: Foo"],
    ],
)
def test_stored(lines: list[str]) -> None:
    assert isinstance(outcome(*lines), Plan)


@pytest.mark.parametrize(
    "status", [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599, 999]
)
def test_explicit_freshness_makes_any_status_storable(status: int) -> None:
    assert lifetime(MA, status=status) == 3600


@pytest.mark.parametrize("status", [100, 102, 103, 199, 304, 412, 416])
def test_interim_and_personal_answers_are_never_stored(status: int) -> None:
    assert outcome(MA, status=status) is Reason.STATUS


def test_must_understand() -> None:
    both = "Cache-Control: max-age=3600, no-store, must-understand"
    assert lifetime(both) == 3600
    assert outcome(both, status=599) is Reason.STATUS
    assert outcome("Cache-Control: max-age=3600, must-understand", status=599) is Reason.STATUS


def test_request_no_store() -> None:
    asked = request("Cache-Control: no-store")
    assert outcome(MA, asked=asked) is Reason.NO_STORE
    assert isinstance(outcome(MA, asked=asked, rules=at_home(request_directives=Directives.IGNORE)), Plan)


@pytest.mark.parametrize(
    ("directive", "allowed"),
    [
        ("max-age=9", False),
        ("max-age=9, public", True),
        ("max-age=9, must-revalidate", True),
        ("s-maxage=9", True),
        ("max-age=9, proxy-revalidate", False),
    ],
)
def test_authorization(directive: str, allowed: bool) -> None:
    got = outcome(f"Cache-Control: {directive}", asked=request("Authorization: Basic x"))
    assert isinstance(got, Plan) if allowed else got is Reason.AUTHORIZATION


def test_cookies() -> None:
    assert isinstance(outcome(MA, asked=request("Cookie: a=b")), Plan)
    refuse, strip = Rules(), Rules(set_cookie=SetCookie.STRIP)
    assert outcome(MA, "Set-Cookie: a=b", rules=refuse) is Reason.SET_COOKIE
    assert outcome("Cache-Control: public, max-age=9", "Set-Cookie: a=b", rules=refuse) is Reason.SET_COOKIE
    assert isinstance(outcome('Cache-Control: max-age=9, no-cache="set-cookie"', "Set-Cookie: a", rules=refuse), Plan)
    assert b"set-cookie" not in stored(MA, "Set-Cookie: a=b", rules=strip).head.fields
    assert stored(MA, "Set-Cookie: a=b", "Set-Cookie: c=d").head.fields.get_all(b"set-cookie") == (b"a=b", b"c=d")


def test_methods() -> None:
    assert outcome(MA, asked=request(method="HEAD")) is Reason.METHOD
    assert outcome(MA, asked=request(method="PUT")) is Reason.METHOD
    post = request(method="POST", target="/a?b")
    assert outcome(MA, asked=post) is Reason.METHOD
    assert outcome(MA, "Content-Location: /other", asked=post) is Reason.METHOD
    assert outcome(MA, "Content-Location: /a?b", asked=post, status=201) is Reason.METHOD
    assert outcome("Content-Location: /a?b", 'ETag: "a"', asked=post) is Reason.NO_FRESHNESS
    for own in ("/a?b", "http://example.com/a?b", "", "//EXAMPLE.com:80/a?b"):
        got = outcome(MA, f"Content-Location: {own}", asked=post)
        assert isinstance(got, Plan)
        assert got.key == b"http://example.com/a?b"


def test_size() -> None:
    assert outcome(MA, "Content-Length: 100", rules=at_home(max_object_bytes=99)) is Reason.SIZE
    assert isinstance(outcome(MA, "Content-Length: 100", rules=at_home(max_object_bytes=100)), Plan)


# -- what is kept and served (sections 1, 5, 12) --


def test_what_is_kept() -> None:
    kept = [
        "Set-Cookie2: a",
        "Content-Range: bytes 0-1/2",
        "Content-Encoding: unheard-of",
        "Content-Location: /x",
        "Content-MD5: x",
        "Clear-Site-Data: cache",
        "Public-Key-Pins: x",
        "X-Foo: \xe9",
        "X-Foo: 2",
        f"Date: {date()}",
    ]
    one = stored(
        MA, *kept, "Connection: X-Gone, keep-alive", "X-Gone: 1", "Keep-Alive: x", "Age: 5", "Proxy-Authenticate: x"
    )
    assert one.head.fields == fields(MA, *kept, "Content-Length: 10")
    assert one.wire.startswith(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n")
    assert b"X-Foo: \xe9\r\n" in one.wire


def test_fields_listed_in_no_cache_and_private_are_left_out() -> None:
    one = stored(
        'Cache-Control: no-cache="a, B"', 'Cache-Control: private="c"', "A: 1", "b: 2", "C: 3", "d: 4", MA, DATE
    )
    assert not one.no_cache
    assert [name for name in (b"a", b"b", b"c", b"d") if name in one.head.fields] == [b"d"]


def test_status_line_and_reason_phrase_are_kept() -> None:
    plan = storing(request(), response(MA, status=299), OPEN, times())
    assert isinstance(plan, Plan)
    assert build(plan, (b"x",)).wire.startswith(b"HTTP/1.1 299 Some\r\n")


def test_date_is_added_only_where_missing_and_content_length_tells_the_truth() -> None:
    assert stored(MA).head.fields.joined(b"date") == date().encode()
    assert stored(MA, f"Date: {date(-5)}").head.fields.get_all(b"date") == (date(-5).encode(),)
    assert stored(MA, "Content-Length: 10").head.fields.get_all(b"content-length") == (b"10",)
    assert b"content-length" not in stored(MA, status=204, body=b"").head.fields


def test_a_body_that_does_not_fit_is_refused() -> None:
    plan = outcome(MA, "Content-Length: 11")
    assert isinstance(plan, Plan)
    with pytest.raises(ValueError):
        build(plan, (b"0123456789",))


def test_tags() -> None:
    one = stored(MA, "Surrogate-Key: a b", "Cache-Tag: c,d , e", 'Cache-Groups: "g h", "i"')
    scoped = {b"http://example.com g h", b"http://example.com i"}
    assert one.tags == {b"a", b"b", b"c", b"d", b"e", b"g h", b"i"} | scoped
    assert stored(MA, "Cache-Groups: broken,").tags == frozenset()


def test_simple() -> None:
    assert stored(MA).simple
    assert not stored(MA, "Vary: Foo").simple
    assert not stored("Cache-Control: max-age=9, no-cache").simple
    assert not stored(MA, status=404).simple
    assert not stored(MA, rules=at_home(bypass_cookies=(b"session",))).simple


# -- section 10: storing parts --


@pytest.mark.parametrize(
    ("lines", "asked", "ok"),
    [
        (["Content-Range: bytes 0-9/20"], ["Range: bytes=0-9"], True),
        (["Content-Range: bytes 0-9/*"], ["Range: bytes=0-9"], True),
        (["Content-Range: bytes 0-9/20"], [], False),
        ([], ["Range: bytes=0-9"], False),
        (["Content-Range: bytes */20"], ["Range: bytes=0-9"], False),
        (["Content-Range: bytes 0-4/20", "Content-Length: 10"], ["Range: bytes=0-9"], False),
        (["Content-Range: bytes 0-9/20", "Content-Length: 0"], ["Range: bytes=0-9"], False),
        (["Content-Type: multipart/byteranges; boundary=x"], ["Range: bytes=0-1,3-4"], False),
    ],
)
def test_parts(lines: list[str], asked: list[str], ok: bool) -> None:
    got = outcome(MA, *lines, status=206, asked=request(*asked))
    assert isinstance(got, Plan) if ok else got is Reason.RANGE


def test_a_part_must_have_the_length_it_tells_or_announces() -> None:
    asked = request("Range: bytes=-5")
    told = outcome(MA, "Content-Range: bytes 4-9/10", status=206, asked=asked)
    framed = outcome(MA, "Content-Range: bytes 4-9/10", "Content-Length: 5", status=206, asked=asked)
    assert isinstance(told, Plan) and isinstance(framed, Plan)
    assert told.fits(6) and not told.fits(5) and not told.fits(7)
    assert framed.fits(5) and not framed.fits(6) and not framed.fits(4)


NAMES = [
    "Cache-Control",
    "CDN-Cache-Control",
    "Expires",
    "Date",
    "Age",
    "Vary",
    "ETag",
    "Last-Modified",
    "Connection",
    "Content-Range",
    "Content-Location",
    "Surrogate-Key",
    "Cache-Groups",
    "Content-Length",
    "Content-Language",
]


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=12)), max_size=6),
    st.sampled_from([100, 200, 206, 304, 404, 599]),
    st.sampled_from(["GET", "POST"]),
)
def test_any_bytes(lines: list[tuple[str, bytes]], status: int, method: str) -> None:
    head = [f"{name}: {value.decode('latin-1')}" for name, value in lines]
    got = outcome(MA, *head, status=status, asked=request("Range: bytes=0-1", method=method))
    if isinstance(got, Plan) and got.fits(2):
        build(got, (b"ab",)).head.fields.names()


@pytest.mark.parametrize("names", [1, 3, 20, 32])
def test_what_vary_names_is_charged_as_what_it_takes(names: int) -> None:
    """Values that no other response has are not shared: the tuples, the names and the values all count."""
    lines = [f"X-{number}: {'v' * 40}{number}-{names}" for number in range(names)]
    plain = stored(MA, asked=request(*lines))
    vary = "Vary: " + ", ".join(f"X-{number}" for number in range(names))
    other = [line + "own" * 100 for line in lines]  # too long to be shared
    varying = stored(MA, vary, asked=request(*other))
    taken = sys.getsizeof(varying.vary) + sum(
        sys.getsizeof(pair) + sys.getsizeof(pair[0]) + sys.getsizeof(pair[1]) for pair in varying.vary
    )
    lines_of_wire = len(varying.wire) - len(plain.wire)
    assert varying.size_bytes - plain.size_bytes - lines_of_wire >= taken - sys.getsizeof(())


def test_selections_that_many_share_are_held_once_and_the_table_has_an_end() -> None:
    one, two = (stored(MA, "Vary: Accept", asked=request("Accept: text/plain")) for _ in range(2))
    assert one.vary is two.vary
    for number in range(2 * MAX_SHARED):
        stored(MA, "Vary: Accept", asked=request(f"Accept: a/{number}"))
    long = [stored(MA, "Vary: Accept", asked=request("Accept: " + "a" * SHARED_BYTES)) for _ in range(2)]
    assert long[0].vary == long[1].vary and long[0].vary is not long[1].vary
    assert len(stored_module._shared) <= MAX_SHARED
