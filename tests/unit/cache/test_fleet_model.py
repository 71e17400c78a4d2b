"""The purge stream's promise as a property: a response that was purged, and the purge acknowledged by all, is never
served again by anybody unless the origin has just said that it is good.

Three machines, each with a store and a purge log of its own, a shared tier and one server, in one thread without time.
The server may lose everything, go back, or drop its oldest entries; another one may take over that lacks the last ones,
while some machines go on with the old one for some seconds; machines are cut off, fall behind, restart, and are killed
while they catch up, between what is durable and what is not.

And of purges that nobody acknowledged: a machine serves nothing that is named by one up to the place that it tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import pytest

from edge.cache.fleet.machines import Machine, Machines
from edge.cache.fleet.record import line_of
from edge.cache.fleet.stream import Entry, Follower, Head, Lost, StreamPlace, Todo
from edge.cache.fleet.unconfirmed import Sent, Unconfirmed
from edge.cache.fleet.view import FleetView
from edge.cache.purge import Purge, PurgeKind, PurgeLog, PurgeState

NAMES = ("a", "b", "c")
KEYS = tuple(b"http://h/%d" % number for number in range(2))
MAX_BLIND_S = 30.0
BEHIND_S = 4.0  # how long a machine may go on with a server that the others have left
TOGETHER = 2  # entries that become durable at once
MARKS, RUNS = count(1), count(1)


class Died(Exception):
    """A process was killed."""


@dataclass
class Server:
    """What the scripts of the adapter do, as one value."""

    history: str = ""
    position: int = 0
    mark: str = ""
    entries: list[Entry] = field(default_factory=list)
    told: dict[str, tuple[float, str, str, int]] = field(default_factory=dict)
    begun_at: float = -100.0
    run: int = 0  # which process it is, and which one the stream is known to be whole in
    known_run: int = 0
    before: str = ""
    certified: int = 0
    wanted: dict[str, bytes] = field(default_factory=dict)  # the purge behind a mark

    @property
    def head(self) -> Head:
        same, run = self.run == self.known_run, f"r{self.run}"
        return Head(self.history, self.position, self.mark, same, run, self.before, self.certified)

    def publish(self, history: str, run: str, key: bytes) -> int:
        if history != self.history or self.run != self.known_run or run != f"r{self.run}":
            return -1
        self.position += 1
        self.mark = f"m{next(MARKS)}"
        self.wanted[self.mark] = key
        self.entries.append(Entry(self.position, self.mark, key))
        return self.position

    def begin(self, instead_of: str, now: float) -> None:
        if self.history == instead_of:
            self.history, self.position, self.mark = f"h{next(MARKS)}", 0, ""
            self.entries, self.begun_at, self.known_run = [], now, self.run
            self.before, self.certified = "", 0

    def certify(self, place: StreamPlace, run: str, now: float) -> None:
        if self.known_run != self.run and run == f"r{self.run}" and self.position == place.position:
            self.before, self.certified, self.begun_at = f"r{self.known_run}", self.position, now
            self.known_run = self.run

    def lose(self, number: int) -> None:
        """The last entries are gone."""
        self.entries = self.entries[:-number] if number else self.entries
        self.position = max(0, self.position - number) if self.history else 0
        self.mark = self.entries[-1].mark if self.entries else "" if number else self.mark


@dataclass
class Value:
    """What the shared tier has of a key; it may be on another server than the stream."""

    history: str
    run: str
    position: int
    version: int


@dataclass
class Kept:
    """A stored response: which version of the origin's, and when its fetch began."""

    version: int
    seq: int
    distrusted: bool = False


