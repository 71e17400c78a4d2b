"""Free loopback ports for processes that must be told their port before they start.

One rule: no port is given twice. They are taken in turn from below the ephemeral range, so that neither the kernel nor
another test of this process can hand one out again before its server listens; test processes that run side by side
begin at different places.
"""

from __future__ import annotations

import os
import socket
from itertools import count

LOOPBACK = "127.0.0.1"
FIRST, LAST = 10_000, 32_000  # Linux hands out ephemeral ports from 32,768 on
_turn = count(os.getpid() * 613)


def free_ports(number: int) -> list[int]:
    """`number` distinct ports that nobody listens on."""
    return [free_port() for _ in range(number)]


def free_port() -> int:
    """One port that nobody listens on."""
    for turn in _turn:
        port = FIRST + turn % (LAST - FIRST)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise AssertionError("the count has no end")
