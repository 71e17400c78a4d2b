"""What one HTTP/2 client may cost: each known flood has a bound, ends with a GOAWAY, is counted, and hurts nobody else.

    CVE-2019-9511 … 9518, CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2025-8671 (made you reset)

One rule: bounds are asserted by counters and by what was sent, never by time; a good client is served meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic

import pytest
import pytest_asyncio
from hyperframe.frame import DataFrame, HeadersFrame
from inprocess import Gateway, StartEdge, edge_toml
from kit.http2 import FrameClient, Http2Client
from kit.http2_corpus import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PRIORITY,
    SETTINGS,
    UPDATE,
    asks,
    frame,
    posts,
    rst,
    setting,
    window,
)
from kit.origin import OK, Pause, ScriptedOrigin, Step
from kit.waiting import until

from edge.http2.limits import Http2Limits

LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true'
MANY = 5000


@pytest_asyncio.fixture
async def gateway(origin: ScriptedOrigin, edge: StartEdge) -> AsyncIterator[Gateway]:
    origin.route(b"/hang", Step.SILENCE)
    yield await edge(edge_toml(origin.port, listen=LISTEN))


def errors(gateway: Gateway) -> dict[str, int]:
    return dict(gateway.worker.http2.connection_errors)


def _numbers() -> Iterator[int]:
    return iter(range(1, 2 * MANY, 2))


def _rapid_reset() -> bytes:
    return b"".join([asks(number, b"/hang") + rst(number) for number in _numbers()])


def _made_to_reset(how: Callable[[int], bytes]) -> bytes:
    return b"".join([posts(number) + how(number) for number in _numbers()])


FLOODS = [  # name, the reason that is counted, at most so many frames of it were read, bytes
    ("rapid reset", "flood_resets", 230, _rapid_reset()),
    ("made to reset: credit of nothing", "flood_resets", 230, _made_to_reset(lambda n: window(n, 0))),
    ("made to reset: window that overflows", "flood_resets", 230, _made_to_reset(lambda n: window(n, 2**31 - 1))),
    (
        "made to reset: priority of six bytes",
        "flood_resets",
        230,
        _made_to_reset(lambda n: frame(PRIORITY, 0, n, bytes(6))),
    ),
    (
        "made to reset: half-closed",
        "flood_resets",
        230,
        b"".join([asks(n, b"/hang") + frame(DATA, 0, n, b"x") for n in _numbers()]),
    ),
    ("malformed heads", "flood_resets", 230, b"".join([asks(n, b"relative") for n in _numbers()])),
    ("streams beyond the limit", "flood_resets", 330, b"".join([asks(n, b"/hang") for n in _numbers()])),
    ("PING", "flood_ping", 230, frame(PING, 0, 0, bytes(8)) * MANY),
    ("answers to PING", "flood_ping", 230, frame(PING, 1, 0, bytes(8)) * MANY),
    ("SETTINGS", "flood_settings", 230, frame(SETTINGS, 0, 0) * MANY),
    (
        "SETTINGS that move windows",
        "flood_settings",
        230,
        asks(1, b"/hang") + (setting(4, 0) + setting(4, 65535)) * MANY,
    ),
    ("PRIORITY", "flood_priority", 230, frame(PRIORITY, 0, 9, bytes(5)) * MANY),
    ("PRIORITY_UPDATE", "flood_priority", 230, frame(UPDATE, 0, 0, b"\0\0\0\1u=1") * MANY),
    ("WINDOW_UPDATE", "flood_window_update", 230, window(0, 1) * MANY),
    ("WINDOW_UPDATE of a stream", "flood_window_update", 230, asks(1, b"/hang") + window(1, 1) * MANY),
    ("empty DATA", "flood_data", 230, posts() + frame(DATA, 0, 1) * MANY),
    ("padded empty DATA", "flood_data", 230, posts() + frame(DATA, 8, 1, b"\x03\0\0\0") * MANY),
    ("RST_STREAM of a stream that is over", "flood_reset", 230, asks(1, b"/hang") + rst(1) * MANY),
    ("unknown frames", "flood_unknown", 230, frame(0xB, 0, 0) * MANY),
    (
        "CONTINUATION",
        "flood_continuation",
        10,
        frame(HEADERS, 1, 1, b"\x82") + frame(CONTINUATION, 0, 1, b"\x82") * MANY,
    ),
    ("empty CONTINUATION", "flood_continuation", 2, frame(HEADERS, 1, 1) + frame(CONTINUATION, 0, 1) * MANY),
    ("a list that grows", "header_list", 2, frame(HEADERS, 5, 1, b"\x82" * 9000)),
]


@pytest.mark.parametrize(("reason", "most", "data"), [row[1:] for row in FLOODS], ids=[row[0] for row in FLOODS])
async def test_floods_end(reason: str, most: int, data: bytes, gateway: Gateway, origin: ScriptedOrigin) -> None:
    good = await Http2Client.connect(gateway.port)
    client = await FrameClient.connect(gateway.port)
    began = monotonic()
    sending = asyncio.ensure_future(client.send(data))
    goaway = await client.until_end()
    most += int(Http2Limits().resets_per_second * (monotonic() - began))  # more may come as time goes by
    assert (await good.get(b"/")).body == b"ok"
    assert goaway is not None
    assert goaway.error_code == 11
    assert errors(gateway) == {reason: 1}
    assert (goaway.last_stream_id + 1) // 2 <= most
    sending.cancel()
    await client.close()
    await good.close()
    await until(lambda: gateway.in_flight == 0)
    assert len(origin.requests) <= most + 1


async def test_streams_that_are_cancelled_at_a_human_pace_are_not_counted_against_anybody(gateway: Gateway) -> None:
    client = await FrameClient.connect(gateway.port)
    for number in range(1, 300, 2):
        await client.send(asks(number, b"/hang"), rst(number))
    await client.send(asks(301))
    await client.until(lambda: client.ended(301))
    assert client.goaway is None
    await client.close()


async def test_streams_beyond_the_limit_are_refused_alone(gateway: Gateway, origin: ScriptedOrigin) -> None:
    client = await FrameClient.connect(gateway.port)
    await client.send(*[asks(number, b"/hang") for number in range(1, 2 * 105, 2)])
    await client.until(lambda: client.resets(209))
    assert [client.resets(number) for number in range(1, 210, 2)] == [[]] * 100 + [[7]] * 5
    assert gateway.worker.http2.refused == 5
    await origin.wait_for("heads", 100)
    await client.send(rst(1), asks(211))
    await client.until(lambda: client.ended(211))
    await client.close()


async def test_a_client_that_reads_nothing_holds_little(origin: ScriptedOrigin, edge: StartEdge) -> None:
    """CVE-2019-9511, 9517: the windows are wide open and nobody reads; what waits is bounded, and ends in time."""
    body = b"b" * 200_000
    origin.default = (
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, route="cache = {}", limits='write_timeout = "1s"'))
    good = await Http2Client.connect(gateway.port)
    await good.get(b"/")
    client = await FrameClient.connect(gateway.port)
    client.wire.pause_reading()
    await client.send(setting(4, 2**31 - 1), window(0, 2**30), *[asks(number) for number in range(1, 200, 2)])
    await until(lambda: any(each.paused for each in gateway.worker.downstreams))
    waiting = max(each.transport.get_write_buffer_size() for each in gateway.worker.downstreams)
    assert waiting < 1024 * 1024
    assert (await good.get(b"/")).body == body
    await until(lambda: errors(gateway) == {"write_timeout": 1})
    await client.close()
    await good.close()


async def test_heads_that_nobody_reads_stop_being_asked_for(origin: ScriptedOrigin, edge: StartEdge) -> None:
    """Hits without a body are over at once, so that no limit of streams counts them."""
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 0\r\nX: %b\r\n\r\n"
    origin.default = (head % (b"v" * 6000),)
    listen = f"{LISTEN}\nhttp2 = {{ requests = 1000000 }}"
    gateway = await edge(edge_toml(origin.port, listen=listen, route="cache = {}", limits='write_timeout = "1s"'))
    good = await Http2Client.connect(gateway.port)
    assert (await good.get(b"/", host=b"a.test")).status == 200
    client = await FrameClient.connect(gateway.port)
    client.wire.pause_reading()
    asked = b"".join([asks(number) for number in range(1, 100_000, 2)])
    sending = asyncio.ensure_future(client.wire.send(asked, 30.0))
    await until(lambda: errors(gateway) == {"write_timeout": 1})
    assert gateway.worker.http2.streams < 2000
    sending.cancel()
    await client.close()
    await good.close()


async def test_a_window_of_nothing_ends_its_stream_and_no_other(origin: ScriptedOrigin, edge: StartEdge) -> None:
    body = b"b" * 50_000
    origin.default = (
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    origin.route(b"/slow", Pause("slow"), OK)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, route="cache = {}", limits='write_timeout = "1s"'))
    client = await FrameClient.connect(gateway.port)
    await client.send(asks(1, b"/slow"), setting(4, 100), asks(3, b"/a"), asks(5, b"/a"))
    await client.until(lambda: client.resets(3) and client.resets(5))
    assert (client.resets(3), client.resets(5), client.resets(1)) == ([8], [8], [])
    assert sum(len(f.data) for f in client.of(DataFrame, 3)) == 100
    assert gateway.worker.http2.stream_errors == {"write_timeout": 2}
    origin.release("slow")
    await client.until(lambda: client.ended(1))
    await client.close()


async def test_a_window_of_a_byte_at_a_time_earns_nothing(origin: ScriptedOrigin, edge: StartEdge) -> None:
    """CVE-2019-9511: a frame of ours for each of the client's, with a byte in it, for as long as it likes."""
    body = b"b" * 50_000
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    client = await FrameClient.connect(gateway.port)
    await client.send(setting(4, 1), asks(1))
    for asked in range(1000):
        await client.until(lambda asked=asked: client.goaway or len(client.of(DataFrame, 1)) > asked)
        if client.goaway is not None:
            break
        await client.send(window(1, 1))
    assert client.goaway is not None
    assert errors(gateway) == {"flood_window_update": 1}
    await client.close()


