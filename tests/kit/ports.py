"""Free loopback ports for processes that must be told their port before they start.

One rule: no port is given twice. They are taken in turn from below the ephemeral range, so that neither the kernel nor
another test of this process can hand one out again before its server listens; a lock keeps each from every other test
process, where a gateway would find it taken, or be taken for somebody else's that is ready.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from itertools import count
from pathlib import Path

LOOPBACK = "127.0.0.1"
FIRST, LAST = 10_000, 32_000  # Linux hands out ephemeral ports from 32,768 on
_turn = count(os.getpid() * 7919)
_taken = os.open(
    Path(tempfile.gettempdir(), f"edge-test-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600
)  # a lock for each


def free_ports(number: int) -> list[int]:
    """`number` distinct ports that nobody listens on."""
    return [free_port() for _ in range(number)]


def free_port() -> int:
    """One port that nobody listens on."""
    for turn in _turn:
        port = FIRST + turn % (LAST - FIRST)
        with socket.socket() as probe:
            try:
                fcntl.lockf(_taken, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)  # until this process ends
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise AssertionError("the count has no end")
