"""What one read of one HTTP/2 client may bring about before others have their turn: whatever its frames are.

One rule: the worker's loop is free again after a bounded part of it, and nothing of the rest is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from inprocess import Gateway, StartEdge, edge_toml
from kit.client import RawClient
from kit.http2 import FrameClient
from kit.http2_corpus import (
    CONTINUATION,
    DATA,
    DEPENDS,
    END,
    HEADERS,
    HEADERS_END,
    PADDED,
    asks,
    frame,
    literal,
    request,
)
from kit.http2_corpus import posts as posts_of
from kit.origin import ScriptedOrigin, Step
from kit.waiting import WAIT_S, until

from edge.dataplane.client.http2_connection import Http2Connection

LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true\nhttp2 = { requests = 1000000, streams = 1000 }'
CACHED = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 0\r\n\r\n"
READ = 256 * 1024  # bytes that the loop may give at once
NUMBERS = range(1, 1 << 20, 2)


def posts(stream: int) -> bytes:
    return posts_of(stream, path=b"/")


def padded(stream: int) -> bytes:
    return frame(HEADERS, PADDED | HEADERS_END | END, stream, b"\1" + literal(request()) + b"\0")


def dependent(stream: int) -> bytes:
    return frame(HEADERS, DEPENDS | HEADERS_END | END, stream, bytes(5) + literal(request()))


def halved(stream: int) -> bytes:
    block = literal(request())
    return frame(HEADERS, END, stream, block[:9]) + frame(CONTINUATION, HEADERS_END, stream, block[9:])


def long(stream: int) -> bytes:
    return asks(stream, extra=[(b"x", b"v" * 7000), (b"y", b"w" * 7000)])


def with_trailers(stream: int) -> bytes:
    return posts(stream) + frame(HEADERS, HEADERS_END | END, stream, literal([(b"t", b"1")]))


HEADS = {
    "usual": asks,
    "padded": padded,
    "with a priority": dependent,
    "in two frames": halved,
    "long": long,
    "with trailers": with_trailers,
    "without an end": posts,
}
WITH_BODIES = ("with trailers", "without an end")


@pytest_asyncio.fixture
async def gateway(origin: ScriptedOrigin, edge: StartEdge) -> AsyncIterator[Gateway]:
    origin.default = (CACHED,)
    yield await edge(edge_toml(origin.port, listen=LISTEN, route="cache = {}", limits='header_timeout = "60s"'))


async def read_at_once(gateway: Gateway, client: FrameClient, data: bytes) -> bool:
    """Have these bytes read as those of one read; whether some of them waited for another turn."""
    await until(lambda: any(isinstance(each, Http2Connection) for each in gateway.worker.downstreams))
    connection = next(each for each in gateway.worker.downstreams if isinstance(each, Http2Connection))

    def give() -> bool:
        connection.data_received(data)
        return len(gateway.worker.turns) > 0

    return bool(await gateway.on_loop(give))


async def served(gateway: Gateway) -> None:
    """Another client is answered."""
    other = await RawClient.connect(gateway.port)
    assert (await other.get("/", host="a.test")).status == 200
    await other.close()


@pytest.mark.parametrize("kind", HEADS)
async def test_heads_of_any_kind_take_turns(kind: str, gateway: Gateway) -> None:
    await served(gateway)
    client = await FrameClient.connect(gateway.port)
    parts, size = [], 0
    for number in NUMBERS:
        parts.append(HEADS[kind](number))
        size += len(parts[-1])
        if size > READ:
            break
    before = gateway.worker.http2.streams
    assert await read_at_once(gateway, client, b"".join(parts))
    await served(gateway)
    if kind not in WITH_BODIES:  # of those, most are refused: they are too many at a time
        await until(lambda: gateway.worker.http2.streams - before == len(parts))
    await client.close()


async def test_a_body_in_small_pieces_takes_turns_and_arrives(gateway: Gateway, origin: ScriptedOrigin) -> None:
    client = await FrameClient.connect(gateway.port)
    count = 20_000
    pieces = b"".join([frame(DATA, END if left == 1 else 0, 1, b"ab") for left in range(count, 0, -1)])
    assert await read_at_once(gateway, client, posts(1) + pieces)
    await served(gateway)
    await client.until(lambda: client.ended(1))
    assert origin.requests[0].body is not None and origin.requests[0].body.content == b"ab" * count
    await client.close()


async def test_what_comes_before_a_tunnel_takes_turns(gateway: Gateway, origin: ScriptedOrigin) -> None:
    origin.route(b"/hang", Step.SILENCE)
    client = await FrameClient.connect(gateway.port)
    head = [(b":method", b"CONNECT"), *request(b"/hang")[1:], (b":protocol", b"websocket")]
    opened = frame(HEADERS, HEADERS_END, 1, literal([*head, (b"sec-websocket-version", b"13")]))
    assert await read_at_once(gateway, client, opened + frame(DATA, 0, 1, b"ab") * 20_000)
    await asyncio.wait_for(served(gateway), WAIT_S)
    await client.close()
