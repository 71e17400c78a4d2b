"""Who has which pieces of a fill's body: a few clients get them at once, very many over several turns of the loop.

    stored in memory      every piece stays, and nobody holds the backend back
    not, or not any more  pieces go when the last one has them, and the slowest holds the backend back

One rule: a piece stays until everybody has it who is to have it: who follows, and who is still to hear that it may
(`Fill.due`). What stays is set aside in the budget of the memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from edge.cache.calls import TURN
from edge.cache.stored import Plan
from edge.errors import EdgeError
from edge.http.message import Line
from edge.ports import Spill

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.store import Store


class Taker(Protocol):
    """A client of a fill, as this file sees it (`follower.Follower`)."""

    at: int  # its next piece

    def pump(self) -> None: ...


class Holding(Protocol):
    """The fetch that brings the pieces, and may be held back (`upstream.fetch.Fetch`)."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Stream(Protocol):
    """The fill that clients take part in (`fill.Fill`)."""

    store: Store
    exchange: Exchange  # whose request went to the origin
    followers: dict[Any, None]  # each a Taker
    chunks: list[bytes]  # pieces of the body, from the first that somebody still needs
    whole: bool  # the body has ended
    trailers: list[Line]
    plan: Plan | None  # set while the body is being stored
    spill: Spill | None  # the body goes to the disk as it comes
    reserved: int  # bytes set aside in memory
    dropped: bool  # pieces of its beginning
    held_back: bool  # the backend
    round: deque[Any]  # who is still to be served in this round
    again: bool  # another round follows
    settles: bool  # it will be settled in a later turn

    @property
    def fetch(self) -> Holding | None: ...
    @property
    def due(self) -> bool: ...
    def join(self, follower: Any) -> None: ...
    def leave(self, follower: Any, error: EdgeError | None) -> None: ...


def pump(fill: Stream) -> None:
    """Give every client what it can take; where nothing is stored, drop pieces or hold the backend back."""
    if len(fill.followers) <= TURN or fill.store.later is None:
        for follower in list(fill.followers):
            follower.pump()
    elif fill.round:
        fill.again = True
    else:
        _begin_round(fill)
    settle(fill)


def _begin_round(fill: Stream) -> None:
    fill.again = False
    fill.round = deque(fill.followers)
    _later(fill, partial(_some, fill))


def _some(fill: Stream) -> None:
    """A turn's share of a round."""
    left = fill.round
    try:
        for _ in range(min(TURN, len(left))):
            follower = left.popleft()
            if follower in fill.followers:
                follower.pump()
    finally:
        if left:
            _later(fill, partial(_some, fill))
        elif fill.again:
            _begin_round(fill)
        else:
            settle(fill)


def resumed(fill: Stream, follower: Taker) -> None:
    """A client takes more again."""
    if len(fill.followers) <= TURN:
        pump(fill)
    else:
        follower.pump()
        settle_soon(fill)


def settle_soon(fill: Stream) -> None:
    """As `settle`, once for all that happens in a turn where it would take long."""
    if len(fill.followers) <= TURN or fill.store.later is None:
        settle(fill)
    elif not fill.settles:
        fill.settles = True
        _later(fill, partial(_settle, fill))


def _settle(fill: Stream) -> None:
    fill.settles = False
    settle(fill)


def settle(fill: Stream) -> None:
    """Drop what everybody has, and hold the backend back while somebody is behind."""
    if fill.plan is not None and fill.spill is None and not fill.whole:
        return
    if not fill.due:
        _trim(fill)
    behind = bool(fill.chunks) or (fill.spill is not None and fill.spill.full)
    if fill.fetch is not None and behind != fill.held_back:
        fill.held_back = behind
        fill.fetch.pause() if behind else fill.fetch.resume()


def _trim(fill: Stream) -> None:
    """Drop the pieces that every client has, and give back what was set aside for them."""
    chunks = fill.chunks
    count = min((follower.at for follower in fill.followers), default=len(chunks))
    if not count:
        return
    if fill.reserved:
        freed = min(sum(map(len, chunks[:count])), fill.reserved)
        fill.store.index.release(freed)
        fill.reserved -= freed
    del chunks[:count]
    fill.dropped = True
    for follower in fill.followers:
        follower.at -= count


def hold(fill: Stream) -> None:
    """The body is complete and some clients still take it: count it until they have, even if what was stored is
    evicted.
    """
    missing = sum(map(len, fill.chunks)) - fill.reserved
    if missing > 0:
        fill.store.index.hold(missing, fill.store.clock())
        fill.reserved += missing


def each(fill: Stream, act: Callable[[Any], None]) -> None:
    """Call `act` for every present client that has not left before its turn."""
    _each(fill, deque(fill.followers), act)


def _each(fill: Stream, left: deque[Any], act: Callable[[Any], None]) -> None:
    try:
        for _ in range(min(TURN, len(left))):
            follower = left.popleft()
            if follower in fill.followers:
                act(follower)
    finally:
        if left:
            _later(fill, partial(_each, fill, left, act))


def _later(fill: Stream, go: Callable[[], None]) -> None:
    later = fill.store.later
    if later is None:
        go()
    else:
        later(go)
