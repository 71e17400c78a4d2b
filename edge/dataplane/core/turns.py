"""What is too much for one turn of the loop goes on in the next ones.

One rule: nobody holds the loop. All that waits here shares about a millisecond of each turn, one after the other,
and between two turns the loop reads and serves everybody else. Who adds work does a small bounded part of it at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import TypeVar

TURN_S = 0.001

Go = Callable[[], object]
T = TypeVar("T")


class Turns:
    """The queue of one worker. `report` is called with exceptions that a part of the work raised."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self._queue: deque[Go] = deque()
        self._again: list[Go] = []  # for the next turn at the earliest
        self._due = False
        self._report = report
        self._rested_at = 0.0  # when there may be work again without a turn

    def __len__(self) -> int:
        return len(self._queue) + len(self._again)

    def later(self, go: Go) -> None:
        """Call this in a later turn of the loop, after what is queued already."""
        self._queue.append(go)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.run)

    def soon(self, go: Go) -> None:
        """Call this at once, where nothing is queued and there was a rest since the last such call that was as long as
        that one; else as `later`. A turn of its own costs as much as a small part of the work."""
        begun = monotonic()
        if self._due or begun < self._rested_at:
            self.later(go)
            return
        try:
            go()
        except Exception as error:
            self._report(error)
        ended = monotonic()
        self._rested_at = ended + (ended - begun)

    def again(self, go: Go) -> None:
        """For work that has had its part of this turn: call it in the next one, first."""
        self._again.append(go)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.run)

    def each(self, items: Iterable[T], act: Callable[[T], object], most: int) -> None:
        """Call `act` for each item, at most `most` in one turn of the loop; the first ones at once."""
        self._some(deque(items), act, most)

    def _some(self, left: deque[T], act: Callable[[T], object], most: int) -> None:
        for _ in range(min(most, len(left))):
            try:
                act(left.popleft())
            except Exception as error:
                self._report(error)
        if left:
            self.later(partial(self._some, left, act, most))

    def run(self) -> None:
        """Do one turn's share of the queue."""
        queue, until = self._queue, monotonic() + TURN_S
        queue.extendleft(reversed(self._again))
        self._again.clear()
        while queue:
            try:
                queue.popleft()()
            except Exception as error:
                self._report(error)
            if monotonic() >= until:
                break
        self._due = bool(queue or self._again)
        if self._due:
            asyncio.get_running_loop().call_soon(self.run)
