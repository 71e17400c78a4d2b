"""Frames in any order, cut anywhere, changed anywhere: no exception inside, no backend left taken, others served.

One rule: what is sent comes from a seed, so that each failure can be had again.
"""

from __future__ import annotations

import random

import pytest
from hyperframe.frame import SettingsFrame
from inprocess import Gateway, StartEdge, edge_toml
from kit.http2 import PREFACE, FrameClient, Http2Client
from kit.http2_corpus import DATA, HEADERS, SOUND, Lines, asks, frame, literal, posts, rst, setting, table, window
from kit.origin import OK, ScriptedOrigin, Step
from kit.waiting import until

LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true'
ROWS = [data for _, _, data in table() if len(data) < 3000]
EXTENDED: Lines = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":authority", b"a"),
    (b":path", b"/ws"),
]
STORED = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def paths(origin: ScriptedOrigin) -> list[bytes]:
    """Answers of each kind."""
    origin.route(b"/hang", Step.SILENCE)
    origin.route(b"/empty", STORED % 0)
    origin.route(b"/small", STORED % 5 + b"small")
    origin.route(b"/large", STORED % 300_000 + b"l" * 300_000)
    origin.route(b"/cut", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Step.RESET)
    origin.route(
        b"/ws", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Step.SILENCE
    )
    origin.default = (OK,)
    return [b"/", b"/hang", b"/empty", b"/small", b"/large", b"/cut", b"/pass/x"]


def story(chance: random.Random, paths: list[bytes]) -> bytes:
    """What a client with many faults sends: mostly sound frames, on streams that may be in any state."""
    out, number = b"", 1
    for _ in range(chance.randrange(1, 25)):
        some = chance.randrange(1, number + 2) | 1
        kind = chance.randrange(14)
        if kind <= 3:
            out += asks(number, chance.choice(paths), method=chance.choice([b"GET", b"GET", b"HEAD", b"DELETE"]))
            number += 2
        elif kind == 4:
            told = chance.choice([None, [(b"content-length", b"5")], [(b"expect", b"100-continue")]])
            out += posts(number, told, chance.choice(paths))
            number += 2
        elif kind == 5:
            out += frame(
                DATA, chance.choice([0, 0, 1, 8]), some, chance.choice([b"", b"abcde", b"\2abc\0\0", bytes(9000)])
            )
        elif kind == 6:
            out += rst(some, chance.randrange(14))
        elif kind == 7:
            out += window(chance.choice([0, some]), chance.choice([1, 1000, 100_000]))
        elif kind == 8:
            out += setting(chance.randrange(10), chance.choice([0, 1, 100, 16384, 65535, 2**20]))
        elif kind == 9:
            out += frame(HEADERS, 5, some, literal([(b"x-sum", b"7")]))
        elif kind == 10:
            out += frame(HEADERS, 4, number, literal(EXTENDED))
            number += 2
        elif kind == 11:
            out += chance.choice(list(SOUND.values()))
        elif kind == 12:
            out += chance.choice(ROWS)
        else:
            out += frame(0x10, 0, 0, some.to_bytes(4, "big") + b"u=%d" % chance.randrange(9))
    if chance.random() < 0.3 and out:
        changed = bytearray(out)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        out = bytes(changed)
    return out


async def told(client: FrameClient, data: bytes, chance: random.Random) -> None:
    """Send it in pieces, read a little, and go in one of three ways."""
    at = 0
    while at < len(data):
        size = chance.choice([1, 5, 9, 10, 50, 500, 5000])
        if not await client.wire.send(data[at : at + size]):
            break
        at += size
    if chance.random() < 0.5:
        await client.until(lambda: client.frames or client.wire.ended)
    if chance.random() < 0.3:
        client.wire.reset()
    await client.close()


@pytest.mark.parametrize("seed", range(8))
async def test_any_story(seed: int, paths: list[bytes], origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, route="cache = {}"))
    chance = random.Random(seed)
    good = await Http2Client.connect(gateway.port)
    for number in range(60):
        client = await FrameClient.connect(gateway.port)
        await told(client, story(chance, paths), chance)
        assert gateway.worker.bugs == 0, (seed, number)
        if number % 10 == 0:
            assert (await good.get(b"/good/%d" % number)).body == b"ok"
    await good.close()
    await until(lambda: not gateway.worker.downstreams and gateway.in_flight == 0)


@pytest.mark.parametrize("size", range(1, 26))
async def test_a_hello_cut_anywhere(size: int, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway: Gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    client = await FrameClient.connect(gateway.port, hello=False)
    hello = PREFACE + SettingsFrame(0).serialize() + asks(1)
    for at in range(0, len(hello), size):
        await client.send(hello[at : at + size])
    await client.until(lambda: client.ended(1))
    await client.close()
