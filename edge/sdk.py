"""What an application on a route may ask of the gateway that runs it.

    from aiohttp import web
    from edge.sdk import edge

    async def hello(request: web.Request) -> web.Response:
        me = edge()
        async with await me.fetch("/api/user") as user:
            return web.json_response({"client": me.client, "user": await user.json()})

One rule: this module is all that an application imports, and it imports nothing of the gateway. Outside of the
gateway, `edge()` raises LookupError with a line that says so. (A context variable carries it, for aiohttp warns of
string keys in `request[...]`.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol


class FetchError(Exception):
    """A subrequest brought no answer: refused (depth, number), its answer broke off, or it ended without one."""


class FetchLoop(FetchError):
    """The subrequest asks for what asked for it, or is nested too deep. Not caught, it becomes 508."""


class Changes:
    """What a hook changes in a head: lines to set and to remove, and in a request its target for the backend.

    One that is always the same is best made once. Lines of framing and of the connection are the gateway's; a name, a
    value or a target that could be read in two ways is a ValueError when it is used.
    """

    __slots__ = ("prepared", "remove", "set", "target")

    def __init__(
        self, set: Mapping[str, str] | None = None, remove: Sequence[str] = (), target: str | None = None
    ) -> None:
        self.set = set or {}
        self.remove = remove
        self.target = target
        self.prepared: dict[str, Any] = {}  # what the gateway made of it


class Respond:
    """A hook's own answer to a request; it goes no further."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes | str = b"", headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.body = body
        self.headers = headers or {}


class RequestHead(Protocol):
    """A request as hooks see it. Nothing of it is decoded before it is asked for."""

    @property
    def method(self) -> str:
        """GET, POST …"""

    @property
    def target(self) -> str:
        """Path and query as the client sent them."""

    @property
    def host(self) -> str:
        """Lower case, as the client sent it."""

    @property
    def scheme(self) -> str:
        """Of the client's connection: "http" or "https"."""

    @property
    def client(self) -> str:
        """The client's address, after the trusted-proxy rules."""

    @property
    def country(self) -> str:
        """ISO code of the client's place; empty when unknown."""

    @property
    def request_id(self) -> str:
        """As the log and the backends have it."""

    @property
    def route(self) -> str:
        """The route's name."""

    @property
    def fields(self) -> Sequence[tuple[str, str]]:
        """Every line; names as the client wrote them."""

    def get(self, name: str, default: str = "") -> str:
        """A field's value; lines of one name are joined with a comma."""

    def cookie(self, name: str, default: str = "") -> str:
        """A cookie's value."""


class ResponseHead(Protocol):
    """A response on its way to a client, as hooks see it: from a backend or from the cache."""

    @property
    def request(self) -> RequestHead:
        """The request that it answers."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def from_cache(self) -> bool:
        """Whether it was stored."""

    @property
    def fields(self) -> Sequence[tuple[str, str]]:
        """Every line: name and value, in order."""

    def get(self, name: str, default: str = "") -> str:
        """A field's value; lines of one name are joined with a comma."""


class Fetched(Protocol):
    """The answer to a subrequest. Its body streams: what is not read holds its origin back."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names; lines of one name are joined with a comma."""

    @property
    def fields(self) -> Sequence[tuple[str, str]]:
        """Each line by itself, without those of the connection and the length: for an answer of one's own."""

    async def relay(self, request: Any) -> Any:
        """Send it on as it comes, as the answer to an aiohttp `request`; returns the response. Raises FetchError."""

    async def read(self) -> bytes:
        """The whole body. Raises FetchError when it broke off, or is larger than 64 MiB."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come. Raises FetchError when it breaks off."""

    async def text(self) -> str:
        """The body as UTF-8."""

    async def json(self) -> Any:
        """The body as JSON. Raises ValueError."""

    def close(self) -> None:
        """Give up the rest of the body: the subrequest ends at once."""

    async def __aenter__(self) -> Fetched: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Edge(Protocol):
    """One request's view of the gateway."""

    @property
    def client(self) -> str:
        """The client's address, after the trusted-proxy rules."""

    @property
    def request_id(self) -> str:
        """As the log and the backends have it."""

    @property
    def route(self) -> str:
        """The route's name."""

    @property
    def pool(self) -> str:
        """The pool's name."""

    @property
    def region(self) -> str:
        """The region of the backend that this application stands for."""

    @property
    def scheme(self) -> str:
        """Of the client's connection: "http" or "https"."""

    @property
    def country(self) -> str:
        """ISO code of the client's place; empty when unknown."""

    async def fetch(
        self,
        target: str,
        *,
        method: str = "GET",
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> Fetched:
        """Ask the gateway itself, as a client would: routes, cache, pools and log apply.

        `target` is a path with its query; `host` is left out for the request's own. Raises FetchError when no answer
        came, or when requests are nested too deep or too many for one request; ValueError for what is no request.
        A body that is an async iterator is sent as it comes, no faster than it is taken.
        """

    async def purge_tag(self, tag: str) -> int:
        """Purge what carries a tag from the caches of all workers; how many responses there were in this one's."""

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of the application's own: `edge_app_own_total{app, name}` on /metrics.

        At most 64 names of 64 letters; what is beyond is counted as "other".
        """

    def log(self, message: str) -> None:
        """A line among the gateway's events, with the application's name and the request id."""


CURRENT: ContextVar[Edge] = ContextVar("edge")  # set by the gateway for each request, and for what it starts


def edge() -> Edge:
    """The gateway as the running request sees it."""
    found = CURRENT.get(None)
    if found is None:
        raise LookupError("this runs outside of a gateway's request")
    return found
