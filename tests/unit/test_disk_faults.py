"""The disk tier where something fails: what was to be taken away stays taken away, and nothing is left lying about."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from kit.tier import NOW, SMALL, Full, body_of, looked, response, stuck, tier
from kit.waiting import until_blocking

from edge.adapters import disk_changes
from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_files import FileOps
from edge.adapters.disk_room import MIN_SIZE, Limits
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_start import open_place, take_over
from edge.adapters.disk_tier import DiskTier
from edge.adapters.disk_writer import Writer
from edge.cache.purge import Numbered, Purge, PurgeKind, PurgeLog
from edge.cache.record import encode

KEY = b"http://site.test/page"
DEAD = 999_999_999  # no process has this number


def large(seed: int) -> bytes:
    return random.Random(seed).randbytes(300_000)


def stored(path: Path) -> tuple[Full, DiskTier]:
    """A tier that has the page, on a disk that may be full later."""
    ops = Full()
    store = tier(path, ops=ops)
    store.put(response(KEY), 0)
    assert store.writer.flush()
    return ops, store


class NoNewNames(FileOps):
    """A disk on which no more than `left` bodies get their names."""

    left = 1_000_000

    def rename(self, old: Path, new: Path) -> None:
        if "bodies" in new.parts:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left -= 1
        super().rename(old, new)


class NoVersion(FileOps):
    """Fails at the n-th time that the index's version is written from now on; 0: never."""

    at = 0

    def write(self, fd: int, data: bytes, at: int) -> None:
        if len(data) == 8 and self.at:
            self.at -= 1
            if not self.at:
                raise OSError(errno.EIO, "Input/output error")
        super().write(fd, data, at)


def temps_of(store: DiskTier) -> tuple[list[str], list[str]]:
    """Temporary files: those there are, and those that count."""
    there = sorted(path.name for path in (store.place.store / "temps").iterdir())
    with closing(sqlite3.connect(store.place.index)) as db:
        return there, sorted(name for (name,) in db.execute("SELECT name FROM temps"))


def test_a_purge_beside_what_finds_no_room_is_carried_out(tmp_path: Path) -> None:
    store = tier(tmp_path)
    for n in (1, 2):
        store.put(response(KEY + b"%d" % n), 0)
    assert store.writer.flush()
    (second,) = looked(store, KEY + b"2")
    with stuck(store):
        store.put(response(KEY + b"3", bytes(MIN_SIZE)), 0)
        store.put(response(KEY + b"4"), 0)
        store.forget(Purge(PurgeKind.URL, KEY + b"1"), NOW)
        store.remove(second)
    assert store.writer.flush()
    assert [n for n in range(1, 5) if looked(store, KEY + b"%d" % n)] == [4]
    assert store.writer.dropped == 1
    store.close()


def test_what_was_removed_stays_so_while_the_disk_fails(tmp_path: Path) -> None:
    ops, store = stored(tmp_path)
    (found,) = looked(store, KEY)
    ops.full = True
    store.remove(found)
    until_blocking(lambda: store.writer.errors and not store.writer.taken)
    assert not looked(store, KEY)
    ops.full = False
    store.writer._failing_until = 0.0
    assert store.writer.flush()
    assert not looked(store, KEY)
    store.close()


def test_the_end_waits_for_no_disk_that_fails(tmp_path: Path) -> None:
    ops, store = stored(tmp_path)
    ops.full = True
    store.forget(Purge(PurgeKind.URL, KEY), NOW)
    until_blocking(lambda: store.writer.errors and not store.writer.taken)
    store.close()
    assert not store.writer._thread.is_alive()
    again = tier(tmp_path)  # it was noted
    assert not looked(again, KEY)
    again.close()


@pytest.mark.parametrize("left", [0, 1])
def test_a_batch_that_fails_leaves_no_files(tmp_path: Path, left: int) -> None:
    ops = NoNewNames()
    store = tier(tmp_path, ops=ops)
    store.put(response(KEY), 0)
    assert store.writer.flush()
    with stuck(store):
        for n in range(3):
            store.put(response(KEY + b"%d" % n, large(n)), 0)
        ops.left = left
    until_blocking(lambda: store.writer.errors and not store.writer.taken)
    store.writer._failing_until = 0.0
    assert store.writer.flush()
    assert temps_of(store) == ([], [])
    assert not list((store.place.store / "bodies").rglob("*/*"))
    assert store.writer.dropped == 3 and store.writer.written == 1
    ops.left = 10
    store.put(response(KEY + b"1", large(1)), 0)
    assert store.writer.flush() and looked(store, KEY + b"1")
    store.close()


def test_what_was_committed_stays_whatever_fails_after_it(tmp_path: Path) -> None:
    ops = NoVersion()
    store = tier(tmp_path, ops=ops)
    ops.at = 4  # room for the body: two; its row: the second
    store.put(response(KEY, large(1)), 0)
    until_blocking(lambda: store.writer.errors and not store.writer.taken)
    store.writer._failing_until = 0.0
    assert store.writer.flush()
    (stored,) = looked(store, KEY)
    assert body_of(store, stored) == large(1) and temps_of(store) == ([], [])
    store.close()


