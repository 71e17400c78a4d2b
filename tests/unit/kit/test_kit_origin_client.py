"""The kit itself: client wired to origin, so that each verdict of the reader and each step of a script is seen once."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from kit.client import RawClient
from kit.message import Framing, Malformed
from kit.origin import Pause, ScriptedOrigin, Step
from kit.ports import LOOPBACK
from kit.waiting import WAIT_S

Connect = Callable[[int], Awaitable[RawClient]]
HEAD = b"HTTP/1.1 200 OK\r\n"


async def test_requests_are_recorded_and_the_connection_is_kept(origin: ScriptedOrigin, raw_client: Connect) -> None:
    client = await raw_client(origin.port)
    await client.send(
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nT: v\r\n\r\n"
    )
    response = await client.read_response()
    assert response is not None
    assert (response.status, response.body.content, response.complete, response.closed) == (200, b"ok", True, False)
    assert (await client.get("/b")).status == 200
    body = origin.requests[0].body
    assert body is not None
    assert (body.framing, body.content, body.trailers, body.extensions) == (
        Framing.CHUNKED, b"abc", ((b"T", b"v"),), (b";e=1",),
    )  # fmt: skip
    assert origin.targets() == [b"/a", b"/b"]
    assert (origin.counters["connections"], origin.counters["requests"]) == (1, 2)


@pytest.mark.parametrize(
    ("script", "complete", "aborted"),
    [
        ((HEAD + b"\r\nall", Step.CLOSE), True, False),
        ((HEAD + b"\r\nall", Pause("seen"), Step.RESET), False, True),
        ((HEAD + b"Content-Length: 9\r\n\r\npart", Step.CLOSE), False, False),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Step.CLOSE), False, False),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Step.CLOSE), True, False),
    ],
)
async def test_the_reader_tells_whole_from_cut(
    origin: ScriptedOrigin, raw_client: Connect, script: tuple[bytes | Step, ...], complete: bool, aborted: bool
) -> None:
    origin.route("/x", *script)
    client = await raw_client(origin.port)
    await client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await client.read_head()
    assert head is not None
    origin.release("seen")
    response = await client.read_body(head)
    assert response.complete is complete
    assert response.aborted is aborted


async def test_malformed_heads_raise_and_interims_are_kept_apart(origin: ScriptedOrigin, raw_client: Connect) -> None:
    origin.route("/bad", b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n")
    origin.route("/103", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n")
    client = await raw_client(origin.port)
    response = await client.get("/103")
    assert [each.status for each in response.interim] == [103]
    with pytest.raises(Malformed):
        await client.get("/bad")


async def test_a_peer_that_leaves_is_counted(origin: ScriptedOrigin, raw_client: Connect) -> None:
    origin.route("/silent", Step.SILENCE)
    client = await raw_client(origin.port)
    await client.send(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
    await origin.wait_for("requests", 1)
    client.reset()
    await origin.wait_for("gone", 1)
    await origin.wait_for("closed", 1)
    with pytest.raises(AssertionError, match="never reached 2"):
        await origin.wait_for("closed", 2, wait_s=0.01)


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_comes_as_the_origin_ends_is_ended_too(origin: ScriptedOrigin, turns: int) -> None:
    with socket.create_connection((LOOPBACK, origin.port), WAIT_S) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await origin.stop()
        gc.collect()  # what is left open is told now
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
