"""The disk tier as a store: what is put is found again, over restarts, purges, evictions, damage and full disks."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import threading
from pathlib import Path

import pytest
from kit.tier import NOW, SMALL, Full, body_of, looked, response, tier
from kit.waiting import WAIT_S

from edge.adapters.disk_changes import Changer
from edge.adapters.disk_files import FileOps
from edge.adapters.disk_place import TierError, TierInUse, lock_tier, prepare
from edge.adapters.disk_room import MIN_SIZE, Limits
from edge.adapters.disk_start import open_place, sweep_bodies, take_over
from edge.adapters.durable_file import FRESH
from edge.cache.body import PIECE_BYTES
from edge.cache.purge import Numbered, Purge, PurgeKind, PurgeLog
from edge.cache.record import Damaged
from edge.http.ranges import ContentRange

KEY = b"http://site.test/page"
BIG = random.Random(1).randbytes(700_000)


def du(path: Path) -> int:
    return sum(each.stat().st_blocks * 512 for each in path.rglob("*"))


def test_put_is_seen_at_once_and_after_a_restart(tmp_path: Path) -> None:
    first = tier(tmp_path)
    assert first.put(response(KEY, b"one"), 0)
    assert [one.chunks for one in looked(first, KEY)] == [(b"one",)]  # while it waits to be written
    first.writer.flush()
    assert [one.chunks for one in looked(first, KEY)] == [(b"one",)]
    first.close()
    second = tier(tmp_path)
    assert [one.chunks for one in looked(second, KEY)] == [(b"one",)]
    assert looked(second, KEY + b"?") == ()
    second.close()


def test_two_workers_see_each_others(tmp_path: Path) -> None:
    one, two = tier(tmp_path), tier(tmp_path)
    one.put(response(KEY, b"one"), 0)
    one.put(response(KEY + b"2", BIG), 0)
    one.writer.flush()
    (found,) = looked(two, KEY)
    assert found.chunks == (b"one",)
    (large,) = looked(two, KEY + b"2")
    assert body_of(two, large) == BIG
    one.close()
    two.close()


def test_variants_and_parts(tmp_path: Path) -> None:
    store = tier(tmp_path)
    for coding in (b"gzip", b"br"):
        store.put(response(KEY, coding, vary=((b"accept-encoding", coding),)), 0)
    store.put(response(KEY, b"ab", part=ContentRange(0, 1, 9), vary=((b"accept-encoding", b"br"),)), 0)
    store.put(response(KEY, b"plain", part=ContentRange(0, 4, 9)), 0)
    store.writer.flush()
    assert len(looked(store, KEY)) == 4
    store.put(response(KEY, b"new br", vary=((b"accept-encoding", b"br"),), received_at=NOW + 1), 0)
    for _ in range(2):  # while it waits, and when it is written: the whole takes its own parts away and no other's
        assert sorted(b"".join(one.chunks) for one in looked(store, KEY)) == [b"gzip", b"new br", b"plain"]
        store.writer.flush()
    store.close()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("purge", "touched"),
    [
        (Purge(PurgeKind.URL, b"http://a/x/1"), {b"http://a/x/1", b"http://a/x/1 lang=de"}),
        (Purge(PurgeKind.TAG, b"red"), {b"http://a/x/2"}),
        (Purge(PurgeKind.PREFIX, b"a/x"), {b"http://a/x/1", b"http://a/x/1 lang=de", b"http://a/x/2"}),
        (Purge(PurgeKind.HOST, b"b"), {b"http://b/x/1"}),
        (
            Purge(PurgeKind.ALL),
            {b"http://a/x/1", b"http://a/x/1 lang=de", b"http://a/x/2", b"http://b/x/1", b"http://a/y"},
        ),
    ],
)
def test_a_purge_is_in_force_here_there_and_after_a_restart(
    tmp_path: Path, purge: Purge, touched: set[bytes], soft: bool
) -> None:
    keys = {b"http://a/x/1", b"http://a/x/1 lang=de", b"http://a/x/2", b"http://b/x/1", b"http://a/y"}
    journal = PurgeLog()
    place = take_over(open_place(tmp_path), SMALL, journal, "")
    one, two = tier(tmp_path), tier(tmp_path)
    for key in keys:
        one.put(response(key, key, tags=frozenset((b"red",)) if key.endswith(b"2") else frozenset()), 0)
    one.writer.flush()
    asked = Purge(purge.kind, purge.value, soft)

    def left(store: object) -> tuple[set[bytes], set[bytes]]:
        found = {key: looked(store, key) for key in keys}  # type: ignore[arg-type]
        gone = {key for key, here in found.items() if not here}
        return gone, {key for key, here in found.items() if here and not here[0].is_fresh(NOW + 2)}

    expected = (set(), touched) if soft else (touched, set())
    journal.record(asked, NOW + 1, 1)  # durable in the journal, and the gateway is killed before anything else
    for store in (one, two):
        store.close()
    take_over(place, SMALL, journal, "")
    three = tier(tmp_path, purge_log=journal)
    assert left(three) == expected
    for key in keys:  # what is fetched after it is stored and found
        three.put(response(key, b"new", received_at=NOW + 2), journal.now_seq())
    three.writer.flush()
    assert left(three) == (set(), set())
    three.close()


def test_a_purge_counts_what_it_touched(tmp_path: Path) -> None:
    store = tier(tmp_path)
    for n in range(5):
        store.put(response(KEY, b"x", vary=((b"accept", b"%d" % n),), tags=frozenset((b"t",))), 0)
    store.put(response(KEY, b"old", vary=((b"accept", b"old"),), tags=frozenset((b"t",)), received_at=NOW - 9e4), 0)
    store.writer.flush()
    changer = Changer(store.place, SMALL, durable=True)
    touched = changer.purge([Numbered(1, [Purge(PurgeKind.TAG, b"t")])], NOW)
    assert len(touched[0]) == 5  # the expired one is not counted
    assert looked(store, KEY) == ()
    assert changer.purge([Numbered(2, [Purge(PurgeKind.TAG, b"t")])], NOW) == [set()]
    changer.close()
    store.close()


@pytest.mark.parametrize("process", [999_999_999, 1], ids=["nobody", "another-process"])
def test_an_invalidation_outlives_a_killed_worker(process: int, tmp_path: Path) -> None:
    """Also where its process id is another process's now."""
    store = tier(tmp_path)
    store.put(response(KEY), 0)
    store.put(response(KEY + b"2", tags=frozenset((b"t",))), 0)
    store.put(response(KEY + b"3"), 0)
    store.writer.flush()
    turn = os.open(store.place.store / "turn", os.O_RDWR)
    fcntl.flock(turn, fcntl.LOCK_EX)  # the thread cannot write
    store.forget(Purge(PurgeKind.URL, KEY), NOW)
    store.forget(Purge(PurgeKind.TAG, b"t"), NOW)
    assert looked(store, KEY) == looked(store, KEY + b"2") == ()
    said = next((store.place.store / "notes").iterdir()).read_bytes()
    shutil.copytree(tmp_path, tmp_path / "copy")  # what a kill would leave behind
    os.close(turn)
    store.close()
    assert not list((store.place.store / "notes").iterdir())
    (tmp_path / "copy" / "store" / "notes" / str(os.getpid())).unlink()
    (tmp_path / "copy" / "store" / "notes" / str(process)).write_bytes(said + b"u\0\0")
    place = take_over(open_place(tmp_path / "copy"), SMALL, PurgeLog(), "")
    last = tier(tmp_path / "copy")
    assert looked(last, KEY) == looked(last, KEY + b"2") == ()
    assert looked(last, KEY + b"3")
    assert not list((place.store / "notes").glob(str(process)))
    last.close()


