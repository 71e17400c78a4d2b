"""The disk tier at the start: made or taken over, without looking at what it holds object by object.

    mark, lock (disk_place) ─► index opens, facts are there ─► segments are measured ─► purges that it missed

One rule: after this, what it serves obeys every purge that was ever acknowledged. A tier whose purges are ahead of the
journal (the journal was lost, or an older one put back) is moved aside: nobody knows what those purges were.

Leftovers of a crash (temporary files of dead processes, bodies and segments that nothing names) are swept; bodies may
be many, so that is for a thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_index import connect, is_damage, make_index
from edge.adapters.disk_place import DAMAGED, Place, TierError, prepare
from edge.adapters.disk_room import Limits
from edge.adapters.disk_rows import drop_objects
from edge.cache.purge import Kind, Purge, PurgeLog


def open_place(path: Path, history: str = "") -> Place:
    """Prepare the directory and its index. Raises TierError."""
    place = prepare(path, history)
    try:
        make_index(place)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise TierError(f"disk cache {path}: {error}") from None
        mark_damaged(place)
        again = prepare(path, history)
        make_index(again)
        return again
    return place


def mark_damaged(place: Place) -> None:
    """Let the next start move the tier aside."""
    try:
        (place.store / DAMAGED).touch()
    except OSError:
        pass  # it cannot be written to: the next start finds out by itself


def take_over(place: Place, limits: Limits, purge_log: PurgeLog, history: str) -> Place:
    """Apply missed purges and correct the totals, before any worker reads. Raises TierError."""
    changer = Changer(place, limits, durable=True)
    try:
        db = connect(place)
        (purged,) = db.execute("SELECT value FROM facts WHERE name = 'purged'").fetchone()
        db.close()
        if purged > purge_log.number:
            changer.close()
            mark_damaged(place)
            fresh = open_place(place.path, history)
            said = f"disk cache {place.path} has seen purges that the journal has not: moved aside, starting empty"
            return Place(fresh.path, fresh.salt, said)
        with changer.turn(), changer.transaction() as gone:
            measured(changer, place, gone)
            changer.note_purged(purge_log.number, purge_log.floor >> 32 if purge_log.floor >> 32 > purged else 0)
        left = list(noted(place))
        changer.apply(Changes(purges=[*purge_log.logged(purged), *(each for _, found in left for each in found)]))
        for path, _ in left:
            path.unlink(missing_ok=True)
        return place
    except sqlite3.Error as error:
        raise TierError(f"disk cache {place.path}: {error}") from None
    finally:
        changer.close()


def measured(changer: Changer, place: Place, gone: list[Path]) -> None:
    """Correct each segment's size by its file; delete files without a segment, and rows of segments without a file."""
    db = changer.db
    known = {number for (number,) in db.execute("SELECT id FROM segments")}
    for entry in os.scandir(place.store / "segments"):
        if entry.name.isdigit() and int(entry.name) in known:
            known.discard(int(entry.name))
            size = entry.stat().st_size
            db.execute("UPDATE segments SET bytes = ?, charge = max(charge, ?) WHERE id = ?", (size, size, entry.name))
        else:
            gone.append(Path(entry.path))
    for number in known:
        drop_objects(db, "segment = ?", (number,))
        db.execute("DELETE FROM segments WHERE id = ?", (number,))
    for name, writer in db.execute("SELECT name, writer FROM temps").fetchall():
        if not alive(writer):
            db.execute("DELETE FROM temps WHERE name = ?", (name,))
            gone.append(place.temp(name))
    held = {name for (name,) in db.execute("SELECT name FROM temps")}
    gone.extend(Path(entry.path) for entry in os.scandir(place.store / "temps") if entry.name not in held)


def sweep_bodies(place: Place, limits: Limits) -> int:
    """Delete body files that no response uses; returns how many. Slow: run it once after a start, in a thread."""
    changer = Changer(place, limits)
    removed = 0
    try:
        for folder in sorted(os.listdir(place.store / "bodies")):
            with changer.turn():
                for name in os.listdir(place.store / "bodies" / folder):
                    if not changer.known(bytes.fromhex(name)):
                        (place.store / "bodies" / folder / name).unlink(missing_ok=True)
                        removed += 1
    finally:
        changer.close()
    return removed


def alive(process: int) -> bool:
    """Whether another process with this id runs (our own id means a dead predecessor's)."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Notes:
    """What a worker has been told to forget and has not yet taken out of the index, in a file that outlives it.

    Appending is one write to the page cache, so a look-up after a restart knows of it even when the worker was killed
    right after the answer to the unsafe request that asked for it. Who holds its lock is alive: another process may
    have the id of one that was killed.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, place: Place) -> None:
        self.path = place.store / "notes" / str(os.getpid())
        self.path.parent.mkdir(exist_ok=True)
        self._fd = _held(self.path)

    def add(self, purge: Purge) -> None:
        """Append a purge."""
        kind = b"u" if purge.kind is Kind.URL else b"t"
        os.write(self._fd, (kind.upper() if purge.soft else kind) + len(purge.value).to_bytes(4, "big") + purge.value)

    def clear(self) -> None:
        """All purges are in the index: empty the file."""
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Close the file; delete it if it is empty. Harmless when called again, also from two threads at once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        with suppress(FileNotFoundError):  # another one was quicker
            if not self.path.stat().st_size:
                self.path.unlink()


def _held(path: Path) -> int:
    """The file open and locked; made again where somebody took it for a dead worker's between the two."""
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        os.close(fd)


def noted(place: Place) -> Iterator[tuple[Path, list[tuple[Purge, float]]]]:
    """Purges that dead workers had not yet applied, by file; applying one twice does no harm."""
    folder = place.store / "notes"
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:  # it ends just now; it is alive
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path, _purges_in(file.read(), os.fstat(file.fileno()).st_mtime)


def _purges_in(data: bytes, when: float) -> list[tuple[Purge, float]]:
    """The notes in a file that was last written to at this time; the last one may be cut."""
    at, found = 0, []
    while at + 5 <= len(data):
        length = int.from_bytes(data[at + 1 : at + 5], "big")
        kind, value = data[at : at + 1], data[at + 5 : at + 5 + length]
        at += 5 + length
        if len(value) == length:
            found.append((Purge(Kind.URL if kind in b"uU" else Kind.TAG, value, kind.isupper()), when))
    return found
