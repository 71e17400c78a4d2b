"""Telling many parties the same: a few at once, the others in later turns of the loop.

One rule: each party is told once, in its order, and never from within another's call; who leaves before is not told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Generic, TypeVar

P = TypeVar("P")

TURN = 16  # in one go: each of them may write a response or begin a fetch

Later = Callable[[Callable[[], None]], object]


class _Group(Generic[P]):
    """Parties that are told the same, by id(). `about` is opaque here and given back by `drop`."""

    __slots__ = ("about", "parties", "tell")

    def __init__(self, parties: dict[int, P], tell: Callable[[P], object], about: Any) -> None:
        self.parties = parties
        self.tell = tell
        self.about = about


class Calls(Generic[P]):
    """The calls that are due. `later` schedules one for a later turn of the loop; without it all are made at once."""

    def __init__(self) -> None:
        self.later: Later | None = None
        self.turn = TURN
        self._groups: deque[_Group[P]] = deque()
        self._due: dict[int, _Group[P]] = {}
        self._calling = False
        self._goes_on = False  # in a later turn

    def __len__(self) -> int:
        return len(self._due)

    def add(self, parties: dict[int, P], tell: Callable[[P], object], about: Any = None) -> None:
        """Have `tell` called for each of these parties with the next `run`. They are removed from `parties` before
        their call.
        """
        if parties:
            group = _Group(parties, tell, about)
            self._groups.append(group)
            self._due.update(dict.fromkeys(parties, group))

    def drop(self, party: P) -> Any:
        """Cancel the call to a party that has left. Returns the call's `about`, or None if none was due."""
        group = self._due.pop(id(party), None)
        if group is None:
            return None
        del group.parties[id(party)]
        return group.about

    def run(self) -> None:
        """Make the calls that are due, unless a running call or a scheduled turn will do so."""
        if self._calling or self._goes_on:
            return
        self._calling = True
        raised: list[Exception] = []
        made = 0
        while self._groups and (made < self.turn or self.later is None):
            group = self._groups.popleft()
            made += self._some(group, self.turn if self.later is None else self.turn - made, raised)
            if group.parties:
                self._groups.append(group)  # a small one need not wait until a large one is through
        self._calling = False
        if self._groups and self.later is not None:
            self._goes_on = True
            self.later(self._go_on)
        if raised:
            raise raised[0]

    def _some(self, group: _Group[P], most: int, raised: list[Exception]) -> int:
        """Make `most` of them; one that raises, which is a bug of its party, does not keep the rest."""
        marks = list(islice(group.parties, most))
        for mark in marks:
            party = group.parties.pop(mark, None)
            if party is None:  # it left while another was told
                continue
            del self._due[mark]
            try:
                group.tell(party)
            except Exception as error:
                raised.append(error)
        return len(marks)

    def _go_on(self) -> None:
        self._goes_on = False
        self.run()