def test_a_journal_that_is_behind_or_another_empties_the_tier(tmp_path: Path) -> None:
    journal = PurgeLog()
    journal.record(Purge(PurgeKind.HOST, b"x"), NOW, 5)
    place = take_over(open_place(tmp_path, "one"), SMALL, journal, "one")
    store = tier(tmp_path, purge_log=journal)
    store.put(response(KEY), journal.now_seq())
    store.writer.flush()
    store.close()
    same = take_over(open_place(tmp_path, "one"), SMALL, journal, "one")
    assert not same.said and tier_has(tmp_path, journal)
    behind = PurgeLog()
    found = take_over(open_place(tmp_path, "one"), SMALL, behind, "one")
    assert "moved aside" in found.said and not tier_has(tmp_path, behind)
    store = tier(tmp_path, purge_log=behind)
    store.put(response(KEY), 0)
    store.writer.flush()
    store.close()
    assert "another history" in open_place(tmp_path, "two").said and not tier_has(tmp_path, behind)
    assert place.path == tmp_path


def tier_has(path: Path, purge_log: PurgeLog) -> bool:
    store = tier(path, purge_log=purge_log)
    try:
        return bool(looked(store, KEY))
    finally:
        store.close()


def test_the_same_content_is_kept_once(tmp_path: Path) -> None:
    store = tier(tmp_path)
    for n in range(20):
        store.put(response(KEY + b"%d" % n, BIG), 0)
    store.writer.flush()
    assert len(list((store.place.store / "bodies").rglob("*/*"))) == 1
    for n in range(19):
        store.remove(looked(store, KEY + b"%d" % n)[0])
    store.writer.flush()
    assert len(list((store.place.store / "bodies").rglob("*/*"))) == 1
    store.remove(looked(store, KEY + b"19")[0])
    store.writer.flush()
    assert not list((store.place.store / "bodies").rglob("*/*"))
    assert not list((store.place.store / "temps").iterdir())
    store.close()


