"""The disk tier killed at every operation on its files: it opens again, serves only whole truth, and keeps its sums.

The points are enumerated: a first run counts the operations, then each of them is stopped before it is done, half way
through what it writes, and after it. What a killed process leaves is what it did until then (the page cache outlives
it), with the index's transaction rolled back.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from kit.tier import NOW, SMALL, Killed, Stopping, body_of, looked, response, tier

from edge.adapters.disk_body import BodyWriter, temp_name
from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_files import FileOps
from edge.adapters.disk_room import MIN_SIZE
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_start import open_place, sweep_bodies, take_over
from edge.cache.purge import Numbered, Purge, PurgeKind, PurgeLog
from edge.cache.record import encode

SMALLS = {b"http://a/%d" % n: random.Random(n).randbytes(120_000 if n > 8 else 900) for n in range(14)}
LARGE = {b"http://a/large%d" % n: random.Random(n).randbytes(6_000_000) for n in range(6)}


def steps(path: Path, ops: FileOps) -> set[bytes]:
    """A run with every kind of change, by hand so that it ends where it is killed; the keys that may be there."""
    place = open_place(path)
    changer = Changer(place, SMALL, ops)
    try:
        batch = [Addition(response(key, body), encode(response(key, body), 0)) for key, body in SMALLS.items()]
        changer.apply(Changes(additions=batch[:7]))
        changer.apply(Changes(additions=batch[7:]))
        for key, body in LARGE.items():  # more than fits: evicts as well
            stored, temp = response(key, body), temp_name()
            changer.reserve(temp, len(body))
            target = BodyWriter(place, temp, ops)
            target.write(body)
            file = target.finish()
            changer.apply(Changes([Addition(stored, encode(stored, 0, file), file, temp)], used=[]))
        changer.purge([Numbered(1, [Purge(PurgeKind.URL, b"http://a/large5")])], NOW)
        changer.apply(Changes(purges=[(Purge(PurgeKind.URL, b"http://a/3"), NOW)]))
    finally:
        changer.close()
    return SMALLS.keys() | LARGE.keys()


def check(path: Path) -> int:
    """Open as the next start does; how many are served. Nothing wrong, nothing uncounted, nothing left over."""
    place = take_over(open_place(path), SMALL, _purged(), "")
    assert not place.said
    sweep_bodies(place, SMALL)
    store = tier(path, purge_log=_purged())
    served = 0
    for key, body in (SMALLS | LARGE).items():
        for found in looked(store, key):
            assert body_of(store, found) == body
            served += 1
    assert store.damaged == 0
    root = place.store
    files = sum(each.stat().st_blocks * 512 for each in root.rglob("*"))
    assert files <= store.writer._changer.room.used() <= MIN_SIZE
    assert not list((root / "temps").iterdir())
    (objects,) = store._looker.db.execute("SELECT count(*) FROM objects").fetchone()
    assert store._fact("objects") == objects == served
    (bodies,) = store._looker.db.execute("SELECT total(bytes) FROM bodies").fetchone()
    assert store._fact("bodies") == bodies
    assert store._looker.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.put(response(b"http://a/after", b"after"), 0)
    store.writer.flush()
    assert looked(store, b"http://a/after")
    store.close()
    return served


def _purged() -> PurgeLog:
    purge_log = PurgeLog()
    purge_log.record(Purge(PurgeKind.TAG, b"nothing"), NOW, 1)
    return purge_log


def count() -> int:
    with tempfile.TemporaryDirectory() as folder:
        ops = Stopping()
        steps(Path(folder), ops)
        return ops.count


POINTS = [(at, how) for at in range(count()) for how in ("before", "half", "after")]


def test_the_run_covers_every_operation(tmp_path: Path) -> None:
    ops = Stopping()
    steps(tmp_path, ops)
    assert ops.count > 30
    served = check(tmp_path)
    assert served >= 3
    store = tier(tmp_path, purge_log=_purged())
    assert not looked(store, b"http://a/large5") and not looked(store, b"http://a/3")
    store.close()


@pytest.mark.parametrize("share", range(8))
def test_killed_at_every_operation(tmp_path: Path, share: int) -> None:
    for number, (at, how) in enumerate(POINTS[share::8]):
        path = tmp_path / str(number)
        try:
            steps(path, Stopping(at, how))
        except Killed:
            pass
        check(path)
