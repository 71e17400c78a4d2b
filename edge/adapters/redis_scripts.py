"""Scripts in a server that speaks Redis' protocol, and everything else that is asked of its primary.

One rule: every call is bounded in time and raises FleetAway; after a failure no idle connection is used again, since it
may lead to a server that is not the primary any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from edge.adapters.redis_client import ERRORS, Link, why_of
from edge.adapters.redis_primary import PrimaryPool
from edge.errors import FleetAway

T = TypeVar("T")
ANSWER_S = 1.0


class Scripts:
    """A client for names that are in one slot. Every script gets all of them as its keys."""

    def __init__(self, link: Link, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.client = link.client(names[0])

    async def run(self, script: str, *values: Any) -> Any:
        """Run a script; returns its answer."""
        return await self.within(self.client.eval(script, len(self.names), *self.names, *values), ANSWER_S)

    async def within(self, asked: Awaitable[T], wait_s: float) -> T:
        """Wait for an answer so long."""
        try:
            async with asyncio.timeout(wait_s):
                return await asked
        except ERRORS as error:
            await self.client.connection_pool.disconnect(inuse_connections=False)
            raise FleetAway(why_of(error)) from None

    async def confirmed(self) -> None:
        """What is heard on these connections comes from the primary."""
        pool = self.client.connection_pool
        if isinstance(pool, PrimaryPool):
            await self.within(pool.confirmed(), ANSWER_S)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


def meaning(parse: Callable[[], T]) -> T:
    """What an answer means; one that means nothing is none."""
    try:
        return parse()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise FleetAway(f"the server's answer makes no sense: {str(error)[:100]}") from None