async def test_windows_of_a_fair_size_are_asked_for_as_long_as_it_takes(
    origin: ScriptedOrigin, edge: StartEdge
) -> None:
    body = b"b" * 200_000
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    client = await FrameClient.connect(gateway.port)
    await client.send(setting(4, 500), asks(1))
    came = 0
    while came < len(body):
        await client.until(lambda came=came: sum(len(f.data) for f in client.of(DataFrame, 1)) > came)
        now = sum(len(f.data) for f in client.of(DataFrame, 1))
        await client.send(window(0, now - came), window(1, now - came))
        came = now
    assert client.goaway is None
    await client.close()


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("head_late", frame(HEADERS, 1, 1, b"\x82")),
        ("head_late", asks(1)[:20]),
        ("head_late", asks(1)[:3]),
        ("head_late", frame(PING, 0, 0, bytes(8))[:12]),
    ],
    ids=["field block", "frame", "head of a frame", "other frame"],
)
async def test_heads_have_to_be_in_time(reason: str, data: bytes, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits='header_timeout = "1s"'))
    client = await FrameClient.connect(gateway.port)
    await client.send(data)
    goaway = await client.until_end()
    assert goaway is not None
    assert (goaway.error_code, errors(gateway)) == (11, {reason: 1})
    await client.close()