class Edge:
    """One machine: what `control.fleet` and a worker's store do."""

    def __init__(self, name: str, primary: Callable[[], Server], values: dict[bytes, Value]) -> None:
        self.name, self.primary, self.values = name, primary, values
        self.server = primary()
        self.log, self.stream_log = PurgeLog(), PurgeLog()
        self.store: dict[bytes, Kept] = {}
        self.place: StreamPlace | None = None
        self.machines = Machines(MAX_BLIND_S)
        self.linked = True
        self.behind_until: float | None = None  # with an old server
        self.unsent: list[bytes] = []
        self.number = 0
        self.parts = 0  # of entries, applied so far
        self.dies_at: int | None = None  # when so many are durable

    def start(self, now: float) -> None:
        self.follower = Follower(self.place, MAX_BLIND_S, now)
        self.loaded = self.joined = False
        self.stream_log = PurgeLog()
        self.machines = Machines(MAX_BLIND_S)
        self.unconfirmed = Unconfirmed()
        if not self.come_in_step(now):
            self.time(now)

    # what the supervisor does

    def carry_out(self, purge: Purge) -> None:
        self.number += 1
        self.log.record(purge, 0.0, self.number)

    def distrust(self) -> None:
        self.carry_out(Purge(PurgeKind.ALL, soft=True, distrust=True))

    def beat(self, now: float) -> Todo:
        server, place = self.server, self.place
        server.told[self.name] = (
            *(now, place.history if place else "", self.follower.run, place.position if place else -1),
        )
        told = [
            Machine(name, name, at, history, run, position, MAX_BLIND_S, False, {})
            for name, (at, history, run, position) in server.told.items()
        ]
        self.machines.see(told, now, now)
        self.machines.history_is(now - server.begun_at, now)
        if self.is_confirmed:
            self.unconfirmed.look(self.machines, now)
        return self.follower.on_head(server.head, now)

    def load(self, whole: int, known: list[Entry]) -> None:
        assert self.follower.place is not None
        self.loaded = True
        self.stream_log = PurgeLog()
        self.stream_log.floor = whole << 32
        for entry in known:
            self.stream_log.record_at([Purge(PurgeKind.URL, entry.payload)], 0.0, entry.position)
        self.stream_log.seq = max(self.stream_log.seq, self.follower.place.position << 32)

    def join(self, head: Head, now: float) -> None:
        self.distrust()
        self.load(*self.follower.join(head, now, list(self.server.entries)))
        self.place = self.follower.place

    def apply(self, entries: list[Entry]) -> None:
        """Part by part: each is durable with its place, then in every worker, then told."""
        for at in range(0, len(entries), TOGETHER):
            self.apply_some(entries[at : at + TOGETHER])

    def apply_some(self, entries: list[Entry]) -> None:
        assert self.place is not None
        for entry in entries:
            self.carry_out(Purge(PurgeKind.URL, entry.payload))
        self.place = StreamPlace(self.place.history, entries[-1].position, entries[-1].mark)
        self.parts += 1
        if self.parts == self.dies_at:
            raise Died
        for entry in entries:
            self.stream_log.record_at([Purge(PurgeKind.URL, entry.payload)], 0.0, entry.position)
        self.follower.applied(entries)

    def publish(self, key: bytes) -> int:
        history, run = self.place.history if self.place is not None else "", self.follower.head.run
        position = self.server.publish(history, run, key)
        if position > 0:
            self.unconfirmed.add(Sent(Purge(PurgeKind.URL, key), True, "", "", history, run, position))
        return position

    def read(self, now: float, some: int = 1000) -> None:
        head = self.server.head
        if head.run != self.follower.head.run:
            self.joined = False
            self.follower.cut()
            return
        try:
            if not self.loaded:
                whole, known, after = self.follower.on_load(list(self.server.entries))
                self.load(whole, known)
            else:
                begin = self.follower.reads_from
                after = self.follower.on_entries([one for one in self.server.entries if one.position >= begin][:some])
            self.apply(after)
        except Lost:
            self.join(head, now)

    def come_in_step(self, now: float) -> bool:
        if not self.linked:
            return False
        for _ in range(12):
            todo = self.beat(now)
            if todo is Todo.BEGIN:
                self.server.begin(self.server.history, now)
            elif todo is Todo.JOIN:
                self.join(self.server.head, now)
            elif todo is Todo.READ:
                self.read(now)
            elif todo is Todo.CERTIFY:
                assert self.place is not None
                self.server.certify(self.place, self.follower.head.run, now)
            elif not self.send():
                self.joined = True
                self.beat(now)
                return True
        raise AssertionError("never in step")

    def send(self) -> bool:
        """What may have been lost, and what was purged here alone; whether there was something."""
        found = bool(self.unsent)
        assert self.place is not None
        while (lost := self.unconfirmed.of_another(self.place.history, self.follower.head.run)) is not None:
            found = True
            assert self.publish(lost.purge.value) > 0
            self.unconfirmed.sent_again(lost)
        while self.unsent:
            assert self.publish(self.unsent[0]) > 0
            self.unsent.pop(0)
        return found

    def cut(self) -> None:
        self.linked = self.joined = False
        self.follower.cut()

    def time(self, now: float) -> None:
        if self.follower.on_time(now):
            self.joined = False
            self.distrust()

    @property
    def is_confirmed(self) -> bool:
        """Most sentinels name this server."""
        return self.server is self.primary()

    @property
    def in_step(self) -> bool:
        return self.joined and self.follower.in_step

    # what a worker does

    def hit(self, key: bytes) -> int | None:
        """The version that is served without asking the origin."""
        kept = self.store.get(key)
        if kept is not None:
            outcome = self.log.admit(kept.seq, key, ())
            if outcome.verdict is PurgeState.GONE:
                kept = None
            elif outcome.distrust:
                kept = Kept(kept.version, kept.seq, True)
        if kept is not None and not kept.distrusted:
            return kept.version
        value = self.values.get(key) if self.linked and self.in_step else None
        if value is None or self.place is None:
            return None
        view, head = FleetView(), self.follower.head
        view.stands(True, self.place.history, self.follower.run, head.before, head.certified)
        if not view.believes(line_of(value.history, value.run), value.position):
            return None
        if self.stream_log.admit(value.position << 32, key, ()).verdict is not PurgeState.KEPT:
            return None
        self.store[key] = Kept(value.version, self.log.now_seq())
        return value.version


