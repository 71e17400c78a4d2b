"""How long a response is fresh and how old it is: directives, dates, targeted fields, rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.heads import (
    DATE,
    LM,
    MA,
    NOW,
    OPEN,
    at_home,
    date,
    fields,
    lifetime,
    outcome,
    request,
    response,
    stored,
    times,
)

from edge.cache.freshness import Times, initial_age
from edge.cache.rules import Rules
from edge.cache.stored import Plan, build
from edge.cache.storing import storing
from edge.cache.verdict import Reason, Source

# -- section 3: lifetime --


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([MA], 3600),
        ([MA, f"Expires: {date(-9)}"], 3600),
        ([MA, "Expires: 0"], 3600),
        (["Cache-Control: max-age=0", f"Expires: {date(900)}"], 0),
        (["Cache-Control: s-maxage=9, max-age=3600"], 9),
        (["Cache-Control: max-age=1", "Cache-Control: s-maxage=3600"], 3600),
        ([f"Expires: {date(60)}", DATE], 60),
        ([f"Expires: {date()}", DATE], 0),
        ([f"Expires: {date(-60)}", DATE], 0),
        ([f"Expires: {date(300)}", f"Date: {date(400)}"], 0),
        ([f"Expires: {date(60)}", "Date: foo"], 60),
        ([f"Expires: {date(60)}"], 60),
        (["Expires: 0", DATE], 0),
        ([f"Expires: {date(60)}", f"Expires: {date(60)}", DATE], 0),
        (["Expires: Thu, 18 Aug 2050 02:01:18 UTC", DATE], 0),
        (["Cache-Control: max-age=-1", f"Expires: {date(60)}"], 0),
        (["Cache-Control: max-age =9", f"Expires: {date(60)}", DATE], 60),
        ([LM, DATE], 8640),
        ([f"Last-Modified: {date(-60)}", DATE], 6),
        ([f"Last-Modified: {date(-86400 * 99)}", DATE], 86400),
        ([f"Last-Modified: {date(60)}", DATE], 0),
        ([LM, DATE, "Pragma: no-cache"], 0),
        ([MA, "Pragma: no-cache"], 3600),
        ([LM, MA], 3600),
        ([LM, "Expires: 0"], 0),
        (['ETag: "a"'], 0),
    ],
)
def test_lifetime(lines: list[str], expected: float) -> None:
    assert lifetime(*lines) == expected


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_heuristic_statuses(status: int) -> None:
    assert lifetime(LM, DATE, status=status) == 8640


@pytest.mark.parametrize("status", [201, 202, 403, 502, 503, 504, 599])
def test_no_heuristic_without_public(status: int) -> None:
    assert lifetime(LM, DATE, status=status) is None
    assert lifetime(LM, DATE, "Cache-Control: public", status=status) == 8640


def test_fresh_means_age_less_than_lifetime() -> None:
    one = stored("Cache-Control: max-age=60", DATE)
    assert one.is_fresh(NOW + 59.9)
    assert not one.is_fresh(NOW + 60)
    assert not stored(f"Expires: {date()}", DATE).is_fresh(NOW)


def test_far_expires_is_far() -> None:
    assert stored("Expires: Sun, 21 Nov 2286 04:46:39 GMT", DATE).is_fresh(NOW + 10**9)


# -- section 3: age --


@pytest.mark.parametrize(
    ("lines", "delay", "expected"),
    [
        ([], 0, 0),
        ([DATE], 0, 0),
        ([f"Date: {date(-10)}"], 0, 10),
        ([f"Date: {date(10)}"], 0, 0),
        ([f"Date: {date(-10)}", "Age: 25"], 0, 25),
        ([f"Date: {date(-30)}", "Age: 25"], 0, 30),
        (["Age: 25"], 5, 30),
        ([DATE, "Age: 7200, 0"], 0, 7200),
        ([DATE, "Age: 7200.0"], 0, 0),
        (["Date: foo"], 3, 3),
    ],
)
def test_initial_age(lines: list[str], delay: float, expected: float) -> None:
    assert initial_age(fields(*lines), times(delay)) == expected


def test_age_counts_against_every_lifetime() -> None:
    assert not stored(f"Date: {date(10)}", f"Expires: {date(20)}", "Age: 15").is_fresh(NOW)
    assert not stored(MA, "Age: 7200").is_fresh(NOW)
    assert not stored("CDN-Cache-Control: max-age=3600", DATE, "Age: 7200").is_fresh(NOW)
    assert stored(MA, "Age: 30").age(NOW + 3) == 33


@given(
    st.floats(0, 4e9),
    st.floats(0, 100),
    st.integers(-(10**6), 10**6),
    st.integers(0, 2**31),
    st.floats(-1e6, 1e6),
    st.floats(0, 1e6),
)
def test_age_is_never_negative_and_never_decreases(
    at: float, delay: float, offset: int, age: int, since: float, more: float
) -> None:
    head = response(MA, f"Date: {date(offset)}", f"Age: {age}")
    plan = storing(request(), head, OPEN, Times(at - delay, at))
    assert isinstance(plan, Plan)
    one = build(plan, (b"x",))
    assert 0 <= one.age(at + since) <= one.age(at + since + more)
    if since >= 0 and one.is_fresh(at + since):
        assert one.ttl(at + since) > 0
        assert one.age(at + since) <= one.lifetime_s


# -- section 4 --


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["CDN-Cache-Control: max-age=3600"], 3600),
        (["CDN-Cache-Control: max-age=99999999999"], 2**31),
        (["CDN-Cache-Control: foobar, max-age=3600"], 3600),
        (["CDN-Cache-Control: max-age=3600", f"Expires: {date(-9)}"], 3600),
        (["CDN-Cache-Control: max-age=3600", "Cache-Control: max-age=1"], 3600),
        (["CDN-Cache-Control: max-age=1", "Cache-Control: max-age=3600"], 1),
        (["CDN-Cache-Control: max-age=10000", "Cache-Control: no-store"], 10000),
        (["CDN-Cache-Control: max-age=10", "CDN-Cache-Control: foo"], 10),
        (["CDN-Cache-Control: max-age=0", f"Expires: {date(900)}"], 0),
        (["CDN-Cache-Control: max-age=-1", MA], 0),
        (["CDN-Cache-Control: max-age =100", "Cache-Control: max-age=1"], 1),
        (["CDN-Cache-Control: max-age= 100", "Cache-Control: max-age=1"], 1),
        (["CDN-Cache-Control: MaX-aGe=100", "Cache-Control: max-age=1"], 1),
        (["CDN-Cache-Control:", "Cache-Control: max-age=1"], 1),
        (["CDN-Cache-Control: foo", LM, DATE, f"Expires: {date(7)}"], 8640),
        (["CDN-Cache-Control: max-age=10000, &&&&&", "Cache-Control: no-store"], None),
        (['CDN-Cache-Control: max-age="10000"', "Cache-Control: no-store"], None),
        (["CDN-Cache-Control: max-age=1.5", MA], None),
        (["CDN-Cache-Control: no-store", MA, f"Expires: {date(900)}"], None),
        (["CDN-Cache-Control: private", MA], None),
        (["CDN-Cache-Control: no-store=?0, max-age=5", MA], 5),
    ],
)
def test_targeted(lines: list[str], expected: float | None) -> None:
    assert lifetime(*lines) == expected


def test_targeted_no_cache_source_order_and_forwarding() -> None:
    assert stored("CDN-Cache-Control: no-cache, max-age=9", MA).no_cache
    one = stored("CDN-Cache-Control: max-age=9", MA, "Expires: 0", DATE)
    assert one.source is Source.TARGETED
    assert one.head.fields.joined(b"cdn-cache-control") == b"max-age=9"
    assert one.head.fields.joined(b"expires") == b"0"
    rules = at_home(targets=(b"edge-cache-control", b"cdn-cache-control"))
    assert lifetime("CDN-Cache-Control: max-age=9", "Edge-Cache-Control: max-age=7", rules=rules) == 7
    assert lifetime("CDN-Cache-Control: max-age=9", "Edge-Cache-Control: max-age=7,", rules=rules) == 9
    assert lifetime("CDN-Cache-Control: max-age=9", MA, rules=at_home(targets=())) == 3600


# -- section 5 and rules --


def test_stale_windows() -> None:
    one = stored("Cache-Control: max-age=1, stale-while-revalidate=4, stale-if-error=60")
    assert (one.swr_until, one.sie_until) == (NOW + 5, NOW + 61)
    assert one.keep_until == NOW + 61 + OPEN.keep_s
    rules = at_home(stale_if_error_s=30.0, stale_while_revalidate_s=5.0, stale_on_outage_s=90.0)
    ruled = stored("Cache-Control: max-age=1, stale-if-error=7", rules=rules)
    assert (ruled.swr_s, ruled.sie_s, ruled.outage_s) == (5, 7, 90)
    for strict in ("must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache"):
        none = stored(f"Cache-Control: max-age=1, stale-if-error=7, {strict}", rules=rules)
        assert (none.swr_s, none.sie_s, none.outage_s) == (0, 0, 0)
        assert none.must_revalidate or none.no_cache


def test_the_operators_windows_win_where_a_setting_says_so() -> None:
    own = "Cache-Control: max-age=1, stale-while-revalidate=900, stale-if-error=7"
    rules = at_home(stale_if_error_s=30.0, stale_while_revalidate_s=5.0, override_stale=True)
    ruled = stored(own, rules=rules)
    assert (ruled.swr_s, ruled.sie_s) == (5, 30)
    none = stored(own, rules=at_home(override_stale=True))
    assert (none.swr_s, none.sie_s) == (0, 0), "no window is a window too"
    strict = stored(f"{own}, must-revalidate", rules=rules)
    assert (strict.swr_s, strict.sie_s) == (0, 0)
    one_clients = stored("Cache-Control: max-age=0, stale-if-error=7", rules=rules)
    assert (one_clients.swr_s, one_clients.sie_s) == (0, 0)


def test_operators_lifetimes() -> None:
    rules = at_home(default_ttl_s=50.0, status_ttl_s={404: 5.0, 500: 1.0})
    assert lifetime(rules=rules) == 50
    assert lifetime(status=404, rules=rules) == 5
    assert lifetime(status=500, rules=rules) == 1
    assert lifetime(status=503, rules=rules) is None
    assert lifetime(MA, rules=rules) == 3600
    assert lifetime(LM, DATE, rules=rules) == 50
    assert outcome("Cache-Control: private", rules=rules) is Reason.PRIVATE


def test_override_wins_over_the_origin_but_not_over_the_client_or_cookies() -> None:
    rules = Rules(override_ttl_s=50.0)
    assert lifetime("Cache-Control: no-store, private, no-cache", "Vary: *, Foo", rules=rules) == 50
    plan = outcome("Cache-Control: no-cache", "Vary: *, Foo", rules=rules)
    assert isinstance(plan, Plan)
    assert not plan.no_cache
    assert plan.vary == ((b"foo", None),)
    assert outcome(MA, status=500, rules=Rules(override_ttl_s=50.0)) != Reason.RULE
    assert lifetime(MA, status=500, rules=rules) == 3600
    assert outcome(MA, asked=request("Authorization: x"), rules=rules) is Reason.AUTHORIZATION
    assert outcome(MA, "Set-Cookie: a", rules=rules) is Reason.SET_COOKIE
    assert outcome(MA, rules=Rules(override_ttl_s=0.0)) is Reason.RULE
