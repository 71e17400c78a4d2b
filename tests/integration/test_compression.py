"""`compress` through a running worker: coding × condition × range × HEAD × what is stored."""

from __future__ import annotations

import zlib
from random import randbytes
from threading import get_ident

import brotli
import pytest
from backports import zstd
from inprocess import Connect, Proxy, StartEdge, edge_toml
from kit.client import RawClient, Response
from kit.http2 import Http2Client, request_head
from kit.origin import Pause, ScriptedOrigin, Step
from kit.waiting import until

from edge.dataplane.rules import compression
from edge.dataplane.rules.body_coder import SHARE_BYTES
from edge.dataplane.rules.codings import Coder, stream

PAGE = b"".join(b"<p>line %d of a page that is worth coding</p>\n" % number for number in range(100))
LARGE = b"".join(b"<p>%d</p>\n" % (number * 7919) for number in range(20_000))
HUGE = 10 * LARGE
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
ROUTES = ["compress = true\ncache = false", "compress = true"]


def answer(body: bytes = PAGE, *lines: str, kind: str = "text/html", status: str = "200 OK") -> bytes:
    text = "".join(
        f"{line}\r\n" for line in ("Cache-Control: max-age=60", 'ETag: "a"', f"Content-Type: {kind}", *lines)
    )
    return f"HTTP/1.1 {status}\r\n{text}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(
    client: RawClient, accept: str | None, *lines: str, method: str = "GET", version: str = "1.1"
) -> Response:
    own = [] if accept is None else [f"Accept-Encoding: {accept}"]
    text = "".join(f"{line}\r\n" for line in ("Host: a.example", *own, *lines))
    await client.send(f"{method} /x HTTP/{version}\r\n{text}\r\n".encode())
    response = await client.read_response(method.encode())
    assert response is not None
    return response


def plain(response: Response) -> bytes:
    """The body without its coding."""
    body, coding = response.body.content, response.get(b"content-encoding")
    if coding == b"br":
        return bytes(brotli.decompress(body))
    if coding == b"zstd":
        return bytes(zstd.decompress(body))
    return zlib.decompress(body, 31) if coding == b"gzip" else body


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", [PAGE, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_each_coding(route: str, body: bytes, method: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    head_only = answer(body).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    origin.default = (answer(body) if method == "GET" or "false" not in route else head_only,)
    _, client = await proxy(route=route)
    if method == "HEAD" and "false" not in route:
        await ask(client, "identity")
    for accept, coding in (("br", b"br"), ("gzip", b"gzip"), ("gzip, zstd", b"zstd"), ("identity", None), (None, None)):
        for _ in range(3):
            found = await ask(client, accept, method=method)
            assert found.get(b"content-encoding") == coding
            assert found.get(b"vary") == b"Accept-Encoding"
            assert found.get(b"etag") == (b'"a"' if coding is None else b'W/"a"')
            if method == "GET":
                assert plain(found) == body
                assert coding is None or len(found.body.content) < len(body) / 2
            else:
                assert found.body.content == b""
    assert len(origin.requests) == (15 if "false" in route else 1)


