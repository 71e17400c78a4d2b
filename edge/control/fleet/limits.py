"""Rate limits that all machines of a fleet share: what this one counted, and what is owed over all of them.

    workers' counts ─► four times a second, one script ─► what each key owes in the fleet ─► every worker's table

One rule: without the server each machine limits by itself, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from edge.errors import FleetAway

EVERY_S = 0.25
MOST_KEYS = 4096  # that are told at once; of others this machine's own counts are all that is known


class LimitsServer(Protocol):
    """Where the fleet counts. Every call is bounded in time and raises FleetAway."""

    async def owe(self, counted: Sequence[tuple[str, int, float]]) -> list[float]:
        """Count each (name, number, seconds owed for one), and return the seconds that each name owes now."""

    async def close(self) -> None:
        """Close the connections."""


class FleetLimits:
    """What the workers of one machine counted, on its way to the fleet and back (`host.Companion`)."""

    def __init__(self, server: LimitsServer, tell: Callable[[dict[str, Any]], None], key: bytes) -> None:
        self._server = server
        self._tell = tell
        self._key = key
        self._counted: dict[tuple[str, str], tuple[int, float]] = {}
        self._in_step = False

    def counted(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take what a worker counted: rows of limit, key, how many, and for how long each is owed."""
        for name, key, count, every_s in rows:
            before, _ = self._counted.get((name, key), (0, 0.0))
            if before or len(self._counted) < MOST_KEYS:
                self._counted[(name, key)] = (before + count, every_s)

    def told(self) -> dict[str, Any]:
        """As `Companion.told`."""
        return {}

    def look(self, line: tuple[str, str], now: float) -> None:
        """As `Companion.look`."""
        self._in_step = bool(line[0])

    async def run(self) -> None:
        """As `Companion.run`."""
        while True:
            await asyncio.sleep(EVERY_S)
            if self._counted:
                try:
                    await self.exchange()
                except FleetAway:
                    continue  # what was counted here is in force here; the beats find out and say so

    async def exchange(self) -> None:
        """Tell what was counted, and the workers what is owed. Raises FleetAway."""
        counted, self._counted = self._counted, {}
        if not self._in_step:
            return
        names = list(counted)
        rows = [(self._name(*name), *counted[name]) for name in names]
        owed = await self._server.owe(rows)
        self._tell({"owed": [[*name, seconds] for name, seconds in zip(names, owed, strict=True)]})

    def _name(self, limit: str, key: str) -> str:
        """Clients' addresses and cookies are not the server's to know."""
        return blake2b(f"{limit}\n{key}".encode(), digest_size=16, key=self._key).hexdigest()

    async def close(self) -> None:
        """As `Companion.close`."""
        await self._server.close()
