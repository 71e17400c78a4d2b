"""What the machines of a fleet say of each backend's health, and what is believed therefore.

    own probes ─► told with the next beat, which a change brings forward ─► every other machine
    others' beats ─► the word of most of those that were heard lately ─► routing

One rule: a machine that hears nobody judges alone: whoever was not heard of for `SILENT_S` is not counted.
Applications, which each machine has for itself, are nobody else's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from edge.balance.health import Health
from edge.balance.quorum import QuorumVerdict, quorum
from edge.cache.fleet.machines import SILENT_S, Machine, Machines
from edge.control.membership import Key

LOOK_S = 0.25  # who has fallen silent is noticed by the clock
MOST_TOLD = 1000  # backends in one beat; of others nothing is told
WORDS = {"up": Health.HEALTHY, "down": Health.UNHEALTHY}


@dataclass(frozen=True, slots=True)
class OwnVerdict:
    """What our own probes say of a backend."""

    health: Health
    evidence: str


class Believer(Protocol):
    """Who acts on what is believed."""

    def believed(self, key: Key) -> Health | None:
        """What is believed of a backend now; None: there is no such backend any more."""

    def believe(self, key: Key, health: Health, evidence: str) -> None:
        """Act on this health of a backend from now on."""

    def disputed(self, key: Key, own: Health, verdict: QuorumVerdict) -> None:
        """The other machines disagree with our own probes, or agree with them again."""


class Opinions:
    """What one machine's probes say, and what its fleet makes of it (`host.Companion`)."""

    def __init__(self, identity: str, machines: Machines, believer: Believer, hurry: Callable[[], None]) -> None:
        self._identity = identity
        self._machines = machines
        self._believer = believer
        self._hurry = hurry
        self._own: dict[Key, OwnVerdict] = {}
        self.disputes: dict[Key, QuorumVerdict] = {}

    def judged(self, key: Key, health: Health, evidence: str, now: float) -> None:
        """Our own probes changed their mind."""
        self._own[key] = OwnVerdict(health, evidence)
        self._hurry()
        self._decide(now)

    def only(self, keys: Collection[Key]) -> None:
        """Of others nothing is known any more: they are not probed, or have another address."""
        self._own = {key: own for key, own in self._own.items() if key in keys}
        self.disputes = {key: verdict for key, verdict in self.disputes.items() if key in keys}

    # -- Companion -----------------------------------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        """As `Companion.told`."""
        known = list(self._own.items())[:MOST_TOLD]
        names = {word: ["/".join(key) for key, own in known if own.health is health] for word, health in WORDS.items()}
        return {"health": names}

    def look(self, line: tuple[str, str], now: float) -> None:
        """As `Companion.look`."""
        self._decide(now)

    async def run(self) -> None:
        """As `Companion.run`."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._decide(monotonic())

    async def close(self) -> None:
        """As `Companion.close`."""

    # -- within --------------------------------------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        others = self._heard(now)
        for key, own in self._own.items():
            verdict = quorum(own.health, others.get("/".join(key), ()))
            self._dispute(key, own, verdict)
            if verdict.health is not self._believer.believed(key) is not None:
                self._believer.believe(key, verdict.health, _evidence(own, verdict))

    def _dispute(self, key: Key, own: OwnVerdict, verdict: QuorumVerdict) -> None:
        disputed = verdict.health is not own.health
        if disputed != (key in self.disputes):
            self._believer.disputed(key, own.health, verdict)
        if disputed:
            self.disputes[key] = verdict
        else:
            self.disputes.pop(key, None)

    def _heard(self, now: float) -> dict[str, list[Health]]:
        found: dict[str, list[Health]] = {}
        for machine, silent_s in self._machines.all(now):
            if machine.id != self._identity and silent_s <= SILENT_S:
                for name, health in _told_by(machine):
                    found.setdefault(name, []).append(health)
        return found


def _evidence(own: OwnVerdict, verdict: QuorumVerdict) -> str:
    if verdict.health is own.health:
        return own.evidence
    return f"{max(verdict.up, verdict.down)} of {verdict.up + verdict.down} machines say so; here: {own.evidence}"


def _told_by(machine: Machine) -> list[tuple[str, Health]]:
    """What a machine says, as far as it is that."""
    told: Any = machine.facts.get("health")
    if not isinstance(told, dict):
        return []
    found: dict[str, Health] = {}
    for word, health in WORDS.items():
        names = told.get(word)
        for name in names[:MOST_TOLD] if isinstance(names, list) else ():
            if isinstance(name, str):
                found[name] = health
    return list(found.items())
