"""What a look-up decides: freshness, variants, directives, stale serving, ranges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.heads import MA, NOW, OPEN, at_home, request, stored

from edge.cache import policy
from edge.cache.policy import Decision, displaces, evaluate, may_serve_stale
from edge.cache.rules import Directives, Rules
from edge.cache.stored import Stored, supersedes
from edge.cache.verdict import Action, Failure, Reason, forward, word
from edge.http.cache_status import Forward
from edge.http.message import RequestHead

ETAG = 'ETag: "abc"'


def decide(asked: RequestHead, *variants: Stored, rules: Rules = OPEN, after: float = 0.0) -> Decision:
    return evaluate(asked, variants, rules, NOW + after)


def acts(asked: RequestHead, *variants: Stored, rules: Rules = OPEN, after: float = 0.0) -> tuple[Action, Reason]:
    got = decide(asked, *variants, rules=rules, after=after)
    return got.act, got.reason


def test_fresh_stale_and_nothing() -> None:
    one = stored(MA)
    assert acts(request()) == (Action.MISS, Reason.COLD)
    assert acts(request(), one) == (Action.FRESH, Reason.FRESH)
    assert acts(request(), one, after=3599.9) == (Action.FRESH, Reason.FRESH)
    assert acts(request(), one, after=3600) == (Action.REVALIDATE, Reason.STALE)
    assert decide(request(), one, after=3600).stored is one
    assert acts(request("Cookie: a=b"), one)[0] is Action.FRESH
    assert acts(request("Authorization: Basic x"), one)[0] is Action.FRESH
    permitted = stored("Cache-Control: public, max-age=9", asked=request("Authorization: Basic x"))
    assert acts(request(), permitted)[0] is Action.FRESH


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE", "get"])
def test_other_methods_are_written_through(method: str) -> None:
    assert acts(request(method=method), stored(MA)) == (Action.BYPASS, Reason.METHOD)


def test_no_cache_and_must_revalidate() -> None:
    assert acts(request(), stored("Cache-Control: max-age=10000, no-cache")) == (Action.REVALIDATE, Reason.NO_CACHE)
    assert acts(request(), stored('Cache-Control: max-age=10000, no-cache="a"'))[0] is Action.FRESH
    for strict in ("must-revalidate", "proxy-revalidate", "s-maxage=2"):
        one = stored(f"Cache-Control: max-age=2, {strict}, stale-while-revalidate=99")
        assert acts(request(), one, after=1) == (Action.FRESH, Reason.FRESH)
        assert acts(request(), one, after=3) == (Action.REVALIDATE, Reason.STALE)
        assert acts(request("Cache-Control: max-stale"), one, after=3)[0] is Action.REVALIDATE


def test_stale_while_revalidate() -> None:
    one = stored("Cache-Control: max-age=1, stale-while-revalidate=4", ETAG)
    assert decide(request(), one, after=3) == Decision(Action.STALE_OK, Reason.STALE, one, refresh=True)
    assert acts(request(), one, after=5)[0] is Action.REVALIDATE
    assert acts(request("Cache-Control: max-age=0"), one, after=3)[0] is Action.REVALIDATE


# -- HEAD --


def test_head_is_answered_from_a_fresh_get_and_else_forwarded() -> None:
    one = stored("Cache-Control: max-age=2")
    assert acts(request(method="HEAD"), one) == (Action.FRESH, Reason.FRESH)
    later = decide(request(method="HEAD"), one, after=3)
    assert (later.act, later.reason, later.stored) == (Action.MISS, Reason.STALE, one)
    part = stored(MA, "Content-Range: bytes 0-9/20", status=206, asked=request("Range: bytes=0-9"))
    assert acts(request(method="HEAD"), part)[0] is Action.MISS


# -- section 11 --


@pytest.mark.parametrize(
    ("line", "age", "after", "expected"),
    [
        ("Cache-Control: max-age=0", 0, 0, Action.REVALIDATE),
        ("Cache-Control: max-age=1", 0, 3, Action.REVALIDATE),
        ("Cache-Control: max-age=10", 0, 3, Action.FRESH),
        ("Cache-Control: max-age=600", 1800, 0, Action.REVALIDATE),
        ("Cache-Control: min-fresh=2000", 0, 0, Action.FRESH),
        ("Cache-Control: min-fresh=4000", 0, 0, Action.REVALIDATE),
        ("Cache-Control: min-fresh=1000", 3000, 0, Action.REVALIDATE),
        ("Cache-Control: max-stale=1000", 0, 3700, Action.STALE_OK),
        ("Cache-Control: max-stale=1000", 4000, 0, Action.STALE_OK),
        ("Cache-Control: max-stale=10", 0, 3700, Action.REVALIDATE),
        ("Cache-Control: max-stale", 0, 9999999, Action.STALE_OK),
        ("Cache-Control: no-cache", 0, 0, Action.REVALIDATE),
        ("Cache-Control: no-store", 0, 0, Action.BYPASS),
        ("Cache-Control: only-if-cached", 0, 0, Action.FRESH),
        ("Cache-Control: only-if-cached", 0, 3700, Action.UNSATISFIABLE),
        ("Cache-Control: only-if-cached, max-stale", 0, 3700, Action.STALE_OK),
        ("Cache-Control: nothing-to-see-here", 0, 0, Action.FRESH),
        ("Pragma: no-cache", 0, 0, Action.REVALIDATE),
        ("Pragma: unrecognised", 0, 0, Action.FRESH),
    ],
)
def test_request_directives(line: str, age: int, after: float, expected: Action) -> None:
    one = stored(MA, f"Age: {age}", ETAG)
    got = decide(request(line), one, after=after)
    assert got.act is expected
    assert not got.refresh
    ignoring = at_home(request_directives=Directives.IGNORE)
    assert decide(request(line), one, rules=ignoring, after=after).act is decide(request(), one, after=after).act


def test_pragma_beside_cache_control_and_only_if_cached_with_nothing() -> None:
    assert acts(request("Pragma: no-cache", "Cache-Control: foo"), stored(MA))[0] is Action.FRESH
    assert acts(request("Cache-Control: only-if-cached")) == (Action.UNSATISFIABLE, Reason.ONLY_IF_CACHED)


# -- operator's bypass --


def test_bypass_rules() -> None:
    rules = at_home(bypass_cookies=(b"session",), bypass_headers=(b"x-debug",), bypass_paths=(b"/admin", b"/x/"))
    bypass = (Action.BYPASS, Reason.RULE)
    assert acts(request("Cookie: a=b; session=1"), stored(MA), rules=rules) == bypass
    assert acts(request("X-Debug: 1"), stored(MA), rules=rules) == bypass
    assert acts(request(target="/admin/x?y"), rules=rules) == bypass
    assert acts(request(target="/x"), rules=rules) == bypass
    assert acts(request("Cookie: sessions=1", target="/administer"), stored(MA), rules=rules)[0] is Action.FRESH


# -- section 6 --


def variant(*asked: str, vary: str = "Foo", extra: str = ETAG, at: float = NOW, rules: Rules = OPEN) -> Stored:
    return stored(MA, f"Vary: {vary}", extra, asked=request(*asked), at=at, rules=rules)


@pytest.mark.parametrize(
    ("vary", "kept", "asked", "matches"),
    [
        ("Foo", ["Foo: 1"], ["Foo: 1"], True),
        ("Foo", ["Foo: 1"], ["Foo: 2"], False),
        ("Foo", ["Foo: 1"], [], False),
        ("Foo", [], ["Foo: 1"], False),
        ("Foo", [], [], True),
        ("Foo", ["Foo:"], [], False),
        ("foo", ["FOO: 1"], ["Foo: 1", "Other: 3"], True),
        ("Foo, Bar", ["Foo: 1", "Bar: a"], ["Bar: a", "Foo: 1"], True),
        ("Foo, Bar", ["Foo: 1", "Bar: a"], ["Foo: 1"], False),
        ("Foo, Bar, Baz", ["Foo: 1", "Baz: 7"], ["Foo: 1", "Baz: 7"], True),
        ("Foo, Bar, Baz", ["Foo: 1", "Bar: a", "Baz: 7"], ["Foo: 1", "Bar: b", "Baz: 7"], False),
        ("Foo", ["Foo: 1,2"], ["Foo:  1, 2 "], True),
        ("Foo", ["Foo: 1, 2"], ["Foo: 1", "Foo: 2"], True),
        ("Foo", ["Foo: 1,2"], ["Foo: 2,1"], False),
        ("Foo", ['Foo: "1,2"'], ['Foo: "1, 2"'], False),
        ("Foo", ["Foo: a"], ["Foo: A"], False),
        ("Accept-Language", ["Accept-Language: en, de"], ["Accept-Language: de, en"], True),
        ("Accept-Language", ["Accept-Language: en, de"], ["Accept-Language: eN, De"], True),
        ("Accept-Language", ["Accept-Language: en, de"], ["Accept-Language:  en ,   de"], True),
        ("Accept-Language", ["Accept-Language: en, de;q=0.5"], ["Accept-Language: de, en;q=0.5"], False),
    ],
)
def test_selecting(vary: str, kept: list[str], asked: list[str], matches: bool) -> None:
    got = decide(request(*asked), variant(*kept, vary=vary))
    assert (got.act, got.reason) == ((Action.FRESH, Reason.FRESH) if matches else (Action.MISS, Reason.VARY))
    assert got.offers == (() if matches else (b'"abc"',))


def test_language_is_a_setting_and_content_language_may_select() -> None:
    plain = at_home(normalise_language=False)
    asked = request("Accept-Language: de, en")
    assert (
        acts(asked, variant("Accept-Language: en, de", vary="Accept-Language", rules=plain), rules=plain)[0]
        is Action.MISS
    )
    german = variant("Accept-Language: en, de", vary="Accept-Language", extra="Content-Language: de")
    assert acts(request("Accept-Language: fr;q=0.5, de;q=1.0"), german)[0] is Action.FRESH
    assert acts(request("Accept-Language: fr, de"), german)[0] is Action.MISS
    assert acts(request("Accept-Language: fr;q=0.5, de"), german, rules=plain)[0] is Action.MISS
    more = variant("Accept-Language: en", "Foo: 1", vary="Accept-Language, Foo", extra="Content-Language: de")
    assert acts(request("Accept-Language: de", "Foo: 1"), more)[0] is Action.MISS


def test_encodings_are_reduced_to_those_that_the_route_serves() -> None:
    rules = at_home(normalise_encoding=(b"br", b"gzip"))
    one = variant("Accept-Encoding: gzip, deflate, br", vary="Accept-Encoding", rules=rules)
    assert acts(request("Accept-Encoding: br;q=0.9, gzip, zstd"), one, rules=rules)[0] is Action.FRESH
    assert acts(request("Accept-Encoding: gzip"), one, rules=rules)[0] is Action.MISS
    assert acts(request(), one, rules=rules)[0] is Action.MISS


def test_variants_live_side_by_side_and_the_latest_match_counts() -> None:
    one, two = variant("Foo: 1"), variant("Foo: 2", at=NOW + 1)
    assert decide(request("Foo: 1"), one, two).stored is one
    assert decide(request("Foo: 2"), one, two).stored is two
    newer = stored("Cache-Control: max-age=9", at=NOW + 5)
    assert decide(request("Foo: 1"), one, two, newer).stored is newer
    assert not supersedes(two, one)
    assert supersedes(variant("Foo: 1", at=NOW + 9), one)
    assert one.variant != two.variant != variant(vary="Foo").variant


def test_offers() -> None:
    many = [variant(f"Foo: {n}", extra=f'ETag: "{n}"', at=NOW + n) for n in range(12)]
    assert decide(request("Foo: x"), *many).offers == tuple(b'"%d"' % n for n in range(11, 3, -1))
    assert decide(request("Foo: x", 'If-None-Match: "z"'), *many).offers == ()
    assert decide(request("Foo: x"), variant("Foo: 1", extra="ETag: broken")).offers == ()


def test_what_a_clients_connection_names_was_not_sent_and_does_not_select() -> None:
    hidden = stored(MA, "Vary: Foo", asked=request("Connection: Foo", "Foo: evil"))
    assert acts(request("Foo: evil"), hidden)[0] is Action.MISS
    assert acts(request(), hidden)[0] is Action.FRESH


# -- section 9 --


@pytest.mark.parametrize(
    ("directives", "after", "connect", "status"),
    [
        ("max-age=2", 3, True, False),
        ("max-age=2, stale-if-error=60", 3, True, True),
        ("max-age=2, stale-if-error=60", 62, True, False),
        ("max-age=2", 3602, False, False),
        ("max-age=2, must-revalidate, stale-if-error=60", 3, False, False),
        ("max-age=2, proxy-revalidate", 3, False, False),
        ("max-age=2, s-maxage=2", 3, False, False),
        ("max-age=2, no-cache", 1, False, False),
        ("max-age=20, must-revalidate", 3, True, True),
    ],
)
def test_stale_in_place_of_failures(directives: str, after: float, connect: bool, status: bool) -> None:
    one = stored(f"Cache-Control: {directives}")
    assert may_serve_stale(one, request(), OPEN, NOW + after, Failure.CONNECT) is connect
    assert may_serve_stale(one, request(), OPEN, NOW + after, Failure.OUTAGE) is connect
    assert may_serve_stale(one, request(), OPEN, NOW + after, Failure.STATUS) is status


def test_stale_if_error_of_the_request_and_outage_stretch() -> None:
    one = stored("Cache-Control: max-age=2")
    asked = request("Cache-Control: stale-if-error=10")
    assert may_serve_stale(one, asked, OPEN, NOW + 11, Failure.STATUS)
    assert not may_serve_stale(one, asked, OPEN, NOW + 13, Failure.STATUS)
    ignoring = at_home(request_directives=Directives.IGNORE)
    assert not may_serve_stale(one, asked, ignoring, NOW + 11, Failure.STATUS)
    long = stored("Cache-Control: max-age=2", rules=at_home(stale_on_outage_s=90000.0, keep_s=0.0))
    assert may_serve_stale(long, request(), OPEN, NOW + 89000, Failure.OUTAGE)


def test_an_unstorable_newer_response_takes_away_only_what_is_stale() -> None:
    one = stored("Cache-Control: max-age=2")
    assert not displaces(one, NOW + 1)
    assert displaces(one, NOW + 2)


def test_expired_copy() -> None:
    one = stored("Cache-Control: max-age=100, stale-while-revalidate=10")
    soft = one.expired(NOW + 5)
    assert acts(request(), soft, after=6)[0] is Action.STALE_OK
    assert acts(request(), one, after=6)[0] is Action.FRESH
    assert soft.chunks is one.chunks


# -- section 10 --


def part(spec: str, told: str, *lines: str, body: bytes = b"01234") -> Stored:
    return stored(
        MA,
        f"Content-Range: bytes {told}",
        f"Content-Length: {len(body)}",
        *lines,
        status=206,
        body=body,
        asked=request(f"Range: bytes={spec}"),
    )


@pytest.mark.parametrize("spec", ["-5", "6-8", "6-", "-1", "4-9"])
def test_a_stored_part_answers_ranges_within_it(spec: str) -> None:
    assert acts(request(f"Range: bytes={spec}"), part("-5", "4-9/10"))[0] is Action.FRESH


@pytest.mark.parametrize(
    "lines",
    [[], ["Range: bytes=0-5"], ["Range: bytes=-6"], ["Range: bytes=0-1,4-5"], ["Range: items=5-6"], ["If-Range: x"]],
)
def test_a_stored_part_answers_nothing_else(lines: list[str]) -> None:
    assert acts(request(*lines), part("5-9", "5-9/10")) == (Action.MISS, Reason.RANGE)


def test_if_range_on_a_part() -> None:
    one = part("5-9", "5-9/10", ETAG)
    assert acts(request("Range: bytes=5-6", 'If-Range: "abc"'), one)[0] is Action.FRESH
    assert acts(request("Range: bytes=5-6", 'If-Range: "x"'), one)[0] is Action.MISS


def test_a_whole_response_answers_ranges_and_a_beginning_is_named_for_its_rest() -> None:
    assert acts(request("Range: bytes=0-1"), stored(MA))[0] is Action.FRESH
    beginning = part("-5", "0-4/10")
    assert decide(request(), beginning).stored is beginning
    assert decide(request('If-None-Match: "x"'), beginning).stored is None
    assert decide(request(), beginning, after=4000).stored is None
    assert decide(request(), part("5-9", "5-9/10")).stored is None
    assert supersedes(stored(MA), beginning)
    assert not supersedes(beginning, stored(MA))


# -- words and totality --


def test_words() -> None:
    assert word(Reason.RULE, "shop") == "rule:shop"
    assert word(Reason.NO_STORE, "shop") == "no-store"
    assert forward(Reason.COLD) is Forward.URI_MISS
    assert forward(Reason.VARY) is Forward.VARY_MISS
    assert policy.storing is not None


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Cache-Control", "Pragma", "Range", "If-Range", "Foo", "Accept-Language", "Cookie"]),
            st.one_of(
                st.binary(max_size=10), st.sampled_from([b"max-stale", b"min-fresh=9", b"no-cache", b"bytes=0-1"])
            ),
        ),
        max_size=4,
    ),
    st.floats(-100, 10000),
)
def test_any_request_gets_a_consistent_decision(lines: list[tuple[str, bytes]], after: float) -> None:
    asked = request(*[f"{name}: {value.decode('latin-1')}" for name, value in lines])
    kept = [variant("Foo: 1"), part("0-4", "0-4/10"), variant("Accept-Language: de", vary="Accept-Language")]
    got = decide(asked, *kept, after=after)
    if got.act is Action.FRESH:
        assert got.stored is not None
        assert got.stored.is_fresh(NOW + after)
    if got.act in (Action.STALE_OK, Action.REVALIDATE):
        assert got.stored in kept
    if got.act is Action.STALE_OK:
        assert got.stored is not None
        assert not got.stored.is_fresh(NOW + after)