@pytest.mark.parametrize("size", [3_000, 100_000, 900_000])
def test_the_budget_holds_while_it_is_filled_over_and_over(tmp_path: Path, size: int) -> None:
    store = tier(tmp_path)
    hot = b"http://site.test/hot"
    store.put(response(hot, b"h" * 500), 0)
    total, n, most = 0, 0, 0
    source = random.Random(2)
    while total < MIN_SIZE * 3:
        for _ in range(max(1, 2_000_000 // size)):
            store.put(response(b"http://site.test/%d" % n, source.randbytes(size)), 0)
            n, total = n + 1, total + size
        store.writer.flush()
        most = max(most, du(tmp_path))
        (kept,) = looked(store, hot)  # what is used stays
        store.used(kept)
    assert most <= MIN_SIZE, most / MIN_SIZE
    assert store.writer.dropped == 0 and store.writer.errors == 0
    assert looked(store, b"http://site.test/%d" % (n - 1))
    assert not looked(store, b"http://site.test/0")
    assert most > MIN_SIZE // 3
    store.close()


def test_a_smaller_size_is_kept_to(tmp_path: Path) -> None:
    store = tier(tmp_path, Limits(MIN_SIZE * 3))
    source = random.Random(2)
    for n in range(60):
        store.put(response(b"http://site.test/%d" % n, source.randbytes(1_000_000)), 0)
        store.writer.flush()
    store.close()
    assert du(tmp_path) > MIN_SIZE
    store = tier(tmp_path, SMALL)
    store.put(response(KEY), 0)
    store.writer.flush()
    assert du(tmp_path) <= MIN_SIZE
    assert looked(store, KEY)
    store.close()


def test_larger_than_the_tier_is_dropped_alone(tmp_path: Path) -> None:
    store = tier(tmp_path)
    store.put(response(KEY, b"small"), 0)
    store.writer.flush()
    store.put(response(KEY + b"2", bytes(MIN_SIZE)), 0)
    store.writer.flush()
    assert looked(store, KEY) and not looked(store, KEY + b"2")
    assert store.writer.dropped == 1
    store.close()


def test_a_full_disk_is_counted_and_got_over(tmp_path: Path) -> None:
    ops = Full()
    store = tier(tmp_path, ops=ops)
    store.put(response(KEY, b"one"), 0)
    store.writer.flush()
    ops.full = True
    store.put(response(KEY + b"2", b"two"), 0)
    store.put(response(KEY + b"3", BIG), 0)
    store.writer.flush()
    assert looked(store, KEY) and not looked(store, KEY + b"2")
    assert store.writer.errors >= 1 and store.writer.dropped >= 1
    assert [event["kind"] for event in store.events()] == ["disk.failed"]
    assert not store.put(response(KEY + b"4"), 0)  # not tried for a second
    ops.full = False
    store.writer._failing_until = 0.0
    store.put(response(KEY + b"2", b"two"), 0)
    store.writer.flush()
    assert looked(store, KEY + b"2")
    store.close()


def test_every_flip_in_the_files_is_a_miss_or_the_truth(tmp_path: Path) -> None:
    store = tier(tmp_path)
    bodies = {b"http://site.test/%d" % n: random.Random(n).randbytes(100 if n % 2 else 70_000) for n in range(40)}
    for key, body in bodies.items():
        store.put(response(key, body), 0)
    store.writer.flush()
    store.close()
    files = [each for each in (tmp_path / "store").rglob("*") if each.is_file() and each.stat().st_size]
    source, told = random.Random(9), 0
    for _ in range(60):
        target = source.choice(files)
        if not target.exists():
            continue
        before = target.read_bytes()
        damaged = bytearray(before)
        for _ in range(12):
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        target.write_bytes(damaged if source.random() < 0.8 else before[: source.randrange(len(before))])
        try:
            again = tier(tmp_path)
        except TierError:
            target.write_bytes(before)
            continue
        for key, body in bodies.items():
            for found in looked(again, key):
                try:
                    read = body_of(again, found)
                except Damaged:
                    read = None
                assert read is None or read == body
        told += again.damaged + again.writer.damaged
        again.close()
        return_whole(tmp_path, bodies)
        files = [each for each in (tmp_path / "store").rglob("*") if each.is_file() and each.stat().st_size]
    assert told


def return_whole(path: Path, bodies: dict[bytes, bytes]) -> None:
    """A tier that has them all again."""
    try:
        store = tier(path)
    except TierError:
        return
    for key, body in bodies.items():
        store.put(response(key, body), 0)
    store.writer.flush()
    store.close()


def test_a_body_that_rots_while_it_is_sent_is_not_given_out(tmp_path: Path) -> None:
    store = tier(tmp_path)
    store.put(response(KEY, BIG), 0)
    store.writer.flush()
    (found,) = looked(store, KEY)
    assert body_of(store, found) == BIG  # each piece has been compared now
    opened = store.open_body(found)
    assert opened is not None and opened.piece(0, False) == BIG[:PIECE_BYTES]
    (file,) = (each for each in (store.place.store / "bodies").rglob("*") if each.is_file())
    with file.open("r+b") as damaged:
        damaged.seek(PIECE_BYTES + 7)
        damaged.write(b"damage")
    assert isinstance(opened.quick(1), Damaged)
    assert opened.quick(2) == BIG[2 * PIECE_BYTES :]
    opened.close()
    store.close()


def test_a_hopeless_index_is_moved_aside_with_one_line(tmp_path: Path) -> None:
    tier(tmp_path).close()
    (tmp_path / "store" / "index.db").write_bytes(b"garbage" * 1000)
    place = open_place(tmp_path)
    assert "moved aside" in place.said and "\n" not in place.said
    assert (tmp_path / "store.aside" / "index.db").read_bytes().startswith(b"garbage")
    mark = tmp_path / "edge-cache.json"
    mark.write_bytes(mark.read_bytes().replace(b'"format":2', b'"format":99'))
    assert "format 99" in open_place(tmp_path).said


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(TierError, match="letters"):
        prepare(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(TierError):
        prepare(file)
    with pytest.raises(TierError):
        prepare(file / "below")
    assert (tmp_path / "letters").read_text() == "dear"


def test_another_gateway_is_refused(tmp_path: Path) -> None:
    held = lock_tier(tmp_path / "tier")
    with pytest.raises(TierInUse, match="another gateway"):
        lock_tier(tmp_path / "tier")
    os.close(held)
    os.close(lock_tier(tmp_path / "tier"))


def test_leftovers_are_swept(tmp_path: Path) -> None:
    store = tier(tmp_path)
    store.put(response(KEY, BIG), 0)
    store.writer.flush()
    store.close()
    root = tmp_path / "store"
    (root / "temps" / "1-1").write_bytes(b"x")
    (root / "segments" / "777").write_bytes(b"x")
    stray = root / "bodies" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x")
    with (root / "segments" / "1").open("ab") as file:
        file.write(b"torn" * 5000)
    place = take_over(open_place(tmp_path), SMALL, PurgeLog(), "")
    assert sweep_bodies(place, SMALL) == 1
    assert not stray.exists() and not list((root / "temps").iterdir()) and not (root / "segments" / "777").exists()
    again = tier(tmp_path)
    assert body_of(again, looked(again, KEY)[0]) == BIG
    assert again.writer._changer.room.used() >= du(root)
    again.close()


def test_a_clock_that_jumps_back_a_day_serves_nothing_wrong(tmp_path: Path) -> None:
    store = tier(tmp_path)
    store.put(response(KEY, b"one"), 0)
    store.put(response(KEY, b"two", received_at=NOW - 86400), 0)  # newer, with the clock that jumped
    store.writer.flush()
    assert [one.chunks for one in looked(store, KEY)] == [(b"two",)]
    store.close()


def test_min_uses_keeps_what_is_asked_once_off_the_disk(tmp_path: Path) -> None:
    store = tier(tmp_path, min_uses=2)
    assert not store.put(response(KEY), 0)
    assert store.put(response(KEY), 0)
    store.close()


def test_too_much_waiting_is_dropped_and_counted(tmp_path: Path) -> None:
    gate = threading.Event()

    class Stuck(FileOps):
        def write(self, fd: int, data: bytes, at: int) -> None:
            gate.wait(WAIT_S)
            super().write(fd, data, at)

    store = tier(tmp_path, ops=Stuck())
    taken = [store.put(response(b"http://a/%d" % n, bytes(2_000_000)), 0) for n in range(40)]
    assert taken[0] and not taken[-1]
    assert store.writer.dropped == taken.count(False)
    gate.set()
    store.close()


async def test_a_look_in_a_thread_obeys_a_purge_that_came_meanwhile(tmp_path: Path) -> None:
    store = tier(tmp_path)
    store.put(response(KEY), 0)
    store.writer.flush()
    read, go, seen = threading.Event(), threading.Event(), asyncio.Event()
    inner, found = store._read, []

    def slow(*args, **kwargs):  # type: ignore[no-untyped-def]
        result = inner(*args, **kwargs)
        read.set()
        go.wait(WAIT_S)
        return result

    store._read = slow  # type: ignore[method-assign]
    store.look_later(KEY, lambda here: (found.append(here), seen.set()))
    await asyncio.to_thread(read.wait, WAIT_S)
    store.forget(Purge(PurgeKind.URL, KEY), NOW)
    await asyncio.to_thread(store.writer.flush)
    go.set()
    await asyncio.wait_for(seen.wait(), WAIT_S)
    assert found == [()]
    store.close()


def test_closing_by_two_threads_at_once_closes_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is told twice to end: what the second close hit could be another file of the same number."""
    found = tier(tmp_path)
    closed: list[int] = []
    plain = os.close

    def slow(descriptor: int) -> None:
        closed.append(descriptor)
        found._notes.close()  # the other thread, while this one is in the system call
        plain(descriptor)

    monkeypatch.setattr(os, "close", slow)
    found._notes.close()
    monkeypatch.undo()
    assert len(closed) == len(set(closed)) == 1
    found.close()


def test_a_fifo_in_the_place_of_a_file_is_damage_that_nobody_waits_for(tmp_path: Path) -> None:
    store = tier(tmp_path)
    store.put(response(KEY, b"stored"), 0)
    store.writer.flush()
    store.close()
    for path in store.place.segment(1).parent.iterdir():
        path.unlink()
        os.mkfifo(path)
    found: list[object] = []

    def look() -> None:
        again = tier(tmp_path)
        found.append(looked(again, KEY))
        again.close()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert found == [()]


def test_only_a_strangers_files_are_in_the_way_of_a_new_tier(tmp_path: Path) -> None:
    (tmp_path / f"{FRESH}0123").write_bytes(b"{")  # a first start that was killed while it wrote its mark
    prepare(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "photo.jpg").write_bytes(b"")
    with pytest.raises(TierError, match=r"not the gateway's, such as 'photo\.jpg'"):
        prepare(other)
