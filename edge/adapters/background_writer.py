"""Text to a file, a pipe or a terminal that may be slow, full or gone: written by a thread, never waited for.

One rule: what cannot be written in time is dropped and counted. A pipe that nobody reads blocks this thread and nobody
else; a line that was cut by a full disk is ended before the next one, so that two never become one.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

HELD_BYTES = 8 * 1024 * 1024  # that wait to be written
LAST_S = 1.0  # how long the end waits for them


class BackgroundWriter:
    """Writes to `fd`. `lost` counts lines."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.lost = 0
        self._name = name
        self._held: deque[bytes | int | None] = deque()  # text, the descriptor to go on with, or the end
        self._size = 0
        self._torn = False
        self._wake = threading.Condition()
        self._idle = True
        self._ended = False
        self._thread: threading.Thread | None = None

    def give(self, data: bytes) -> None:
        """Write this soon; whole lines."""
        with self._wake:
            if self._ended or self._size + len(data) > HELD_BYTES:
                self.lost += data.count(b"\n") or 1
                return
            self._held.append(data)
            self._size += len(data)
            self._start()

    def go_on_with(self, fd: int) -> None:
        """Write to another descriptor from now on; the old one is closed when its lines are written."""
        with self._wake:
            if self._ended:
                os.close(fd)
                return
            self._held.append(fd)
            self._start()

    def settle(self, wait_s: float = LAST_S) -> bool:
        """Wait, within bounds, until all is written; returns whether it is."""
        with self._wake:
            return self._wake.wait_for(lambda: self._idle and not self._held, wait_s)

    def end(self, wait_s: float = LAST_S) -> None:
        """Let the thread write what is left and close the descriptor; wait for that, within bounds."""
        with self._wake:
            if not self._ended:
                self._held.append(None)
                self._start()
            self._ended = True
            self._wake.wait_for(lambda: self._idle and not self._held, wait_s)

    def _start(self) -> None:
        self._idle = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._held:
                    self._idle = True
                    self._wake.notify_all()
                    self._wake.wait()
                item = self._held.popleft()
                if isinstance(item, bytes):
                    self._size -= len(item)
            if isinstance(item, bytes):
                self._write(item)
                continue
            if self.fd > 2:
                os.close(self.fd)
            if item is None:
                break
            self.fd, self._torn = item, False
        with self._wake:
            self._idle = True
            self._wake.notify_all()

    def _write(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.fd, left) :]
        except OSError:
            lost = bytes(left).count(b"\n")
            if left and len(left) < len(data):
                self._torn = data[len(data) - len(left) - 1] != 0x0A
            self.lost += lost
        else:
            self._torn = False


class QuietStream:
    """Stands for `sys.stderr`: whatever prints, prints, and neither waits nor raises."""

    encoding = "utf-8"
    errors = "backslashreplace"
    closed = False

    def __init__(self, fd: int) -> None:
        self.writer = BackgroundWriter(fd, "stderr")
        self._fd = fd

    def write(self, text: str) -> int:
        self.writer.give(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Nothing to do: a thread writes."""

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd


@contextmanager
def quiet_stderr() -> Iterator[BackgroundWriter]:
    """A `QuietStream` in the place of standard error; at the end the last lines are let out, within bounds."""
    before, stream = sys.stderr, QuietStream(2)
    sys.stderr = cast(TextIO, stream)  # what prints needs no more of it
    try:
        yield stream.writer
    finally:
        stream.writer.settle()
        sys.stderr = before
