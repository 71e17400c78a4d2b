"""What clients have not taken of their answers: all of it together is bounded, whatever one connection may hold.

    a look at the slow connections ─► what each holds, added up ─► more than the bound?
        ─► the next look counts memory: a stored body that many streams wait with once ─► still more?
        ─► connections end, those that hold most first, until the rest is within the bound

One rule: nobody is ended for memory that is not there.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Holder(Protocol):
    """A client connection, as far as it is counted."""

    def held(self, seen: set[int] | None) -> int: ...


T = TypeVar("T", bound=Holder)


class Unread(Generic[T]):
    """One for a worker; a round is one look at each slow connection."""

    __slots__ = ("_held", "_seen", "ended")

    def __init__(self) -> None:
        self._held: dict[T, int] = {}  # in this round
        self._seen: set[int] | None = None  # in a round that counts memory: the pieces counted, by `id`
        self.ended = 0  # connections

    def count(self, one: T) -> None:
        """The look has come to this connection."""
        self._held[one] = one.held(self._seen)

    def excess(self, most: int) -> list[T]:
        """The round is over: those to end so that the others hold no more than `most` bytes (0: no bound)."""
        held, self._held = self._held, {}
        seen, self._seen = self._seen, None
        left = sum(held.values())
        if not most or left <= most:
            return []
        if seen is None:
            self._seen = set()
            return []
        found = []
        for one in sorted(held, key=held.__getitem__, reverse=True):
            found.append(one)
            left -= held[one]
            if left <= most:
                break
        return found
