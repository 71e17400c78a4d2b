"""The purge stream's promise as a property: a response that was purged, and the purge acknowledged by all, is never
served again by anybody unless the origin has just said that it is good.

Three machines, each with a store and a purge log of its own, a shared tier and one server, in one thread without time.
The server may lose everything, go back, or drop its oldest entries; machines are cut off, fall behind, restart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from random import Random

import pytest

from edge.cache.fleet.machines import Machine, Machines
from edge.cache.fleet.stream import Entry, Follower, Head, Lost, Place, Todo
from edge.cache.purge import Kind, Purge, PurgeLog, PurgeState

NAMES = ("a", "b", "c")
KEYS = tuple(b"http://h/%d" % number for number in range(2))
MAX_BLIND_S = 30.0
MARKS = count(1)


@dataclass
class Server:
    """What the scripts of the adapter do, as one value."""

    history: str = ""
    position: int = 0
    mark: str = ""
    entries: list[Entry] = field(default_factory=list)
    told: dict[str, tuple[float, str, str, int]] = field(default_factory=dict)
    values: dict[bytes, tuple[str, int, int]] = field(default_factory=dict)  # history, position, version
    begun_at: float = -100.0
    run: int = 0  # which process it is, and which one the stream is known to be whole in
    known_run: int = 0
    wanted: dict[str, bytes] = field(default_factory=dict)  # the purge behind a mark

    @property
    def head(self) -> Head:
        return Head(self.history, self.position, self.mark, self.run == self.known_run, str(self.run))

    def publish(self, history: str, key: bytes) -> int:
        if history != self.history or self.run != self.known_run:
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


@dataclass
class Kept:
    """A stored response: which version of the origin's, and when its fetch began."""

    version: int
    seq: int
    distrusted: bool = False


