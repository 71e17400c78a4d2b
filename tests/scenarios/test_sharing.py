"""What one client was given is another's only with the origin's permission to reuse it.

Each client here has a cookie of its own, and the origin's first answer is the first client's: nobody else may see it.
"""

from __future__ import annotations

import pytest
from crowds import crowd, ended, read, send, waiting
from kit.cachelab import Lab, from_store, head, open_lab, reply, request, until
from kit.client import RawClient
from kit.origin import Pause, Step

FRESH = "Cache-Control: max-age=60"
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


async def test_who_waits_for_a_validation_does_not_get_what_turns_out_to_vary() -> None:
    async with open_lab() as lab, crowd(lab, 3) as clients:
        lab.fresh()
        lab.says("Cache-Control: max-age=1, stale-while-revalidate=0", 'ETag: "a"', body="first's")
        await lab.ask("Cookie: who=first")
        lab.later(5)
        lab.answers(Pause("go"), head(304, (FRESH, 'ETag: "a"', "Vary: Cookie"), None))
        await send(lab, clients[:1], "Cookie: who=first")
        await until(lambda: len(lab.asked) == 2)
        await send(lab, clients[1:], "Cookie: who=other")
        await until(lambda: waiting(lab) == 2)
        lab.origin.default = (reply(FRESH, 'ETag: "b"', "Vary: Cookie", body="other's"),)
        lab.origin.release("go")
        assert [each.body.content for each in await read(clients)] == [b"first's", b"other's", b"other's"]
        await ended(lab)
        lab.origin.default = (Step.CLOSE,)
        assert (await lab.ask("Cookie: who=first")).body.content == b"first's"
        assert (await lab.ask("Cookie: who=third", "Cache-Control: max-stale")).status >= 500, "no place but its own"


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


LIMITED = 'Cache-Control: max-age=60, no-cache="set-cookie"'


@pytest.mark.parametrize(
    ("rules", "line"), [("set_cookie = 'strip'", "Cache-Control: max-age=60"), ("", LIMITED)], ids=["strip", "limited"]
)
@pytest.mark.parametrize("asked", [(), ('If-None-Match: "a"',)], ids=["plain", "conditional"])
async def test_a_cookie_that_is_not_kept_reaches_who_validated_and_nobody_else(
    rules: str, line: str, asked: tuple[str, ...]
) -> None:
    async with open_lab(rules=rules) as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=1", 'ETag: "a"', body="page")
        await lab.ask()
        lab.later(5)
        lab.says('ETag: "a"', line, "Set-Cookie: s=1; Path=/", "Set-Cookie: t=2", status=304)
        first = await lab.ask(*asked)
        assert (first.status, first.get(b"set-cookie")) == (304 if asked else 200, b"s=1; Path=/, t=2")
        second = await lab.ask()
        assert (second.status, second.get(b"set-cookie"), second.body.content) == (200, None, b"page")
        assert len(lab.asked) == 2


async def test_who_shares_a_validation_does_not_get_the_cookie() -> None:
    async with open_lab(rules="set_cookie = 'strip'") as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=1", 'ETag: "a"', body="page")
        await lab.ask()
        await lab.hang_up()
        lab.later(5)
        lab.origin.forget()
        lab.answers(Pause("go"), reply("Cache-Control: max-age=60", 'ETag: "a"', "Set-Cookie: s=1", status=304))
        clients = [await RawClient.connect(lab.port) for _ in range(3)]
        for client in clients:
            await client.send(request(target=lab.target))
            await lab.origin.wait_for("requests", 1)
        await until(lambda: sum(each.exchange is not None for each in lab.worker.downstreams) == 3)
        lab.origin.release("go")
        found = [await client.read_response() for client in clients]
        assert [each and each.get(b"set-cookie") for each in found] == [b"s=1", None, None]
        for client in clients:
            await client.close()


def part_of(lab: Lab, first: int, last: int, tag: str, line: str) -> None:
    """What the origin says to one range."""
    body = "".join(chr(ord("a") + at % 26) for at in range(first, last + 1))
    lab.says(line, f'ETag: "{tag}"', f"Content-Range: bytes {first}-{last}/100", status=206, body=body)


@pytest.mark.parametrize("ranges", [("0-9", "50-59"), ("0-9", "2-5")], ids=["two parts", "two ranges of one part"])
@pytest.mark.parametrize("changed", [False, True])
async def test_two_ranges_that_are_validated_at_once_do_not_share(ranges: tuple[str, str], changed: bool) -> None:
    async with open_lab() as lab:
        lab.fresh()
        for first, last in ((0, 9), (50, 59)):
            part_of(lab, first, last, "a", "Cache-Control: max-age=1")
            await lab.ask(f"Range: bytes={first}-{last}")
        await lab.hang_up()
        lab.later(5)
        lab.origin.forget()
        clients = [await RawClient.connect(lab.port) for _ in ranges]
        for number, (client, asked) in enumerate(zip(clients, ranges, strict=True)):
            first, last = map(int, asked.split("-"))
            content = ("A" if number else "B") * (last - first + 1)
            new = reply(FRESH, 'ETag: "b"', f"Content-Range: bytes {asked}/100", status=206, body=content)
            lab.answers(Pause("go"), new if changed else reply(FRESH, 'ETag: "a"', status=304))
            await client.send(request(f"Range: bytes={asked}", target=lab.target))
            await lab.origin.wait_for("requests", 1)
        await until(lambda: sum(each.exchange is not None for each in lab.worker.downstreams) == 2)
        lab.origin.release("go")
        for client, asked in zip(clients, ranges, strict=True):
            found = await client.read_response()
            assert found is not None
            assert (found.status, found.get(b"content-range")) == (206, b"bytes %b/100" % asked.encode())
            first, last = map(int, asked.split("-"))
            assert len(found.body.content) == last - first + 1
            await client.close()
        assert len(lab.asked) == 2