class Walk:
    """One random afternoon of the fleet."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.careful = seed % 2 == 0  # nobody restarts who knows of entries that may be lost
        self.now = 1000.0
        self.server = Server()
        self.origin = dict.fromkeys(KEYS, 1)
        self.acknowledged = dict.fromkeys(KEYS, 1)
        self.values: dict[bytes, Value] = {}
        self.edges = {name: Edge(name, lambda: self.server, self.values) for name in NAMES}
        self.forgetful = False  # somebody did
        self.fetching: list[tuple[Edge, bytes, int, int]] = []
        self.left_by: dict[str, int] = {}  # the version that was the origin's, by the mark of a purge
        self.hits = self.purged = self.kills = 0
        for edge in self.edges.values():
            edge.start(self.now)
        self.wait(MAX_BLIND_S + 10.0)

    def step(self) -> None:
        key, edge = self.random.choice(KEYS), self.random.choice(list(self.edges.values()))
        (what,) = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if what == "request":
            for each in self.edges.values():
                self.ask(each, key, slow=False)
        elif what == "slow request":
            self.ask(edge, key, slow=True)
        elif what == "its answer" and self.fetching:
            self.come(*self.fetching.pop(self.random.randrange(len(self.fetching))))
        elif what == "purge":
            self.purge(edge, key, set())
        elif what == "purge, some lag":
            self.purge(edge, key, {name for name in NAMES if self.random.random() < 0.5})
        elif what == "read" and edge.linked and edge.joined:
            edge.read(self.now, self.random.randint(1, 3))
        elif what == "cut":
            edge.cut()
        elif what == "back":
            edge.linked = True
            edge.come_in_step(self.now)
        elif what == "restart" and not (self.careful and len(edge.unconfirmed)):
            self.restart(edge)
        elif what == "killed on its way back" and not (self.careful and (len(edge.unconfirmed) or edge.unsent)):
            self.killed_on_its_way_back(edge)
        elif what == "wait":
            self.wait(self.random.choice((0.5, 1.0, 2.0, 5.0)))
        elif what == "wait long":
            self.wait(40.0)
        elif what == "flush":
            self.flush()
        elif what == "go back":
            self.go_back(self.random.randint(0, 3))
        elif what == "fail over":
            self.fail_over(self.random.randint(0, 3))
        elif what == "trim":
            keep = self.random.randint(0, 2)
            self.server.entries = self.server.entries[len(self.server.entries) - keep :] if keep else []
        for each in self.edges.values():
            assert each.follower.place == each.place

    def restart(self, edge: Edge) -> None:
        """What was stored is on the disk still."""
        self.fetching = [each for each in self.fetching if each[0] is not edge]
        self.forgetful |= len(edge.unconfirmed) > 0
        edge.server, edge.behind_until = self.server, None
        edge.start(self.now)

    def killed_on_its_way_back(self, edge: Edge) -> None:
        """Cut off while purges pass, and killed when a part of them is durable, before its workers have it."""
        edge.cut()
        others = [each for each in self.edges.values() if each is not edge]
        for _ in range(self.random.randint(1, 3 * TOGETHER)):
            self.purge(self.random.choice(others), self.random.choice(KEYS), set())
        edge.linked, edge.dies_at = True, edge.parts + self.random.randint(1, 3)
        try:
            edge.come_in_step(self.now)
        except Died:
            self.kills += 1
            self.restart(edge)
        edge.dies_at = None

    def ask(self, edge: Edge, key: bytes, slow: bool) -> None:
        version = edge.hit(key)
        if version is not None:
            assert version >= self.applied(edge, key), f"{edge.name} serves {version}, and has applied a purge of it"
            assert version >= self.acknowledged[key], f"{edge.name} serves {version}, purged before {self.origin[key]}"
            self.hits += 1
            return
        fetch = (edge, key, self.origin[key], edge.log.now_seq())
        if slow:
            self.fetching.append(fetch)
        else:
            self.come(*fetch)

    def applied(self, edge: Edge, key: bytes) -> int:
        """What the purges of a key left that are in the stream up to the place that this machine tells, acknowledged or
        not: who comes back is taken at its word."""
        server, place = edge.server, edge.place
        if place is None or place.history != server.history or edge.follower.run != f"r{server.run}":
            return 0
        entries = [one for one in server.entries if one.position <= place.position and one.payload == key]
        return max((self.left_by.get(one.mark, 0) for one in entries), default=0)

    def come(self, edge: Edge, key: bytes, version: int, seq: int) -> None:
        """A fetch ended: what a worker keeps, and gives to the shared tier."""
        outcome = edge.log.admit(seq, key, ())
        if outcome.verdict is PurgeState.GONE:
            return
        edge.store[key] = Kept(version, seq, edge.follower.blind)
        if edge.linked and edge.in_step and outcome.verdict is PurgeState.KEPT and edge.place is not None:
            self.values[key] = Value(edge.place.history, edge.follower.run, edge.place.position, version)

    def purge(self, edge: Edge, key: bytes, lagging: set[str]) -> None:
        """The origin has something new; the operator purges on one machine."""
        self.origin[key] += 1
        history, run = edge.place.history if edge.place is not None else "", edge.follower.run
        position = edge.publish(key) if edge.in_step else -1
        if position < 0:
            edge.carry_out(Purge(PurgeKind.URL, key))
            edge.unsent.append(key)
            return
        self.left_by[edge.server.mark] = self.origin[key]
        for other in self.edges.values():
            if other.linked and other.in_step and (other.name not in lagging or other is edge):
                other.read(self.now)
                if other.joined:
                    other.beat(self.now)
        edge.beat(self.now)
        _, late = edge.machines.waiting(history, run, position, self.now)
        if not late and edge.machines.sure and not edge.machines.may_grow and edge.is_confirmed:
            self.acknowledged[key] = self.origin[key]
            self.purged += 1

    def wait(self, seconds: float) -> None:
        """Machines that are linked beat each second; those that were cut off notice the time."""
        until = self.now + seconds
        while self.now < until:
            self.now += 0.5
            for edge in self.edges.values():
                if edge.behind_until is not None and self.now >= edge.behind_until:
                    self.switch(edge)
                if edge.linked and self.now % 1.0 == 0.0:
                    todo = edge.beat(self.now) if edge.joined else Todo.READ
                    if todo not in (Todo.NOTHING, Todo.READ) or not edge.in_step:
                        edge.joined = False
                        edge.come_in_step(self.now)
                edge.time(self.now)

    def flush(self) -> None:
        server = self.server
        server.history, server.position, server.mark = "", 0, ""
        server.entries, server.told = [], {}
        self.values.clear()

    def go_back(self, number: int) -> None:
        """A replica that had not got the last entries took over: all connections end."""
        self.server.run = next(RUNS)
        self.server.lose(number)
        for edge in self.edges.values():
            if edge.server is self.server:
                edge.joined = False
                edge.follower.cut()

    def fail_over(self, number: int) -> None:
        """As `go_back`, and the old server goes on for those who have not heard of it yet; nobody's link breaks."""
        old = self.server
        self.server = replace(old, run=next(RUNS), told=dict(old.told), entries=list(old.entries))
        self.server.told.pop(self.random.choice(NAMES), None)
        self.server.lose(number)
        for edge in self.edges.values():
            if self.random.random() < 0.5:
                edge.behind_until = edge.behind_until or self.now + self.random.uniform(0.0, BEHIND_S)
            else:
                self.switch(edge)

    def switch(self, edge: Edge) -> None:
        """Its connections lead to the new server from now on, whether it has noticed or not."""
        edge.server, edge.behind_until = self.server, None
        if self.random.random() < 0.3:
            edge.joined = False
            edge.follower.cut()

    def end_well(self) -> None:
        """Everything is in order again: every purge, acknowledged or not, is in force everywhere."""
        for edge in self.edges.values():
            self.switch(edge)
            edge.linked = True
            edge.come_in_step(self.now)
        self.wait(3.0)
        for edge in self.edges.values():
            edge.read(self.now)
        for edge in self.edges.values():
            for key in KEYS:
                assert edge.hit(key) in (None, self.origin[key]), f"{edge.name} never heard of a purge"


