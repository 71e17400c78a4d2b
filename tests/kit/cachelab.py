"""A worker with a cache, its origin and its clients on one loop, and a wall clock that tests move: no test waits.

One rule: a case speaks in HTTP only. It says what the origin answers, asks, and looks at the answer and at what the
origin was asked; `Lab.clock` is the cache's wall clock, moved by `Lab.later`, and `Lab.date` gives dates by it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

from edge.app import build, listen
from edge.cache.stored import Stored
from edge.config.loader import load_text
from edge.dataplane.core.store import Store
from edge.dataplane.worker.worker import Worker
from kit import waiting
from kit.client import RawClient, Response
from kit.origin import Action, Received, ScriptedOrigin
from kit.ports import LOOPBACK
from kit.waiting import WAIT_S

HOST = "a.example"
_WHEN = re.compile(r"@(-?[0-9]+)")
START = 1_800_000_000.0


def lab_toml(port: int, rules: str = "", memory: str = "64MiB", route: str = "", disk: str = "") -> str:
    """One pool, one route; `rules` are keys of its `cache` table. No limit ends anything before a test would fail."""
    for key, value in (("set_cookie", "store"), ("collapse_wait", f"{WAIT_S:g}s")):
        rules = f"{key} = '{value}', {rules}" if key not in rules else rules
    return f"""
[listen]
http = ["{LOOPBACK}:0"]
[log]
access = "off"
[cache]
memory = "{memory}"
{f'disk = {{ path = "{disk}", size = "64MiB", min_free = "0B" }}' if disk else ""}
[pools.origin]
ejection = false
timeouts = {{ connect = "{WAIT_S:g}s", first_byte = "{WAIT_S:g}s", head = "{WAIT_S:g}s", body = "{WAIT_S:g}s" }}
backends = [{{ url = "http://{LOOPBACK}:{port}" }}]
[[routes]]
host = "*"
path = "/"
pool = "origin"
cache = {{ {rules.rstrip(", ")} }}
{route}
"""


def head(status: int, lines: tuple[str, ...], length: int | None, reason: str = "Reason") -> bytes:
    """A response head; obs-text as Latin-1. A length of None leaves framing to `lines`."""
    sized = () if length is None or status in (204, 304) else (f"Content-Length: {length}",)
    return "\r\n".join((f"HTTP/1.1 {status} {reason}", *lines, *sized, "", "")).encode("latin-1")


def reply(*lines: str, status: int = 200, body: bytes | str = b"", reason: str = "Reason") -> bytes:
    """A whole response with Content-Length."""
    content = body.encode() if isinstance(body, str) else body
    return head(status, lines, len(content), reason) + (b"" if status in (204, 304) else content)


class Lab:
    """One worker under test. Each case takes `fresh()` for a target of its own."""

    def __init__(self, worker: Worker, origin: ScriptedOrigin, port: int) -> None:
        assert worker.store is not None
        self.worker = worker
        self.origin = origin
        self.port = port
        self.store: Store = worker.store
        self.now = START
        self.store.clock = lambda: self.now
        self.target = "/"
        self.client: RawClient | None = None
        self._count = 0

    # -- time

    def later(self, seconds: float) -> None:
        """Let time pass for the cache."""
        self.now += seconds

    def date(self, offset: float = 0.0) -> str:
        """An HTTP date some seconds from now."""
        return formatdate(self.now + offset, usegmt=True)

    def dated(self, line: str) -> str:
        """`@60` in a line becomes the date in a minute, `@-60` the one a minute ago."""
        return _WHEN.sub(lambda found: self.date(float(found[1])), line)

    # -- talking

    def fresh(self) -> str:
        """A target that nobody has used; the default of `ask` from now on."""
        self._count += 1
        self.target = f"/t{self._count}"
        self.origin.forget()
        return self.target

    def answers(self, *script: Action) -> None:
        """What the origin says to the next request; several calls make a queue."""
        self.origin.enqueue(*script)

    def says(self, *lines: str, status: int = 200, body: bytes | str = b"body", reason: str = "Reason") -> None:
        """The same for a whole response."""
        dated = map(self.dated, lines)
        self.origin.enqueue(reply(*dated, status=status, body=body, reason=reason))

    async def ask(self, *lines: str, method: str = "GET", target: str = "", body: bytes | None = None) -> Response:
        """One request on the lab's own connection, made anew when it has ended."""
        if self.client is None or self.client.wire.ended:
            await self.hang_up()
            self.client = await RawClient.connect(self.port)
        dated = map(self.dated, lines)
        await self.client.send(request(*dated, method=method, target=target or self.target, body=body))
        response = await self.client.read_response(method.encode())
        assert response is not None, "the connection ended without a response"
        return response

    async def hang_up(self) -> None:
        """End the lab's own connection."""
        if self.client is not None:
            await self.client.close()
            self.client = None

    async def reuses(
        self,
        *lines: str,
        status: int = 200,
        first: tuple[str, ...] = (),
        again: tuple[str, ...] = (),
        after: float = 0.0,
    ) -> bool:
        """Whether a response with these lines to a request with `first` answers one with `again`, some time later."""
        self.says(*lines, status=status, body="old")
        await self.ask(*first)
        self.later(after)
        self.says("Cache-Control: no-store", body="new")
        response = await self.ask(*again)
        asked = len(self.asked)
        assert asked in (1, 2), f"the origin was asked {asked} times"
        assert from_store(response) == (asked == 1)
        if response.status not in (204, 304) and asked == 2:
            assert response.body.content == b"new"
        self.origin.forget()
        return asked == 1

    # -- looking

    @property
    def asked(self) -> list[Received]:
        """What the origin was asked since `fresh`."""
        return self.origin.requests

    @property
    def last(self) -> Received:
        """The newest of them."""
        return self.origin.requests[-1]

    def stored(self, target: str = "") -> tuple[Stored, ...]:
        """The variants that the tiers have for a target."""
        key = f"http://{HOST}{target or self.target}".encode()
        return self.store.variants(key)

    @property
    def in_flight(self) -> int:
        """Requests at backends."""
        return sum(backend.in_flight for pool in self.worker.pools.values() for backend in pool.pool.backends)

    @property
    def at_rest(self) -> bool:
        """Nothing is reserved, in flight, or led by anybody."""
        return not (self.in_flight or len(self.store.flights) or self.store.index.stats().reserved_bytes)

    async def rest(self) -> None:
        """Wait until what runs in the background has ended."""
        await until(lambda: self.at_rest and not self.store.refreshing)


