"""A transport, a link, a sink and a waiter that only remember: for tests of one connection or link."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, cast

from kit.waiting import WAIT_S

from edge.adapters.backend_link import BackendLink
from edge.adapters.upstream_connection import UpstreamConnection
from edge.errors import UpstreamError
from edge.http.grammar import Limits, ResponseFacts, response_head
from edge.http.memo import Memo
from edge.http.message import Line
from edge.ports import Timeouts


class FakeTransport:
    """What was written, and how the connection ended."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False
        self.closed = False
        self.eof = False
        self.reading = True
        self.limits: tuple[int, int] = (0, 0)

    def write(self, data: bytes) -> None:
        assert data, "an empty write says nothing"
        self.written += data

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.9", 4711) if name == "peername" else None

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class FakeLink:
    """A backend's connections, as far as one connection knows of them."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.limits = limits
        self.timeouts = Timeouts()
        self.memo: Memo[ResponseFacts] = Memo(lambda head: response_head(head, limits))
        self.interim_max = 3
        self.chunk_line_bytes = 64
        self.trailer_bytes = 64
        self.given_back = 0
        self.forgotten = 0
        self.hinted: float | None = None
        self.later: Any = lambda go: go()

    def give_back(self, connection: UpstreamConnection) -> None:
        self.given_back += 1

    def forget(self, connection: UpstreamConnection) -> None:
        self.forgotten += 1

    def hint(self, connection: UpstreamConnection, seconds: float) -> None:
        self.hinted = seconds


class RecordingSink:
    """The calls as a transcript in which it does not show how the body was cut."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.paused = 0
        self.over = False

    def _say(self, *call: Any) -> None:
        assert not self.over, f"after the end: {call}"
        self.calls.append(call)

    def on_interim(self, facts: ResponseFacts) -> None:
        self._say("interim", facts.status, facts.fields.lines)

    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        self._say("head", facts.status, length)
        if body:
            self._body(body)
        if done:
            self._say("end", [])
            self.over = True

    def on_data(self, data: bytes) -> None:
        assert data, "never empty"
        assert any(call[0] == "head" for call in self.calls)
        self._body(data)

    def on_end(self, trailers: list[Line]) -> None:
        self._say("end", trailers)
        self.over = True

    def on_bug(self, error: Exception) -> None:
        raise error

    def on_failed(self, error: UpstreamError) -> None:
        self._say("failed", type(error).__name__)
        self.over = True

    def on_pause(self) -> None:
        self.paused += 1

    def on_resume(self) -> None:
        self.paused -= 1

    def _body(self, data: bytes) -> None:
        if self.calls[-1][0] == "body":
            data = self.calls.pop()[1] + data
        self._say("body", data)


class Wired:
    """A connection to a fake origin that has sent one request."""

    def __init__(self, head_only: bool = False, upgrade: bool = False, limits: Limits | None = None) -> None:
        self.link = FakeLink(limits)
        self.transport = FakeTransport()
        self.sink = RecordingSink()
        self.connection = UpstreamConnection(self.link)  # type: ignore[arg-type]
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.connection.send(b"GET / HTTP/1.1\r\n\r\n", self.sink, Timeouts(), head_only, upgrade)

    def feed(self, *parts: bytes) -> None:
        """Bytes of the origin; as asyncio does, none once the connection was given up."""
        for part in parts:
            if part and not self.transport.aborted:
                self.connection.data_received(part)

    def end(self, clean: bool = True) -> None:
        """The origin's end: FIN, or RST."""
        if clean and not self.transport.aborted:
            self.connection.eof_received()
        self.connection.connection_lost(None if clean else ConnectionResetError())

    @property
    def kept(self) -> bool:
        """Whether the connection may be used again."""
        assert self.link.given_back <= 1
        return self.link.given_back == 1 and not self.transport.is_closing()

    @property
    def no_deadline(self) -> bool:
        return self.connection.deadline == inf


class Waiter:
    """Hears of one connection or of one failure."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.connection: Any = None
        self.error: UpstreamError | None = None

    def on_connected(self, connection: Any) -> None:
        self.connection = connection
        self.told.set()

    def on_failed(self, error: UpstreamError) -> None:
        self.error = error
        self.told.set()


async def connected(owner: BackendLink, timeout: float = WAIT_S) -> Waiter:
    """Ask the link for a connection, and wait for it or the failure."""
    waiter = Waiter()
    owner.connect(cast(Any, waiter), timeout)
    await asyncio.wait_for(waiter.told.wait(), WAIT_S)
    return waiter
