"""Cache behaviour 4: CDN-Cache-Control (RFC 9213, a Dictionary Structured Field)."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store, open_lab

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("why", "lines", "after", "reused"),
    [
        ("stores despite no-store", ("CDN-Cache-Control: max-age=60", "Cache-Control: no-store"), 30, True),
        ("fresh longer", ("CDN-Cache-Control: max-age=60", "Cache-Control: max-age=1"), 30, True),
        ("fresh shorter", ("CDN-Cache-Control: max-age=1", "Cache-Control: max-age=60"), 30, False),
        ("Expires is ignored", ("CDN-Cache-Control: max-age=60", "Expires: @-60", "Date: @0"), 30, True),
        ("forbids: no-store", ("CDN-Cache-Control: no-store", "Cache-Control: max-age=60"), 0, False),
        ("forbids: private", ("CDN-Cache-Control: private", "Cache-Control: max-age=60"), 0, False),
        ("forbids: no-cache", ("CDN-Cache-Control: no-cache", "Cache-Control: max-age=60"), 0, False),
        ("forbids: max-age=0", ("CDN-Cache-Control: max-age=0", "Cache-Control: max-age=60"), 0, False),
        ("alone", ("CDN-Cache-Control: max-age=60",), 59, True),
        ("alone, stale", ("CDN-Cache-Control: max-age=60",), 60, False),
        ("empty: as if not there", ("CDN-Cache-Control: ", "Cache-Control: max-age=60"), 30, True),
        ("keys are lower case", ("CDN-Cache-Control: Max-Age=60", "Cache-Control: no-store"), 0, False),
        ("no space around =", ("CDN-Cache-Control: max-age =60", "Cache-Control: no-store"), 0, False),
        ("no space after =", ("CDN-Cache-Control: max-age= 60", "Cache-Control: no-store"), 0, False),
        ("a syntax error spoils all", ("CDN-Cache-Control: max-age=60, &", "Cache-Control: max-age=1"), 30, False),
        ("and lets Cache-Control rule", ("CDN-Cache-Control: max-age=1, &", "Cache-Control: max-age=60"), 30, True),
        ("a string is no age", ('CDN-Cache-Control: max-age="60"', "Cache-Control: max-age=60"), 30, False),
        ("nor a decimal", ("CDN-Cache-Control: max-age=60.5", "Cache-Control: max-age=60"), 30, False),
        ("nor a token", ("CDN-Cache-Control: max-age=a", "Cache-Control: max-age=60"), 30, False),
        ("unknown members are ignored", ('CDN-Cache-Control: a=b, c, d="e", max-age=60',), 30, True),
        ("inside a string", ('CDN-Cache-Control: a="max-age=1", max-age=60',), 30, True),
        ("of one key the last counts (9651)", ("CDN-Cache-Control: max-age=1, max-age=60",), 30, True),
        ("the largest integer", ("CDN-Cache-Control: max-age=999999999999999",), 1e6, True),
        ("a larger one is invalid", ("CDN-Cache-Control: max-age=9999999999999999",), 0, False),
        ("several lines", ("CDN-Cache-Control: a", "CDN-Cache-Control: max-age=60"), 30, True),
        ("a negative one is stale", ("CDN-Cache-Control: max-age=-60", "Cache-Control: max-age=60"), 0, False),
        ("Age counts", ("CDN-Cache-Control: max-age=60", "Age: 60"), 0, False),
        ("Age counts in part", ("CDN-Cache-Control: max-age=60", "Age: 30"), 29, True),
    ],
)
async def test_the_targeted_field_rules(lab: Lab, why: str, lines: tuple[str, ...], after: float, reused: bool) -> None:
    assert await lab.reuses(*lines, after=after) is reused, why


async def test_it_is_forwarded_with_age_date_and_expires(lab: Lab) -> None:
    lab.says("CDN-Cache-Control: max-age=600", "Cache-Control: max-age=1", "Date: @0", "Expires: @1")
    first = await lab.ask()
    lab.later(100)
    again = await lab.ask()
    assert from_store(again)
    assert again.get(b"age") == b"100"
    for name in (b"cdn-cache-control", b"cache-control", b"date", b"expires"):
        assert first.get(name) == again.get(name) is not None


async def test_the_first_field_of_the_list_that_is_valid_rules() -> None:
    async with open_lab("targets = ['edge-control', 'cdn-cache-control']") as lab:
        lab.fresh()
        assert await lab.reuses("CDN-Cache-Control: max-age=1", "Edge-Control: max-age=60", after=30)
        lab.fresh()
        assert await lab.reuses("CDN-Cache-Control: max-age=60", "Edge-Control: &", after=30)
