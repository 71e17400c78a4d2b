"""The policies by themselves: who is named next, what a hit is worth, and that no order leaks or stalls."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.builds import pure_only

from edge.cache.eviction import POLICIES, SCAN_LIMIT, Fingerprints, Ghost, Lfu, Lru, Policy, S3Fifo
from edge.cache.queues import GRAIN_S, EvictionQueue, Node, Wheel


def mark(n: int) -> int:
    return (n * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF


class Cache:
    """The least around a policy: keys of 100 bytes each, as an index would drive it."""

    def __init__(self, policy: Policy, objects: int) -> None:
        self.policy, self.objects = policy, objects
        self.nodes: dict[int, Node[int]] = {}
        self.evicted: list[int] = []

    def ask(self, n: int) -> bool:
        node = self.nodes.get(n)
        if node is not None:
            if node.freq < self.policy.cap:
                node.freq += 1
            elif self.policy.moves:
                self.policy.touch(node)
            return True
        while len(self.nodes) >= self.objects:
            self.evict()
        self.nodes[n] = node = Node(n, 100, 0)
        self.policy.add(node, mark(n), None)
        return False

    def evict(self) -> int:
        victim = self.policy.victim()
        assert victim is not None
        assert victim.queue is not None
        self.policy.evicted(victim, mark(victim.sole))
        victim.queue.unlink(victim)
        del self.nodes[victim.sole]
        self.evicted.append(victim.sole)
        return int(victim.sole)

    def ask_all(self, *numbers: int) -> None:
        for n in numbers:
            self.ask(n)


@pytest.mark.parametrize("name", list(POLICIES))
@given(asked=st.lists(st.integers(0, 30), max_size=120))
@settings(max_examples=60, deadline=None)
def test_every_policy_names_each_node_once_until_none_is_left(name: str, asked: list[int]) -> None:
    cache = Cache(POLICIES[name](1000), 10)
    for n in asked:
        cache.ask(n)
        linked = [node.sole for queue in cache.policy.queues for node in queue]
        assert sorted(linked) == sorted(cache.nodes)
        assert sum(queue.bytes for queue in cache.policy.queues) == 100 * len(cache.nodes)
    left = set(cache.nodes)
    assert {cache.evict() for _ in range(len(left))} == left
    assert cache.policy.victim() is None


@given(asked=st.lists(st.integers(0, 12), max_size=100))
@settings(max_examples=100, deadline=None)
def test_lru_is_exactly_least_recently_used(asked: list[int]) -> None:
    cache, recent = Cache(Lru(1000), 5), []
    for n in asked:
        if n in recent:
            recent.remove(n)
        elif len(recent) == 5:
            recent.pop(0)
        recent.append(n)
        cache.ask(n)
        assert set(cache.nodes) == set(recent)


@given(asked=st.lists(st.integers(0, 12), max_size=100))
@settings(max_examples=100, deadline=None)
def test_lfu_never_evicts_more_hits_than_the_least(asked: list[int]) -> None:
    cache = Cache(Lfu(1000), 5)
    for n in asked:
        before = {node.sole: node.freq for node in cache.nodes.values()}
        cache.ask(n)
        for gone in before.keys() - cache.nodes.keys():
            assert before[gone] == min(before.values())


def test_s3_fifo_gives_two_hits_a_place_in_main_and_one_hit_none() -> None:
    policy = S3Fifo(1000)
    cache = Cache(policy, 10)
    cache.ask_all(*range(10), 0, 0, 1)
    cache.ask_all(10, 11, 12)
    assert 0 in cache.nodes
    assert cache.nodes[0].queue is policy.main
    assert cache.nodes[0].freq == 0
    assert cache.evicted == [1, 2, 3]


def test_s3_fifo_puts_what_comes_back_from_the_ghost_into_main() -> None:
    policy = S3Fifo(1000)
    cache = Cache(policy, 10)
    cache.ask_all(*range(11))
    assert cache.evicted == [0]
    cache.ask(0)
    assert cache.nodes[0].queue is policy.main
    cache.ask(20)
    assert cache.nodes[20].queue is policy.small


def test_s3_fifo_reinserts_in_main_while_hits_last() -> None:
    policy = S3Fifo(1000)
    cache = Cache(policy, 10)
    cache.ask_all(*range(10), *range(10), *range(10))
    cache.ask(10)  # all ten go to main at freq 0, the first is evicted from there
    assert cache.evicted == [0]
    cache.ask_all(1, 1)
    cache.ask(11)
    assert cache.evicted == [0, 2]
    assert cache.nodes[1].freq == 1


def test_a_scan_does_not_touch_main() -> None:
    cache = Cache(S3Fifo(10_000), 100)
    hot = list(range(80))
    for _ in range(4):
        cache.ask_all(*hot)
    cache.ask_all(*range(1000, 3000))
    assert set(hot) <= set(cache.nodes)
    lru = Cache(Lru(10_000), 100)
    for _ in range(4):
        lru.ask_all(*hot)
    lru.ask_all(*range(1000, 3000))
    assert not set(hot) & set(lru.nodes)


@pure_only
@pytest.mark.parametrize("name", ["s3-fifo", "lfu"])
def test_no_search_looks_at_more_than_the_limit(name: str) -> None:
    policy = POLICIES[name](1000)
    nodes = [Node(n, 100, 0) for n in range(5 * SCAN_LIMIT)]
    for n, node in enumerate(nodes):
        policy.add(node, mark(n), None)
        node.freq = 3
    looked: list[str] = []

    class Counted(EvictionQueue):
        __slots__ = ()

        def append(self, node: Node[Any]) -> None:
            looked.append("append")
            super().append(node)

        def to_tail(self, node: Node[Any]) -> None:
            looked.append("to_tail")
            super().to_tail(node)

    for queue in policy.queues:
        queue.__class__ = Counted
    assert policy.victim() is not None
    assert 0 < len(looked) <= SCAN_LIMIT


def test_the_ghost_forgets_by_bytes_evicted() -> None:
    ghost = Ghost(100_000)
    ghost.add(mark(1), 1000)
    for n in range(2, 90):
        ghost.add(mark(n), 1000)
    assert mark(1) in ghost
    for n in range(90, 110):
        ghost.add(mark(n), 1000)
    assert mark(1) not in ghost
    assert mark(109) in ghost
    ghost.forget(mark(109))
    assert mark(109) not in ghost


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), max_size=200))
@settings(max_examples=50, deadline=None)
def test_fingerprints_stay_in_their_table_and_know_the_latest(entries: list[tuple[int, int]]) -> None:
    table = Fingerprints(16)
    memory = table.memory_bytes
    for number, value in entries:
        table.put(number, value)
        assert table.get(number) == value
    assert len(table) <= 16
    assert table.memory_bytes == memory == 128
    for number, _ in entries:
        table.forget(number)
        assert table.get(number) is None
    assert len(table) == 0


def test_equal_numbers_give_way_in_turn() -> None:
    table = Fingerprints(16)
    same_bucket = [n + 1 for n in range(12)]
    for number in same_bucket:
        table.put(number, 1)
    assert [number for number in same_bucket if table.get(number)] == same_bucket[-4:]


@given(st.lists(st.tuples(st.floats(0, 500), st.booleans()), max_size=60), st.floats(0, 600))
@settings(max_examples=100, deadline=None)
def test_the_wheel_gives_what_expired_and_nothing_else(entries: list[tuple[float, bool]], now: float) -> None:
    wheel = Wheel()
    nodes = [Node(until, 1, 0) for until, _ in entries]
    for node in nodes:
        wheel.add(node, node.sole)
    for node, (_, removed) in zip(nodes, entries, strict=True):
        if removed:
            wheel.remove(node)
    left = [until for until, removed in entries if not removed]
    taken = []
    while (due := wheel.due(now)) is not None:
        taken.append(due.sole)
        wheel.remove(due)
    assert all(until <= now for until in taken)
    assert sorted(taken) == sorted(until for until in left if until // GRAIN_S + 1 <= now // GRAIN_S)


def test_what_never_expires_is_never_due() -> None:
    wheel = Wheel()
    wheel.add(Node(1, 1, 0), float("inf"))
    assert wheel.due(1e12) is None


def test_the_wheel_holds_nothing_of_what_was_removed() -> None:
    wheel = Wheel()
    for n in range(20_000):
        node = Node(n, 1, 0)
        wheel.add(node, float(n * GRAIN_S))
        wheel.remove(node)
    assert not wheel._buckets
    assert len(wheel._heap) <= 65
    gc.collect()
    gc.disable()
    try:
        node = Node(1, 1, 0)
        wheel.add(node, 5.0)
        wheel.remove(node)
        place = id(node)
        del node
        assert not [each for each in gc.get_objects() if id(each) == place], "a cycle was left behind"
    finally:
        gc.enable()


@given(st.lists(st.tuples(st.integers(0, 63), st.booleans()), max_size=200))
def test_fingerprints_know_how_many_they_are(steps: list[tuple[int, bool]]) -> None:
    """A table of gigabytes' worth is never counted through."""
    table = Fingerprints(16)
    for number, put in steps:
        mark = (number % 7) << 32 | number
        if put:
            table.put(mark, number)
        else:
            table.forget(mark)
        assert len(table) == len(table._marks) - table._marks.count(0)
