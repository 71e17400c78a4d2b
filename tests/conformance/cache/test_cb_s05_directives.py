"""Cache behaviour 5: no-cache, must-revalidate and their kin (RFC 9111 5.2.2)."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store
from kit.origin import Step

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("value", ["no-cache", "No-CaChE", "max-age=600, no-cache", "no-cache, s-maxage=600"])
@pytest.mark.parametrize("expires", [(), ("Expires: @600", "Date: @0")])
async def test_no_cache_is_stored_and_validated_before_each_reuse(
    lab: Lab, value: str, expires: tuple[str, ...]
) -> None:
    lab.says(f"Cache-Control: {value}", 'ETag: "a"', "Last-Modified: @-1000", *expires, body="kept")
    modified = (await lab.ask()).get(b"last-modified")
    for _ in range(2):
        lab.says('ETag: "a"', f"Cache-Control: {value}", status=304)
        response = await lab.ask()
        assert (response.status, response.body.content) == (200, b"kept")
        assert lab.last.get(b"if-none-match") == b'"a"'
        assert lab.last.get(b"if-modified-since") == modified
    assert len(lab.asked) == 3


async def test_no_cache_without_validators_is_asked_for_plainly(lab: Lab) -> None:
    assert not await lab.reuses("Cache-Control: max-age=600, no-cache")
    lab.fresh()
    lab.says("Cache-Control: max-age=600, no-cache")
    await lab.ask()
    lab.says()
    await lab.ask()
    assert lab.last.get(b"if-none-match") is lab.last.get(b"if-modified-since") is None


async def test_no_cache_with_fields_leaves_them_out_and_needs_no_validation(lab: Lab) -> None:
    lab.says('Cache-Control: no-cache="a, B"', "A: 1", "B: 2", "C: 3", "Cache-Control: max-age=60")
    first, again = await lab.ask(), await lab.ask()
    assert from_store(again)
    assert [first.get(name) for name in (b"a", b"b", b"c")] == [b"1", b"2", b"3"]
    assert [again.get(name) for name in (b"a", b"b", b"c")] == [None, None, b"3"]


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
async def test_normal_while_fresh_and_never_served_stale(lab: Lab, directive: str) -> None:
    windows = "stale-while-revalidate=99, stale-if-error=99"
    lab.says(f"Cache-Control: max-age=60, {directive}, {windows}", 'ETag: "a"', "X: 1")
    await lab.ask()
    assert from_store(await lab.ask())
    lab.later(61)
    lab.answers(Step.CLOSE)
    lab.answers(Step.CLOSE)
    away = await lab.ask()
    assert away.status in (502, 504)
    assert away.get(b"x") is away.get(b"etag") is away.get(b"age") is None
    assert lab.last.get(b"if-none-match") == b'"a"'
    lab.says(status=503, body="sick")
    assert (await lab.ask()).status == 503
    lab.says("Cache-Control: max-age=60", status=304)
    assert (await lab.ask()).status == 200


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
async def test_max_stale_of_the_request_does_not_help(lab: Lab, directive: str) -> None:
    again = ("Cache-Control: max-stale",)
    assert not await lab.reuses(f"Cache-Control: max-age=60, {directive}", again=again, after=61)