WEIGHTS = {
    "request": 8,
    "slow request": 5,
    "its answer": 4,
    "purge": 5,
    "purge, some lag": 3,
    "read": 2,
    "cut": 2,
    "back": 3,
    "restart": 1,
    "killed on its way back": 0.3,
    "wait": 3,
    "wait long": 0.7,
    "flush": 0.15,
    "go back": 0.4,
    "fail over": 0.6,
    "trim": 0.7,
}


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_what_was_purged_and_acknowledged_is_never_served_again(first: int) -> None:
    hits = purged = kills = ended_well = 0
    for seed in range(first, first + 25):
        walk = Walk(seed)
        for _ in range(250):
            walk.step()
        if not walk.forgetful:
            walk.end_well()
            ended_well += 1
        hits, purged, kills = hits + walk.hits, purged + walk.purged, kills + walk.kills
    assert hits > 2000 and purged > 100 and kills > 5, "the walk tries too little"
    assert ended_well > 10


# -- one thing at a time: what a walk finds seldom ---------------------------------------------------------------------


def fleet() -> Walk:
    """Three machines in step, sure of each other."""
    made = Walk(1)
    assert all(edge.in_step for edge in made.edges.values())
    return made


def moved(walk: Walk, *names: str) -> None:
    """They talk to the new server and have noticed."""
    for name in names:
        walk.edges[name].server = walk.server
        walk.edges[name].joined = False
        walk.edges[name].follower.cut()
        walk.edges[name].come_in_step(walk.now)


