"""The disk tier at the start: made or taken over, without looking at what it holds object by object.

    mark, lock (disk_place) ─► index opens, facts are there ─► segments are measured ─► purges that it missed

One rule: after this, what it serves obeys every purge that was ever acknowledged. A tier whose purges are ahead of the
journal (the journal was lost, or an older one put back) is moved aside: nobody knows what those purges were.

Leftovers of a crash (temporary files of dead processes, bodies and segments that nothing names) are swept; bodies may
be many, so that is for a thread.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_index import connect, is_damage, make_index
from edge.adapters.disk_notes import noted
from edge.adapters.disk_place import DAMAGED, Place, TierError, prepare
from edge.adapters.disk_room import Limits
from edge.adapters.disk_rows import drop_objects
from edge.cache.purge import PurgeLog


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
            return replace(fresh, said=said)
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
            changer.drop_temps([name], gone)
    held = {name for (name,) in db.execute("SELECT name FROM temps")}
    gone.extend(Path(entry.path) for entry in os.scandir(place.store / "temps") if entry.name not in held)


def sweep_temps(changer: Changer) -> None:
    """Delete what other workers left half written when they were killed: until then it counts against the budget."""
    own = os.getpid()
    left = changer.db.execute("SELECT name, writer FROM temps WHERE writer <> ?", (own,)).fetchall()
    dead = [name for name, writer in left if not alive(writer)]
    if dead:
        with changer.turn(), changer.transaction() as gone:
            changer.drop_temps(dead, gone)


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
    """Whether another process with this id runs (our own id means a dead predecessor's, 0 nobody's)."""
    if process in (0, os.getpid()):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
