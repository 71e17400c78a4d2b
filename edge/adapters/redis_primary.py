"""Which of several servers is the primary: as most sentinels say, or as the slots of a cluster are spread.

One rule: with Sentinel a server is the primary only while more than half of the sentinels in the URL name it, and
`confirmed` asks them again. So a machine on the wrong side of a broken network does not go on with a server that the
others have left. (A cluster's primary that lost the others stops by itself.)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from redis import asyncio as redis
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, RedisError

Where = tuple[str, int]
REFUSED: Where = ("", 0)  # instead of a name


class NoPrimary(ConnectionError):
    """The primary is not known for certain, or is another server. The text can be shown."""


class Locator(Protocol):
    """Finds the primary. The method's name is the one that redis-py's pool calls."""

    async def discover_master(self, service_name: str) -> Where:
        """Its address. Raises NoPrimary."""

    async def close(self) -> None:
        """Close the connections."""


class BySentinels:
    """Asks all sentinels at once, and waits for no more of them than agree."""

    def __init__(self, sentinels: Sequence[redis.Redis]) -> None:
        self._sentinels = sentinels
        self._asking: set[asyncio.Task[Where | None]] = set()

    async def discover_master(self, service_name: str) -> Where:
        """As `Locator.discover_master`."""
        pending = {asyncio.ensure_future(_named_by(each, service_name)) for each in self._sentinels}
        self._asking |= pending
        for task in pending:
            task.add_done_callback(self._asking.discard)
        named: Counter[Where] = Counter()
        refused = 0
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            answers = [task.result() for task in done]
            named.update(found for found in answers if found is not None and found is not REFUSED)
            refused += answers.count(REFUSED)
            for where, count in named.items():
                if count * 2 > len(self._sentinels):
                    return where  # who is slower ends by its own deadline
        most = max(named.values(), default=0)
        said = f"{most} of {len(self._sentinels)} sentinels name the same primary"
        raise NoPrimary(f"{said}; {refused} refuse the user or password" if refused else said)

    async def close(self) -> None:
        """Close the connections."""
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        for each in self._sentinels:
            await each.aclose()


class BySlot:
    """Asks one node of the cluster after the other who has the slot of a name."""

    def __init__(self, nodes: Sequence[redis.Redis], name: str) -> None:
        self._nodes = list(nodes)
        self._slot = key_slot(name.encode())

    async def discover_master(self, service_name: str) -> Where:
        """As `Locator.discover_master`."""
        for node in list(self._nodes):
            try:
                asked = node.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
                where = self._owner(node, await asked)
            except (RedisError, OSError):
                where = None
            if where is not None:
                return where
            self._nodes.append(self._nodes.pop(0))  # it is asked last from now on
        raise NoPrimary("no node of the cluster knows the slot's primary")

    def _owner(self, asked: redis.Redis, rows: Any) -> Where | None:
        for first, last, primary, *_ in rows:
            if int(first) <= self._slot <= int(last):
                host = primary[0].decode() if isinstance(primary[0], bytes) else str(primary[0] or "")
                return (host or str(asked.connection_pool.connection_kwargs["host"])), int(primary[1])
        return None

    async def close(self) -> None:
        """Close the connections."""
        for each in self._nodes:
            await each.aclose()


class PrimaryPool(SentinelConnectionPool):
    """Connections to the primary of the moment; a new one asks where that is."""

    def __init__(self, service_name: str, locator: Locator, **options: Any) -> None:
        super().__init__(service_name, locator, **options)  # type: ignore[no-untyped-call]
        self.locator = locator

    async def confirmed(self) -> None:
        """Ask again. Raises NoPrimary where connections lead to another server than the primary."""
        if not isinstance(self.locator, BySentinels):
            return
        before, now = self.master_address, await self.locator.discover_master(self.service_name)
        if before is not None and before != now:
            await self.disconnect(inuse_connections=False)
            raise NoPrimary("another server is the primary now")

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections, also those to the sentinels or the cluster's nodes."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.locator.close()


async def _named_by(sentinel: redis.Redis, name: str) -> Where | None:
    try:
        asked = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)  # type: ignore[no-untyped-call]
        found = await asked
        return (found[0].decode(), int(found[1])) if found else None
    except (AuthenticationError, NoPermissionError):
        return REFUSED
    except (RedisError, OSError, ValueError, IndexError, AttributeError):
        return None
