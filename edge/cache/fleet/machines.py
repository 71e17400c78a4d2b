"""Which machines a purge waits for: all that were seen and have neither left nor been silent for too long.

One rule: a machine is forgotten only when it has been silent for longer than it may go without the stream
(`max_blind`): by then it validates everything before each use, so that nothing depends on its word. What was seen once
is remembered here, so that a server which lost its data makes nobody disappear. The server's clock may jump: how long
somebody is silent, and how old a history is, is measured by our own clock as soon as there is something to measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.cache.fleet.stream import Head

MARGIN_S = 5.0  # beyond max_blind
SILENT_S = 3.0  # who was not heard of for so long is not waited for, and has no say
SETTLE_S = 3.0  # after a new history, or our own start: by then each machine that is there has told so
CLOCK_S = 1.0  # the server's times are whole seconds


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine told last. `at` is the server's time of it, epoch seconds."""

    id: str
    name: str
    at: float
    history: str
    run: str  # the server's process in which it was there
    position: int
    max_blind_s: float
    left: bool
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, identity: str, at: float, told: Mapping[str, Any]) -> Machine:
        """From a heartbeat's values. Raises ValueError, KeyError or TypeError where they are none."""
        position, max_blind_s = int(told["position"]), float(told["max_blind_s"])
        if not 0 <= max_blind_s <= 10.0**7 or position < -1:
            raise ValueError("out of range")
        name, history, run = str(told["name"])[:100], str(told["history"])[:64], str(told["run"])[:64]
        return cls(identity, name, at, history, run, position, max_blind_s, bool(told.get("left")), told)


@dataclass(frozen=True, slots=True)
class Beat:
    """What the server says when a machine tells how it is: the stream's head, the time there (epoch seconds), since
    when the stream's history is, and every machine."""

    head: Head
    time: float
    history_age_s: float
    machines: list[Machine]


@dataclass(slots=True)
class _Seen:
    machine: Machine
    silent_since: float  # of this process's monotonic clock, as `first_at`
    first_at: float


class Machines:
    """Who is in the fleet, as one machine sees it. `now` is a monotonic clock.

    Whether these are all: the server may have forgotten a machine that was there before the stream's history began and
    has not come back to it. Once the history is older than any machine goes without it, that does not matter.
    """

    def __init__(self, max_blind_s: float) -> None:
        self._seen: dict[str, _Seen] = {}
        self._own_max_s = max_blind_s
        self._begun_at: float | None = None  # the history, by our clock
        self._age_s = 0.0

    def see(self, found: Iterable[Machine], server_time: float, now: float) -> None:
        """What the server has of each machine now."""
        for machine in found:
            before = self._seen.get(machine.id)
            if before is None:
                self._seen[machine.id] = _Seen(machine, now - max(0.0, server_time - machine.at), now)
            elif machine.at != before.machine.at or machine.position != before.machine.position:
                before.machine, before.silent_since = machine, now
        for identity in [one for one, seen in self._seen.items() if _is_over(seen, now)]:
            del self._seen[identity]

    def history_is(self, age_s: float, now: float) -> None:
        """How old the history is that this machine follows, as the server says: it cannot have begun earlier than it
        seemed to when it was heard of."""
        begun_at = now - age_s
        if self._begun_at is None or begun_at > self._begun_at + CLOCK_S:
            self._begun_at = begun_at
        self._age_s = now - self._begun_at

    @property
    def sure(self) -> bool:
        """Whether these are all machines that may serve what was stored without knowing the stream."""
        longest = max((seen.machine.max_blind_s for seen in self._seen.values()), default=0.0)
        return self._age_s >= max(longest, self._own_max_s) + MARGIN_S

    @property
    def may_grow(self) -> bool:
        """The history has just begun: machines are still coming to it."""
        return self._age_s < SETTLE_S

    def silent_s(self, identity: str, now: float) -> float:
        """How long a machine was not heard of."""
        seen = self._seen.get(identity)
        return 0.0 if seen is None else max(0.0, now - seen.silent_since)

    def all(self, now: float) -> list[tuple[Machine, float]]:
        """Each with the seconds since it was heard of, by name."""
        found = [(seen.machine, max(0.0, now - seen.silent_since)) for seen in self._seen.values()]
        return sorted(found, key=lambda each: (each[0].name, each[0].id))

    def waiting(self, history: str, run: str, position: int, now: float) -> tuple[list[Machine], list[Machine]]:
        """Those that have applied the stream up to there, and those that have not."""
        done: list[Machine] = []
        late: list[Machine] = []
        for machine, _ in self.all(now):
            applied = (machine.history, machine.run) == (history, run) and machine.position >= position
            (done if applied else late).append(machine)
        return done, late


def _is_over(seen: _Seen, now: float) -> bool:
    if seen.machine.left:
        return True
    return now - seen.silent_since > seen.machine.max_blind_s + MARGIN_S and now - seen.first_at >= SETTLE_S
