"""The link between supervisor and worker: frames over a socketpair, or in memory for tests; the same interface.

One rule: a link ends once. The peer's death, a broken frame, or a peer that no longer reads (more than
`MAX_BACKLOG_BYTES` waiting) all end it, `on_closed` is told why, and every question still open fails with `LinkLost`.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from edge.errors import EdgeError
from edge.frames import Decoder, Frame, FrameError, FrameKind, encode

MAX_BACKLOG_BYTES = 320 * 1024 * 1024  # one frame of the largest size, and then some

Progress = Callable[[dict[str, Any]], None]
Answer = asyncio.Future[dict[str, Any]]


class LinkLost(EdgeError):
    """The other process ended, or its link did."""


class Refused(EdgeError):
    """The other side answered with an error; its text is one clear line."""


class Wire(Protocol):
    """Transports encoded frames."""

    def write(self, data: bytes) -> None: ...
    def backlog(self) -> int: ...
    def close(self) -> None: ...


class Link:
    """One end of a link. `on_frame` gets every frame except answers to own questions; `on_closed` is called once."""

    def __init__(self) -> None:
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        self.on_closed: Callable[[str], None] = lambda reason: None
        self.closed: str | None = None
        self.ended = asyncio.Event()
        self._wire: Wire | None = None
        self._decoder = Decoder()
        self._numbers = itertools.count(1)
        self._asked: dict[int, Answer] = {}
        self._progress: dict[int, Progress] = {}

    def use(self, wire: Wire) -> None:
        """Send and receive over this wire."""
        self._wire = wire

    # -- out -------------------------------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Send a frame. On a link that has ended it is dropped."""
        if self.closed is not None or self._wire is None:
            return
        self._wire.write(encode(frame))
        if self._wire.backlog() > MAX_BACKLOG_BYTES:
            self.end("the peer does not read")

    def ask(self, kind: FrameKind, body: dict[str, Any], on_progress: Progress | None = None) -> Answer:
        """Send a question. The future gives the answer, or raises Refused or LinkLost; `on_progress` gets what long
        work reports.
        """
        number = next(self._numbers)
        future: Answer = asyncio.get_running_loop().create_future()
        if self.closed is not None:
            future.set_exception(LinkLost(self.closed))
            return future
        self._asked[number] = future
        if on_progress is not None:
            self._progress[number] = on_progress
        future.add_done_callback(lambda _: self._forget(number))
        self.send(Frame(kind, body, number))
        return future

    # -- in --------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Decode bytes that arrived, and handle the frames in them."""
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self.end(error.detail)
            return
        for frame in frames:
            if self.closed is None:
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.PROGRESS:
            told = self._progress.get(frame.id)
            if told is not None:
                told(frame.body)
            return
        if frame.kind is not FrameKind.ACK:
            self.on_frame(frame)
            return
        future = self._asked.get(frame.id)
        if future is None or future.done():  # whoever asked waits no longer
            return
        if frame.body.get("ok"):
            future.set_result(frame.body.get("answer") or {})
        else:
            future.set_exception(Refused(str(frame.body.get("error", "failed"))))

    # -- the end ---------------------------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """End the link; of several reasons the first one is kept."""
        if self.closed is not None:
            return
        self.closed = reason
        self.ended.set()
        for future in list(self._asked.values()):
            if not future.done():
                future.set_exception(LinkLost(reason))
        if self._wire is not None:
            self._wire.close()
        self.on_closed(reason)

    def _forget(self, number: int) -> None:
        self._asked.pop(number, None)
        self._progress.pop(number, None)


class _SocketWire(asyncio.Protocol):
    """Frames over a socket."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._link.use(self)

    def data_received(self, data: bytes) -> None:
        self._link.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.end("the peer closed the link" if exc is None else f"link broken: {exc}")

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def backlog(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()


class _MemoryWire:
    """Frames as bytes to a link in the same process, on a later turn of the loop, as a socket would."""

    def __init__(self, peer: Link) -> None:
        self._peer = peer
        self._waiting = 0
        self._closed = False

    def write(self, data: bytes) -> None:
        self._waiting += len(data)
        asyncio.get_running_loop().call_soon(self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        self._waiting -= len(data)
        self._peer.feed(data)

    def backlog(self) -> int:
        return self._waiting

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self._peer.end, "the peer closed the link")


async def connect(sock: socket.socket, on_frame: Callable[[Frame], None] | None = None) -> Link:
    """A link over one end of a socketpair. Frames may arrive before this returns, so their receiver is an argument."""
    sock.setblocking(False)
    link = Link()
    if on_frame is not None:
        link.on_frame = on_frame
    await asyncio.get_running_loop().create_connection(lambda: _SocketWire(link), sock=sock)
    return link


def pair() -> tuple[Link, Link]:
    """Two links in this process, joined: supervisor's end and worker's end."""
    down, up = Link(), Link()
    down.use(_MemoryWire(up))
    up.use(_MemoryWire(down))
    return down, up
