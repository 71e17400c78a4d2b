"""Raw UTF-8 in targets: refused, or by a setting taken for its percent-encoding, over HTTP/1.1 and HTTP/2 alike."""

from __future__ import annotations

import pytest
from inprocess import Connect, StartEdge, edge_toml
from kit.client import Response
from kit.http2 import Http2Client, request_head
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK

FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok"
LISTEN = f'http = ["{LOOPBACK}:0"]\nh2c = true'
RAW = "/straße/日本?q=é".encode()
ENCODED = b"/stra%C3%9Fe/%E6%97%A5%E6%9C%AC?q=%C3%A9"
NEVER = [
    b"/\xff",  # no UTF-8
    b"/\xc0\xaf",  # overlong
    b"/\xed\xa0\x80",  # half a pair
    b"/\xc3",  # cut
    b"/a\x01\xc3\xa9",
    b"/\xc3\xa9#a",
    b"/\xc3\xa9 b",
]


async def one(connect: Connect, port: int, line: bytes, cut: int = 0) -> Response:
    client = await connect(port)
    data = line + b"\r\nHost: a\r\n\r\n"
    for piece in (data[:cut], data[cut:]):
        if piece:
            await client.send(piece)
    response = await client.read_response()
    assert response is not None
    return response


async def test_one_spelling_for_route_key_log_and_backend(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.default = (FRESH,)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits="utf8_targets = true", route="cache = true"))
    for target in (RAW, ENCODED, RAW):
        assert (await one(raw_client, gateway.port, b"GET %b HTTP/1.1" % target)).status == 200
    client = await Http2Client.connect(gateway.port)
    for _ in range(3):
        assert (await client.get(RAW)).status == 200
    await client.close()
    assert origin.targets() == [ENCODED], "all are one URL"
    assert [line["target"] for line in await gateway.log(6)] == [ENCODED.decode()] * 6


@pytest.mark.parametrize("cut", [0, 1, 8, 20, 40])
async def test_wherever_the_stream_is_cut(
    cut: int, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, limits="utf8_targets = true"))
    assert (await one(raw_client, gateway.port, b"GET %b HTTP/1.1" % RAW, cut)).status == 200
    assert origin.targets() == [ENCODED]


@pytest.mark.parametrize("target", NEVER)
async def test_what_is_no_utf8_stays_refused(
    target: bytes, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits="utf8_targets = true"))
    assert (await one(raw_client, gateway.port, b"GET %b HTTP/1.1" % target)).status == 400
    client = await Http2Client.connect(gateway.port)
    stream = client.ask(request_head(target))
    await client.until(lambda: client.answers[stream].over)
    assert client.answers[stream].status in (0, 400)
    await client.close()
    assert not origin.requests


@pytest.mark.parametrize(
    "line", [b"G\xc3\x89T / HTTP/1.1", b"GET / HTTP/1.\xc2\xb9", b"GET\xc3\xa9 /\xc3\xa9 HTTP/1.1"]
)
async def test_only_targets_may_have_it(
    line: bytes, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, limits="utf8_targets = true"))
    assert (await one(raw_client, gateway.port, line)).status in (400, 505)
    assert not origin.requests


async def test_by_default_it_is_refused(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(edge_toml(origin.port))
    assert (await one(raw_client, gateway.port, b"GET %b HTTP/1.1" % RAW)).status == 400
    assert not origin.requests


async def test_a_long_one_counts_as_it_came(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(edge_toml(origin.port, limits="utf8_targets = true"))
    long = "/" + "é" * 5000
    assert (await one(raw_client, gateway.port, b"GET %b HTTP/1.1" % long.encode())).status == 414
