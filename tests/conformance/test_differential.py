"""Two ways to one answer, and a second opinion.

Differential: the same client bytes, written by Hypothesis, to two workers that differ in one thing: one remembers
header blocks and takes the short way to a hit, the other computes everything anew. Every answer must be the same.

Referee: a request head that our grammar accepts is read by aiohttp's parser and by llhttp (httptools) too. Whoever
accepts it must understand the same: method, target, fields, body, and where the next message starts. They may refuse
more or accept more; what they may not do is agree with us on the bytes and differ on their meaning.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

import httptools
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDictProxy

from edge.adapters.upstream_connection import UpstreamConnection
from edge.app import build
from edge.config.loader import load_text
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.worker.worker import Worker
from edge.http.chunked import ChunkedReader
from edge.http.grammar import REQUEST_LINE, Limits, request_block
from edge.http.memo import Memo

LIMITS = Limits()
TOML = """
[listen]
http = ["127.0.0.1:0"]
trusted_proxies = ["192.0.2.0/24"]
[log]
access = "off"
[pools.p]
ejection = false
backends = [{ url = "http://127.0.0.1:1" }]
[[routes]]
host = "*"
path = "/"
pool = "p"
cache = { default_ttl = "1h", bypass = { cookies = ["session"] }, ignore_query = ["utm"], key_headers = ["X-Plain"] }
[[routes]]
host = "*"
path = "/pass"
pool = "p"
cache = false
[[routes]]
path = "/coded"
pool = "p"
cache = { default_ttl = "1h" }
compress = { min = "1B" }
response_headers = { set = { X-Fixed = "1" }, add = { X-More = "2" }, remove = ["ETag"] }
[[routes]]
path = "/ruled"
pool = "p"
cache = { default_ttl = "1h" }
deny = ["198.51.100.0/24"]
strip_prefix = "/ruled"
request_headers = { set = { X-Who = "{client}" }, remove = ["X-Plain"] }
response_headers = { set = { X-Host = "{authority}" }, remove = ["ETag"] }
[[routes]]
path = "/ruled"
pool = "p"
match = { methods = ["PUT"], headers = { X-Plain = "1" } }
"""
CONFIG = load_text(TOML, "differential.toml")

# -- what a client may send --------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    (
        b"X-Plain: 1", b"Cookie: a=1", b"Cookie: session=1", b"Cache-Control: no-cache", b"Cache-Control: no-store",
        b"Cache-Control: only-if-cached", b"Accept-Encoding: gzip", b"Accept-Encoding: br;q=0.5, gzip",
        b"Pragma: no-cache", b"Range: bytes=0-2", b'If-None-Match: "v1"', b"If-None-Match: *", b"Authorization: b",
        b"Connection: close", b"Connection: keep-alive", b"Connection: X-Plain", b"Expect: 100-continue", b"Via: 1.0 p",
        b"X-Forwarded-For: 198.51.100.1", b"X-Request-Id: chosen-by-client", b"Upgrade: websocket", b"TE: trailers",
        b"X Odd: 1", b" folded", b"X-Ctl: \x01", b"Host: other.example",
    )
)  # fmt: skip
BODIES = st.sampled_from(
    (
        b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"Content-Length: 0\r\n\r\n", b"Content-Length: 3\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", b"Content-Length: 1, 1\r\n\r\na",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )
)  # fmt: skip
REQUESTS = st.builds(
    lambda method, target, version, lines, body: (
        b"%b %b HTTP/1.%b\r\nHost: a.example\r\n%b%b"
        % (method, target, version, b"".join(line + b"\r\n" for line in lines), body)
    ),
    st.sampled_from((b"GET", b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PURGE")),
    st.sampled_from(
        (
            b"/a",
            b"/a",
            b"/b?q=%2f",
            b"/a?utm=1",
            b"/pass",
            b"/coded",
            b"/coded",
            b"/ruled/a",
            b"http://a.example/a",
            b"*",
            b"/\x80",
            b"//",
        )
    ),
    st.sampled_from((b"1", b"1", b"1", b"0")),
    st.lists(LINES, max_size=3),
    BODIES,
)
STREAMS = st.lists(REQUESTS, min_size=1, max_size=6)


# -- one worker, its client and its backend, without sockets -----------------------------------------------------------


class Pipe:
    """A transport that keeps what is written, and passes it on while it is open."""

    def __init__(self, to: Any = None) -> None:
        self.written = bytearray()
        self.closed = False
        self._to = to

    def write(self, data: bytes) -> None:
        self.written += data
        if self._to is not None and not self.closed:
            self._to(data)

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.9", 4711) if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = write_eof = abort

    def pause_reading(self, *_: int) -> None:
        """Nothing is ever held up here."""

    resume_reading = set_write_buffer_limits = pause_reading


class Backend:
    """Answers each whole request of one connection; what it saw becomes part of the outcome."""

    def __init__(self, seen: list[bytes]) -> None:
        self.seen = seen
        self.connection: Any = None
        self._buffer = b""

    def take(self, data: bytes) -> None:
        self._buffer += data
        loop = asyncio.get_running_loop()
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, rest = self._buffer[: end + 4], self._buffer[end + 4 :]
            length = re.search(rb"\r\nContent-Length: (\d+)", head)
            if b"\r\nTransfer-Encoding: chunked" in head:
                reader = ChunkedReader()
                pieces, left = reader.feed(rest)
                if not reader.done:
                    return
                body, rest = b"".join(pieces) + repr(reader.trailers).encode(), left
            elif length is not None:
                if len(rest) < int(length[1]):
                    return
                body, rest = rest[: int(length[1])], rest[int(length[1]) :]
            else:
                body = b""
            self._buffer = rest
            self.seen.append(_steady(head) + body)
            loop.call_soon(self._answer, head.startswith(b"HEAD "), b"\r\nIf-None-Match" in head)

    def _answer(self, head_only: bool, conditional: bool) -> None:
        if self.connection.transport.closed:
            return
        if conditional:
            self.connection.data_received(b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\n\r\n')
            return
        body = b"" if head_only else b"hello"
        self.connection.data_received(
            b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n' + body
        )


def _steady(raw: bytes) -> bytes:
    """Without what differs from run to run by its nature."""
    raw = re.sub(rb"\r\nX-Request-Id: [0-9a-f]{32}", b"\r\nX-Request-Id: made", raw)
    raw = re.sub(rb"\r\ntraceparent: [^\r]*", b"", raw)
    return re.sub(rb"\r\nDate: [^\r]*", b"", re.sub(rb"ttl=\d+", b"ttl=n", re.sub(rb"\r\nAge: \d+", b"", raw)))


def _worker(seen: list[bytes], plain_way: bool) -> Worker:
    with patch("edge.upstreams.client_context"):  # no backend here speaks TLS, and reading the system's CAs takes long
        worker = build(CONFIG)

    def connect(link: Any) -> Any:
        def made(waiter: Any, timeout: float) -> None:
            backend = Backend(seen)
            connection = backend.connection = UpstreamConnection(link)
            connection.connection_made(cast(Any, Pipe(backend.take)))
            link.connections.add(connection)
            asyncio.get_running_loop().call_soon(waiter.on_connected, connection)

        return made

    for pool in worker.pools.values():
        for identity, link in list(pool.links.items()):
            pool.links[identity] = Doubled(link, connect(link))
            if not plain_way:
                cast(Any, link).memo = Memo(cast(Any, link).memo._compute, longest=-1)
    if not plain_way:
        worker.quick = worker.cold = False
        worker.blocks = Memo(lambda raw: request_block(raw, worker.head), longest=-1)
    return worker


class Doubled:
    """A real link that connects to the backend above instead of to a socket."""

    def __init__(self, link: Any, connect: Any) -> None:
        self._link = link
        self.connect = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


async def _run(stream: list[bytes], at: list[int], plain_way: bool) -> tuple[list[bytes], bytes]:
    """What the backend saw, and all that the client got."""
    seen: list[bytes] = []
    escaped: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    worker = _worker(seen, plain_way)
    got = b""
    for turn in range(2):  # the second connection finds what the first one left in the store
        downstream, pipe = ClientConnection(worker), Pipe()
        downstream.connection_made(cast(Any, pipe))
        data = b"".join(stream)
        edges = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)] if turn == 0 else [0, len(data)]
        for a, b in itertools.pairwise(edges):
            if a < b and not pipe.closed:
                downstream.data_received(data[a:b])
            await _settle()
        got += _steady(bytes(pipe.written)) + (b"|closed|" if pipe.closed else b"|open|")
        downstream.connection_lost(None)
    await worker.close()
    assert (worker.bugs, escaped) == (0, [])
    assert all(backend.in_flight == 0 for pool in worker.pools.values() for backend in pool.pool.backends)
    return seen, got


async def _settle() -> None:
    """Let everything that was put off with `call_soon` happen: nothing here waits for a socket or a clock."""
    for _ in range(40):
        await asyncio.sleep(0)


@given(STREAMS, st.lists(st.integers(0, 900), max_size=5))
@settings(max_examples=150, deadline=None)
def test_the_plain_way_and_the_long_way_give_the_same_answers(stream: list[bytes], at: list[int]) -> None:
    plain = asyncio.run(_run(stream, at, True))
    long = asyncio.run(_run(stream, at, False))
    assert plain == long


def test_the_differential_sees_hits_forwards_and_refusals() -> None:
    get = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
    seen, got = asyncio.run(_run([get, get, get.replace(b"/a", b"/pass"), b"GET /a HTTP/1.1\r\n\r\n"], [], True))
    assert len(seen) == 3, "one to fill, and one to pass for each connection"
    assert got.count(b"; hit") == 3
    assert got.count(b"HTTP/1.1 400") == 2
    assert got.count(b"hello") == 6


# -- the referees ------------------------------------------------------------------------------------------------------


@dataclass
class Understood:
    """One message as a parser reads it."""

    method: bytes = b""
    target: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False


def ours(data: bytes) -> tuple[Understood, bytes] | None:
    """The first message and what follows it; None when it is refused or not whole."""
    end = data.find(b"\r\n\r\n")
    line_end = data.find(b"\r\n")
    line = REQUEST_LINE.fullmatch(data, 0, line_end) if end >= 0 else None
    if line is None:
        return None
    block = request_block(data[line_end + 2 : end + 2], LIMITS)
    if block.error is not None or (block.chunked and line[3] == b"0") or block.host is None:
        return None
    found = Understood(line[1], line[2], list(block.fields.lines), whole=True)
    rest = data[end + 4 :]
    if block.chunked:
        reader = ChunkedReader()
        try:
            pieces, rest = reader.feed(rest)
        except ValueError:
            return None
        found.body, found.whole = b"".join(pieces), reader.done
    elif block.length:
        found.body, rest = rest[: block.length], rest[block.length :]
        found.whole = len(found.body) == block.length
    return (found, rest) if found.whole else None


class Llhttp:
    """All messages of the bytes by llhttp; `error` when it refused."""

    def __init__(self, data: bytes) -> None:
        self.messages: list[Understood] = []
        self.error = False
        parser = httptools.HttpRequestParser(self)
        self._parser = parser
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgraded = True
        except httptools.HttpParserError:
            self.error = True

    def on_message_begin(self) -> None:
        self.messages.append(Understood())

    def on_url(self, url: bytes) -> None:
        self.messages[-1].target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.messages[-1].fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.messages[-1].method = self._parser.get_method()

    def on_body(self, data: bytes) -> None:
        self.messages[-1].body += data

    def on_message_complete(self) -> None:
        self.messages[-1].whole = True


ODD_REQUESTS = st.one_of(
    REQUESTS,
    st.builds(
        lambda line, lines, body: line + b"\r\nHost: a.example\r\n" + b"\r\n".join(lines) + body,
        st.sampled_from((b"GET /x HTTP/1.1", b"GET /\"<>' HTTP/1.1", b"M-SEARCH * HTTP/1.1", b"get / HTTP/1.1")),
        st.lists(
            st.one_of(
                st.sampled_from(
                    (
                        b"X:", b"X: a\tb ", b"X:\xff", b"x-a: 1, 2", b"Content-Length: 007", b"content-length:3 ",
                        b"Transfer-Encoding:\tchunked", b"transfer-encoding: Chunked", b"Connection: , close",
                        b"Content_Length: 9",
                    )
                ),
                st.builds(lambda n, v: n + b":" + v, st.sampled_from((b"X", b"!", b"0")), st.binary(max_size=6)),
            ),
            max_size=3,
        ),
        st.sampled_from((b"\r\n\r\n", b"\r\n\r\nabc", b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"\r\n\r\n0\r\nA: b\r\n\r\n")),
    ),
)  # fmt: skip
NEXT = b"GET /next HTTP/1.1\r\nHost: n.example\r\n\r\n"


def lower(fields: Any) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value.strip(b" \t")) for name, value in fields]


@given(ODD_REQUESTS)
@settings(max_examples=200)
def test_llhttp_understands_what_we_accept_in_the_same_way(data: bytes) -> None:
    found = ours(data + NEXT)
    if found is None:
        return
    message, rest = found
    other = Llhttp(data + NEXT)
    if not other.messages or not other.messages[0].whole:
        assert other.error, "it waits for more where we saw the end"
        return
    first = other.messages[0]
    assert (first.method, first.target, first.body) == (message.method, message.target, message.body)
    sent = [line for line in lower(first.fields) if line in lower(message.fields)]
    assert sent[: len(message.fields)] == lower(message.fields)
    if len(other.messages) > 1 and other.messages[1].whole:
        assert rest.lstrip(b"\r\n").startswith(other.messages[1].method + b" " + other.messages[1].target)


def aiohttp_reads(data: bytes) -> tuple[list[Any], bytes] | None:
    """Messages with their payloads, and an unread tail; None when it refused."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
        messages, upgraded, tail = parser.feed_data(data)
        return [(message, payload) for message, payload in messages], tail if upgraded else b""
    except HttpProcessingError:
        return None
    finally:
        loop.close()


@given(ODD_REQUESTS)
@settings(max_examples=200, deadline=None)
def test_aiohttp_understands_what_we_accept_in_the_same_way(data: bytes) -> None:
    found = ours(data + NEXT)
    if found is None:
        return
    message, rest = found
    read = aiohttp_reads(data + NEXT)
    if read is None or not read[0]:
        return
    theirs, payload = read[0][0]
    assert isinstance(theirs.headers, CIMultiDictProxy)
    assert (theirs.method.encode(), theirs.path.encode("utf-8", "surrogateescape")) == (message.method, message.target)
    assert lower(theirs.raw_headers) == lower(message.fields)
    body = b"".join(getattr(payload, "_buffer", ()))
    assert body == message.body
    if len(read[0]) > 1:
        assert rest.lstrip(b"\r\n").startswith(read[0][1][0].method.encode() + b" " + read[0][1][0].path.encode())
