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
    """Parties that are to be told the same, by id(); `about` is for whoever made the group."""

    __slots__ = ("about", "parties", "tell")

    def __init__(self, parties: dict[int, P], tell: Callable[[P], object], about: Any) -> None:
        self.parties = parties
        self.tell = tell
        self.about = about


class Calls(Generic[P]):
    """Those that are due. `later` calls something in a later turn; without it nothing waits for one."""

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
        """Have these told with the next `run`; who was told is taken out of `parties` before."""
        if parties:
            group = _Group(parties, tell, about)
            self._groups.append(group)
            self._due.update(dict.fromkeys(parties, group))

    def drop(self, party: P) -> Any:
        """A party has left; what the call that it was to get was about, None where it was to get none."""
        group = self._due.pop(id(party), None)
        if group is None:
            return None
        del group.parties[id(party)]
        return group.about

    def run(self) -> None:
        """Make the calls that are due, unless one that is under way or a later turn does so."""
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
