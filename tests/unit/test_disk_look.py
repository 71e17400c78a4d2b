"""Look-ups of the disk tier that come again: what is remembered of a record is never more than what is true."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest
from kit.slots import values_of
from kit.tier import NOW, SMALL, body_of, looked, response, stuck, tier

from edge.adapters import disk_look
from edge.adapters.disk_changes import BREATHE_ROWS, Changer, Changes
from edge.adapters.disk_index import SCHEMA, SCHEMA_VERSION, make_index
from edge.adapters.disk_place import MARK, Place, prepare
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_segments import WRITE_BYTES
from edge.adapters.disk_start import open_place
from edge.adapters.disk_tier import DiskTier
from edge.cache.purge import Numbered, Purge, PurgeKind, PurgeLog, PurgeOutcome
from edge.cache.record import Damaged, decode, encode, outlined
from edge.cache.stored import Stored

KEY = b"http://site.test/page"
BODY = random.Random(3).randbytes(9000)


def remembered(path: Path, *responses: Stored) -> DiskTier:
    """A tier that has looked for KEY often enough to remember it."""
    store = tier(path)
    for each in responses or (response(KEY, BODY),):
        assert store.put(each, 0)
    assert store.writer.flush()
    for _ in range(4):
        assert looked(store, KEY)
    assert store._looker.remembered(KEY) is not None
    return store


def damage(store: DiskTier, at: int) -> None:
    """Flip a bit of the only segment, in place."""
    (segment,) = (store.place.store / "segments").iterdir()
    with segment.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("at", [-9000, -4000, -1])
def test_a_body_that_rots_after_it_was_read_is_found_each_time(tmp_path: Path, at: int) -> None:
    store = remembered(tmp_path)
    (segment,) = (store.place.store / "segments").iterdir()
    damage(store, segment.stat().st_size + at)
    assert looked(store, KEY) == ()
    assert store.damaged == 1
    assert store.writer.flush()
    assert looked(store, KEY) == () and store.damaged == 1  # removed
    store.close()


def test_a_head_that_rots_is_served_as_it_was_or_not_at_all(tmp_path: Path) -> None:
    store = remembered(tmp_path)
    (truth,) = looked(store, KEY)
    (segment,) = (store.place.store / "segments").iterdir()
    for at in range(0, segment.stat().st_size - len(BODY), 7):
        damage(store, at)
        for found in looked(store, KEY):
            assert (found.wire, found.chunks, found.fresh_until) == (truth.wire, truth.chunks, truth.fresh_until)
        damage(store, at)
    store.close()


def test_what_another_process_does_is_seen_by_the_next_look(tmp_path: Path) -> None:
    store, other = remembered(tmp_path), tier(tmp_path)
    other.put(response(KEY, b"newer", received_at=NOW + 1), 0)
    assert other.writer.flush()
    assert [one.chunks for one in looked(store, KEY)] == [(b"newer",)]
    other.put(response(KEY, b"german", vary=((b"accept-language", b"de"),)), 0)
    assert other.writer.flush()
    assert len(looked(store, KEY)) == 2
    other.remove(looked(other, KEY)[0])
    assert other.writer.flush()
    assert len(looked(store, KEY)) == 1
    changer = Changer(store.place, SMALL, durable=True)
    changer.purge([Numbered(1, [Purge(PurgeKind.URL, KEY, soft=True)])], NOW + 1)
    assert [one.fresh_until for one in looked(store, KEY)] == [NOW + 1]
    changer.purge([Numbered(2, [Purge(PurgeKind.URL, KEY)])], NOW + 2)
    assert looked(store, KEY) == ()
    changer.close()
    other.close()
    store.close()


def test_purges_that_are_only_in_the_sequence_touch_what_is_remembered(tmp_path: Path) -> None:
    store = remembered(tmp_path)
    store.purge_log().record(Purge(PurgeKind.PREFIX, b"site.test/page", soft=True), NOW + 1, 1)
    assert [one.fresh_until for one in looked(store, KEY)] == [NOW + 1]
    store.purge_log().record(Purge(PurgeKind.ALL), NOW + 2, 2)
    assert looked(store, KEY) == ()
    store.close()


def test_a_purge_of_something_else_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    plain = PurgeLog.settled

    def settled(log: PurgeLog, number: int, key: bytes, tags: Iterable[bytes]) -> PurgeOutcome:
        nonlocal compared
        compared += 1
        return plain(log, number, key, tags)

    monkeypatch.setattr(PurgeLog, "settled", settled)
    store = remembered(tmp_path)
    for number in (1, 2):
        store.purge_log().record(Purge(PurgeKind.PREFIX, b"site.test/other%d" % number), NOW, number)
        for _ in range(5):
            assert looked(store, KEY)
        assert compared == number
    store.purge_log().record(Purge(PurgeKind.PREFIX, b"site.test/page"), NOW, 3)
    assert looked(store, KEY) == ()
    store.close()


def test_what_waits_hides_what_is_remembered(tmp_path: Path) -> None:
    store = remembered(tmp_path)
    with stuck(store):
        assert store.put(response(KEY, b"newer", received_at=NOW + 1), 0)
        assert [one.chunks for one in looked(store, KEY)] == [(b"newer",)]
        store.remove(response(KEY, received_at=NOW + 2))
        assert looked(store, KEY) == ()
    assert store.writer.flush()
    assert looked(store, KEY) == ()
    store.close()


@pytest.mark.parametrize("purge", [Purge(PurgeKind.URL, KEY), Purge(PurgeKind.TAG, b"red")])
def test_a_purge_that_waits_holds_for_what_is_remembered(tmp_path: Path, purge: Purge) -> None:
    store = remembered(tmp_path, response(KEY, BODY, tags=frozenset((b"red",))))
    with stuck(store):
        store.forget(purge, NOW + 1)
        assert looked(store, KEY) == ()
    store.close()


def test_nothing_from_before_the_floor_is_served_however_often_it_is_asked_for(tmp_path: Path) -> None:
    remembered(tmp_path).close()
    changer = Changer(open_place(tmp_path), SMALL)
    with changer.turn(), changer.transaction():
        changer.note_purged(5, floor=5)
    changer.close()
    store = tier(tmp_path)
    with stuck(store):  # its row stays
        for _ in range(5):
            assert looked(store, KEY) == ()
    store.close()


def test_a_tier_that_is_damaged_gives_nothing_that_it_remembers(tmp_path: Path) -> None:
    store = remembered(tmp_path)
    store.writer.damaged = True
    assert looked(store, KEY) == ()
    store.close()


def test_a_segment_that_is_gone_is_a_miss(tmp_path: Path) -> None:
    store = remembered(tmp_path)
    (segment,) = (store.place.store / "segments").iterdir()
    segment.unlink()
    store._looker.segments.let_go()
    assert looked(store, KEY) == () and store.damaged == 0
    assert store._looker.remembered(KEY) is None
    store.close()


def test_what_is_remembered_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_look, "MAX_REMEMBERED", 20_000)
    monkeypatch.setattr(disk_look, "MAX_SEEN", 30)
    store = tier(tmp_path)
    keys = [b"http://site.test/%d" % n for n in range(50)]
    for key in keys:
        store.put(response(key, key), 0)
    assert store.writer.flush()
    for key in keys:
        for _ in range(3):
            assert [one.chunks for one in looked(store, key)] == [(key,)]
    looker = store._looker
    assert 0 < len(looker._known) < 20 and looker._bytes <= 20_000 and len(looker._seen) <= 30
    for key in keys:
        store.remove(looked(store, key)[0])
    assert store.writer.flush()
    for key in keys:
        assert looked(store, key) == ()
    assert looker._bytes == 0 and not looker._known
    store.close()


def test_an_outline_takes_its_own_body_only() -> None:
    record = encode(response(KEY, BODY), 7)
    outline = outlined(decode(record), record)
    assert outline.number == 7 and outline.with_body(record[outline.at :]).chunks == (BODY,)
    assert record[outline.at :] == BODY and not outline.stored.chunks
    for wrong in (BODY[:-1], BODY + b"x", bytes([BODY[0] ^ 1]) + BODY[1:], b""):
        with pytest.raises(Damaged):
            outline.with_body(wrong)


def test_a_copy_has_every_value() -> None:
    stored = response(KEY, BODY)
    copied = stored.copy()
    assert values_of(copied) == values_of(stored)


def test_use_is_told_once_as_long_as_the_index_says_the_same(tmp_path: Path) -> None:
    store = remembered(tmp_path)
    for _ in range(3):
        (found,) = looked(store, KEY)
        store.used(found)
    assert len(store.writer.waiting.used) == 1
    store.remove(response(KEY + b"other"))  # something to write, and the note with it
    assert store.writer.flush()
    assert store._looker.db.execute("SELECT used FROM objects").fetchone() == (1,)
    store.used(looked(store, KEY)[0])
    assert not store.writer.waiting.used
    store.close()


def test_an_index_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    store = tier(tmp_path)
    store.put(response(KEY, BODY), 0)
    store.close()
    db = sqlite3.connect(store.place.index, isolation_level=None)
    db.executescript(
        """CREATE TRIGGER object_comes AFTER INSERT ON objects BEGIN
               UPDATE facts SET value = value + 1 WHERE name = 'objects'; END;
           CREATE TRIGGER object_goes AFTER DELETE ON objects BEGIN
               UPDATE facts SET value = value - 1 WHERE name = 'objects'; END;
           PRAGMA user_version = 1"""
    )
    db.close()
    make_index(store.place)
    again = tier(tmp_path)
    assert looked(again, KEY) and again._fact("objects") == 1
    again.put(response(KEY + b"2", BODY), 0)
    assert again.writer.flush()
    assert again._fact("objects") == 2
    assert again._looker.db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    again.close()


def by_hash(place: Place) -> None:
    """Make an index whose rows lie by hash, as they did before they lay by segment."""
    older = SCHEMA.replace("PRIMARY KEY (segment, at)", "PRIMARY KEY (hash, variant)").replace(
        "CREATE UNIQUE INDEX by_hash ON objects (hash, variant);", "CREATE INDEX by_segment ON objects (segment);"
    )
    assert older != SCHEMA and "by_hash" not in older
    db = sqlite3.connect(place.index, isolation_level=None)
    db.executescript(
        f"PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;"
        f"BEGIN; {older} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )
    db.close()


def life(path: Path) -> dict[bytes, list[bytes]]:
    """What is left by key after responses came, were replaced, used, removed, purged and evicted."""
    store = tier(path)
    keys = [b"http://a/%d" % n for n in range(600)]
    for n, key in enumerate(keys):
        store.put(response(key, bytes(2000), tags=frozenset((b"t%d" % (n % 5),))), 0)
    assert store.writer.flush()
    for key in keys[:20]:
        store.put(response(key, b"newer", received_at=NOW + 1), 0)
        store.put(response(key, b"german", vary=((b"accept-language", b"de"),)), 0)
    store.remove(response(keys[30], received_at=NOW + 1))
    for key in keys[200:240]:
        store.used(looked(store, key)[0])
    store.forget(Purge(PurgeKind.TAG, b"t1"), NOW + 2)
    store.forget(Purge(PurgeKind.URL, keys[52]), NOW + 2)
    store.forget(Purge(PurgeKind.URL, keys[53], soft=True), NOW + 2)
    assert store.writer.flush()
    assert not looked(store, keys[30]) and not looked(store, keys[52])
    assert [one.fresh_until for one in looked(store, keys[53])] == [NOW + 2]
    store.close()
    changer = Changer(open_place(path), SMALL)
    with changer.turn():
        for _ in range(4):
            changer._evict_some()
    changer.close()
    again = tier(path)
    left = {key: sorted(body_of(again, one) or b"" for one in looked(again, key)) for key in keys}
    assert again._fact("objects") == sum(map(len, left.values())) and again.damaged == 0
    again.close()
    return left


def test_a_store_whose_rows_lie_by_hash_does_the_same(tmp_path: Path) -> None:
    new, older = tmp_path / "new", tmp_path / "older"
    by_hash(prepare(older))
    mark = older / MARK  # of its time: it named what has no variant by a hash
    mark.write_bytes(mark.read_bytes().replace(b'"format":2', b'"format":1'))
    left = life(new)
    assert life(older) == left
    assert (prepare(older).format, prepare(new).format) == (1, 2)
    assert 0 < sum(map(len, left.values())) < 450 and left[b"http://a/200"] == [bytes(2000)]


def test_objects_are_counted_however_they_come_and_go(tmp_path: Path) -> None:
    store = tier(tmp_path)

    def count() -> int:
        assert store.writer.flush()
        (rows,) = store._looker.db.execute("SELECT count(*) FROM objects").fetchone()
        assert store._fact("objects") == rows
        return int(rows)

    for again in range(2):  # new ones, then in their own place
        for n in range(150):
            store.put(
                response(b"http://a/%d" % n, b"x", tags=frozenset((b"t%d" % (n % 2),)), received_at=NOW + again), 0
            )
        assert count() == 150
    store.remove(looked(store, b"http://a/0")[0])
    assert count() == 149
    store.forget(Purge(PurgeKind.TAG, b"t1"), NOW + 2)
    assert count() == 74
    store.close()


@pytest.mark.parametrize("how", ["cut", "unreadable"])
def test_what_cannot_be_read_is_evicted_like_the_rest(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tier(tmp_path)
    for n in range(200):
        store.put(response(b"http://a/%d" % n, bytes(2000)), 0)
    assert store.writer.flush()
    for n in range(200):  # all of it is worth keeping
        store.used(looked(store, b"http://a/%d" % n)[0])
    store.remove(response(KEY))
    store.close()
    changer = Changer(open_place(tmp_path), SMALL)
    (first, *_) = changer.db.execute("SELECT min(id) FROM segments").fetchone()
    segment = store.place.segment(first)
    if how == "cut":
        os.truncate(segment, 100)
    else:
        plain = os.pread

        def broken(file: int, length: int, at: int) -> bytes:
            if Path(os.readlink(f"/proc/self/fd/{file}")) == segment:
                raise OSError(errno.EIO, "Input/output error")
            return plain(file, length, at)

        monkeypatch.setattr(os, "pread", broken)
    with changer.turn():
        while segment.exists():
            changer._evict_some()
    monkeypatch.undo()
    changer.close()
    again = tier(tmp_path)
    assert sum(bool(looked(again, b"http://a/%d" % n)) for n in range(200)) < 200 and again.damaged == 0
    again.close()


def test_whoever_changes_much_can_rest_in_between(tmp_path: Path) -> None:
    rests = 0

    def rest() -> None:
        nonlocal rests
        rests += 1

    store = tier(tmp_path)
    for n in range(1000):
        store.put(response(b"http://a/%d" % n, bytes(2000)), 0)
    store.close()
    changer = Changer(open_place(tmp_path), SMALL, breathe=rest)
    with changer.turn():
        changer.make_room(25 * 1024 * 1024)
    assert rests >= 8
    changer.close()


def test_whoever_stores_much_can_rest_in_between(tmp_path: Path) -> None:
    rests = 0

    def rest() -> None:
        nonlocal rests
        rests += 1

    changer = Changer(open_place(tmp_path), SMALL, breathe=rest)
    each = [response(b"http://a/%d" % n, bytes(4000)) for n in range(512)]
    changer.apply(Changes(additions=[Addition(one, encode(one, 0)) for one in each]))
    assert rests >= 512 * 4000 // WRITE_BYTES + 512 // BREATHE_ROWS
    changer.close()
