"""Free loopback ports for processes that must be told their port before they start.

One rule: ports asked for together are distinct. A port can be lost to another process between the call and its use;
the range below the ephemeral one is not used, as the kernel knows best what is free.
"""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """`count` distinct ports that nobody listened on a moment ago."""
    held = [socket.socket() for _ in range(count)]
    try:
        for sock in held:
            sock.bind((LOOPBACK, 0))
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()


def free_port() -> int:
    """One port that nobody listened on a moment ago."""
    return free_ports(1)[0]
