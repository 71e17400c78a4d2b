"""Files that are whole or not there, whatever is killed when.

    write beside it ─► fsync ─► rename, or link ─► fsync of the folder

One rule: a name is there only when all of its bytes are durable, and is there for good when the call returns. What a
kill leaves is a file whose name begins with `.new-`, which nobody reads.
"""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex

FRESH = ".new-"


def written(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write a durable file under a temporary name."""
    fresh = folder / f"{FRESH}{token_hex(12)}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, mode)
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return fresh


def put(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file, replacing one that is there. Raises OSError."""
    os.replace(written(path.parent, data, mode), path)
    sync(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Write a file where none is; returns False when one is. Raises OSError."""
    fresh = written(path.parent, data)
    try:
        os.link(fresh, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(fresh)
    sync(path.parent)
    return True


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
