"""A hit whose request asks for the connection to be closed: answered the quick way, with the bytes of the full way."""

from __future__ import annotations

import re

import pytest
from inprocess import Connect, StartEdge, edge_toml
from kit.origin import ScriptedOrigin
from kit.waiting import until

from edge.dataplane.client.connection import ClientConnection

PAGE = b'HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\nETag: "e"\r\n\r\n'
ASKED = b"GET /a HTTP/1.1\r\nHost: a\r\n%b\r\n"
CLOSE = b"Connection: close\r\n"


def of_no_second(text: bytes) -> bytes:
    """Without what the clock says."""
    return re.sub(rb"(?<=Age: )\d+|(?<=ttl=)\d+|(?<=Date: )[^\r]+", b"N", text)


@pytest.mark.parametrize("size", [0, 1024, 60_000], ids=["none", "small", "large"])
@pytest.mark.parametrize("format", ["json", "combined"])
async def test_both_ways_give_the_same(
    size: int,
    format: str,
    origin: ScriptedOrigin,
    edge: StartEdge,
    raw_client: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = await edge(edge_toml(origin.port, route="cache = true", log=f'access = "@LOG@"\nformat = "{format}"'))
    origin.default = (PAGE % size, b"x" * size)
    client = await raw_client(gateway.port)
    await client.get("/a", "a")
    await client.close()
    begun: list[bytes] = []
    plainly = ClientConnection.begin_exchange

    def begin(self: ClientConnection, method: bytes, *rest: object) -> object:
        begun.append(method)
        return plainly(self, method, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ClientConnection, "begin_exchange", begin)
    said = []
    for quick in (True, False):
        gateway.worker.quick = quick
        client = await raw_client(gateway.port)
        await client.send(ASKED % CLOSE + ASKED % b"")  # what is behind it is never answered
        while await client.wire.more():
            pass
        said.append(of_no_second(client.wire.take(len(client.wire.buffer))))
        await client.close()
    assert begun == [b"GET"]  # by the full way alone
    assert said[0] == said[1]
    assert said[0].count(b"HTTP/1.1 200") == 1 and said[0].count(b"\r\nConnection: close\r\n") == 1
    assert said[0].endswith(b"x" * size)


@pytest.mark.parametrize(
    ("asked", "lingers"),
    [
        (ASKED % CLOSE, False),
        ((ASKED % CLOSE).replace(b"/a", b"/missing"), False),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" + CLOSE + b"\r\nabc", False),
        ((ASKED % CLOSE).replace(b"/a", b"/large"), True),
        ((ASKED % b"").replace(b"1.1", b"1.0"), True),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n" + CLOSE + b"\r\nabc", True),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", True),
    ],
    ids=["small", "not-stored", "body-read", "large", "not-said", "body-owed", "no-request"],
)
@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
async def test_only_who_may_still_send_is_lingered_for(
    asked: bytes,
    lingers: bool,
    quick: bool,
    origin: ScriptedOrigin,
    edge: StartEdge,
    raw_client: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = await edge(edge_toml(origin.port, route="cache = true"))
    gateway.worker.quick = quick
    origin.default = (PAGE % 9, b"x" * 9)
    origin.route("/missing", b"HTTP/1.1 404 No\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n")
    origin.route("/large", PAGE % 60_000, b"x" * 60_000)
    for path in ("/a", "/large"):
        client = await raw_client(gateway.port)
        await client.get(path, "a")
        await client.close()
    await until(lambda: not gateway.worker.downstreams)
    left: list[bool] = []
    politely = ClientConnection.finish
    monkeypatch.setattr(
        ClientConnection, "finish", lambda self, owes=False: (left.append(owes), politely(self, owes))[1]
    )
    client = await raw_client(gateway.port)
    await client.send(asked)
    while await client.wire.more():
        pass
    assert client.wire.take(len(client.wire.buffer)).startswith(b"HTTP/1.1 ")
    assert bool(left) == lingers
    if not lingers:
        await until(lambda: not gateway.worker.downstreams)
    await client.close()
