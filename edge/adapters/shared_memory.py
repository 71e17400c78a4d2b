"""Memory that all workers of a gateway see: files that are mapped, one for each table that rules ask for.

One rule: it is of one run. The name of a file holds the seed by which these workers hash, for the marks in it mean
nothing to others; what earlier runs left is removed. Without room, or for a worker alone, there is none.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

SEED = "PYTHONHASHSEED"  # the supervisor gives all its workers the same


def shared_memory(folder: Path, name: str, size: int) -> mmap.mmap | None:
    """The memory of that name, zeros at first; None where there can be none."""
    run = os.environ.get(SEED, "")
    if not run.isdigit():
        return None
    path = folder / f"{run}-{sha256(name.encode()).hexdigest()[:24]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith(f"{run}-"):
                with suppress(OSError):  # another worker may have been first
                    old.unlink()
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # or a full disk would end the process at a write
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except OSError:
        return None
