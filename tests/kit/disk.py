"""A small disk of its own that a test can fill to the last byte, and make room on again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted tmpfs; `fill` takes all that is free, `clear` gives it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """No byte is free after this."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in (4096, 1):
                try:
                    while os.write(fd, b"x" * size):
                        pass
                except OSError:
                    continue
        finally:
            os.close(fd)

    def clear(self) -> None:
        """There is room again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, kib: int = 512) -> Iterator[SmallDisk]:
    """Mount a disk of this size; the test is skipped where mounting is not allowed, but in CI."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True).returncode:
        (pytest.fail if "SKIP_NOTHING" in os.environ else pytest.skip)("no right to mount a disk of its own")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
