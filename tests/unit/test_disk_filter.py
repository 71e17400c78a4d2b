"""The disk tier's filter: what the index has is always asked for, what it has not is answered without asking it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from kit.tier import NOW, SMALL, Run, looked, response, tier
from kit.waiting import WAIT_S

from edge.adapters import disk_filter
from edge.adapters.disk_filter import Filter, filter_bytes
from edge.adapters.disk_fold import Folder
from edge.adapters.disk_room import MIN_SIZE, Limits
from edge.adapters.disk_tier import DiskTier
from edge.cache.purge import Purge, PurgeKind


def key(number: int) -> bytes:
    return b"http://site.test/%d" % number


def store_some(store: DiskTier, numbers: range, size: int = 300) -> None:
    for number in numbers:
        assert store.put(response(key(number), bytes(size)), 0)
    assert store.writer.flush()


def filter_of(store: DiskTier) -> Filter:
    assert store._filter is not None
    return store._filter


def may_have(store: DiskTier, number: int) -> bool:
    return filter_of(store).may_have(store._sums.of(key(number)))


def share_of(store: DiskTier, numbers: range) -> float:
    return sum(may_have(store, number) for number in numbers) / len(numbers)


def asked(store: DiskTier, do: Callable[[], object]) -> int:
    """How many statements the loop's connection ran meanwhile."""
    statements: list[str] = []
    store._looker.db.set_trace_callback(statements.append)
    do()
    store._looker.db.set_trace_callback(None)
    return len(statements)


def test_what_the_index_cannot_have_is_answered_without_asking_it(tmp_path: Path) -> None:
    with closing(tier(tmp_path, share=Run().share)) as store:
        store_some(store, range(50))
        absent = [number for number in range(1000, 1100) if not may_have(store, number)]
        assert len(absent) > 90
        assert asked(store, lambda: [looked(store, key(number)) for number in absent]) == 0
        assert store.misses == len(absent)
        assert asked(store, lambda: looked(store, key(1))) == 1
        assert all(looked(store, key(number)) for number in range(50))


def test_until_it_is_filled_every_key_may_be_there(tmp_path: Path) -> None:
    with closing(tier(tmp_path, share=Run().share)) as store:
        store_some(store, range(50))
    fresh = DiskTier.open(tmp_path, Limits(MIN_SIZE), share=Run().share)  # another run: it knows of no row
    with closing(fresh):
        assert share_of(fresh, range(1000, 1100)) == 1
        assert all(looked(fresh, key(number)) for number in range(50))
        filter_of(fresh).tick()
        assert filter_of(fresh)._thread is not None
        filter_of(fresh)._thread.join(WAIT_S)
        assert share_of(fresh, range(1000, 1100)) < 0.1
        assert all(looked(fresh, key(number)) for number in range(50))


def test_without_memory_that_can_be_shared_there_is_none(tmp_path: Path) -> None:
    with closing(DiskTier.open(tmp_path, Limits(MIN_SIZE), share=lambda name, size: None)) as store:
        store_some(store, range(5))
        store.tick()
        assert store._filter is None and looked(store, key(1)) and not looked(store, key(9))


def test_what_one_worker_stores_another_one_finds(tmp_path: Path) -> None:
    run = Run()
    with closing(tier(tmp_path, share=run.share)) as one, closing(tier(tmp_path, share=run.share)) as other:
        store_some(one, range(40))
        store_some(other, range(40, 80))
        assert all(looked(one, key(number)) and looked(other, key(number)) for number in range(80))


