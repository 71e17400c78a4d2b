"""Asking the sidecar for a body that a restore has not brought yet, because a request wants it now.

    worker's reader thread ── body's name ──► sidecar ─► repository ─► compared ─► the bytes, or "it is in its file now"

One rule: nobody waits long for a repository. A body that does not come in time, or a sidecar that is not there, is a
miss like any other and nothing is dropped for it; after a few of those nobody asks for a while, and no more than some
ask at a time. Only at the start, while the sidecar comes up beside the workers, it is waited for.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

from edge.adapters.disk_awaited import POINT, awaited, socket_name
from edge.adapters.disk_body import Checked, OpenBody
from edge.adapters.disk_files import Cold
from edge.adapters.disk_place import Place
from edge.adapters.disk_writer import PACKED_BYTES
from edge.cache.body import BodyFile, sums_of
from edge.cache.record import Kept, decode, holding

THREADS = 8  # of the readers, while bodies are awaited
MOST = 256  # requests that wait for a body
WAIT_S = 3.0
START_S = 10.0  # how long after the start a sidecar that is not there is waited for
RETRY_S = 0.02
FAILURES, PAUSE_S = 3, 5.0  # after so many in a row nobody asks for so long
IN_FILE, GIVEN, NOT_NOW = b"F", b"B", b"N"


class NotNow(OSError):
    """The body cannot be fetched now; a miss for the request that wanted it."""


class Asker:
    """One worker's way to ask. `ask` blocks, so call it in threads only; the other methods do not block."""

    def __init__(self, place: Place, now: Callable[[], float] = monotonic) -> None:
        self._place, self._folder = place, awaited(place)
        self._now = now
        self._patient_until = now() + START_S
        self._closed_until = 0.0
        self._failed = 0
        self._asking = 0
        self._lock = threading.Lock()

    @classmethod
    def of(cls, place: Place) -> Asker | None:
        """An asker for this tier; None when no bodies are awaited."""
        found = cls(place)
        return None if found.over() else found

    def over(self) -> bool:
        """Whether all awaited bodies have arrived."""
        return not (self._folder / POINT).exists()

    def open(self) -> bool:
        """Whether asking is worthwhile now: not too many ask already, and the last tries did not all fail."""
        return self._asking < MOST and self._now() >= self._closed_until

    def lacks(self, file: BodyFile | None) -> bool:
        """Whether this body's file is not there yet."""
        return file is not None and not self._place.body(file.name).exists()

    def with_body(self, kept: Kept, record: bytes, wait: bool) -> Kept:
        """`kept` with its small body filled in; large bodies stay in files.

        Raises NotNow when the body cannot be had, Cold when `wait` is false and asking would be needed.
        """
        file = kept.stored.file
        if file is None or file.length > PACKED_BYTES or not self.lacks(file):
            return kept
        if not wait:
            raise Cold if self.open() else NotNow
        body = self.ask(file.name)
        if body is None or len(body) != file.length or sums_of(body) != file.sums:
            raise NotNow("the body that came is not the one that was asked for")
        return decode(holding(record, body))

    def ask(self, name: bytes) -> bytes | None:
        """Fetch a body by its SHA-256: its bytes, or None when it is in its file now. Blocks up to WAIT_S; raises
        NotNow.
        """
        if not self.open():
            raise NotNow("the sidecar does not give bodies at the moment")
        with self._lock:
            self._asking += 1
        try:
            found = self._asked(name)
        except OSError as error:
            self._is_failed()
            raise NotNow(str(error)) from None
        finally:
            with self._lock:
                self._asking -= 1
        if not found or found[:1] == NOT_NOW:
            raise NotNow("the sidecar cannot get this body now")
        self._failed = 0
        return found[1:] if found[:1] == GIVEN else None

    def _is_failed(self) -> None:
        self._failed += 1
        if self._failed >= FAILURES and self._now() >= self._patient_until:
            self._failed, self._closed_until = 0, self._now() + PAUSE_S

    def _asked(self, name: bytes) -> bytes:
        until = self._now() + WAIT_S
        with self._connected(until) as connection:
            connection.sendall(name)
            pieces: list[bytes] = []
            while True:
                connection.settimeout(max(0.001, until - self._now()))
                piece = connection.recv(262144)
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)

    def _connected(self, until: float) -> socket.socket:
        while True:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                found.settimeout(max(0.001, until - self._now()))
                with socket_name(self._folder) as path:
                    found.connect(path)
                return found
            except (FileNotFoundError, ConnectionRefusedError):
                found.close()
                if self._now() >= min(until, self._patient_until) or self.over():
                    raise
                sleep(RETRY_S)
            except BaseException:
                found.close()
                raise


class AwaitedBody:
    """`ports.OpenBody` of a large body that is not there yet: the first piece waits for all of it, in a thread."""

    __slots__ = ("_asker", "_checked", "_closed", "_opened", "_path", "file")

    def __init__(self, file: BodyFile, path: Path, checked: Checked, asker: Asker) -> None:
        self.file = file
        self._path, self._checked, self._asker = path, checked, asker
        self._opened: OpenBody | None = None
        self._closed = False

    def quick(self, number: int) -> bytes | bytearray | Exception | None:
        """See `ports.OpenBody`: None until the body has arrived."""
        return None if self._opened is None else self._opened.quick(number)

    def piece(self, number: int, wait: bool) -> bytes | bytearray:
        """See `ports.OpenBody`; the first call fetches the body. Raises NotNow."""
        opened = self._opened
        if opened is None:
            if self._asker.lacks(self.file):
                self._asker.ask(self.file.name)
            opened = self._opened = OpenBody(self.file, self._path, self._checked)
            if self._closed:  # while it was waited for
                opened.close()
        return opened.piece(number, wait)

    def close(self) -> None:
        """Close the file; also while a thread still waits for it."""
        self._closed = True
        if self._opened is not None:
            self._opened.close()