def test_a_writer_that_ends_by_a_mistake_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was purged is served by nobody, though it cannot be taken out of the index any more."""
    store = tier(tmp_path)
    for key in (KEY, KEY + b"2"):
        store.put(response(key), 0)
    assert store.writer.flush()
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: raised.append(told.exc_type))
    monkeypatch.setattr(Writer, "_take_away", lambda self, taken: 1 // 0)
    store.forget(Purge(PurgeKind.URL, KEY), NOW)
    store.writer._thread.join(60.0)
    assert raised == [ZeroDivisionError]
    assert [(told["kind"], told["evidence"]) for told in store.events()] == [
        ("disk.failed", "ZeroDivisionError: integer division or modulo by zero")
    ]
    assert not looked(store, KEY) and not store.put(response(KEY + b"3"), 0)
    store.close()
    monkeypatch.undo()
    again = tier(tmp_path)
    assert not looked(again, KEY) and looked(again, KEY + b"2")
    again.close()


def test_what_a_killed_worker_left_half_written_goes_when_another_begins(tmp_path: Path) -> None:
    place = open_place(tmp_path)
    with closing(sqlite3.connect(place.index)) as db:
        for name, writer in (("dead", DEAD), ("alive", os.getppid())):
            db.execute("INSERT INTO temps VALUES (?, ?, 5000000)", (name, writer))
            place.temp(name).write_bytes(b"half")
        db.commit()
    store = tier(tmp_path)
    until_blocking(lambda: temps_of(store) == (["alive"], ["alive"]))
    store.close()


def test_who_evicts_much_lets_others_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tier made smaller: a purge must not wait until all that is too much has gone."""
    place = open_place(tmp_path)
    with closing(Changer(place, Limits(2 * MIN_SIZE))) as changer:
        for n in range(4):
            each = [response(b"http://a/%d/%d" % (n, at), bytes(12_000)) for at in range(1000)]
            changer.apply(Changes([Addition(one, encode(one, 0)) for one in each]))
    came = threading.Event()
    rests: list[bool] = []

    def other() -> None:
        with closing(Changer(place, SMALL, durable=True)) as purging:
            purging.purge([Numbered(1, [Purge(PurgeKind.URL, b"http://a/3/1")])], NOW)
            came.set()

    thread = threading.Thread(target=other, daemon=True)

    def rest(seconds: float) -> None:
        if not rests:
            thread.start()
            rests.append(came.wait(60.0))

    monkeypatch.setattr(disk_changes, "sleep", rest)
    with closing(Changer(place, SMALL)) as changer:
        one = response(KEY)
        changer.apply(Changes([Addition(one, encode(one, 0))]))
        assert rests == [True]
        assert changer.room.lacking(0) <= 0
    thread.join()


def test_notes_are_taken_over_from_whoever_holds_them_no_more(tmp_path: Path) -> None:
    """Another process may have the number of a dead worker; the lock tells."""
    store = tier(tmp_path)
    for n in (1, 2):
        store.put(response(KEY + b"%d" % n), 0)
    assert store.writer.flush()
    store.close()
    folder = tmp_path / "store" / "notes"
    for n, name in ((1, str(os.getppid())), (2, f"{os.getppid()}-7")):
        value = KEY + b"%d" % n
        (folder / name).write_bytes(b"u" + len(value).to_bytes(4, "big") + value)
    (folder / "lost+found").mkdir()
    with (folder / f"{os.getppid()}-7").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        take_over(open_place(tmp_path), SMALL, PurgeLog(), "")
        again = tier(tmp_path)
        assert not looked(again, KEY + b"1") and looked(again, KEY + b"2")
        again.close()
    last = tier(tmp_path)
    assert not looked(last, KEY + b"2")
    last.close()


def test_a_note_waits_from_the_moment_that_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tier(tmp_path)
    plain = store._notes.add
    locked: list[bool] = []

    def add(self: object, purge: Purge) -> None:
        locked.append(store.writer._lock.locked())
        plain(purge)

    monkeypatch.setattr(type(store._notes), "add", add)
    store.forget(Purge(PurgeKind.URL, KEY), NOW)
    assert locked == [True]
    monkeypatch.undo()
    store.close()


def test_a_batch_without_purges_touches_no_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting a file may wait for the disk, and the loop for the lock meanwhile."""
    store = tier(tmp_path)
    cut: list[int] = []
    plain = os.ftruncate
    monkeypatch.setattr(os, "ftruncate", lambda file, length: (cut.append(file), plain(file, length)))
    store.put(response(KEY), 0)
    assert store.writer.flush() and not cut
    store.forget(Purge(PurgeKind.URL, KEY), NOW)
    assert store.writer.flush()
    until_blocking(lambda: len(cut) == 1)
    monkeypatch.undo()
    store.close()


@pytest.mark.parametrize("size", [100, 30_000, 100_000])
@pytest.mark.parametrize("soft", [True, False])
def test_a_purge_holds_for_what_waited_when_it_came(tmp_path: Path, soft: bool, size: int) -> None:
    """Whenever its record was made: as it was put, as it is written, or with its body in a file."""
    purges = PurgeLog()
    store = tier(tmp_path, purge_log=purges)
    purge = Purge(PurgeKind.URL, KEY, soft)
    with stuck(store):
        for key in (KEY, KEY + b"2"):
            store.put(response(key, bytes(size)), purges.now_seq())
        purges.record(purge, NOW)
        store.forget(purge, NOW)
    assert store.writer.flush()
    assert [one.is_fresh(NOW + 1) for one in looked(store, KEY)] == ([False] if soft else [])
    assert [one.is_fresh(NOW + 1) for one in looked(store, KEY + b"2")] == [True]
    store.close()
