"""A gateway that stood still: whoever sent in time is answered, though by the clock the time is over."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event
from time import monotonic

from inprocess import Gateway, Proxy
from kit.origin import OK, Pause, ScriptedOrigin
from kit.waiting import WAIT_S, until

from edge.dataplane.client.connection import QUIET_S

STANDS_S = 0.8  # longer than a tick and what makes a standstill
ASKED = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def stands_still(gateway: Gateway) -> AsyncIterator[None]:
    """The worker does nothing meanwhile, nor a moment longer: it is held up as it reads from somebody, and so its timer
    comes before it reads what others have sent."""
    standing, go_on = Event(), Event()
    ours, theirs = socket.socketpair()
    loop = gateway.thread.loop

    def stand() -> None:
        loop.remove_reader(ours)
        standing.set()
        go_on.wait(WAIT_S)
        time.sleep(STANDS_S)

    with ours, theirs:
        await gateway.on_loop(lambda: loop.add_reader(ours, stand))
        theirs.send(b"x")
        await until(standing.is_set)
        yield
        go_on.set()
        await gateway.turned()


async def test_a_head_that_came_meanwhile_is_served(proxy: Proxy) -> None:
    gateway, client = await proxy()
    await until(lambda: gateway.worker.downstreams)
    async with stands_still(gateway):
        await client.send(ASKED)
        for each in gateway.worker.downstreams:
            each.deadline = monotonic()
    response = await client.read_response()
    assert response is not None and response.status == 200


async def test_an_answer_that_came_meanwhile_is_passed_on(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(pool="retry = { attempts = 0 }")
    origin.default = (Pause("go"), OK)
    await client.send(ASKED)
    await origin.wait_for("heads", 1)
    async with stands_still(gateway):
        for each in gateway.upstream():
            each.deadline = monotonic()
        origin.release("go")
        await origin.wait_for("responses", 1)
    response = await client.read_response()
    assert response is not None and response.status == 200


async def test_a_request_that_came_meanwhile_is_answered_before_its_connection_ends(proxy: Proxy) -> None:
    gateway, client = await proxy()
    await client.get("/")
    await gateway.turned()
    (connection,) = gateway.worker.downstreams
    connection.deadline += WAIT_S  # as if it had been served just now, however long this test stands still
    ended = asyncio.create_task(gateway.on_loop(lambda: gateway.worker.drain(WAIT_S)))
    await until(lambda: gateway.worker.draining)
    async with stands_still(gateway):
        connection.deadline = monotonic() + gateway.worker.limits.idle_timeout - QUIET_S
        await client.send(ASKED)
    response = await client.read_response()
    assert response is not None and (response.status, response.get(b"connection")) == (200, b"close")
    await ended
