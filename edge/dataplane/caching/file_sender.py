"""Sending a body that is in a file: piece by piece, as fast as the client takes it, never whole in memory.

One rule: the head goes out with the first piece, so that a body which is gone or damaged at its start is still a miss
(`lost`); what turns out damaged later ends the connection. What the page cache does not have is read in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edge.cache.body import PIECE_BYTES
from edge.cache.stored import Stored
from edge.errors import EdgeError

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.ports import OpenBody

Head = tuple[bytes, bytes]  # a status line with field lines, and further lines
Part = bytes | tuple[int, int]  # bytes as they are, or where they begin and end in the body


class FileSender:
    """The exchange's follower while a body file is sent: told when the client accepts more or leaves."""

    __slots__ = ("_begun", "_exchange", "_head", "_lost", "_opened", "_reading", "_steps", "_stored")

    def __init__(
        self, exchange: Exchange, stored: Stored, head: Head, parts: tuple[Part, ...], lost: Callable[[], None]
    ) -> None:
        self._exchange = exchange
        self._stored = stored
        self._head = head
        self._lost = lost
        self._opened: OpenBody | None = None
        self._steps = _steps(parts)
        self._begun = False
        self._reading = False

    def start(self) -> None:
        """Open the body and send the first piece."""
        store = self._exchange.worker.store
        assert store is not None and store.disk is not None
        self._opened = store.disk.open_body(self._stored)
        if self._opened is None:
            self._lost()
            return
        self._exchange.follower = self
        self._next()

    # -- as the follower --------------------------------------------------------------------------------------------

    def resumed(self) -> None:
        """The client accepts more: send the next piece."""
        if not self._reading:
            self._next()

    def leave(self, error: EdgeError) -> None:
        """The client left: close the file."""
        self._close()

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Send one piece, then continue in the loop's next turn, so that others have theirs in between."""
        self._reading = False
        exchange, opened = self._exchange, self._opened
        if exchange.ended or opened is None or exchange.downstream.paused:
            return
        step = next(self._steps, None)
        if step is None:
            self._close()
            exchange.follower = None
            exchange.end()
            return
        if isinstance(step, bytes):
            self._write(step)
            return
        number, first, last = step
        data = opened.quick(number)
        self._reading = True
        if data is not None:
            self._came(data, first, last)
            return
        store = exchange.worker.store
        assert store is not None and store.disk is not None
        store.disk.later(lambda: opened.piece(number, True), lambda found: self._came(found, first, last))

    def _came(self, found: bytes | bytearray | Exception, first: int, last: int) -> None:
        self._reading = False
        if self._opened is None or self._exchange.ended:
            return
        if isinstance(found, Exception):
            self._damaged(found)
        else:
            self._write(found if first == 0 and last == len(found) else found[first:last])

    def _write(self, data: bytes | bytearray) -> None:
        exchange = self._exchange
        if not self._begun:
            self._begun = True
            exchange.begin(*self._head, True)
        exchange.body(data)
        self._reading = True
        asyncio.get_running_loop().call_soon(self._next)

    def _damaged(self, why: Exception) -> None:
        """A piece does not match its checksum or cannot be read: report it, and end what was begun."""
        exchange = self._exchange
        store = exchange.worker.store
        assert store is not None and store.disk is not None
        self._close()
        exchange.follower = None
        store.disk.damage(self._stored, str(why))
        store.index.discard(self._stored)
        if self._begun:
            exchange.broken(EdgeError("the stored body is damaged"))
        else:
            self._lost()

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and not self._reading:
            opened.close()
        elif opened is not None:
            asyncio.get_running_loop().call_later(1.0, opened.close)  # a thread may still read from it


def _steps(parts: tuple[Part, ...]) -> Iterator[bytes | tuple[int, int, int]]:
    """The parts as bytes, or as (piece of the file, first and end within it)."""
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        at, stop = part
        while at < stop:
            number = at // PIECE_BYTES
            begin = number * PIECE_BYTES
            end = min(stop, begin + PIECE_BYTES)
            yield number, at - begin, end - begin
            at = end