@pytest.mark.parametrize("moment", ["_clear", "_scan"])
def test_what_comes_while_it_is_filled_is_not_lost(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    with closing(tier(tmp_path, share=run.share)) as one, closing(tier(tmp_path, share=run.share)) as other:
        store_some(one, range(30))
        real = getattr(Filter, moment)

        def with_more(self: Filter, start: int) -> object:
            if moment == "_clear":  # holds the turn: it waits to be written
                assert other.put(response(key(30), b"more"), 0)
                return real(self, start)
            found = real(self, start)
            store_some(other, range(30, 60))
            return found

        monkeypatch.setattr(Filter, moment, with_more)
        filter_of(one)._fill()
        assert other.writer.flush()
        found = range(31) if moment == "_clear" else range(60)
        assert all(looked(one, key(number)) and looked(other, key(number)) for number in found)


def test_what_went_is_forgotten_by_the_next_filling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_filter, "MIN_BYTES", 256)
    monkeypatch.setattr(disk_filter, "MAX_BYTES", 256)
    with closing(tier(tmp_path, share=Run().share)) as store:
        store_some(store, range(600))  # more than a quarter of 2048 bits
        for number in range(590):
            store.forget(Purge(PurgeKind.URL, key(number)), NOW)
        assert store.writer.flush()
        assert share_of(store, range(590)) == 1
        filter_of(store).tick()
        assert filter_of(store)._thread is not None
        filter_of(store)._thread.join(WAIT_S)
        assert share_of(store, range(590)) < 0.1
        assert all(looked(store, key(number)) for number in range(590, 600))
        filter_of(store)._thread = None
        filter_of(store).tick()
        assert filter_of(store)._thread is None  # not due


def test_a_filling_that_was_killed_is_done_by_another(tmp_path: Path) -> None:
    with closing(DiskTier.open(tmp_path, Limits(MIN_SIZE), share=Run().share)) as store:
        store._filter = None
        found = Filter(store.place, bytearray(filter_bytes(MIN_SIZE)))
        found._put(disk_filter._FILLER, os.getppid())
        found.tick()
        assert found._thread is None  # somebody does it
        found._fill()
        assert not found._bits[0]  # nor does who began at the same time
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        found._put(disk_filter._FILLER, ended.pid)
        found.tick()
        assert found._thread is not None
        found._thread.join(WAIT_S)
        assert not found.may_have(1)


def test_whatever_the_index_has_may_be_there(tmp_path: Path) -> None:
    """A long run of everything that changes rows, over two workers, with fillings in between."""
    chance, run = random.Random(11), Run()
    with closing(tier(tmp_path, share=run.share)) as one, closing(tier(tmp_path, share=run.share)) as other:
        for _ in range(60):
            store = chance.choice((one, other))
            first = chance.randrange(400)
            what = chance.randrange(4)
            if what < 2:
                store_some(store, range(first, first + 40), chance.choice((200, 60_000)))  # the larger ones evict
            elif what == 2:
                store.forget(Purge(PurgeKind.URL, key(first), chance.random() < 0.5), NOW)
            else:
                filter_of(store)._fill()
            assert store.writer.flush()
            hashes = [hashed for (hashed,) in one._looker.db.execute("SELECT hash FROM objects")]
            assert all(filter_of(each).may_have(hashed) for hashed in hashes for each in (one, other))


def test_another_tier_or_another_size_has_another_filter(tmp_path: Path) -> None:
    names: list[str] = []

    def share(name: str, size: int) -> None:
        names.append(name)

    for path, size in ((tmp_path / "a", MIN_SIZE), (tmp_path / "a", 2 * MIN_SIZE), (tmp_path / "b", MIN_SIZE)):
        DiskTier.open(path, Limits(size), share=share).close()
    assert len(set(names)) == 3


def test_the_log_is_folded_in_by_a_thread_of_its_own(tmp_path: Path) -> None:
    statements: list[str] = []
    with closing(tier(tmp_path)) as store:
        store.writer._changer.db.set_trace_callback(statements.append)
        for first in range(0, 4000, 400):
            store_some(store, range(first, first + 400))
            assert store.writer._changer.room.used() <= MIN_SIZE
        store.writer._changer.db.set_trace_callback(None)
    assert not [each for each in statements if "wal_checkpoint" in each]


def test_the_log_stays_small_where_that_thread_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "fold", lambda self: None)
    with closing(tier(tmp_path)) as store:
        for first in range(0, 6000, 100):
            store_some(store, range(first, first + 100))
            log = os.stat(f"{store.place.index}-wal").st_size
            assert log <= SMALL.log
        assert log > SMALL.log // 3  # it had something to fold
