"""What is refused before its body was read: no byte of the body is ever taken for a request."""

from __future__ import annotations

import pytest
from inprocess import Connect, Proxy, StartEdge, edge_toml
from kit.origin import Repeat, ScriptedOrigin
from kit.waiting import until

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
SIZED = b"Content-Length: %d\r\n\r\n%b" % (len(HIDDEN), HIDDEN)
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
REFUSED = {
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: a\r\n", 405),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n", 405),
    "CONNECT to a path": (b"CONNECT / HTTP/1.1\r\nHost: a\r\n", 405),
    "unknown expectation": (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n", 417),
    "asterisk": (b"POST * HTTP/1.1\r\nHost: a\r\n", 400),
    "unknown host": (b"POST / HTTP/1.1\r\nHost: unknown.example\r\n", 421),
    "method of the route": (b"PUT / HTTP/1.1\r\nHost: a\r\n", 405),
    "unknown path": (b"POST /other HTTP/1.1\r\nHost: a\r\n", 404),
}


def toml(port: int) -> str:
    text = edge_toml(port, route='cache = false\nmethods = ["GET", "POST"]')
    return text.replace('host = "*"', 'host = "a"')


@pytest.mark.parametrize("body", [SIZED, CHUNKS], ids=["sized", "chunked"])
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("split", [False, True], ids=["at once", "body later"])
@pytest.mark.parametrize("stopping", [False, True], ids=["serving", "stopping"])
async def test_a_refusal_owns_the_body(
    name: str, body: bytes, split: bool, stopping: bool, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    head, status = REFUSED[name]
    gateway = await edge(toml(origin.port).replace('path = "/"', 'path = "/x"' if status == 404 else 'path = "/"'))
    client = await raw_client(gateway.port)
    await until(lambda: gateway.worker.downstreams)
    gateway.worker.stopping = stopping
    fields, _, content = body.partition(b"\r\n\r\n")
    await client.send(head + fields + b"\r\n\r\n" + (b"" if split else content))
    response = await client.read_response()
    assert response is not None
    assert response.status in ((status, 503) if stopping else (status,))
    assert response.get(b"connection") == b"close"
    if split:
        await client.send(content)
    assert await client.ended(), "a second answer: the body was read as a request"
    assert not origin.requests
    gateway.worker.stopping = False


async def test_a_slow_client_s_last_piece_leaves_the_kept_connection_usable(
    origin: ScriptedOrigin, proxy: Proxy, raw_client: Connect
) -> None:
    """The backend's last piece makes the client's buffer full; the connection goes back to the pool unpaused."""
    gateway, slow = await proxy()
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    origin.enqueue(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Repeat(piece, 66), b"0\r\n\r\n")
    slow.wire.pause_reading()
    await slow.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.in_flight == 0 or any(each.paused for each in list(gateway.worker.downstreams)))
    other = await raw_client(gateway.port)
    for _ in range(3):
        assert (await other.get("/")).status == 200
    slow.wire.resume_reading()
    response = await slow.read_response()
    assert response is not None and response.complete
    assert len(response.body.content) == 66 * 65536
    assert (await other.get("/")).status == 200
