"""Looks whether a server answers again, several of which may be on their way.

One rule: another look begins at each interval, whatever became of those before: while a link loses everything, a look
waits for its own time limit, long after the link carries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Looks:
    """From the first look to the first answer."""

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._under_way: set[asyncio.Task[None]] = set()

    async def answered(self, every_s: Callable[[], float]) -> None:
        """Until one look is answered. Raises what the last one raised, when none is under way any more."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            while not over.done():
                self._under_way.add(asyncio.create_task(self._one(over), name="fleet-look"))
                await asyncio.wait([over], timeout=every_s())
            over.result()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _one(self, over: asyncio.Future[None]) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._look()
        except Exception as error:
            self._under_way.discard(task)
            if not self._under_way and not over.done():
                over.set_exception(error)
        else:
            if not over.done():
                over.set_result(None)
