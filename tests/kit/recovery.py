"""States to take points of, without a gateway: a table in memory, and a real journal.

One rule: bodies here are what they say they are, so that a point that was taken is whole unless the test damages it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from datetime import UTC
from hashlib import sha256

from edge.ports import Repository
from edge.recovery.points import Point, PointKind
from edge.recovery.retention import KeepRules
from edge.recovery.table import Entry, Table
from edge.sidecar.pace import Pace
from edge.sidecar.prune import Pruned, prune
from edge.sidecar.source import Captured
from edge.sidecar.take import Work, take
from edge.sidecar.vault import Vault

KEY = bytes(range(32))


class Clock:
    """Epoch seconds that go on by one with each look."""

    def __init__(self) -> None:
        self._ticks = itertools.count(1_795_000_000)

    def __call__(self) -> float:
        return float(next(self._ticks))


class Little:
    """A state: small values and bodies by name."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.bodies: dict[str, bytes] = {}
        self.sequence = 0
        self.history = "h"

    def change(self, name: str, value: bytes | None, body: bytes | None = None) -> None:
        """Set, or (None) remove."""
        self.sequence += 1
        for held, new in ((self.values, value), (self.bodies, body)):
            if new is None:
                held.pop(name, None)
            else:
                held[name] = new

    def table(self) -> Table:
        """As a point has it."""
        found = {name: Entry(value) for name, value in self.values.items()}
        for name, body in self.bodies.items():
            found[f"cache/{name}"] = Entry(b"meta", sha256(body).digest(), len(body))
        return found

    def captured(self, now: float) -> Captured:
        """At this instant."""
        held = {sha256(body).digest(): body for body in self.bodies.values()}
        return Captured(self.history, self.sequence, now, self.table(), held.get)


def work_on(repository: Repository, clock: Clock, key: bytes | None = None, chain: int = 48) -> Work:
    """An open repository."""
    return Work(Vault.open(repository, key, os.urandom, make=True), Pace(), clock, longest_chain=chain)


def taken(work: Work, state: Little, kind: PointKind) -> Point:
    """A point of the state as it is."""
    return take(work, kind, lambda: state.captured(work.wall())).point


def pruned(work: Work, dry_run: bool = False, **rules: int) -> Pruned:
    """Expire in UTC."""
    return prune(work, KeepRules(**rules), UTC, dry_run)


def restored(work: Work, point: str) -> tuple[Table, dict[bytes, bytes]]:
    """A point's table and all its bodies, read as a restore reads them."""
    vault = work.vault
    table, places = vault.table(vault.points(), point)
    wanted: Mapping[bytes, int] = {entry.blob: entry.size for entry in table.values() if entry.blob}
    return table, dict(vault.bodies({blob: places[blob] for blob in wanted}))
