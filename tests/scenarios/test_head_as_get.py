"""HEAD fetched as GET (`head_as_get`): it fills the store, the client gets the head alone, and nothing else changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kit.cachelab import Lab, from_store, head, open_lab, reply, request
from kit.client import RawClient
from kit.origin import Pause

ON = "head_as_get = true"
FRESH = "Cache-Control: max-age=60"
BODY = b"x" * 5000


def methods(lab: Lab) -> list[bytes]:
    """What the origin was asked with."""
    return [each.method for each in lab.asked]


async def test_it_is_off_by_default() -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.answers(head(200, (FRESH,), 5000))
        assert (await lab.ask(method="HEAD")).status == 200
        assert methods(lab) == [b"HEAD"]
        assert not lab.stored()


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("length", [5000, 1_500_000])
async def test_a_head_fills_the_store(disk: bool, length: int, tmp_path: Path) -> None:
    async with open_lab(ON, memory="16MiB", disk=str(tmp_path) if disk else "") as lab:
        lab.fresh()
        lab.says(FRESH, 'ETag: "a"', body=b"x" * length)
        found = await lab.ask(method="HEAD")
        assert found.status == 200
        assert found.get(b"content-length") == b"%d" % length
        assert not from_store(found)
        await lab.rest()
        later = await lab.ask()
        assert from_store(later)
        assert later.body.content == b"x" * length
        assert from_store(await lab.ask(method="HEAD"))
        assert methods(lab) == [b"GET"]


async def test_a_body_without_a_length_is_not_written_to_it() -> None:
    async with open_lab(ON) as lab:
        lab.fresh()
        lab.answers(head(200, (FRESH, "Transfer-Encoding: chunked"), None) + b"5\r\nhello\r\n", b"0\r\n\r\n")
        assert (await lab.ask(method="HEAD")).status == 200
        lab.says(FRESH, body="other")
        assert (await lab.ask(target="/other")).body.content == b"other"  # on the same connection
        await lab.rest()
        assert (await lab.ask()).body.content == b"hello"


async def test_the_client_has_its_answer_before_the_body_came() -> None:
    async with open_lab(ON) as lab:
        lab.fresh()
        lab.answers(head(200, (FRESH,), 5000) + BODY[:100], Pause("rest"), BODY[100:])
        assert (await lab.ask(method="HEAD")).status == 200
        asked = asyncio.create_task(lab.ask())  # joins the fill
        await asyncio.sleep(0)
        lab.origin.release("rest")
        assert (await asked).body.content == BODY
        assert methods(lab) == [b"GET"]


async def test_heads_and_gets_share_one_fetch() -> None:
    async with open_lab(ON) as lab:
        lab.fresh()
        lab.answers(Pause("go"), reply(FRESH, body=BODY))
        clients = [await RawClient.connect(lab.port) for _ in range(6)]
        wanted = ["HEAD", "GET", "HEAD", "GET", "GET", "HEAD"]
        for client, method in zip(clients, wanted, strict=True):
            await client.send(request(method=method, target=lab.target))
            await lab.origin.wait_for("requests", 1)
        lab.origin.release("go")
        for client, method in zip(clients, wanted, strict=True):
            found = await client.read_response(method.encode())
            assert found is not None
            assert found.status == 200
            assert found.body.content == (BODY if method == "GET" else b"")
            await client.close()
        assert methods(lab) == [b"GET"]
        await lab.rest()


async def test_a_stale_response_is_validated_by_it() -> None:
    async with open_lab(ON) as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=1", 'ETag: "a"', body=BODY)
        await lab.ask()
        lab.later(5)
        lab.says(FRESH, 'ETag: "a"', status=304)
        found = await lab.ask(method="HEAD")
        assert found.status == 200
        assert lab.last.method == b"GET"
        assert lab.last.get(b"if-none-match") == b'"a"'
        assert from_store(await lab.ask())


async def test_what_is_not_stored_is_asked_as_head_the_next_time() -> None:
    async with open_lab(ON) as lab:
        lab.fresh()
        lab.answers(head(200, ("Cache-Control: no-store",), 5_000_000) + b"x" * 1000, Pause("never"))
        assert (await lab.ask(method="HEAD")).status == 200
        await lab.rest()  # nobody wants the body, and nothing waits for it
        lab.answers(head(200, ("Cache-Control: no-store",), 5_000_000))
        assert (await lab.ask(method="HEAD")).status == 200
        assert methods(lab) == [b"GET", b"HEAD"]


@pytest.mark.parametrize("line", ["Range: bytes=0-9", "Cache-Control: no-store", "Authorization: Basic eDp5"])
async def test_where_the_rules_do_not_allow_it_a_head_is_a_head(line: str) -> None:
    async with open_lab(ON) as lab:
        lab.fresh()
        lab.answers(head(200, (FRESH,), 5000))
        found = await lab.ask(line, method="HEAD")
        assert found.status == 200
        if not line.startswith("Authorization"):
            assert methods(lab) == [b"HEAD"]
        assert not lab.stored()
