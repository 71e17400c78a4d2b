"""Cache behaviour 9: serving stale responses (RFC 9111 4.2.4, 5861)."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store, head, open_lab
from kit.client import RawClient
from kit.origin import Pause, Step

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRESH = "Cache-Control: max-age=60"


def away(lab: Lab) -> None:
    """The origin closes without a response, also when it is asked again."""
    lab.answers(Step.CLOSE)
    lab.answers(Step.CLOSE)


async def stale(lab: Lab, directives: str, after: float = 61) -> None:
    """Something stored that has become stale."""
    lab.says(f"Cache-Control: max-age=60{directives}", 'ETag: "a"', "X: 1", body="old")
    await lab.ask()
    lab.later(after)


async def test_an_origin_that_closes_is_stood_in_for(lab: Lab) -> None:
    await stale(lab, "")
    away(lab)
    response = await lab.ask()
    assert (response.status, response.body.content, from_store(response)) == (200, b"old", True)
    assert response.get(b"age") == b"61"
    assert b"ttl=-1" in (response.get(b"cache-status") or b"")


async def test_an_origin_that_cannot_be_reached_is_stood_in_for() -> None:
    async with open_lab() as lab:
        lab.fresh()
        await stale(lab, "")
        await lab.origin.stop()
        response = await lab.ask()
        assert (response.status, response.body.content) == (200, b"old")
        assert (await lab.ask(target="/never-stored")).status == 502


@pytest.mark.parametrize("directive", [", must-revalidate", ", proxy-revalidate", ", s-maxage=60", ", no-cache"])
async def test_not_at_all_where_it_is_forbidden(lab: Lab, directive: str) -> None:
    await stale(lab, directive)
    away(lab)
    response = await lab.ask()
    assert response.status in (502, 504)
    assert response.get(b"x") is response.get(b"etag") is response.get(b"age") is None
    assert b"old" not in response.body.content


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_stale_if_error_within_its_window(lab: Lab, status: int) -> None:
    await stale(lab, ", stale-if-error=100", after=159)
    lab.says(status=status, body="sick")
    response = await lab.ask()
    assert (response.status, response.body.content, from_store(response)) == (200, b"old", True)
    lab.later(1)
    lab.says(status=status, body="sick")
    assert (await lab.ask()).status == status
    away(lab)
    assert (await lab.ask()).body.content == b"old"  # a closed connection needs no directive


async def test_stale_if_error_does_not_hide_other_statuses(lab: Lab) -> None:
    await stale(lab, ", stale-if-error=100")
    lab.says(status=404, body="none")
    assert (await lab.ask()).status == 404


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_without_it_a_5xx_is_passed_on(lab: Lab, status: int) -> None:
    await stale(lab, "")
    lab.says(status=status, body="sick")
    assert (await lab.ask()).status == status
    lab.says(FRESH, status=304)  # and what is stored is still there
    assert (await lab.ask()).body.content == b"old"
    assert lab.last.get(b"if-none-match") == b'"a"'


async def test_a_setting_gives_a_window() -> None:
    async with open_lab("stale_if_error = '100s'") as lab:
        lab.fresh()
        await stale(lab, "")
        lab.says(status=503, body="sick")
        assert (await lab.ask()).body.content == b"old"


async def test_a_body_that_breaks_off_is_no_case_for_it(lab: Lab) -> None:
    await stale(lab, ", stale-if-error=100")
    lab.answers(head(200, (FRESH,), 10) + b"part", Step.CLOSE)
    response = await lab.ask()
    assert not response.complete
    assert [one.length for one in lab.stored()] == [3]


async def test_stale_while_revalidate_serves_at_once_and_validates_behind(lab: Lab) -> None:
    await stale(lab, ", stale-while-revalidate=100")
    lab.answers(Pause("go"), head(200, (FRESH, 'ETag: "b"'), 3) + b"new")
    for _ in range(3):
        response = await lab.ask("X-Asked: 1")
        assert (response.body.content, from_store(response)) == (b"old", True)
        assert response.get(b"age") == b"61"
    await lab.origin.wait_for("requests", 2)
    assert len(lab.asked) == 2  # once at a time
    assert (lab.last.get(b"if-none-match"), lab.last.get(b"x-asked")) == (b'"a"', b"1")
    lab.origin.release("go")
    await lab.rest()
    response = await lab.ask()
    assert (response.body.content, from_store(response)) == (b"new", True)
    assert len(lab.asked) == 2


async def test_past_the_window_it_is_validated_first(lab: Lab) -> None:
    await stale(lab, ", stale-while-revalidate=100", after=160)
    lab.says(FRESH, body="new")
    assert (await lab.ask()).body.content == b"new"


@pytest.mark.parametrize("directives", ["no-cache", "no-store", "private", "max-age=0"])
async def test_what_the_background_fetch_brings_replaces_even_when_less_cacheable(lab: Lab, directives: str) -> None:
    await stale(lab, ", stale-while-revalidate=100")
    lab.says(f"Cache-Control: {directives}", 'ETag: "b"', body="new")
    assert from_store(await lab.ask())
    await lab.rest()
    lab.says(FRESH, body="newer")
    response = await lab.ask()
    assert (response.body.content, from_store(response)) == (b"newer", False)


async def test_a_background_fetch_that_fails_is_tried_again(lab: Lab) -> None:
    await stale(lab, ", stale-while-revalidate=100")
    lab.says(status=500)
    assert from_store(await lab.ask())
    await lab.rest()
    lab.says(FRESH, status=304)
    assert (await lab.ask()).body.content == b"old"
    await lab.rest()
    assert len(lab.asked) == 3
    lab.later(59)
    assert from_store(await lab.ask())


async def test_the_client_of_a_refresh_may_leave(lab: Lab) -> None:
    await stale(lab, ", stale-while-revalidate=100")
    lab.answers(Pause("go"), head(304, (FRESH,), None))
    client = await RawClient.connect(lab.port)
    assert (await client.get(lab.target)).body.content == b"old"
    await client.close()
    lab.origin.release("go")
    await lab.rest()
    assert from_store(await lab.ask())
    assert len(lab.asked) == 2


async def test_warning_is_not_sent(lab: Lab) -> None:
    await stale(lab, "")
    away(lab)
    assert (await lab.ask()).get(b"warning") is None
