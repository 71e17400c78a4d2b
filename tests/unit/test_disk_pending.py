"""What waits to be written to the disk tier: found by what names it, however much waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.tier import NOW, looked, response, stuck, tier

from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_pending import Purges, Waiting, left_of
from edge.adapters.disk_rows import Addition
from edge.cache.purge import Purge, PurgeKind

KEYS = [b"http://a/1", b"http://a/1 lang=de", b"http://a/12", b"http://b/1"]
TAGS = [b"red", b"blue"]
PURGES = [
    Purge(PurgeKind.URL, b"http://a/1"),
    Purge(PurgeKind.URL, b"http://b/1", soft=True),
    Purge(PurgeKind.TAG, b"red"),
    Purge(PurgeKind.TAG, b"blue", soft=True),
]


class NeverScanned(dict):  # type: ignore[type-arg]
    """Found by key alone."""

    def items(self):  # type: ignore[no-untyped-def]
        raise AssertionError("all that waits was looked at")

    values = items
    __iter__ = items  # type: ignore[assignment]


def test_a_purge_looks_at_nothing_that_it_does_not_name(tmp_path: Path) -> None:
    store = tier(tmp_path)
    with stuck(store):
        for n in range(2000):
            tags = frozenset((b"red",)) if n % 1000 == 0 else frozenset()
            store.put(response(b"http://a/%d" % n, tags=tags), 0)
        store.put(response(b"http://a/1 lang=de"), 0)
        waiting = store.writer.waiting
        waiting.responses = NeverScanned(waiting.responses)
        assert len(store.waiting(Purge(PurgeKind.URL, b"http://a/1"), NOW)) == 2
        assert len(store.waiting(Purge(PurgeKind.TAG, b"red"), NOW)) == 2
        assert not store.waiting(Purge(PurgeKind.TAG, b"blue"), NOW)
        assert not store.waiting(Purge(PurgeKind.TAG, b"red"), NOW + 1e6)  # of no use any more
        waiting.responses = dict(dict.items(waiting.responses))
    store.close()


def test_many_purges_that_wait_cost_a_look_up_no_more_than_one(tmp_path: Path) -> None:
    store = tier(tmp_path)
    store.put(response(b"http://a/1"), 0)
    assert store.writer.flush()
    with stuck(store):
        for n in range(2, 2000):
            store.forget(Purge(PurgeKind.URL, b"http://a/%d" % n), NOW)
        waiting = store.writer.waiting
        waiting.purges.times = NeverScanned(waiting.purges.times)
        assert looked(store, b"http://a/1")
        waiting.purges.times = dict(dict.items(waiting.purges.times))
    store.close()


@given(st.lists(st.tuples(st.sampled_from(PURGES), st.integers(1, 9))), st.sampled_from(KEYS),
       st.frozensets(st.sampled_from(TAGS)))  # fmt: skip
def test_purges_by_name_do_what_each_of_them_would(
    purges: list[tuple[Purge, int]], key: bytes, tags: frozenset[bytes]
) -> None:
    stored = response(key, tags=tags)
    timed = sorted(((purge, NOW + at) for purge, at in purges), key=lambda one: one[1])
    by_name, one_by_one = Purges(timed).left_of(stored), left_of(stored, timed)
    assert (by_name is None) == (one_by_one is None)
    if by_name is not None and one_by_one is not None:
        assert by_name.fresh_until == one_by_one.fresh_until


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.frozensets(st.sampled_from(TAGS)))), st.sampled_from(PURGES))
def test_named_is_what_a_look_at_all_would_find(puts: list[tuple[bytes, frozenset[bytes]]], purge: Purge) -> None:
    waiting = Waiting()
    for at, (key, tags) in enumerate(puts):
        waiting.put(Addition(response(key, tags=tags, received_at=NOW + at), seq=at))
    last = dict(puts)
    names = {
        key
        for key, tags in last.items()
        if (key.partition(b" ")[0] == purge.value if purge.kind is PurgeKind.URL else purge.value in tags)
    }
    assert sorted(put.stored.key for put in waiting.named(purge, NOW)) == sorted(names)


def test_what_came_while_the_disk_was_busy_is_written_as_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = Changer.apply

    def counted(self: Changer, changes: Changes, *still: Callable[[list[Addition]], list[Addition]]) -> None:
        sizes.append(len(changes.additions))
        real(self, changes, *still)

    monkeypatch.setattr(Changer, "apply", counted)
    store = tier(tmp_path)
    with stuck(store):
        for number in range(400):
            assert store.put(response(b"http://a/%d" % number), 0)
        assert all(looked(store, b"http://a/%d" % number) for number in range(400))
    assert store.writer.flush()
    assert max(sizes) == 400
    assert all(looked(store, b"http://a/%d" % number) for number in range(400))
    store.close()