class Edge:
    """One machine: what `control.fleet` and a worker's store do."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server = name, server
        self.log, self.stream_log = PurgeLog(), PurgeLog()
        self.store: dict[bytes, Kept] = {}
        self.place: Place | None = None
        self.machines = Machines(MAX_BLIND_S)
        self.linked = True
        self.unsent: list[bytes] = []
        self.number = 0

    def start(self, now: float) -> None:
        self.follower = Follower(self.place, MAX_BLIND_S, now)
        self.loaded = self.joined = False
        self.stream_log = PurgeLog()
        self.machines = Machines(MAX_BLIND_S)
        if not self.come_in_step(now):
            self.time(now)

    # what the supervisor does

    def carry_out(self, purge: Purge) -> None:
        self.number += 1
        self.log.record(purge, 0.0, self.number)

    def distrust(self) -> None:
        self.carry_out(Purge(Kind.ALL, soft=True, distrust=True))

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
        self.machines.history_is(now - server.begun_at)
        return self.follower.on_head(server.head, now)

    def load(self, whole: int, known: list[Entry]) -> None:
        assert self.follower.place is not None
        self.loaded = True
        self.stream_log = PurgeLog()
        self.stream_log.floor = whole << 32
        for entry in known:
            self.stream_log.record_at([Purge(Kind.URL, entry.payload)], 0.0, entry.position)
        self.stream_log.seq = max(self.stream_log.seq, self.follower.place.position << 32)

    def join(self, head: Head, now: float) -> None:
        self.distrust()
        self.load(*self.follower.join(head, now, list(self.server.entries)))
        self.place = self.follower.place

    def apply(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.carry_out(Purge(Kind.URL, entry.payload))
            self.stream_log.record_at([Purge(Kind.URL, entry.payload)], 0.0, entry.position)
        self.follower.applied(entries)
        self.place = self.follower.place

    def read(self, now: float, some: int = 1000) -> None:
        head = self.server.head
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
                self.server.known_run = self.server.run
            elif self.unsent:
                assert self.place is not None
                while self.unsent:
                    assert self.server.publish(self.place.history, self.unsent[0]) > 0
                    self.unsent.pop(0)
            else:
                self.joined = True
                self.beat(now)
                return True
        raise AssertionError("never in step")

    def cut(self) -> None:
        self.linked = self.joined = False
        self.follower.cut()

    def time(self, now: float) -> None:
        if self.follower.on_time(now):
            self.joined = False
            self.distrust()

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
        value = self.server.values.get(key) if self.linked and self.in_step else None
        if value is None or self.place is None or value[0] != self.place.history:
            return None
        if self.stream_log.admit(value[1] << 32, key, ()).verdict is not PurgeState.KEPT:
            return None
        self.store[key] = Kept(value[2], self.log.now_seq())
        return value[2]


class Walk:
    """One random afternoon of the fleet."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 1000.0
        self.server = Server()
        self.origin = dict.fromkeys(KEYS, 1)
        self.acknowledged = dict.fromkeys(KEYS, 1)
        self.edges = {name: Edge(name, self.server) for name in NAMES}
        self.fetching: list[tuple[Edge, bytes, int, int]] = []
        self.hits = self.purged = 0
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
        elif what == "restart":  # what was stored is on the disk still
            self.fetching = [each for each in self.fetching if each[0] is not edge]
            edge.start(self.now)
        elif what == "wait":
            self.wait(self.random.choice((0.5, 1.0, 2.0, 5.0)))
        elif what == "wait long":
            self.wait(40.0)
        elif what == "flush":
            self.flush()
        elif what == "go back":
            self.go_back(self.random.randint(0, 3))
        elif what == "trim":
            keep = self.random.randint(0, 2)
            self.server.entries = self.server.entries[len(self.server.entries) - keep :] if keep else []
        for each in self.edges.values():
            assert each.follower.place == each.place

    def ask(self, edge: Edge, key: bytes, slow: bool) -> None:
        version = edge.hit(key)
        if version is not None:
            assert version >= self.acknowledged[key], f"{edge.name} serves {version}, purged before {self.origin[key]}"
            self.hits += 1
            return
        fetch = (edge, key, self.origin[key], edge.log.now_seq())
        if slow:
            self.fetching.append(fetch)
        else:
            self.come(*fetch)

    def come(self, edge: Edge, key: bytes, version: int, seq: int) -> None:
        """A fetch ended: what a worker keeps, and gives to the shared tier."""
        outcome = edge.log.admit(seq, key, ())
        if outcome.verdict is PurgeState.GONE:
            return
        edge.store[key] = Kept(version, seq, edge.follower.blind)
        if edge.linked and edge.in_step and outcome.verdict is PurgeState.KEPT and edge.place is not None:
            self.server.values[key] = (edge.place.history, edge.place.position, version)

    def purge(self, edge: Edge, key: bytes, lagging: set[str]) -> None:
        """The origin has something new; the operator purges on one machine."""
        self.origin[key] += 1
        history = edge.place.history if edge.place is not None else ""
        position = self.server.publish(history, key) if edge.in_step else -1
        if position < 0:
            edge.carry_out(Purge(Kind.URL, key))
            edge.unsent.append(key)
            return
        for other in self.edges.values():
            if other.linked and other.in_step and (other.name not in lagging or other is edge):
                other.read(self.now)
                other.beat(self.now)
        edge.beat(self.now)
        _, late = edge.machines.waiting(history, edge.follower.run, position, self.now)
        if not late and edge.machines.sure and not edge.machines.may_grow:
            self.acknowledged[key] = self.origin[key]
            self.purged += 1

    def wait(self, seconds: float) -> None:
        """Machines that are linked beat each second; those that were cut off notice the time."""
        until = self.now + seconds
        while self.now < until:
            self.now += 0.5
            for edge in self.edges.values():
                if edge.linked and self.now % 1.0 == 0.0:
                    todo = edge.beat(self.now) if edge.joined else Todo.READ
                    if todo not in (Todo.NOTHING, Todo.READ) or not edge.joined:
                        edge.come_in_step(self.now)
                edge.time(self.now)

    def flush(self) -> None:
        server = self.server
        server.history, server.position, server.mark = "", 0, ""
        server.entries, server.told, server.values = [], {}, {}

    def go_back(self, number: int) -> None:
        """A replica that had not got the last entries took over: all connections end."""
        server = self.server
        server.run += 1
        server.entries = server.entries[:-number] if number else server.entries
        server.position = max(0, server.position - number) if server.history else 0
        server.mark = server.entries[-1].mark if server.entries else "" if number else server.mark
        for edge in self.edges.values():
            edge.joined = False
            edge.follower.cut()


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
    "wait": 3,
    "wait long": 0.7,
    "flush": 0.15,
    "go back": 0.4,
    "trim": 0.7,
}


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_what_was_purged_and_acknowledged_is_never_served_again(first: int) -> None:
    hits = purged = 0
    for seed in range(first, first + 25):
        walk = Walk(seed)
        for _ in range(250):
            walk.step()
        hits, purged = hits + walk.hits, purged + walk.purged
    assert hits > 2000 and purged > 200, "the walk tries too little"
