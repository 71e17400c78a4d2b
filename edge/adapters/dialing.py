"""A plain connection to an address or a Unix socket, before anything else is spoken on it.

One rule: a socket that is returned is connected and does not block; one that could not be connected is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

STOOD_STILL_S = 0.25  # a time limit that is told later than this was held up here

T = TypeVar("T")


def is_path(host: str) -> bool:
    """Whether a host is the path of a Unix socket."""
    return host.startswith("/")


async def within(seconds: float, work: Callable[[], Awaitable[T]]) -> T:
    """Do it within so many seconds. Raises TimeoutError, but after a standstill of this process tries once more: then
    the time was over before anything that came meanwhile was read.
    """
    until = monotonic() + seconds
    try:
        async with asyncio.timeout(seconds):
            return await work()
    except TimeoutError:
        if monotonic() - until < STOOD_STILL_S:
            raise
    async with asyncio.timeout(seconds):
        return await work()


async def dial(address: str, port: int) -> socket.socket:
    """A socket connected to an address (no name), or to a path. Raises OSError."""
    family = socket.AF_UNIX if is_path(address) else socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address if is_path(address) else (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
