"""Many clients of one worker that ask for the same, and what the worker's flights hold of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from kit.cachelab import Lab, request
from kit.client import RawClient, Response


@asynccontextmanager
async def crowd(lab: Lab, count: int) -> AsyncIterator[list[RawClient]]:
    """So many connected clients."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            clients.append(await RawClient.connect(lab.port))
            stack.push_async_callback(clients[-1].close)
        yield clients


async def send(lab: Lab, clients: list[RawClient], *lines: str, target: str = "") -> None:
    """Each of them asks, and the worker has the request."""
    for client in clients:
        await client.send(request(*lines, target=target or lab.target))


async def read(clients: list[RawClient]) -> list[Response]:
    """Each one's response."""
    found = await asyncio.gather(*(client.read_response() for client in clients))
    return [response for response in found if response is not None]


def waiting(lab: Lab) -> int:
    """Clients that share a fetch: those that wait for its head, and those that take its body."""
    flights = lab.store.flights._flights.values()
    return sum(len(flight.waiting) + len(flight.attached) for flight in flights)


async def ended(lab: Lab) -> None:
    """Everything was given back."""
    await lab.rest()
    assert not lab.store.flights._flights
    assert all(not link.connections or len(link.idle) == len(link.connections) for link in links(lab))


def links(lab: Lab) -> list:  # type: ignore[type-arg]
    return [link for pool in lab.worker.pools.values() for link in pool.links.values()]
