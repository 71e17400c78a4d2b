"""TLS on a client connection, begun after it was accepted and counted.

One rule: a handshake is a connection like any other. It counts from accept towards the limits in all and for its
address, has the same deadline as a request head, and ends with it; what it needs of the loop ends with it too.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

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
    try:
        secured = await loop.start_tls(
            raw,
            front,
            tls,
            server_side=True,
            ssl_handshake_timeout=front.worker.limits.header_timeout,
            ssl_shutdown_timeout=DAY_S,
        )
    except (OSError, EOFError, asyncio.CancelledError) as error:  # refused, gone, or too late: its connection ends
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
