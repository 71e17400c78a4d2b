"""TLS on a client connection, begun after it was accepted and counted.

One rule: a handshake is a connection like any other. It counts from accept towards the limits in all and for its
address, has the same deadline as a request head, and ends with it; what it needs of the loop ends with it too.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from edge.dataplane.client.accepted import Accepted

DAY_S = 86400.0  # in effect none: what is unsent at the end has its own deadline (`leaving`)
_running: set[asyncio.Task[None]] = set()


def begin(downstream: Accepted, tls: ssl.SSLContext, secured: Callable[[asyncio.Transport], None]) -> None:
    """Start the handshake on a connection that was just admitted; `secured` is told the transport that it gave."""
    task = asyncio.get_running_loop().create_task(_shake(downstream, tls, secured), name=f"handshake {downstream.peer}")
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _shake(downstream: Accepted, tls: ssl.SSLContext, secured: Callable[[asyncio.Transport], None]) -> None:
    loop, raw = asyncio.get_running_loop(), downstream.transport
    if raw.is_closing():
        return
    limit_s = downstream.worker.limits.header_timeout
    started = loop.create_task(
        loop.start_tls(
            raw, downstream, tls, server_side=True, ssl_handshake_timeout=limit_s, ssl_shutdown_timeout=DAY_S
        )
    )
    try:
        await _pass_on(downstream, raw)
        transport = await started
    except (OSError, EOFError, asyncio.CancelledError) as error:  # refused, gone, or too late: its connection ends
        started.cancel()
        raw.abort()
        downstream.connection_lost(error if isinstance(error, OSError) else None)
        if isinstance(error, asyncio.CancelledError):
            raise
        return
    if transport is None or transport.is_closing():
        raw.abort()
        downstream.connection_lost(None)
    else:
        secured(transport)


async def _pass_on(downstream: Accepted, raw: asyncio.Transport) -> None:
    """Give the TLS protocol what came between accept and its start, before the loop reads more.

    The loop begins to read when `connection_made` returns, whatever it says, and `start_tls` takes over in a later
    turn: after one turn it has replaced the protocol, after the second one the new protocol knows its transport.
    """
    await asyncio.sleep(0)
    early = downstream.take_buffer()
    await asyncio.sleep(0)
    protocol = cast(Any, raw.get_protocol())  # uvloop's is one, without the name
    while early and protocol is not downstream and not raw.is_closing():
        room = protocol.get_buffer(len(early))
        count = min(len(room), len(early))
        room[:count] = early[:count]
        protocol.buffer_updated(count)
        early = early[count:]
