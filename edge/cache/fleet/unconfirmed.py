"""What this machine put into the stream, until every machine is known to have applied it.

One rule: a server that fails over may lose the last entries, and nobody else knows that they were there. So they are
sent again as soon as another process of the server, or another stream, is followed. What every machine has applied is
not: had it been lost, each of them would have noticed (README, rule 7).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from edge.cache.fleet.machines import Machines
from edge.cache.fleet.purges import UNREADABLE
from edge.cache.purge import Purge

MOST = 4096  # beyond, it is everything


@dataclass(frozen=True, slots=True)
class Sent:
    """A purge, an operator's or not, and where it was put."""

    purge: Purge
    lasting: bool
    actor: str
    reason: str
    history: str
    run: str
    position: int


class Unconfirmed:
    """The purges that one machine has put into the stream and not all have applied, oldest first."""

    def __init__(self) -> None:
        self._sent: deque[Sent] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, sent: Sent) -> None:
        """Remember a purge that is in the stream now. Too many become a single one that distrusts everything."""
        if len(self._sent) >= MOST:
            self._sent.clear()
            sent = Sent(UNREADABLE, True, "", "too many purges to name", sent.history, sent.run, sent.position)
        self._sent.append(sent)

    def look(self, machines: Machines, now: float) -> None:
        """Forget what every machine has applied."""
        while self._sent:
            first = self._sent[0]
            _, late = machines.waiting(first.history, first.run, first.position, now)
            if late:
                return
            self._sent.popleft()

    def of_another(self, history: str, run: str) -> Sent | None:
        """The oldest one if another process or stream has it, so that it has to be sent again; else None."""
        first = self._sent[0] if self._sent else None
        return None if first is None or (first.history, first.run) == (history, run) else first

    def sent_again(self, lost: Sent) -> None:
        """Forget a purge that was sent again; its new entry is added by itself."""
        if self._sent and self._sent[0] is lost:
            self._sent.popleft()
