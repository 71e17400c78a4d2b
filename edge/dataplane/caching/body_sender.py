"""Sending a large body that is in memory: as fast as the client takes it, and never whole into its buffer.

One rule: a body that somebody still takes counts against the budget of the memory until the last one has it, whatever
became of the stored response (`Index.sends`). A client that reads nothing can make the store refuse, not grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge.cache.stored import AT_ONCE_BYTES, Stored
from edge.errors import EdgeError

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange

TURN_BYTES = 1024 * 1024  # written to one client in one turn of the loop


class BodySender:
    """The exchange's follower while a body is sent: told when the client accepts more or leaves."""

    __slots__ = ("_comes_back", "_exchange", "_pieces", "_stored")

    def __init__(self, exchange: Exchange, stored: Stored, pieces: tuple[bytes, ...]) -> None:
        self._exchange = exchange
        self._stored: Stored | None = stored
        self._pieces = _cut(pieces)
        self._comes_back = False

    def start(self, head: tuple[bytes, bytes]) -> None:
        """Write the head and as much of the body as the client accepts at once."""
        store = self._exchange.worker.store
        assert store is not None and self._stored is not None
        store.index.sends(self._stored, store.clock())
        self._exchange.follower = self
        self._exchange.begin(*head, True)
        self.resumed()

    def resumed(self) -> None:
        """The client accepts more: write the next pieces."""
        if not self._comes_back:
            self._go_on()

    def leave(self, error: EdgeError) -> None:
        """The client left: give the memory back."""
        self._let_go()

    def _go_on(self) -> None:
        self._comes_back = False
        exchange, written = self._exchange, 0
        while not (exchange.ended or exchange.downstream.paused):
            if written >= TURN_BYTES:  # others have their turn in between
                self._comes_back = True
                asyncio.get_running_loop().call_soon(self._go_on)
                return
            piece = next(self._pieces, None)
            if piece is None:
                exchange.follower = None
                exchange.end()
                break
            exchange.body(piece)
            written += len(piece)
        if exchange.ended:
            self._let_go()

    def _let_go(self) -> None:
        stored, self._stored = self._stored, None
        store = self._exchange.worker.store
        if stored is not None and store is not None:
            self._pieces = iter(())
            store.index.sent(stored)


def _cut(pieces: tuple[bytes, ...]) -> Iterator[bytes]:
    """The pieces, none of them much larger than what is written at once."""
    for piece in pieces:
        if len(piece) <= 2 * AT_ONCE_BYTES:
            yield piece
        else:
            yield from (piece[at : at + AT_ONCE_BYTES] for at in range(0, len(piece), AT_ONCE_BYTES))