async def test_a_preface_has_to_be_in_time(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits='header_timeout = "1s"'))
    client = await FrameClient.connect(gateway.port, hello=False)
    await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert await client.until_end() is not None
    assert errors(gateway) == {"preface_late": 1}
    await client.close()


async def test_an_idle_connection_ends_and_one_with_a_stream_does_not(origin: ScriptedOrigin, edge: StartEdge) -> None:
    origin.default = (Pause("slow"), OK)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits='idle_timeout = "1s"'))
    busy = await FrameClient.connect(gateway.port)
    await busy.send(asks(1))
    await origin.wait_for("heads", 1)
    idle = await FrameClient.connect(gateway.port)
    goaway = await idle.until_end()
    assert goaway is not None
    assert (goaway.error_code, busy.goaway) == (0, None)
    origin.release("slow")
    await busy.until(lambda: busy.ended(1))
    assert (await busy.until_end()) is not None
    assert errors(gateway) == {}
    await busy.close()
    await idle.close()


async def test_a_body_that_stops_ends_its_stream_alone(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits='body_timeout = "1s"'))
    client = await FrameClient.connect(gateway.port)
    await client.send(posts(1, path=b"/"), frame(DATA, 0, 1, b"abc"))
    await client.until(lambda: client.ended(1))
    status = dict(client.decoder.decode(client.of(HeadersFrame, 1)[0].data))[":status"]
    assert status == "408"
    await client.until(lambda: client.resets(1))
    assert client.resets(1) == [0]
    await client.send(asks(3))
    await client.until(lambda: client.ended(3))
    await client.close()


async def test_a_client_that_heeds_no_window(deaf_origin: object, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(deaf_origin.port, listen=LISTEN))  # type: ignore[attr-defined]
    client = await FrameClient.connect(gateway.port)
    await client.send(posts(1, path=b"/"))
    for _ in range(2000):
        if client.resets(1) or not await client.wire.send(frame(DATA, 0, 1, bytes(16384))):
            break
        if client.wire.buffer:
            await client.more()
    await client.until(lambda: client.resets(1))
    assert client.resets(1) == [3]
    await client.close()
