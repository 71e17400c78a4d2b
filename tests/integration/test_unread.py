"""What all clients of a worker leave unread, together: bounded, whoever holds it and however little each of them holds.

One rule: what ends is told by counters and by what the client saw; the others are served meanwhile.
"""

from __future__ import annotations

from inprocess import Connect, Gateway, StartEdge, edge_toml
from kit.http2 import FrameClient, Http2Client
from kit.http2_corpus import asks, setting, window
from kit.origin import ScriptedOrigin
from kit.waiting import until

LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true'
STREAMS = range(1, 120, 2)


def answer(size: int, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (more, size, bytes(size))


async def stalled(gateway: Gateway) -> FrameClient:
    """A client whose windows take nothing of the answers that it asks for."""
    client = await FrameClient.connect(gateway.port)
    await client.send(setting(4, 0), *[asks(number) for number in STREAMS])
    return client


async def take_all(client: FrameClient) -> bool:
    """Open the windows; whether every answer came, for else the connection was ended."""
    await client.send(window(0, 2**30), setting(4, 2**20))
    await client.until(lambda: client.goaway or all(client.ended(number) for number in STREAMS))
    return client.goaway is None


def held(gateway: Gateway) -> int:
    """Bytes, each piece of memory once."""
    seen: set[int] = set()
    return sum(each.held(seen) for each in gateway.worker.downstreams)


async def some_looks(gateway: Gateway) -> None:
    """Until the slow connections were looked at a few times."""
    before = gateway.worker._ticks
    await until(lambda: gateway.worker._ticks >= before + 5)


async def test_streams_of_several_connections_have_one_bound(origin: ScriptedOrigin, edge: StartEdge) -> None:
    origin.default = (answer(16 * 1024),)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits='unread_memory = "1.5MiB"'))
    good = await Http2Client.connect(gateway.port)
    clients = [await stalled(gateway) for _ in range(3)]
    await until(lambda: gateway.worker.unread.ended == 2)
    assert (await good.get(b"/")).status == 200
    await some_looks(gateway)
    assert gateway.worker.http2.connection_errors == {"unread": 2}
    assert 0 < held(gateway) <= 1.5 * 1024 * 1024
    assert sorted([await take_all(client) for client in clients]) == [False, False, True]
    for client in (*clients, good):
        await client.close()


async def test_a_stored_body_that_all_wait_with_is_held_once(origin: ScriptedOrigin, edge: StartEdge) -> None:
    origin.default = (answer(100_000, b"Cache-Control: max-age=600\r\n"),)
    most, limits = 2 * 1024 * 1024, 'unread_memory = "2MiB"'
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, route="cache = {}", limits=limits))
    good = await Http2Client.connect(gateway.port)
    assert len((await good.get(b"/")).body) == 100_000
    client = await stalled(gateway)
    await until(lambda: sum(each.held(None) for each in gateway.worker.downstreams) > most)
    assert held(gateway) < most
    await some_looks(gateway)
    assert gateway.worker.unread.ended == 0
    assert await take_all(client)
    await client.close()
    await good.close()


async def test_clients_of_http1_are_counted_as_well(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.route(b"/large", answer(32 * 1024 * 1024))
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits='unread_memory = "20KiB"'))
    for _ in range(3):
        client = await raw_client(gateway.port)
        client.wire.pause_reading()
        await client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.worker.unread.ended >= 2)
    await until(lambda: held(gateway) <= 20 * 1024)
    good = await Http2Client.connect(gateway.port)
    assert (await good.get(b"/")).status == 200
    await good.close()


async def test_nobody_is_ended_without_a_bound(origin: ScriptedOrigin, edge: StartEdge) -> None:
    origin.default = (answer(16 * 1024),)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits='unread_memory = "0"'))
    client = await stalled(gateway)
    await until(lambda: held(gateway) > len(STREAMS) * 16 * 1024)
    await some_looks(gateway)
    assert gateway.worker.unread.ended == 0
    assert await take_all(client)
    await client.close()
