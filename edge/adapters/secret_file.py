"""A secret of the gateway's own, made by whoever asks first: the same in all workers, and after a restart.

One rule: it is only ever whole. A file that is too short is one that another worker is writing just now.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import sleep

from edge.adapters.durable_file import create

SIZE = 32
TRIES = 50


def shared_secret(path: Path) -> bytes:
    """The secret in a file, which is made where it is not there. Raises OSError."""
    for _ in range(TRIES):
        try:
            found = _read(path)
        except FileNotFoundError:
            found = _made(path)
        if len(found) == SIZE:
            return found
        sleep(0.01)
    raise OSError(0, "is not a secret of this gateway", str(path))


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.read(file, SIZE + 1)
    finally:
        os.close(file)


def _made(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = os.urandom(SIZE)
    return secret if create(path, secret) else b""  # another was first
