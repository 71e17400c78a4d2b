"""Who fetches what no machine has: the first one that says so in the server; the others wait for its response a little.

    a miss in the tier ─► SET … NX PX ─► it was free: fetch ─► the response comes into the tier ─► the others find it
                                     └─► another machine has it: ask the tier again, until the lease is over

One rule: a lease only spares the origin. Whoever cannot get one, has no answer, or has waited for as long as a lease
lives, fetches; nothing is believed because of it.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

AGAIN_S = 0.015  # between looks at what another machine fetches
MOST_OWN = 4096  # names that are remembered as ours; older ones are asked for again


class Leases:
    """One worker's. `client` is redis-py's, of the tier."""

    def __init__(self, client: Any, namespace: str, lease_s: float) -> None:
        self.lease_s = lease_s
        self._client = client
        self._namespace = namespace
        self._own: dict[str, float] = {}  # until when, by name

    async def held_by_others(self, names: list[str], within_s: float) -> set[str]:
        """Take the free leases; returns the names that other machines hold. Raises what redis-py raises."""
        now = monotonic()
        wanted = [name for name in names if self._own.get(name, 0.0) <= now]
        if not wanted or within_s <= 0:
            return set()
        pipeline = self._client.pipeline(transaction=False)
        for name in wanted:
            pipeline.set(f"{self._namespace}:l:{name}", b"", nx=True, px=int(self.lease_s * 1000))
        async with asyncio.timeout(within_s):
            answers = await pipeline.execute(raise_on_error=False)
        held = {name for name, answer in zip(wanted, answers, strict=True) if answer is None}
        self._remember([name for name in wanted if name not in held], now)
        return held

    def _remember(self, names: list[str], now: float) -> None:
        if len(self._own) > MOST_OWN:
            self._own = {name: until for name, until in self._own.items() if until > now}
        if len(self._own) > MOST_OWN:
            self._own.clear()  # at worst a request waits for another one of this machine
        for name in names:
            self._own[name] = now + self.lease_s
