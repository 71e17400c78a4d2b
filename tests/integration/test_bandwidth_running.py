"""`bandwidth` through a running worker, under a clock of the test's own: what goes, who is held back, and the end."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

import pytest
from inprocess import Connect, Gateway, Proxy, StartEdge, edge_toml
from kit.client import RawClient
from kit.clock import StandingClock
from kit.http2 import Http2Client, request_head
from kit.origin import Repeat, ScriptedOrigin
from kit.waiting import until

from edge.adapters.disk_tier import DiskTier
from edge.dataplane.rules import bandwidth

RATE = 256 * 1024
FULL = RATE // 2  # goes at once
RULE = '\nbandwidth = { rate = "256KiB/s" }'
BODY = b"".join(b"%06d\n" % number for number in range(60_000))
LARGE = 64 * 1024 * 1024
FRAMINGS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % LARGE,
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
}
LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true'
FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    """What the rule takes for the time."""
    found = StandingClock()
    monkeypatch.setattr(bandwidth, "monotonic", found)
    return found


async def ticks(gateway: Gateway, count: int = 2) -> None:
    """Let the worker's timer come round."""
    before = gateway.worker._ticks
    await until(lambda: gateway.worker._ticks >= before + count)


async def received(client: RawClient, count: int) -> None:
    """Wait for so many bytes of a body."""
    while len(client.wire.buffer) < count:
        assert await client.wire.more()


async def in_steps(client: RawClient, clock: StandingClock, gateway: Gateway, size: int) -> bytes:
    """A body of plain bytes, a full bucket at a time, no more than that in each."""
    got = FULL
    while True:
        await received(client, min(got, size))
        if got >= size:
            break
        await ticks(gateway)
        assert len(client.wire.buffer) == got
        clock.now += 60
        got += FULL
    return client.wire.take(size)


@pytest.mark.parametrize("framing", list(FRAMINGS))
async def test_the_backend_is_held_back(
    framing: str, clock: StandingClock, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (FRAMINGS[framing], Repeat(b"x" * 65536, LARGE // 65536))
    gateway, client = await proxy(route="cache = false" + RULE)
    await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.read_head()) is not None
    await received(client, FULL)
    await ticks(gateway, 4)
    assert client.wire.buffer.count(b"x") == FULL
    assert origin.counters["responses"] == 0, "it could not send all of 64 MiB"
    assert len(gateway.worker.paced) == 1
    await client.close()
    await origin.wait_for("gone", 1)
    await until(lambda: gateway.in_flight == 0 and not gateway.worker.paced)


@pytest.mark.parametrize("route", ["cache = false", "cache = true"])
@pytest.mark.parametrize("size", [1000, FULL, FULL + 1, len(BODY)])
async def test_forwarded_stored_and_then_the_next_request(
    route: str, size: int, clock: StandingClock, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (FRESH % size + BODY[:size],)
    gateway, client = await proxy(route=route + RULE)
    for number in range(3):
        await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * (2 if number == 2 else 1))
        head = await client.read_head()
        assert head is not None and head.status == 200
        assert await in_steps(client, clock, gateway, size) == BODY[:size]
    head = await client.read_head()  # the pipelined one, with a bucket of its own
    assert head is not None and head.status == 200
    assert await in_steps(client, clock, gateway, size) == BODY[:size]
    assert len(origin.requests) == (4 if "false" in route else 1)
    assert not gateway.worker.paced and [line["bytes_out"] for line in await gateway.log(4)] == [size] * 4


async def test_from_a_file(clock: StandingClock, origin: ScriptedOrigin, proxy: Proxy, tmp_path: Path) -> None:
    origin.default = (FRESH % len(BODY) + BODY,)
    more = f'\n[cache]\nmemory = "1MiB"\ndisk = {{ path = "{tmp_path}/cache", size = "64MiB", min_free = "0B" }}'
    gateway, client = await proxy(route="cache = true" + RULE + more)
    for _ in range(3):
        await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.read_head()) is not None
        assert await in_steps(client, clock, gateway, len(BODY)) == BODY
        store = gateway.worker.store
        assert store is not None and isinstance(store.disk, DiskTier)
        assert await asyncio.to_thread(store.disk.writer.flush)
    assert len(origin.requests) == 1


@pytest.mark.parametrize("route", ["cache = false", "cache = true"])
async def test_streams_of_http2(route: str, clock: StandingClock, origin: ScriptedOrigin, edge: StartEdge) -> None:
    origin.default = (FRESH % len(BODY) + BODY,)
    rule = '\nbandwidth = { rate = "256KiB/s", by = "client" }'
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, route=route + rule))
    client = await Http2Client.connect(gateway.port, window=1 << 20)
    client.connection.increment_flow_control_window(1 << 24)
    client.flush()
    for _ in range(2):
        await two_at_once(client, clock, gateway)
        clock.now += 60
    assert not gateway.worker.paced
    await client.close()


async def two_at_once(client: Http2Client, clock: StandingClock, gateway: Gateway) -> None:
    """Two streams of one client, which share a bucket."""
    answers = [client.answers[client.ask(request_head(b"/x"))] for _ in range(2)]

    def size() -> int:
        return sum(len(each.body) for each in answers)

    for due in range(FULL, 2 * len(BODY) + FULL, FULL):
        wanted = min(due, 2 * len(BODY))
        while size() < wanted:
            await client.more()
        await ticks(gateway)
        await client.ping()
        assert size() == wanted
        clock.now += 60
    await client.until(lambda: all(each.over for each in answers))
    assert [bytes(each.body) for each in answers] == [BODY, BODY]


async def test_a_coded_body_counts_as_it_is_sent(clock: StandingClock, origin: ScriptedOrigin, proxy: Proxy) -> None:
    body = b"the same line\n" * 50_000
    origin.default = (FRESH % len(body) + body,)
    gateway, client = await proxy(route="compress = true" + RULE)
    for _ in range(3):
        await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        found = await client.read_response()
        assert found is not None and found.get(b"content-encoding") == b"gzip"
        assert zlib.decompress(found.body.content, 31) == body, "it is less than goes at once"
    await client.send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n")
    head = await client.read_response(b"HEAD")
    assert head is not None and head.status == 200 and not gateway.worker.paced


async def test_a_slow_client_and_one_that_leaves(
    clock: StandingClock, origin: ScriptedOrigin, proxy: Proxy, raw_client: Connect
) -> None:
    origin.default = (FRESH % (20 * len(BODY)), Repeat(BODY, 20))
    rule = 'cache = false\nbandwidth = { rate = "1GiB/s" }'
    gateway, client = await proxy(route=rule)
    await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.read_head()) is not None
    client.wire.pause_reading()
    await ticks(gateway)
    client.wire.resume_reading()
    assert await client.wire.exactly(20 * len(BODY)) == 20 * BODY, "more than ticks alone would bring"
    leaver = await raw_client(gateway.port)
    await leaver.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    await leaver.read_head()
    leaver.reset()
    await until(lambda: gateway.in_flight == 0 and not gateway.worker.paced)
