"""A restored disk tier whose bodies are still in the repository: what of them is awaited, and putting them in.

    restore ─► records and rows, each with its body's name ─► the gateway serves ─► bodies come, in any order
                                                                  └─ a request wants one: it comes at once

    store/awaited/point    which recovery point they are of (JSON); the folder is there as long as bodies are awaited
    store/awaited/socket   where the sidecar gives a body that a worker asks for

A body counts against the budget from the start, so that there is room for it. A large one is given its name when it
comes; a small one is packed into a record of its own, and the row is moved there.

One rule: what comes takes the place of nothing. A response that was purged, evicted or replaced meanwhile has no row
that waits for the body, and the body is dropped; all that is decided inside the turn.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import orjson

from edge.adapters.disk_body import temp_name
from edge.adapters.disk_changes import Changer, Changes, Packing
from edge.adapters.disk_files import FileOps, make_file
from edge.adapters.disk_index import connect
from edge.adapters.disk_place import STORE, Place, TierError
from edge.adapters.disk_room import Limits, NoRoom
from edge.adapters.disk_writer import PACKED_BYTES
from edge.cache.record import Damaged, decode, holding
from edge.errors import RecoveryError

AWAITED, POINT, SOCKET = "awaited", "point", "socket"


def awaited(place: Place) -> Path:
    """The folder that exists while bodies are awaited."""
    return place.store / AWAITED


def begin_awaiting(place: Place, point: str) -> None:
    """Note that bodies of the recovery point `point` are awaited. The folder is private, since its socket hands out
    bodies.
    """
    awaited(place).mkdir(mode=0o700)
    (awaited(place) / POINT).write_bytes(orjson.dumps({"point": point}))


def awaits(path: Path) -> bool:
    """Whether the tier in the directory `path` awaits bodies."""
    return (path / STORE / AWAITED / POINT).exists()


@contextmanager
def socket_name(folder: Path) -> Iterator[str]:
    """A name for the socket that fits the length limit of Unix sockets; valid inside the `with` block."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def listen_awaited(path: Path) -> socket.socket:
    """The listening socket on which workers ask for bodies of the tier in `path`. Raises OSError."""
    folder = path / STORE / AWAITED
    (folder / SOCKET).unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket_name(folder) as name:
        found.bind(name)
    found.listen(64)
    return found


class AwaitedBodies:
    """`sidecar.source.Awaiting` of a disk tier. Blocking; `place` may be called from any thread."""

    def __init__(self, path: Path, limits: Limits, ops: FileOps | None = None) -> None:
        """Open the tier in `path`. Raises RecoveryError where there is none."""
        self._place = _place(path)
        self.folder = awaited(self._place)
        self._alone = threading.Lock()
        self._ops = ops or FileOps()
        self._rows: dict[bytes, list[tuple[int, int]]] = {}  # body: hash and variant of the responses
        with _explained(path):
            self._changer = Changer(self._place, limits, self._ops)

    def close(self) -> None:
        """Close the index."""
        with self._alone:
            self._changer.close()

    def point(self) -> str | None:
        """The id of the recovery point that the bodies belong to; None when nothing is awaited."""
        try:
            return str(orjson.loads((self.folder / POINT).read_bytes())["point"])
        except (OSError, ValueError, KeyError):
            return None

    def wanted(self) -> dict[bytes, int]:
        """The missing bodies by SHA-256, with the bytes that are reserved for each."""
        with _explained(self._place.path), closing(connect(self._place)) as db:
            bodies = dict(db.execute("SELECT name, bytes FROM bodies").fetchall())
            wanted = {name: size for name, size in bodies.items() if not self._place.body(name).exists()}
            rows: dict[bytes, list[tuple[int, int]]] = {}
            for name, hashed, variant in db.execute("SELECT body, hash, variant FROM objects WHERE body IS NOT NULL"):
                if name in wanted:
                    rows.setdefault(name, []).append((hashed, variant))
        self._rows = rows
        return wanted

    def put(self, bodies: Sequence[tuple[bytes, bytes]]) -> None:
        """Store bodies whose SHA-256 has been checked. Raises RecoveryError."""
        large = [(name, body, temp_name()) for name, body in bodies if len(body) > PACKED_BYTES]
        with _explained(self._place.path):
            for _, body, temp in large:
                make_file(self._ops, self._place.temp(temp), body)
            with self._alone, self._changer.turn():
                for name, _, temp in large:
                    self._take_in(name, temp)
                self._pack([(name, body) for name, body in bodies if len(body) <= PACKED_BYTES])

    def place(self, name: bytes, body: bytes) -> bool:
        """Store one body that a request waits for, if it gets a file of its own; else the caller must send it along."""
        if len(body) <= PACKED_BYTES:
            return False
        self.put([(name, body)])
        return True

    def lose(self, names: Iterable[bytes]) -> int:
        """Drop the responses whose bodies will not arrive; returns how many."""
        rows = [row for name in names for row in self._rows.get(name, ())]
        with _explained(self._place.path), self._alone:
            self._changer.apply(Changes(removed=[(hashed, variant, -1, -1) for hashed, variant in rows]))
        return len(rows)

    def end(self) -> None:
        """All bodies have arrived: remove the folder."""
        (self.folder / POINT).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _take_in(self, name: bytes, temp: str) -> None:
        if self._changer.known(name):
            self._ops.rename(self._place.temp(temp), self._place.body(name))
        else:
            self._ops.unlink(self._place.temp(temp))

    def _pack(self, bodies: Sequence[tuple[bytes, bytes]]) -> None:
        """Write small bodies into records together with their responses; inside the turn."""
        found = [(name, body, row) for name, body in bodies for row in self._rows.get(name, ())]
        if not found:
            return
        self._changer.make_room(sum(len(body) for _, body, _ in found))
        packed: list[Packing] = []
        for name, body, (hashed, variant) in found:
            row = self._changer.row(hashed, variant)
            if row is None or row.body != name:
                continue  # purged, evicted, replaced, or packed already
            try:
                record = holding(self._record(row.segment, row.at, row.length), body)
                packed.append(Packing(decode(record).stored, record, hashed=hashed, variant=variant, row=row))
            except (Damaged, OSError):
                continue  # whoever looks it up finds out, and drops it
        self._changer.pack(packed)

    def _record(self, segment: int, at: int, length: int) -> bytes:
        with self._place.segment(segment).open("rb") as file:
            record = os.pread(file.fileno(), length, at)
        decode(record)
        return record


def _place(path: Path) -> Place:
    try:
        return Place.marked(path)
    except (OSError, ValueError, KeyError):
        raise RecoveryError(f"disk cache {path}: there is none") from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, NoRoom, TierError) as error:
        detail = error.detail if isinstance(error, TierError) else f"disk cache {path}: {error}"
        raise RecoveryError(detail) from None
