"""The access log: one line per exchange, buffered, given to a writer thread by the worker's timer and at drain.

One rule: a line cannot be forged and never holds a request up. What comes from outside is escaped before it gets here
(`http.text`); secrets (Authorization, Cookie) are never given to it. `reopen` serves log rotation (SIGUSR1).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from edge.adapters.background_writer import BackgroundWriter

FLUSH_BYTES = 512 * 1024  # to wake the thread seldom: each time costs the loop a turn of the interpreter lock


class AccessLog:
    """Lines to a file, to standard output, or nowhere."""

    __slots__ = ("_lines", "_second", "_size", "_target", "_writer", "enabled", "stamp", "stamp_combined")

    def __init__(self, target: str) -> None:
        self._target = target
        self.enabled = target != "off"
        self._lines: list[bytes] = []
        self._size = 0
        self._writer: BackgroundWriter | None = None
        self._second = 0
        self.stamp = b""
        self.stamp_combined = b""
        self.refresh(time.time())
        self.reopen()

    @property
    def lost(self) -> int:
        """How many lines could not be written in time (a full disk, a pipe that nobody reads)."""
        return 0 if self._writer is None else self._writer.lost

    def refresh(self, now: float) -> None:
        """Renew the time stamp, once a second."""
        second = int(now)
        if second != self._second:
            self._second = second
            parts = time.gmtime(second)
            self.stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", parts).encode()
            self.stamp_combined = time.strftime("%d/%b/%Y:%H:%M:%S +0000", parts).encode()

    def add(self, line: bytes) -> None:
        """Keep one line (newline included) until the next flush."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_BYTES:
            self.flush()

    @property
    def waiting(self) -> list[bytes]:
        """Lines that are not written yet."""
        return self._lines

    def flush(self) -> None:
        """Pass the lines that wait to the writer's thread."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        if self._writer is not None:
            self._writer.give(data)

    def settle(self) -> bool:
        """Wait, within bounds, until what was flushed is written; returns whether it is."""
        return self._writer is None or self._writer.settle()

    def reopen(self) -> None:
        """Open the file anew, so that a renamed one is let go. Raises OSError."""
        if not self.enabled:
            return
        if self._target == "stdout":
            fresh = sys.stdout.fileno()
        else:
            Path(self._target).parent.mkdir(parents=True, exist_ok=True)
            fresh = os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if self._writer is None:
            self._writer = BackgroundWriter(fresh, "access log")
        elif self._target != "stdout":
            self.flush()
            self._writer.go_on_with(fresh)

    def close(self) -> None:
        """Flush, and wait within bounds until it is written."""
        self.flush()
        if self._writer is not None:
            self._writer.end()
        self.enabled = False
