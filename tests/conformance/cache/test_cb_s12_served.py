"""Cache behaviour 12: Age and Cache-Status of what is served (RFC 9111 4, 5.1, 9211)."""

from __future__ import annotations

import asyncio

import pytest
from kit.cachelab import Lab, from_store, head, open_lab
from kit.origin import Pause, Step

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRESH = "Cache-Control: max-age=600"


@pytest.mark.parametrize(
    ("lines", "age"),
    [
        ((FRESH, "Date: @0"), 5),
        ((FRESH, "Date: @0", "Age: 30"), 35),
        (("Expires: @600", "Date: @0", "Age: 30"), 35),
        (("Expires: @600", "Date: @-40"), 45),
        (("Last-Modified: @-99999", "Date: @0", "Age: 30"), 35),
        ((FRESH, "Date: @50"), 5),
        ((FRESH, "Age: x"), 5),
    ],
)
async def test_age_on_what_comes_from_store_is_the_full_age_once(lab: Lab, lines: tuple[str, ...], age: int) -> None:
    lab.says(*lines)
    await lab.ask()
    lab.later(5)
    response = await lab.ask()
    assert from_store(response)
    assert response.get(b"age") == b"%d" % age


async def test_age_after_a_validation_is_that_of_the_304(lab: Lab) -> None:
    lab.says(FRESH, 'ETag: "a"', "Age: 600")
    await lab.ask()
    lab.says(FRESH, "Age: 7", status=304)
    assert (await lab.ask()).get(b"age") == b"7"


@pytest.mark.parametrize(("lines", "first", "later"), [((), None, b"0"), (("Age: 7",), b"7", b"7")])
async def test_straight_from_the_origin_age_is_what_it_gave(
    lab: Lab, lines: tuple[str, ...], first: bytes | None, later: bytes
) -> None:
    lab.says(FRESH, *lines)
    assert (await lab.ask()).get(b"age") == first
    assert (await lab.ask()).get(b"age") == later


@pytest.mark.parametrize(("lines", "age"), [((), b"3"), (("Age: 7",), b"10"), (("Age: 7, 9", "Age: 1"), b"10")])
async def test_and_the_time_that_it_took_where_that_is_a_second_or_more(
    lab: Lab, lines: tuple[str, ...], age: bytes
) -> None:
    lab.answers(Pause("go"), head(200, (FRESH, *lines), 0))
    asking = asyncio.ensure_future(lab.ask())
    await lab.origin.wait_for("requests", 1)
    lab.later(3.2)
    lab.origin.release("go")
    assert (await asking).get(b"age") == age
    assert (await lab.ask()).get(b"age") == age


async def test_an_age_is_never_negative_when_the_clock_jumps_back(lab: Lab) -> None:
    lab.says(FRESH)
    await lab.ask()
    lab.later(-100)
    response = await lab.ask()
    assert (from_store(response), response.get(b"age")) == (True, b"0")
    lab.later(100)


async def test_what_came_later_than_it_is_now_is_validated_whatever_its_lifetime(lab: Lab) -> None:
    lab.says(FRESH, 'ETag: "a"')
    await lab.ask()
    assert from_store(await lab.ask())
    lab.later(-3600)
    lab.says(FRESH, 'ETag: "a"', status=304)
    assert await status_of(lab) == "edge; fwd=stale; fwd-status=304; ttl=600; detail=stale"
    response = await lab.ask()
    assert (from_store(response), response.get(b"age")) == (True, b"0")
    lab.later(-3600)
    lab.answers(Step.CLOSE)
    lab.answers(Step.CLOSE)
    assert (await lab.ask()).status == 200, "better than nothing"
    lab.later(7200)


async def status_of(lab: Lab, *lines: str, **how: str) -> str:
    response = await lab.ask(*lines, **how)
    told = response.get(b"cache-status")
    assert told is not None
    return told.decode()


async def test_cache_status_tells_what_was_done_and_why(lab: Lab) -> None:
    lab.says(FRESH, 'ETag: "a"')
    assert await status_of(lab) == "edge; fwd=uri-miss; ttl=600; stored; detail=cold"
    lab.later(10)
    assert await status_of(lab) == "edge; hit; ttl=590"
    assert await status_of(lab, 'If-None-Match: "a"') == "edge; hit; ttl=590"
    lab.says(FRESH, 'ETag: "a"', status=304)
    told = await status_of(lab, "Cache-Control: no-cache")
    assert told == "edge; fwd=request; fwd-status=304; ttl=600; detail=request"
    lab.later(601)
    lab.says(FRESH, 'ETag: "a"', status=304)
    assert await status_of(lab) == "edge; fwd=stale; fwd-status=304; ttl=600; detail=stale"
    lab.later(601)
    lab.answers(Step.CLOSE)
    lab.answers(Step.CLOSE)
    assert await status_of(lab) == "edge; hit; ttl=-1; detail=connect-error"
    lab.says()
    assert await status_of(lab, "Cache-Control: no-store") == "edge; fwd=request; detail=no-store"


async def test_cache_status_of_what_is_not_stored(lab: Lab) -> None:
    for lines, word in [
        (("Cache-Control: no-store",), "no-store"),
        (("Cache-Control: private",), "private"),
        ((FRESH, "Vary: *"), "vary-star"),
        ((), "no-freshness"),
        (("Cache-Control: must-understand, max-age=9",), "status"),
    ]:
        lab.says(*lines, status=599 if word == "status" else 200)
        assert await status_of(lab, target=f"{lab.target}/{word}") == f"edge; fwd=uri-miss; detail={word}"
    lab.says(FRESH)
    told = await status_of(lab, "Authorization: x", target=f"{lab.target}/secret")
    assert told == "edge; fwd=uri-miss; detail=authorization"
    lab.says(status=206)
    assert await status_of(lab, "Range: bytes=0-1", target=f"{lab.target}/r") == "edge; fwd=uri-miss; detail=range"
    lab.says()
    assert await status_of(lab, method="POST", target=f"{lab.target}/p") == "edge; fwd=method; detail=method"
    assert await status_of(lab, "Cache-Control: only-if-cached") == "edge; detail=only-if-cached"
    lab.says(FRESH, "Vary: Foo")
    await lab.ask("Foo: 1")
    lab.says(FRESH, "Vary: Foo")
    assert await status_of(lab, "Foo: 2") == "edge; fwd=vary-miss; ttl=600; stored; detail=vary"


async def test_cache_status_of_rules_sizes_and_cookies() -> None:
    rules = "set_cookie = 'refuse', max_object = '10B', name = 'shop', bypass = { cookies = ['session'] }"
    async with open_lab(rules) as lab:
        lab.fresh()
        lab.says(FRESH, body="more than ten bytes")
        assert await status_of(lab) == "edge; fwd=uri-miss; detail=size"
        lab.says(FRESH, "Set-Cookie: a=b")
        assert await status_of(lab, target="/c") == "edge; fwd=uri-miss; detail=set-cookie"
        lab.says(FRESH)
        assert await status_of(lab, "Cookie: session=1", target="/b") == "edge; fwd=bypass; detail=rule:shop"


async def test_an_origins_own_cache_status_stays_before_ours(lab: Lab) -> None:
    lab.says(FRESH, "Cache-Status: origin; hit")
    assert (await status_of(lab)).startswith("origin; hit, edge; fwd=")


async def test_cache_status_is_on_errors_too(lab: Lab) -> None:
    lab.answers(Step.CLOSE)
    lab.answers(Step.CLOSE)
    assert (await status_of(lab)).startswith("edge; fwd=uri-miss")