def request(*lines: str, method: str = "GET", target: str = "/", body: bytes | None = None, host: str = HOST) -> bytes:
    """A request as bytes."""
    sized = () if body is None else (f"Content-Length: {len(body)}",)
    head = "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, *sized, "", ""))
    return head.encode("latin-1") + (body or b"")


@asynccontextmanager
async def open_lab(
    rules: str = "",
    memory: str = "64MiB",
    route: str = "",
    disk: str = "",
    edit: Callable[[str], str] = str,
) -> AsyncIterator[Lab]:
    """A lab on the running loop, with a disk tier where a folder is given; `edit` has the last word on its
    configuration. Its end checks that it met no bug."""
    origin = ScriptedOrigin()
    await origin.start()
    config = load_text(edit(lab_toml(origin.port, rules, memory, route, disk)), "lab.toml")
    worker = build(config)
    bound = await listen(worker, config)
    lab = Lab(worker, origin, bound[0][1])
    try:
        yield lab
    finally:
        await lab.hang_up()
        await worker.close()
        await origin.stop()
    assert worker.bugs == 0, "the worker caught an exception: see standard error"


async def until(fact: Callable[[], object], wait_s: float = WAIT_S) -> None:
    """Wait for a fact of this loop, where all of the lab is: looked at in each turn."""
    await waiting.until(fact, wait_s, look_s=0)


def from_store(response: Response) -> bool:
    """Whether our Cache-Status says hit."""
    return b"edge; hit" in (response.get(b"cache-status") or b"")
