"""Cache behaviour 11: request directives (RFC 9111 5.2.1, 5.4)."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store, open_lab

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONG = "Cache-Control: max-age=600"


@pytest.mark.parametrize(
    ("lines", "asked", "after", "reused"),
    [
        ((LONG,), "max-age=0", 0, False),
        ((LONG,), "max-age=10", 10, True),
        ((LONG,), "max-age=10", 11, False),
        ((LONG, "Age: 300"), "max-age=200", 0, False),
        ((LONG, "Age: 300"), "max-age=400", 0, True),
        ((LONG,), "min-fresh=500", 0, True),
        ((LONG,), "min-fresh=700", 0, False),
        ((LONG, "Age: 300"), "min-fresh=400", 0, False),
        ((LONG,), "max-stale=100", 650, True),
        ((LONG,), "max-stale=100", 701, False),
        ((LONG,), "max-stale", 3000, True),
        ((LONG, "Age: 700"), "max-stale=200", 0, True),
        ((LONG, "Age: 700"), "max-stale=50", 0, False),
        ((LONG,), "no-cache", 0, False),
        ((LONG,), "no-store", 0, False),
        ((LONG,), "unknown, another=1", 0, True),
    ],
)
async def test_a_directive_is_honoured(
    lab: Lab, lines: tuple[str, ...], asked: str, after: float, reused: bool
) -> None:
    assert await lab.reuses(*lines, again=(f"Cache-Control: {asked}",), after=after) is reused


@pytest.mark.parametrize("asked", ["no-cache", "max-age=0", "min-fresh=9999"])
async def test_they_validate_with_conditions(lab: Lab, asked: str) -> None:
    lab.says(LONG, 'ETag: "a"', "Last-Modified: @-1000", body="kept")
    modified = (await lab.ask()).get(b"last-modified")
    lab.says(LONG, 'ETag: "a"', status=304)
    response = await lab.ask(f"Cache-Control: {asked}")
    assert (lab.last.get(b"if-none-match"), lab.last.get(b"if-modified-since")) == (b'"a"', modified)
    assert (response.status, response.body.content) == (200, b"kept")


async def test_no_store_neither_answers_nor_stores(lab: Lab) -> None:
    lab.says(LONG, body="one")
    await lab.ask("Cache-Control: no-store")
    assert lab.stored() == ()
    lab.says(LONG, body="two")
    assert (await lab.ask()).body.content == b"two"
    lab.says(LONG, body="three")
    assert (await lab.ask("Cache-Control: no-store")).body.content == b"three"
    assert (await lab.ask()).body.content == b"two"


async def test_only_if_cached(lab: Lab) -> None:
    response = await lab.ask("Cache-Control: only-if-cached")
    assert (response.status, lab.asked) == (504, [])
    lab.says(LONG)
    await lab.ask()
    assert from_store(await lab.ask("Cache-Control: only-if-cached"))
    lab.later(601)
    assert (await lab.ask("Cache-Control: only-if-cached")).status == 504
    assert from_store(await lab.ask("Cache-Control: only-if-cached, max-stale"))
    assert len(lab.asked) == 1


async def test_pragma_counts_where_there_is_no_cache_control(lab: Lab) -> None:
    assert not await lab.reuses(LONG, again=("Pragma: no-cache",))
    lab.fresh()
    assert await lab.reuses(LONG, again=("Pragma: no-cache", "Cache-Control: max-age=100"))
    lab.fresh()
    assert await lab.reuses(LONG, again=("Pragma: other",))


@pytest.mark.parametrize("asked", ["no-cache", "max-age=0", "min-fresh=9999", "no-store", "only-if-cached, max-age=0"])
async def test_ignoring_them_is_a_setting(asked: str) -> None:
    async with open_lab("request_directives = 'ignore'") as lab:
        lab.fresh()
        assert await lab.reuses(LONG, again=(f"Cache-Control: {asked}",))
        lab.fresh()
        assert await lab.reuses(LONG, first=("Cache-Control: no-store",), again=("Pragma: no-cache",))
