"""TLS on a client connection, begun after it was accepted and counted.

One rule: a handshake is a connection like any other. It counts from accept towards the limits in all and for its
address, has the same deadline as a request head, and ends with it; what it needs of the loop ends with it too.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from edge.dataplane.front import Front

DAY_S = 86400.0  # in effect none: what is unsent at the end has its own deadline (`leaving`)
_running: set[asyncio.Task[None]] = set()


def begin(front: Front, tls: ssl.SSLContext) -> None:
    """Start the handshake on a connection that was just admitted."""
    task = asyncio.get_running_loop().create_task(_shake(front, tls), name=f"handshake {front.peer}")
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _shake(front: Front, tls: ssl.SSLContext) -> None:
    loop, raw = asyncio.get_running_loop(), front.transport
    if raw.is_closing():
        return
    limit_s = front.worker.limits.header_timeout
    started = loop.create_task(
        loop.start_tls(raw, front, tls, server_side=True, ssl_handshake_timeout=limit_s, ssl_shutdown_timeout=DAY_S)
    )
    try:
        await _pass_on(front, raw)
        secured = await started
    except (OSError, EOFError, asyncio.CancelledError) as error:  # refused, gone, or too late: its connection ends
        started.cancel()
        raw.abort()
        front.connection_lost(error if isinstance(error, OSError) else None)
        if isinstance(error, asyncio.CancelledError):
            raise
        return
    if secured is None or secured.is_closing():
        raw.abort()
        front.connection_lost(None)
    else:
        front.secured(secured)


async def _pass_on(front: Front, raw: asyncio.Transport) -> None:
    """Give the TLS protocol what came between accept and its start, before the loop reads more.

    The loop begins to read when `connection_made` returns, whatever it says, and `start_tls` takes over in a later
    turn: after one turn it has replaced the protocol, after the second one the new protocol knows its transport.
    """
    await asyncio.sleep(0)
    early = front.take_buffer()
    await asyncio.sleep(0)
    protocol = cast(Any, raw.get_protocol())  # uvloop's is one, without the name
    while early and protocol is not front and not raw.is_closing():
        room = protocol.get_buffer(len(early))
        count = min(len(room), len(early))
        room[:count] = early[:count]
        protocol.buffer_updated(count)
        early = early[count:]
