"""A purge by URL or tag while it is carried out: in force at once, its responses freed some at a time.

    purge ──► the name's members are taken out of the table, in one step
          ├─► look-ups: who is still in memory and older than the purge is checked, and goes or becomes stale
          └─► steps:    a bounded number of the members each

One rule: a response counts for a purge when it was of use at that moment, and once; what was evicted before its turn
came does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic

from edge.cache.purge import Purge, PurgeKind, Target, base_of
from edge.cache.queues import Node
from edge.cache.table import E

STEP = 200  # members that are looked at in one go


class Removal(Generic[E]):
    """One purge from when it is in force until all that it named is freed. `touched` is called for each response
    that counts.
    """

    __slots__ = ("_done", "at", "count", "keys", "nodes", "purge", "seq", "touched")

    def __init__(
        self, purge: Purge, at: float, seq: int, nodes: set[Node[E]], keys: set[bytes], touched: Callable[[E], None]
    ) -> None:
        self.purge = purge
        self.at = at
        self.seq = seq
        self.nodes = nodes  # that carry the tag
        self.keys = keys  # of the URL
        self.touched = touched
        self.count = 0
        self._done: list[Callable[[], None]] = []

    @property
    def left(self) -> int:
        """How many responses it has not looked at yet."""
        return len(self.nodes) + len(self.keys)

    def counts(self, stored: E) -> None:
        """Count a response that was still of use."""
        self.count += 1
        self.touched(stored)

    def then(self, call: Callable[[], None]) -> None:
        """Call this when all is freed; at once if it is already."""
        if self.left:
            self._done.append(call)
        else:
            call()

    def over(self) -> None:
        """Whether all is freed."""
        done, self._done = self._done, []
        for call in done:
            call()


class Removals(Generic[E]):
    """The removals that are under way, the oldest first."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[Target, list[Removal[E]]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, removal: Removal[E]) -> None:
        """Add a removal that begins."""
        self._of.setdefault((removal.purge.kind, removal.purge.value), []).append(removal)

    def first(self) -> Removal[E]:
        """The removal that began first."""
        return next(iter(self._of.values()))[0]

    def end(self, removal: Removal[E]) -> None:
        """Take out a removal that is over."""
        target = (removal.purge.kind, removal.purge.value)
        left = [each for each in self._of[target] if each is not removal]
        if left:
            self._of[target] = left
        else:
            del self._of[target]

    def naming(self, key: bytes, tags: Iterable[bytes], after: int) -> list[Removal[Any]]:
        """The removals that name a response, if they began after it was last checked (`after`); the oldest first."""
        targets: list[Target] = [(PurgeKind.URL, base_of(key)), *((PurgeKind.TAG, tag) for tag in tags)]
        found = [each for target in targets for each in self._of.get(target, ()) if each.seq > after]
        return sorted(found, key=lambda each: each.seq) if len(found) > 1 else found
