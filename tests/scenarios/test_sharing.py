"""What one client was given is another's only with the origin's permission to reuse it (SECURITY 22).

Each client here has a cookie of its own, and the origin's first answer is the first client's: nobody else may see it.
"""

from __future__ import annotations

import pytest
from kit.cachelab import from_store, head, open_lab, reply, until
from kit.origin import Pause, Step
from test_collapse import crowd, ended, read, send, waiting

OTHERS = 20
PRIVATE_LIKE = [
    ('ETag: "a"',),
    ("Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT", "Cache-Control: max-age=0"),
    ("Cache-Control: max-age=0", 'ETag: "a"'),
    ("Cache-Control: s-maxage=0", 'ETag: "a"'),
    ("Expires: 0", 'ETag: "a"'),
    ("Cache-Control: no-cache", 'ETag: "a"'),
    ("Cache-Control: public, no-cache", 'ETag: "a"'),
    ("Cache-Control: public, max-age=60", "Set-Cookie: session=first"),
]
pages = pytest.mark.parametrize("lines", PRIVATE_LIKE, ids=", ".join)


@pages
async def test_who_waits_for_a_page_that_is_not_for_all_asks_for_itself(lines: tuple[str, ...]) -> None:
    async with open_lab(rules="set_cookie = 'refuse'") as lab, crowd(lab, OTHERS + 1) as clients:
        lab.fresh()
        lab.answers(Pause("head"), head(200, lines, 4) + b"mine")
        await send(lab, clients[:1], "Cookie: session=first")
        await until(lambda: len(lab.asked) == 1)
        await send(lab, clients[1:], "Cookie: session=other")
        await until(lambda: waiting(lab) == OTHERS)
        lab.origin.default = (reply(*lines, body="ours"),)
        lab.origin.release("head")
        assert {each.body.content for each in await read(clients[1:])} == {b"ours"}
        assert [each.body.content for each in await read(clients[:1])] == [b"mine"]
        assert len(lab.asked) == OTHERS + 1
        await ended(lab)


@pages
async def test_it_is_remembered_so_that_the_next_wait_for_nobody(lines: tuple[str, ...]) -> None:
    async with open_lab(rules="set_cookie = 'refuse'") as lab, crowd(lab, 4) as clients:
        lab.fresh()
        lab.says(*lines, body="mine")
        await lab.ask("Cookie: session=first")
        lab.answers(Pause("head"), head(200, lines, 4) + b"slow")
        await send(lab, clients[:1], "Cookie: session=second")
        await until(lambda: len(lab.asked) == 2)
        lab.origin.default = (reply(*lines, body="ours"),)
        await send(lab, clients[1:], "Cookie: session=other")
        assert {each.body.content for each in await read(clients[1:])} == {b"ours"}
        lab.origin.release("head")
        assert [each.body.content for each in await read(clients[:1])] == [b"slow"]
        await ended(lab)


async def test_a_validation_is_for_who_asked() -> None:
    """304 says that the first client's page is still the first client's."""
    async with open_lab() as lab, crowd(lab, 3) as clients:
        lab.fresh()
        lab.says('ETag: "a"', body="mine")
        await lab.ask("Cookie: session=first")
        lab.answers(Pause("head"), reply('ETag: "a"', status=304))
        await send(lab, clients[:1], "Cookie: session=first")
        await until(lambda: len(lab.asked) == 2)
        lab.origin.default = (reply('ETag: "b"', body="ours"),)
        await send(lab, clients[1:], "Cookie: session=other")
        assert {each.body.content for each in await read(clients[1:])} == {b"ours"}
        lab.origin.release("head")
        assert [each.body.content for each in await read(clients[:1])] == [b"mine"]


@pytest.mark.parametrize("lines", PRIVATE_LIKE[:5], ids=", ".join)
async def test_in_an_outage_it_is_nobodys(lines: tuple[str, ...]) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says(*lines, body="mine")
        await lab.ask("Cookie: session=first")
        assert lab.stored() != ()
        lab.answers(Step.CLOSE)
        lab.answers(Step.CLOSE)
        response = await lab.ask("Cookie: session=other")
        assert response.status in (502, 504) and b"mine" not in response.body.content


WINDOWS = "stale_if_error = '1d', stale_on_outage = '1d', stale_while_revalidate = '1d'"


@pytest.mark.parametrize("lines", PRIVATE_LIKE[:6], ids=", ".join)
@pytest.mark.parametrize("wish", ["max-stale", "max-stale=60, stale-if-error=60"])
async def test_neither_the_operators_stale_windows_nor_a_client_open_it(lines: tuple[str, ...], wish: str) -> None:
    async with open_lab(WINDOWS) as lab:
        lab.fresh()
        lab.says(*lines, body="mine")
        await lab.ask("Cookie: session=first")
        lab.later(5)
        for script in ((Step.CLOSE, Step.CLOSE), (reply(status=503), reply(status=503)), (reply(body="ours"),)):
            for each in script:
                lab.answers(each)
            for asked in ((), (f"Cache-Control: {wish}",)):
                lab.origin.default = (reply("Cache-Control: no-store", status=503, body="ours"),)
                response = await lab.ask("Cookie: session=other", *asked)
                assert b"mine" not in response.body.content and not from_store(response)


@pytest.mark.parametrize(
    "lines",
    [
        ("Cache-Control: max-age=1",),
        ("Cache-Control: public, max-age=0", 'ETag: "a"'),
        ("Cache-Control: max-age=0, stale-if-error=60", 'ETag: "a"'),
    ],
    ids=", ".join,
)
async def test_what_was_for_all_stands_in(lines: tuple[str, ...]) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says(*lines, body="all's")
        await lab.ask()
        lab.later(5)
        lab.answers(Step.CLOSE)
        lab.answers(Step.CLOSE)
        response = await lab.ask()
        assert (response.status, response.body.content) == (200, b"all's")


async def test_a_cookie_in_a_304_is_its_clients_alone() -> None:
    async with open_lab(rules="set_cookie = 'refuse'") as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=1", 'ETag: "a"', body="page")
        await lab.ask()
        lab.later(5)
        lab.says('ETag: "a"', "Cache-Control: max-age=60, public", "Set-Cookie: session=first", status=304)
        first = await lab.ask()
        assert (first.get(b"set-cookie"), first.body.content) == (b"session=first", b"page")
        lab.says("Cache-Control: max-age=60", 'ETag: "a"', body="page")
        second = await lab.ask()
        assert second.get(b"set-cookie") is None
