"""Requests wait in a worker while its machine catches up with the fleet, however they would have been answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from kit.cachelab import HOST, Lab, from_store, open_lab, request, until
from kit.client import RawClient, Response
from kit.http2 import Http2Client, request_head

from edge.dataplane.caching.others import follow
from edge.dataplane.client.connection import ClientConnection

FRESH = ("Cache-Control: max-age=600", 'ETag: "1"')
STANDING = {"in_step": False, "blind": False, "line": ["", "", "", 0], "offset_s": 0.0, "lease_s": 3600.0}


def lab_with(extra: str = "") -> AbstractAsyncContextManager[Lab]:
    """One that speaks HTTP/2 too."""
    return open_lab(edit=lambda text: text.replace("[log]", "h2c = true\n[log]") + extra)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with lab_with() as made:
        yield made


def told(lab: Lab, catching_up: bool, **other: object) -> None:
    """What the supervisor says."""
    follow(lab.worker, {**STANDING, "catching_up": catching_up, **other})


async def held(lab: Lab, ask: Callable[[], asyncio.Future[Response]]) -> asyncio.Future[Response]:
    """A request that waits now."""
    before = waiting(lab)
    asked = ask()
    await until(lambda: waiting(lab) > before)
    assert not asked.done()
    return asked


def waiting(lab: Lab) -> int:
    """Requests that came to a worker and were not answered."""
    found = [each for each in lab.worker.downstreams if isinstance(each, ClientConnection)]
    return len([each for each in found if each.exchange is not None])


async def one(lab: Lab, *lines: str, method: str = "GET") -> Response:
    """A request on a connection of its own."""
    client = await RawClient.connect(lab.port)
    try:
        await client.send(request(*lines, method=method, target=lab.target))
        found = await client.read_response(method.encode())
        assert found is not None
        return found
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("GET", ()),
        ("GET", ("Cookie: a=b",)),
        ("GET", ("Range: bytes=0-1",)),
        ("HEAD", ()),
        ("GET", ("X-A: b", "Accept: *")),
    ],
    ids=["the quick way", "the full way", "a part", "a head", "fields"],
)
async def test_a_hit_waits_and_is_a_hit_then(lab: Lab, method: str, lines: tuple[str, ...]) -> None:
    lab.fresh()
    lab.says(*FRESH, body="hello")
    await lab.ask()
    told(lab, True)
    asked = await held(lab, lambda: asyncio.ensure_future(one(lab, *lines, method=method)))
    told(lab, False, in_step=True)
    assert from_store(await asked) and len(lab.asked) == 1
    assert from_store(await lab.ask()) and lab.worker.quick, "nothing waits any more"


async def test_hits_on_streams_of_one_connection_wait(lab: Lab) -> None:
    lab.fresh()
    lab.says(*FRESH, body="hello")
    await lab.ask()
    client = await Http2Client.connect(lab.port)
    told(lab, True)
    streams = [client.ask(request_head(lab.target.encode(), host=HOST.encode())) for _ in range(3)]
    await client.ping()  # they have been read
    assert not any(client.answers[each].over for each in streams)
    told(lab, False, in_step=True)
    assert [(await client.answer(each)).body for each in streams] == [b"hello"] * 3 and len(lab.asked) == 1
    await client.close()


async def test_what_is_not_stored_waits_too(lab: Lab) -> None:
    lab.fresh()
    told(lab, True)
    asked = await held(lab, lambda: asyncio.ensure_future(one(lab)))
    assert not lab.asked
    lab.says(*FRESH, body="hello")
    told(lab, False)
    assert (await asked).body.content == b"hello"


async def test_who_is_not_in_step_in_time_validates(lab: Lab) -> None:
    """The worker does it by itself; what its supervisor says afterwards holds nothing back."""
    lab.fresh()
    lab.says(*FRESH, body="hello")
    await lab.ask()
    told(lab, True, lease_s=0.05)
    asked = await held(lab, lambda: asyncio.ensure_future(one(lab)))
    lab.says(*FRESH, status=304)
    assert (await asked).body.content == b"hello" and len(lab.asked) == 2, "it was validated"
    told(lab, True)
    lab.says(*FRESH, status=304)
    assert (await one(lab)).status == 200 and len(lab.asked) == 3


async def test_a_client_that_leaves_is_not_waited_for(lab: Lab) -> None:
    lab.fresh()
    told(lab, True)
    asked = await held(lab, lambda: asyncio.ensure_future(one(lab)))
    asked.cancel()
    await until(lambda: waiting(lab) == 0)
    told(lab, False)
    lab.says(*FRESH, body="hello")
    assert (await lab.ask()).body.content == b"hello" and len(lab.asked) == 1


async def test_what_no_cache_answers_does_not_wait() -> None:
    async with lab_with('[[routes]]\nhost = "*"\npath = "/plain"\npool = "origin"\ncache = false') as lab:
        told(lab, True)
        lab.says(body="plain")
        assert (await lab.ask(target="/plain")).body.content == b"plain"