def take_over(walk: Walk, lost: int) -> None:
    """Another server, and everybody is still with the old one."""
    walk.server = replace(walk.server, run=next(RUNS), told=dict(walk.server.told), entries=list(walk.server.entries))
    walk.server.lose(lost)


def test_a_purge_that_only_its_sender_had_is_sent_again() -> None:
    walk, key = fleet(), KEYS[0]
    for edge in walk.edges.values():
        walk.ask(edge, key, slow=False)
    walk.purge(walk.edges["a"], key, {"b", "c"})
    take_over(walk, 1)
    moved(walk, "b")
    walk.purge(walk.edges["b"], KEYS[1], {"a", "c"})
    moved(walk, "c", "a")
    walk.wait(2.0)
    for edge in walk.edges.values():
        edge.read(walk.now)
    assert {edge.hit(key) for edge in walk.edges.values()} <= {None, walk.origin[key]}


def test_who_comes_to_another_server_unawares_skips_nothing() -> None:
    walk, key = fleet(), KEYS[0]
    a, b = walk.edges["a"], walk.edges["b"]
    walk.ask(a, key, slow=False)
    walk.purge(a, KEYS[1], {"b", "c"})
    take_over(walk, 1)
    moved(walk, "b")
    walk.purge(b, key, {"a", "c"})  # at the position that the lost one had
    walk.purge(b, KEYS[1], {"a", "c"})
    a.server = walk.server
    assert a.beat(walk.now) is Todo.READ and not a.in_step
    a.joined = False
    a.come_in_step(walk.now)
    assert a.hit(key) is None or a.store[key].distrusted


def test_after_a_failover_nobody_is_sure_for_a_while() -> None:
    walk = fleet()
    take_over(walk, 0)
    moved(walk, "a", "b", "c")
    assert walk.server.certified == walk.edges["a"].follower.head.certified
    assert not any(edge.machines.sure for edge in walk.edges.values())
    walk.wait(MAX_BLIND_S + 6.0)
    assert all(edge.machines.sure for edge in walk.edges.values())


def test_a_value_of_the_server_before_counts_up_to_what_both_had() -> None:
    walk, key = fleet(), KEYS[0]
    a, b = walk.edges["a"], walk.edges["b"]
    walk.purge(a, KEYS[1], set())
    walk.ask(a, key, slow=False)
    take_over(walk, 0)
    moved(walk, "b")
    b.store.clear()
    assert b.hit(key) == walk.origin[key], "it is of before the failover"
    walk.purge(a, KEYS[1], {"b", "c"})  # the old server has one more, and a value that was made after it
    walk.values.clear()
    a.store.clear()
    walk.ask(a, key, slow=False)
    walk.purge(b, key, {"a", "c"})
    b.store.clear()
    assert b.hit(key) is None, "that entry is not the one that the new server has there"
