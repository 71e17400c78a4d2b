"""The access log: one line per exchange, buffered, written by the worker's timer and at drain.

One rule: a line cannot be forged. What comes from outside is escaped before it gets here (`http.text`); secrets
(Authorization, Cookie) are never given to it. `reopen` serves log rotation (SIGUSR1).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

FLUSH_BYTES = 64 * 1024


class AccessLog:
    """Lines to a file, to standard output, or nowhere."""

    __slots__ = ("_fd", "_lines", "_second", "_size", "_target", "enabled", "lost", "stamp", "stamp_combined")

    def __init__(self, target: str) -> None:
        self._target = target
        self.enabled = target != "off"
        self._lines: list[bytes] = []
        self._size = 0
        self._fd = -1
        self.lost = 0  # lines that could not be written (disk full); counted, never raised into a request
        self._second = 0
        self.stamp = b""
        self.stamp_combined = b""
        self.refresh(time.time())
        self.reopen()

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

    def flush(self) -> None:
        """Write what is kept."""
        if not self._lines:
            return
        data, count = b"".join(self._lines), len(self._lines)
        self._lines.clear()
        self._size = 0
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self.lost += count

    def reopen(self) -> None:
        """Open the file anew, so that a renamed one is let go."""
        if not self.enabled:
            return
        if self._target == "stdout":
            self._fd = sys.stdout.fileno()
            return
        if self._fd >= 0:
            self.flush()
        Path(self._target).parent.mkdir(parents=True, exist_ok=True)
        fresh = os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fresh

    def close(self) -> None:
        """Flush and let the file go."""
        self.flush()
        if self._fd > 2:
            os.close(self._fd)
        self._fd = -1
        self.enabled = False
