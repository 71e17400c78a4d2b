"""The memory tier: budget, eviction, admission, variants, purges; as a stateful machine for all policies."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.cache.index import Group, Index, PutResult, RemovalReason
from edge.cache.purge import Purge, PurgeKind
from edge.cache.queues import GRAIN_S
from edge.cache.table import ADDITION_BYTES, NODE_BYTES, TAG_BYTES
from edge.cache.tags import MultiMap

BUDGET = 100_000
NOW = 1_000_000.0


@dataclass(frozen=True)
class Body:
    """An entry as the index sees it; equal ones are still two."""

    key: bytes
    size_bytes: int = 1000
    chunks: tuple[bytes, ...] = ()
    vary: object = ()
    part: object = None
    fresh_until: float = NOW + 100
    keep_s: float = 1000
    tags: frozenset[bytes] = frozenset()
    born: int = 0

    @property
    def keep_until(self) -> float:
        return self.fresh_until + self.keep_s

    def expired(self, now: float) -> Body:
        return replace(self, fresh_until=min(self.fresh_until, now))


def key(n: int, host: str = "h") -> bytes:
    return b"http://%b/%d" % (host.encode(), n)


def put(index: Index[Body], body: Body, now: float = NOW) -> PutResult:
    return index.put(body, now, index.purge_log.now_seq())


def charged(index: Index[Body]) -> int:
    """What the budget should hold, summed anew."""
    total = index._table.fixed
    for body in index:
        total += body.size_bytes + NODE_BYTES + TAG_BYTES * len(body.tags) + ADDITION_BYTES * (b" " in body.key)
    return total


PATHS = [b"/", b"/a", b"/a/", b"/a/b", b"/ab", b"/a/b/c?q=/a", b"/b"]
KEYS = [b"http://%b%b%b" % (host, path, add) for host in (b"x", b"y") for path in PATHS for add in (b"", b" h:v=1:1")]
PREFIXES = [b"", b"/a", b"/a/b", b"x/a", b"y", b"y/b"]


def under(url_key: bytes, prefix: bytes) -> bool:
    """The meaning of a prefix, written down another way."""
    host, _, rest = url_key.partition(b" ")[0].partition(b"?")[0][7:].partition(b"/")
    wanted_host, slash, wanted = prefix.partition(b"/")
    wanted_segments = wanted.split(b"/") if slash else []
    return wanted_host in (b"", host) and rest.split(b"/")[: len(wanted_segments)] == wanted_segments


def members(table: MultiMap[Any], name: bytes) -> set[Any]:
    """Those of a name, those that a purge is at work on included."""
    return set(table.of(name)).union(*table._taken.get(name, ()))


def names(table: MultiMap[Any]) -> set[bytes]:
    """The names that have any."""
    return {name for name in [*table._members, *table._taken] if members(table, name)}


class IndexMachine(RuleBasedStateMachine):
    """Anything in any order; a model that knows what is purged and nothing of how."""

    step = 200

    @initialize(eviction=st.sampled_from(["s3-fifo", "lru", "lfu", "fifo"]), budget=st.integers(22_000, 60_000))
    def start(self, eviction: str, budget: int) -> None:
        self.index: Index[Body] = Index(budget, eviction, variant_limit=3, step=self.step)
        self.now = NOW
        self.dead: set[int] = set()  # bodies that must never be seen again
        self.stale: dict[int, float] = {}  # bodies that must not be fresher than
        self.alive: dict[int, Body] = {}  # bodies that were stored, by number
        self.fills: list[tuple[int, Body]] = []
        self.reserved = 0
        self.sent: list[Body] = []  # that somebody still takes
        self.count = 0

    def body(self, data: st.DataObject) -> Body:
        self.count += 1
        size = data.draw(st.sampled_from([500, 1000, 3000, 20_000, 70_000]))
        return Body(
            data.draw(st.sampled_from(KEYS)),
            size,
            (bytes(size - 100),),
            vary=data.draw(st.integers(0, 4)),
            part=data.draw(st.sampled_from([None, None, 1, 2])),
            fresh_until=self.now + data.draw(st.sampled_from([0, 5, 1000])),
            keep_s=data.draw(st.sampled_from([0, 5, 1000])),
            tags=frozenset(data.draw(st.sets(st.sampled_from([b"t1", b"t2", b"t3"])))),
            born=self.count,
        )

    @rule(data=st.data())
    def start_fill(self, data: st.DataObject) -> None:
        self.fills.append((self.index.purge_log.now_seq(), self.body(data)))

    @rule(data=st.data())
    def end_fill(self, data: st.DataObject) -> None:
        if self.fills:
            seq, body = self.fills.pop(data.draw(st.integers(0, len(self.fills) - 1)))
            answer = self.index.put(body, self.now, seq)
            if answer.ok:
                assert body.born not in self.dead
                self.alive[body.born] = body
            if answer is PutResult.PURGED:  # softly: what is there was made stale just as well, and stays
                assert body.born in self.dead or body.born in self.stale
            else:
                assert body.born not in self.dead

    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        body = self.body(data)
        if put(self.index, body, self.now).ok:
            self.alive[body.born] = body
            found = self.index.peek(body.key)
            assert found is not None
            assert found.variants[0].born == body.born  # the newest first

    @rule(data=st.data())
    def revalidate(self, data: st.DataObject) -> None:
        found = self.index.get(data.draw(st.sampled_from(KEYS)))
        if found is not None:
            old = found.variants[-1]
            self.count += 1
            new = replace(old, fresh_until=self.now + 50, born=self.count, size_bytes=old.size_bytes + 100)
            if self.index.replace(old, new, self.now, self.index.purge_log.now_seq()).ok:
                self.alive[new.born] = new
                assert old.born not in [body.born for body in self.index]

    @rule(url_key=st.sampled_from(KEYS))
    def look_up(self, url_key: bytes) -> None:
        found = self.index.get(url_key)
        for body in () if found is None else found.variants:
            assert body.key == url_key
            assert body.born not in self.dead
            assert body.fresh_until <= self.stale.get(body.born, float("inf"))
            self.index.used(found, body)

    @rule(kind=st.sampled_from(PurgeKind), data=st.data(), soft=st.booleans())
    def purge(self, kind: PurgeKind, data: st.DataObject, soft: bool) -> None:
        values = {
            PurgeKind.URL: [one for one in KEYS if b" " not in one],
            PurgeKind.TAG: [b"t1", b"t2", b"t3", b"none"],
            PurgeKind.PREFIX: PREFIXES,
            PurgeKind.HOST: [b"x", b"y"],
            PurgeKind.ALL: [b""],
        }
        value = data.draw(st.sampled_from(values[kind]))

        def hit(body: Body) -> bool:
            if kind is PurgeKind.URL:
                return body.key.partition(b" ")[0] == value
            if kind is PurgeKind.TAG:
                return value in body.tags
            return kind is PurgeKind.ALL or under(body.key, value)

        stored = {body.born for body in self.index if body.born not in self.dead and body.keep_until > self.now}
        alone = not self.index.removing
        removal = self.index.purge(Purge(kind, value, soft), self.now)
        touched = [body for body in [*self.alive.values(), *(body for _, body in self.fills)] if hit(body)]
        for body in touched:
            if soft:
                self.stale[body.born] = self.now
            else:
                self.dead.add(body.born)
        if kind in (PurgeKind.URL, PurgeKind.TAG):
            assert removal is not None
            named = len({body.born for body in touched} & stored)
            assert removal.count == named if alone and not removal.left else removal.count <= named
        else:
            assert removal is None

    @rule(times=st.integers(1, 5))
    def remove_some(self, times: int) -> None:
        for _ in range(times):
            self.index.remove_some()

    @rule()
    def remove_the_rest(self) -> None:
        while self.index.removing:
            self.index.remove_some()
        if not self.index._table.sweeping:
            assert not self.index._removals

    @rule(seconds=st.sampled_from([1, 5, 60, 2000]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(steps=st.integers(1, 30))
    def sweep(self, steps: int) -> None:
        self.index.sweep(steps, self.now)

    @rule()
    def sweep_all(self) -> None:
        while self.index.removing:  # purges by url and tag are no matter of the sweep
            self.index.remove_some()
        self.index.sweep(1000, self.now)
        assert not [body for body in self.index if body.born in self.dead]
        assert not [body for body in self.index if body.keep_until + GRAIN_S < self.now]

    @rule(url_key=st.sampled_from(KEYS))
    def remove(self, url_key: bytes) -> None:
        self.index.remove(url_key)
        assert self.index.get(url_key) is None

    @rule(url_key=st.sampled_from(KEYS))
    def send(self, url_key: bytes) -> None:
        found = self.index.get(url_key)
        if found is not None:
            self.index.sends(found.variants[-1], self.now)
            self.sent.append(found.variants[-1])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def has_sent(self, data: st.DataObject) -> None:
        self.index.sent(self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1))))

    @rule(count=st.integers(1, 20_000))
    def reserve(self, count: int) -> None:
        if self.index.reserve(count, self.now):
            self.reserved += count

    @rule()
    def release(self) -> None:
        self.index.release(self.reserved)
        self.reserved = 0

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "index"):
            return
        index, table = self.index, self.index._table
        bodies = list(index)
        assert index.bytes == charged(index)
        assert index.bytes + table.reserved <= table.budget
        stored = {id(body.chunks) for body in bodies}
        alone = {id(body.chunks): len(body.chunks[0]) for body in self.sent if id(body.chunks) not in stored}
        assert table.reserved == self.reserved + sum(alone.values())
        assert len(index) == len(bodies) == sum(1 for queue in table.policy.queues for _ in queue)
        assert sum(queue.bytes for queue in table.policy.queues) == sum(
            node.cost for queue in table.policy.queues for node in queue
        )
        for tag in (b"t1", b"t2", b"t3"):
            tagged = {node.sole.born for node in members(table._tags, tag)}
            assert tagged == {body.born for body in bodies if tag in body.tags}
        assert len(names(table._tags)) == len({tag for body in bodies for tag in body.tags})
        bases = {body.key.partition(b" ")[0] for body in bodies if b" " in body.key}
        assert names(table._additions) == bases
        for one in KEYS:
            kinds = [(body.vary, body.part) for body in bodies if body.key == one]
            assert len(kinds) == len(set(kinds)) <= 3


class SteppedMachine(IndexMachine):
    """The same where no purge by url or tag is over at once."""

    step = 1


IndexMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
SteppedMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestIndex = IndexMachine.TestCase
TestSteppedIndex = SteppedMachine.TestCase


@pytest.mark.parametrize("kind", [PurgeKind.TAG, PurgeKind.URL])
@pytest.mark.parametrize("soft", [False, True])
def test_a_large_purge_is_in_force_at_once_and_freed_in_steps(kind: PurgeKind, soft: bool) -> None:
    index: Index[Body] = Index(BUDGET * 100, step=200)
    keys = [key(1) + (b" h:v=1:%d" % n) for n in range(5000)]
    for one in keys:
        assert put(index, Body(one, 500, tags=frozenset([b"t"]))).ok
    put(index, Body(key(2)))
    told: list[bytes] = []
    looked = index.get(key(2))
    removal = index.purge(
        Purge(kind, b"t" if kind is PurgeKind.TAG else key(1), soft), NOW, touched=lambda body: told.append(body.key)
    )
    assert removal is not None
    assert removal.count == 200  # no more in one go, however many there are
    over: list[int] = []
    removal.then(lambda: over.append(removal.count))
    steps = 0
    while index.removing:
        before = removal.count
        index.remove_some()
        steps += 1
        assert removal.count - before <= 200
        found = index.get(keys[(steps * 97) % 5000])  # whether its turn has come or not
        assert found is None if not soft else found is not None and found.variants[0].fresh_until <= NOW
        assert put(index, Body(key(3), tags=frozenset([b"t"]))).ok  # what comes later is not touched
        assert index.get(key(3)) is not None
    assert 24 <= steps <= 25
    assert over == [5000]
    assert sorted(told) == sorted(keys)
    assert len(index) == (5002 if soft else 2)
    assert index.get(key(2)) is looked
    again = index.purge(Purge(PurgeKind.TAG, b"t"), NOW)
    while index.removing:
        index.remove_some()
    assert again is not None
    assert again.count == (5001 if soft else 1)
    assert len(index) == 1


def test_two_large_purges_of_the_same_follow_one_another() -> None:
    index: Index[Body] = Index(BUDGET * 100, step=10)
    for n in range(100):
        put(index, Body(key(n), 500, tags=frozenset([b"t"])))
    soft = index.purge(Purge(PurgeKind.TAG, b"t", soft=True), NOW)
    for n in range(100, 120):
        put(index, Body(key(n), 500, tags=frozenset([b"t"])))
    hard = index.purge(Purge(PurgeKind.TAG, b"t"), NOW)
    assert index.get(key(50)) is None
    while index.removing:
        index.remove_some()
    assert soft is not None
    assert hard is not None
    assert (soft.count, hard.count, len(index)) == (100, 120, 0)


def test_what_is_evicted_while_it_waits_for_its_turn_is_freed_at_once() -> None:
    class Freed(Body):
        def __del__(self) -> None:
            freed.append(self.key)

    freed: list[bytes] = []
    index: Index[Body] = Index(BUDGET, step=1)
    for n in range(10):
        put(index, Freed(key(n), 7000, tags=frozenset([b"t"])))
    index.purge(Purge(PurgeKind.TAG, b"t"), NOW)
    assert len(freed) == 1
    assert index.reserve(BUDGET // 4, NOW)
    assert index.reserve(BUDGET // 4 - 1000, NOW)
    assert len(freed) + len(index) == 10
    assert len(freed) > 1


def test_one_variant_is_reached_without_a_tuple() -> None:
    index: Index[Body] = Index(BUDGET)
    body = Body(key(1))
    assert put(index, body) is PutResult.STORED
    found = index.get(key(1))
    assert found is not None
    assert found.sole is body
    assert found.variants == (body,)


def test_variants_live_side_by_side_and_the_same_one_is_replaced() -> None:
    index: Index[Body] = Index(BUDGET)
    gzip, plain, plain2 = (Body(key(1), vary=vary, born=n) for n, vary in enumerate(["gzip", None, None]))
    assert [put(index, body) for body in (gzip, plain, plain2)] == [
        PutResult.STORED,
        PutResult.STORED,
        PutResult.REPLACED,
    ]
    found = index.get(key(1))
    assert isinstance(found, Group)
    assert found.sole is None
    assert found.variants == (plain2, gzip)
    index.discard(gzip)
    single = index.get(key(1))
    assert single is not None
    assert single.sole is plain2


def test_the_whole_supersedes_its_parts_and_not_the_other_way() -> None:
    index: Index[Body] = Index(BUDGET)
    for body in (Body(key(1), part="0-9"), Body(key(1), part="10-19"), Body(key(1), vary="v", part="0-9")):
        assert put(index, body) is PutResult.STORED
    assert put(index, Body(key(1))) is PutResult.REPLACED
    found = index.get(key(1))
    assert found is not None
    assert [(body.vary, body.part) for body in found.variants] == [((), None), ("v", "0-9")]
    assert put(index, Body(key(1), part="0-9")) is PutResult.STORED


def test_too_many_variants_are_refused_but_expired_ones_give_way() -> None:
    index: Index[Body] = Index(BUDGET, variant_limit=2)
    put(index, Body(key(1), vary=1, fresh_until=NOW + 1, keep_s=0))
    put(index, Body(key(1), vary=2))
    assert put(index, Body(key(1), vary=3)) is PutResult.VARY_LIMIT
    assert put(index, Body(key(1), vary=2)) is PutResult.REPLACED
    assert put(index, Body(key(1), vary=3), NOW + 2) is PutResult.STORED


@pytest.mark.parametrize("eviction", ["s3-fifo", "lru", "lfu", "fifo"])
def test_expired_goes_before_fresh(eviction: str) -> None:
    index: Index[Body] = Index(BUDGET, eviction)
    room = (BUDGET - index.bytes) // 3 - NODE_BYTES
    put(index, Body(key(1), room))
    put(index, Body(key(2), room, fresh_until=NOW + 1, keep_s=1))
    put(index, Body(key(3), room))
    for _ in range(9):
        index.get(key(2))
    put(index, Body(key(4), room), NOW + 2 + GRAIN_S)
    assert index.get(key(2)) is None
    assert index.absence(key(2)) is RemovalReason.EXPIRED
    assert all(index.get(key(n)) for n in (1, 3, 4))


def test_larger_than_the_budget_is_refused_and_evicts_nothing() -> None:
    index: Index[Body] = Index(BUDGET)
    put(index, Body(key(1)))
    assert put(index, Body(key(2), BUDGET)) is PutResult.SIZE
    assert len(index) == 1


def test_a_replacement_that_does_not_fit_still_ends_the_outdated_one() -> None:
    index: Index[Body] = Index(BUDGET)
    put(index, Body(key(1)))
    assert put(index, Body(key(1), BUDGET)) is PutResult.SIZE
    assert index.get(key(1)) is None


def test_min_uses_counts_offers_and_not_updates() -> None:
    index: Index[Body] = Index(BUDGET, min_uses=3)
    assert [put(index, Body(key(1))) for _ in range(4)] == [
        PutResult.MIN_USES,
        PutResult.MIN_USES,
        PutResult.STORED,
        PutResult.REPLACED,
    ]
    assert index.put(Body(key(2)), NOW, index.purge_log.now_seq(), min_uses=1) is PutResult.STORED
    assert [index.enough_uses(key(3), 2) for _ in range(3)] == [False, True, False]


def test_fills_in_progress_count_and_keep_half_of_the_budget_for_what_is_stored() -> None:
    index: Index[Body] = Index(BUDGET)
    for n in range(60):
        put(index, Body(key(n)))
    assert index.reserve(BUDGET // 2, NOW)
    assert index.bytes <= BUDGET // 2
    assert not index.reserve(1, NOW)
    index.release(BUDGET // 2)
    assert index.stats().reserved_bytes == 0


def test_the_reason_of_an_absence_is_remembered() -> None:
    index: Index[Body] = Index(BUDGET, "fifo")
    for n in range(200):
        put(index, Body(key(n)))
    put(index, Body(key(300)))
    index.purge(Purge(PurgeKind.URL, key(300)), NOW)
    assert index.absence(key(300)) is RemovalReason.PURGED
    lost = max(n for n in range(200) if index.get(key(n)) is None)
    assert index.absence(key(lost)) is RemovalReason.SPACE
    assert index.absence(key(999)) is RemovalReason.COLD


def test_a_validation_cannot_bring_back_what_was_purged_meanwhile() -> None:
    index: Index[Body] = Index(BUDGET)
    old = Body(key(1))
    put(index, old)
    seq = index.purge_log.now_seq()
    index.purge(Purge(PurgeKind.ALL), NOW)
    assert index.replace(old, replace(old, born=2), NOW, seq) is PutResult.PURGED
    assert index.get(key(1)) is None


def test_what_was_evicted_while_it_was_validated_is_told_apart() -> None:
    index: Index[Body] = Index(BUDGET)
    old = Body(key(1))
    put(index, old)
    index.remove(key(1))
    assert index.replace(old, replace(old, born=2), NOW, index.purge_log.now_seq()) is PutResult.GONE


def test_a_purge_of_everything_is_freed_in_small_steps() -> None:
    index: Index[Body] = Index(BUDGET)
    for n in range(40):
        put(index, Body(key(n)))
    index.purge(Purge(PurgeKind.ALL), NOW)
    assert len(index) == 40
    assert index.sweep(10, NOW) == 10
    put(index, Body(key(99)))
    assert len(index) == 40 - 10 - 4 + 1
    assert index.sweep(1000, NOW) == 26
    assert [body.key for body in index] == [key(99)]


def test_a_removed_body_is_freed_at_once() -> None:
    """Nothing keeps a body that the budget no longer counts: neither queue, wheel, tag nor ghost."""

    class Freed(Body):
        def __del__(self) -> None:
            freed.append(self.key)

    freed: list[bytes] = []
    index: Index[Body] = Index(BUDGET)
    for n in range(3):
        put(index, Freed(key(n), tags=frozenset([b"t"])))
    index.remove(key(0))
    index.purge(Purge(PurgeKind.TAG, b"t"), NOW)
    assert sorted(freed) == [key(0), key(1), key(2)]


def test_the_summary_says_how_full_it_is() -> None:
    index: Index[Body] = Index(BUDGET)
    put(index, Body(key(1)))
    assert repr(index) == f"<Index 1 objects, {index.bytes} of {BUDGET} bytes>"
    assert copy.copy(index.stats().gone)["evicted"] == 0