async def test_a_stored_body_is_coded_once_for_each_coding(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (answer(),)
    gateway, client = await proxy(route="compress = true")
    made: list[str] = []
    coded = gateway.worker.router.routes[0].coded
    assert coded is not None
    inner = coded.rule.whole
    coded.rule.whole = lambda coding, data: (made.append(coding), inner(coding, data))[1]  # type: ignore[method-assign]
    for _ in range(4):
        for accept in ("br", "gzip", "zstd"):
            found = await ask(client, accept)
            assert plain(found) == PAGE
    assert sorted(made) == ["br", "gzip", "zstd"]
    assert found.get(b"content-length") == b"%d" % len(found.body.content)
    assert (found.get(b"cache-status") or b"").startswith(b"edge; hit")


@pytest.mark.parametrize(("level", "size"), [(9, 2000), (6, 2000), (9, len(LARGE)), (5, len(LARGE))])
async def test_what_takes_long_is_not_coded_on_the_loop(
    level: int, size: int, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    body = LARGE[:size]
    origin.default = (answer(body),)
    gateway, client = await proxy(route=f"compress = {{ level = {level} }}")
    coded = gateway.worker.router.routes[0].coded
    assert coded is not None
    threads: list[int] = []
    inner = coded.rule.whole
    coded.rule.whole = lambda coding, data: (threads.append(get_ident()), inner(coding, data))[1]  # type: ignore[method-assign]
    for _ in range(2):
        assert plain(await ask(client, "br")) == body
    loop = await gateway.on_loop(get_ident)
    assert threads and loop not in threads


async def test_a_new_response_has_new_forms_and_a_purge_takes_all(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(route="compress = true\npurge_methods = true")
    for body in (PAGE, PAGE[::-1]):
        origin.default = (answer(body),)
        for _ in range(3):
            assert plain(await ask(client, "br")) == body
        await ask(client, None, method="PURGE")
    assert len(origin.requests) == 2
    assert await gateway.on_loop(lambda: gateway.worker.store.stats()["objects"] if gateway.worker.store else 1) == 0


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("reply", "vary"),
    [
        (answer(PAGE, "Content-Encoding: x-own"), None),
        (answer(PAGE, "Cache-Control: no-transform, max-age=60"), None),
        (answer(PAGE, kind="image/png"), None),
        (answer(PAGE[:500]), None),
    ],
    ids=["coded", "no-transform", "type", "small"],
)
async def test_what_stays_as_it_is(
    route: str, reply: bytes, vary: bytes | None, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (reply,)
    _, client = await proxy(route=route)
    for _ in range(3):
        found = await ask(client, "br, gzip")
        assert found.body.content == reply.partition(b"\r\n\r\n")[2]
        assert (found.get(b"etag"), found.get(b"vary")) == (b'"a"', vary)


async def test_where_nothing_is_gained_it_goes_as_it_came(origin: ScriptedOrigin, proxy: Proxy) -> None:
    """A stored body that a coding makes larger. What is remembered of it is among what is stored, and goes with it."""
    body = randbytes(1500)
    origin.default = (answer(body),)
    gateway, client = await proxy(route="compress = true\npurge_methods = true")
    coded = gateway.worker.router.routes[0].coded
    assert coded is not None
    for _ in range(3):
        await ask(client, "br")
        for _ in range(2):
            found = await ask(client, "br")
            assert (found.get(b"content-encoding"), found.get(b"vary")) == (None, b"Accept-Encoding")
            assert (found.body.content, found.get(b"etag")) == (body, b'"a"')
        await ask(client, None, method="PURGE")
    assert not coded._plain


async def test_ranges_are_of_what_the_origin_sent(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (answer(),)
    _, client = await proxy(route="compress = true")
    for _ in range(2):
        await ask(client, "br")
        found = await ask(client, "br", "Range: bytes=5-9")
        assert (found.status, found.body.content, found.get(b"etag")) == (206, PAGE[5:10], b'"a"')
        assert found.get(b"content-encoding") is None
    found = await ask(client, "br", "Range: bytes=5-9", 'If-Range: W/"a"')
    assert (found.status, found.body.content) == (200, PAGE)


@pytest.mark.parametrize("tag", ['W/"a"', '"a"'])
async def test_a_coded_response_is_validated(tag: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (answer(),)
    _, client = await proxy(route="compress = true")
    await ask(client, "br")
    for _ in range(2):
        found = await ask(client, "br", f"If-None-Match: {tag}")
        assert (found.status, found.get(b"vary"), found.get(b"etag")) == (304, b"Accept-Encoding", b'W/"a"')
    assert (await ask(client, "br", 'If-None-Match: "b"')).status == 200


async def test_old_clients_get_it_as_it_is(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (answer(),)
    _, client = await proxy(route="compress = true")
    await ask(client, "br")
    found = await ask(client, "br", "Connection: keep-alive", version="1.0")
    assert (found.get(b"content-encoding"), found.body.content) == (None, PAGE)


@pytest.mark.parametrize("route", ROUTES)
async def test_events_are_sent_as_they_come(route: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    head = CHUNKED.replace(b"text/html", b"text/event-stream")
    origin.enqueue(head + b"9\r\ndata: 1\n\n\r\n", Pause("more"), b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
    _, client = await proxy(route=route)
    await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
    response = await client.read_head()
    assert response is not None and response.get(b"content-encoding") == b"gzip"
    decoder = zlib.decompressobj(31)
    first = b""
    while decoder.decompress(first) != b"data: 1\n\n":  # the event is there before the origin says more
        decoder = zlib.decompressobj(31)
        size = await client.wire.until(b"\r\n")
        assert size is not None
        first += (await client.wire.exactly(int(size, 16) + 2) or b"")[:-2]
    origin.release("more")
    whole = await client.read_body(response)
    assert decoder.decompress(whole.body.content) == b"data: 2\n\n"


@pytest.mark.parametrize("route", ROUTES)
async def test_a_body_that_breaks_off_never_looks_whole(route: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (answer()[:-20], Step.RESET)
    _, client = await proxy(route=f"{route}\nretry = {{ attempts = 0 }}")
    await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
    response = await client.read_response()
    assert response is not None and not response.complete


class Recorded:
    """A coder, and the sizes of what it was given at once."""

    def __init__(self, coder: Coder, sizes: list[int]) -> None:
        self.coder, self.sizes = coder, sizes

    def piece(self, data: bytes | bytearray) -> bytes:
        self.sizes.append(len(data))
        return self.coder.piece(data)

    def end(self) -> bytes:
        return self.coder.end()


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was coded at once, each time."""
    found: list[int] = []
    monkeypatch.setattr(compression, "stream", lambda *given: Recorded(stream(*given), found))
    return found


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("coding", ["br", "gzip", "zstd"])
async def test_however_much_comes_at_once_it_is_coded_by_shares(
    route: str, framing: str, coding: str, pieces: list[int], origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (answer(HUGE) if framing == "length" else CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HUGE), HUGE),)
    _, client = await proxy(route=route)
    for _ in range(2):
        found = await ask(client, coding)
        assert found.get(b"content-encoding") == coding.encode() and plain(found) == HUGE
    assert sum(pieces) >= len(HUGE) and max(pieces) <= SHARE_BYTES


async def test_a_slow_client_of_a_coded_body_and_one_that_leaves(
    pieces: list[int], origin: ScriptedOrigin, proxy: Proxy, raw_client: Connect
) -> None:
    body = randbytes(4 * len(HUGE))  # more than buffers on the way hold
    origin.default = (answer(body),)
    gateway, client = await proxy(route=ROUTES[0])
    client.wire.pause_reading()
    await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nAccept-Encoding: zstd\r\n\r\n")
    leaver = await raw_client(gateway.port)
    await leaver.send(b"GET /x HTTP/1.1\r\nHost: a\r\nAccept-Encoding: zstd\r\n\r\n")
    await until(lambda: len(pieces) > 4)
    leaver.reset()
    await until(lambda: gateway.in_flight == 1)
    client.wire.resume_reading()
    found = await client.read_response()
    assert found is not None and plain(found) == body
    assert plain(await ask(client, "br")) == body, "the next one on its connection"


async def test_streams_of_http2_are_coded_by_shares(pieces: list[int], origin: ScriptedOrigin, edge: StartEdge) -> None:
    origin.default = (answer(HUGE),)
    gateway = await edge(edge_toml(origin.port, listen='http = ["127.0.0.1:0"]\nh2c = true', route=ROUTES[0]))
    client = await Http2Client.connect(gateway.port)
    asked = [client.answers[client.ask(request_head(b"/x", extra=[(b"accept-encoding", b"gzip")]))] for _ in range(3)]
    await client.until(lambda: all(each.over for each in asked))
    assert all(zlib.decompress(bytes(each.body), 31) == HUGE for each in asked)
    assert max(pieces) <= SHARE_BYTES
    await client.close()
