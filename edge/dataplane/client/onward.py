"""What `edge.sdk` promises an application, for one request: facts of its exchange, and asking the gateway onward.

A subrequest is a client connection of the gateway's own, over a transport in memory: the strict grammar, the routes,
the cache, the limits and the log see it like any other. One rule: it is bounded. Requests nest `MAX_DEPTH` deep and
never ask for what asked for them, one request asks at most `MAX_FETCHES` times, and a body that nobody reads holds its
origin back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import orjson
from multidict import CIMultiDict

from edge.cache.purge import Purge, PurgeKind
from edge.dataplane.caching.purging import purged_everywhere
from edge.errors import UpstreamError
from edge.http.chunked import chunk, last_chunk
from edge.http.grammar import ResponseFacts
from edge.http.message import Line
from edge.ports import Connection, ResponseSink, Timeouts
from edge.sdk import FetchError, FetchLoop

if TYPE_CHECKING:
    from aiohttp import web

    from edge.dataplane.core.exchange import Exchange

MAX_DEPTH = 4
MAX_FETCHES = 64
MAX_BODY = 64 * 1024 * 1024  # what `read` takes at once
HELD_BYTES = 64 * 1024  # of a body that is not read yet
TIMEOUTS = Timeouts(first_byte=120.0, head=120.0, body=120.0)  # the inner exchange has the deadlines of its own route
_OURS = frozenset(("connection", "content-length", "transfer-encoding", "host", "upgrade", "expect", "te"))

_OF_CONNECTION = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "trailer", "upgrade"))

Dial = Callable[[tuple[bytes, ...], str], Connection]
Tell = Callable[[str, dict[str, Any]], None]


class Counts(Protocol):
    """Where the counters that applications define are kept."""

    def add_own(self, name: str, amount: int) -> None:
        """Add `amount` to the counter `name`."""


class Means(NamedTuple):
    """What all requests of one application have in common."""

    app: str
    dial: Dial
    tell: Tell
    counts: Counts


class Onward:
    """One request of an application (`edge.sdk.Edge`). `sink` is who waits for the application's answer.

    Most requests ask it nothing, so its facts are looked up when they are asked for.
    """

    __slots__ = ("_fetches", "_means", "_sink")

    def __init__(self, means: Means, sink: Any) -> None:
        self._means = means
        self._sink = sink
        self._fetches = 0

    @property
    def _fetch(self) -> Any:
        return getattr(self._sink, "fetch", self._sink)  # a hedge stands for its fetch

    @property
    def _exchange(self) -> Exchange:
        exchange: Exchange = self._fetch.exchange
        return exchange

    @property
    def client(self) -> str:
        """The client's address after the trusted-proxy rules; `unix` for a Unix socket."""
        return self._exchange.client_text()

    @property
    def request_id(self) -> str:
        """The request's id, as in the log."""
        return self._exchange.own_id().decode()

    @property
    def route(self) -> str:
        """The route's name."""
        return self._exchange.routed.name

    @property
    def pool(self) -> str:
        """The name of the application's pool."""
        return self._exchange.routed.pool.name

    @property
    def region(self) -> str:
        """The region of the backend that is the application."""
        backend = self._fetch.backend
        return "" if backend is None else str(backend.region)

    @property
    def scheme(self) -> str:
        """`http` or `https`: how the client asked."""
        return self._exchange.downstream.scheme.decode()

    @property
    def country(self) -> str:
        """ISO 3166-1 code of the client's country; empty when unknown."""
        return self._exchange.country()

    async def fetch(
        self,
        target: str,
        *,
        method: str = "GET",
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> Answer:
        """Make a subrequest. Raises ValueError for a malformed one, FetchError when it fails or is refused."""
        exchange = self._exchange
        own = exchange.host or b""
        head = request_text(method, target, own.decode("latin-1") if host is None else host, headers or {}, body)
        chain = (*exchange.downstream.asked_by, b"%b %b%b" % (exchange.method, own, exchange.target))
        asked = f"{method} {own.decode('latin-1') if host is None else host.lower()}{target}".encode("latin-1")
        if len(chain) > MAX_DEPTH or asked in chain:
            raise FetchLoop("a request asks for itself" if asked in chain else f"nested more than {MAX_DEPTH} deep")
        self._fetches += 1
        if self._fetches > MAX_FETCHES:
            raise FetchError(f"more than {MAX_FETCHES} subrequests of one request")
        answer = Answer(self._means.dial(chain, self.client))
        await answer.ask(head, method == "HEAD", body)
        return answer

    async def purge_tag(self, tag: str) -> int:
        """Purge a tag in every worker of this machine; how many responses there were in this one."""
        count, _ = await purged_everywhere(self._exchange.worker, Purge(PurgeKind.TAG, tag.encode()))
        return count

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter that the application defines."""
        self._means.counts.add_own(name, amount)

    def log(self, message: str) -> None:
        """Write an event `app.log`; at most 1,000 characters."""
        self._means.tell("app.log", {"app": self._means.app, "request": self.request_id, "evidence": message[:1000]})


def request_text(
    method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | AsyncIterator[bytes]
) -> bytes:
    """A request head. Raises ValueError for what could be parsed in two ways; the grammar checks the rest."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    for name, value in headers.items():
        if name.lower() in _OURS:
            raise ValueError(f"{name} is the gateway's to say")
        lines.append(f"{name}: {value}")
    if not isinstance(body, bytes):
        lines.append("Transfer-Encoding: chunked")
    elif body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    text, ends = "\r\n".join((*lines, "\r\n")), len(lines) + 1
    if text.count("\r") != ends or text.count("\n") != ends or "\0" in text or " " in method or " " in target:
        raise ValueError("a request's words hold no line ends, and its method and target no spaces")
    return text.encode("latin-1")


class Answer:
    """The answer to a subrequest while it streams (`edge.sdk.Fetched` and `ports.ResponseSink`)."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self._facts: ResponseFacts | None = None
        self._headers: dict[str, str] | None = None
        self._connection = connection
        self._more: asyncio.Event | None = None  # for who waits for the head, or for more of the body
        self._writable: asyncio.Event | None = None  # set while the inner request's body is taken
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._error: Exception | None = None

    async def ask(self, head: bytes, head_only: bool, body: bytes | AsyncIterator[bytes]) -> None:
        """Send the request and wait for the answer's head. Raises FetchError."""
        sink: ResponseSink = self
        connection = self._connection
        try:
            if isinstance(body, bytes):
                connection.send(head + body, sink, TIMEOUTS, head_only, False)
            else:
                connection.send(head, sink, TIMEOUTS, head_only, False)
                await self._upload(body)
            while not self.status and not self._ended:  # a hit is here already
                await self._wait()
        except asyncio.CancelledError:
            self.close()
            raise
        if not self.status and self._error is not None:
            raise self._error

    async def _wait(self) -> None:
        """Wait until a head, a piece or the end has arrived."""
        if self._more is None:
            self._more = asyncio.Event()
        self._more.clear()
        await self._more.wait()

    def _came(self) -> None:
        if self._more is not None:
            self._more.set()

    async def _upload(self, body: AsyncIterator[bytes]) -> None:
        connection = self._connection
        connection.upload_begins()
        async for piece in body:
            if self._writable is not None:
                await self._writable.wait()
            if self.status or self._ended:
                return  # an early answer: the rest is not wanted
            if piece:
                connection.upload(chunk(piece))
        connection.upload(last_chunk([]))
        connection.upload_ends()

    # -- edge.sdk.Fetched ------------------------------------------------------------------------------------------

    @property
    def headers(self) -> dict[str, str]:
        """The fields by lower-case name; values of several lines are joined with commas."""
        found = self._headers
        if found is None:
            found = self._headers = {}
            for name, value in self._facts.fields.lines if self._facts is not None else ():
                key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                found[key] = f"{found[key]}, {text}" if key in found else text
        return found

    @property
    def fields(self) -> list[tuple[str, str]]:
        """All field lines, except framing and connection fields."""
        lines = self._facts.fields.lines if self._facts is not None else ()
        named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in lines]
        return [(name, value) for name, value in named if name.lower() not in _OF_CONNECTION]

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces, as they arrive. Raises FetchError when it breaks off."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._held -= len(piece)
                if self._held <= HELD_BYTES // 4 and not self._ended:
                    self._connection.resume()
                yield piece
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            await self._wait()

    async def read(self) -> bytes:
        """The whole body. Raises FetchError when it breaks off or exceeds MAX_BODY."""
        if self._ended and self._error is None:
            body, self._held = b"".join(self._pieces), 0
            self._pieces.clear()
            return body
        pieces: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                self.close()
                raise FetchError(f"a body of more than {MAX_BODY >> 20} MiB is to be read in chunks")
        return b"".join(pieces)

    async def text(self) -> str:
        """The body decoded as UTF-8."""
        return (await self.read()).decode()

    async def json(self) -> Any:
        """The body parsed as JSON."""
        return orjson.loads(await self.read())

    async def relay(self, request: web.Request) -> web.StreamResponse:
        """Stream this answer as the answer to `request`."""
        from aiohttp import web  # who calls it has imported it

        response = web.StreamResponse(status=self.status, headers=CIMultiDict(self.fields))
        length = self.headers.get("content-length", "")
        if length.isdigit():
            response.content_length = int(length)
        await response.prepare(request)
        async for piece in self.chunks():
            await response.write(piece)
        await response.write_eof()
        return response

    def close(self) -> None:
        """Cancel: the subrequest ends at once."""
        if not self._ended:
            self._end(FetchError("closed"))
            self._connection.cancel()

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- ports.ResponseSink ----------------------------------------------------------------------------------------

    def on_interim(self, facts: ResponseFacts) -> None:
        """Ignored: early hints are for browsers."""

    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The final head arrived."""
        self.status = facts.status
        self._facts = facts
        if body:
            self.on_data(body)
        if done:
            self._end(None)
        self._came()

    def on_data(self, data: bytes) -> None:
        """A piece of the body arrived; beyond HELD_BYTES the backend is paused."""
        self._pieces.append(data)
        self._held += len(data)
        if self._held > HELD_BYTES:
            self._connection.pause()
        self._came()

    def on_end(self, trailers: list[Line]) -> None:
        """The answer is complete."""
        self._end(None)

    def on_failed(self, error: UpstreamError) -> None:
        """The subrequest failed; whoever reads gets FetchError."""
        self._end(FetchError(error.detail))

    def on_bug(self, error: Exception) -> None:
        """A callback of ours raised: the subrequest ends like a failed one."""
        self._end(FetchError(f"internal error: {type(error).__name__}"))

    def on_pause(self) -> None:
        """The subrequest's body is accepted more slowly than it is sent."""
        if self._writable is None:
            self._writable = asyncio.Event()
        self._writable.clear()

    def on_resume(self) -> None:
        """The subrequest's body may be sent again."""
        if self._writable is not None:
            self._writable.set()

    def _end(self, error: FetchError | None) -> None:
        if self._ended:
            return
        self._ended, self._error = True, error
        self._came()
        self.on_resume()
