"""States that machines share: the last change by number is in force everywhere, whatever the server lost meanwhile."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from random import Random
from typing import Any

import orjson
import pytest

from edge.cache.fleet.machines import Machines
from edge.control.fleet.states import REMOVED, SharedChange, States
from edge.errors import EdgeError, FleetAway


class Server:
    """The scripts of the adapter, as one value."""

    def __init__(self) -> None:
        self.name, self.number, self.away = "", 0, False
        self.fields: dict[str, tuple[int, bytes]] = {}
        self.names = 0

    async def states(self) -> tuple[str, dict[str, tuple[int, bytes]]]:
        if self.away:
            raise FleetAway("away")
        return self.name, dict(self.fields)

    async def set_state(self, field: str, value: bytes, newer_than: int | None, instead_of: str = "") -> int:
        if self.away:
            raise FleetAway("away")
        if newer_than is not None and self.fields.get(field, (0, b""))[0] >= newer_than:
            return 0
        if not self.name:
            self.names += 1
            self.name = f"c{self.names}"
        self.number += 1
        self.fields.pop(instead_of, None)
        self.fields[field] = (self.number, value)
        return self.number

    async def close(self) -> None:
        """Nothing is open."""


class Host:
    """A machine that does what it is told, and its journal."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.refuse = False

    async def carry_out(self, change: SharedChange) -> None:
        if self.refuse:
            raise EdgeError("there is no such region")
        self.does(change)

    def does(self, change: SharedChange) -> None:
        """As the registry: what is removed has no state, what is registered anew begins with none."""
        registration, state = f"registration:{change.kind}:{change.name}", f"state:{change.kind}:{change.name}"
        if change.kind == "backend" and registration not in self.values and not isinstance(change.value, dict):
            raise EdgeError("there is no such backend")
        if change.value == REMOVED:
            del self.values[registration]
            self.values.pop(state, None)
        elif change.value == "active":
            self.values.pop(state, None)
        else:
            self.values[change.field] = change.value

    def known_states(self) -> dict[str, Any]:
        return copy.deepcopy(self.kept)

    def keep_states(self, known: dict[str, Any]) -> None:
        self.kept = orjson.loads(orjson.dumps(known))

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        self.events.append((kind, facts))


class Edge:
    """One machine."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server, self.host = name, server, Host()
        self.start()

    def start(self) -> None:
        self.states = States(self.server, self.host, Machines(30.0), b"secret", lambda: None)

    def change(self, name: str, value: str) -> SharedChange:
        return self.does("state", "region", name, value)

    def does(self, aspect: str, kind: str, name: str, value: Any) -> SharedChange:
        """What an operator does here. Raises EdgeError."""
        made = SharedChange(aspect, kind, name, value, "ops", "why", None, self.name)
        self.host.does(made)
        self.states.changed(made)
        return made


def pair() -> tuple[Server, Edge, Edge]:
    server = Server()
    return server, Edge("a", server), Edge("b", server)


async def test_a_change_is_carried_out_by_the_others_once() -> None:
    _, a, b = pair()
    change = a.change("eu", "draining")
    await a.states.exchange()
    await b.states.exchange()
    assert b.host.values == {change.field: "draining"} and (a.states.number, a.states.owed) == (1, 0)
    b.host.values.clear()
    for edge in (a, b, a, b):
        edge.start()
        await edge.states.exchange()
    assert b.host.values == {}, "not a second time, after a restart either"


async def test_the_later_number_counts_and_who_did_not_know_is_told() -> None:
    server, a, b = pair()
    server.away = True
    a.change("eu", "draining")
    with pytest.raises(FleetAway):
        await a.states.exchange()
    server.away = False
    b.change("eu", "inactive")
    await b.states.exchange()
    a.start()
    await a.states.exchange()
    await b.states.exchange()
    assert a.host.values == b.host.values == {"state:region:eu": "draining"}
    [(kind, facts)] = a.host.events
    assert kind == "fleet.conflict" and (facts["machine"], facts["was"], facts["is"]) == ("b", "inactive", "draining")


async def test_a_server_that_lost_everything_gets_it_back_and_nothing_newer_is_undone() -> None:
    server, a, b = pair()
    a.change("eu", "draining")
    a.change("us", "draining")
    for edge in (a, b):
        await edge.states.exchange()
    server.fields, server.name, server.number = {}, "", 0
    b.change("eu", "active")
    await b.states.exchange()
    await a.states.exchange()
    await b.states.exchange()
    assert a.host.values == b.host.values == {"state:region:us": "draining"}


async def test_what_cannot_be_carried_out_or_read_is_told_and_passed_over() -> None:
    server, a, b = pair()
    b.host.refuse = True
    a.change("eu", "draining")
    await a.states.exchange()
    await b.states.exchange()
    server.fields["state:region:us"] = (server.number + 1, b"anything")
    server.number += 1
    await b.states.exchange()
    await b.states.exchange()
    assert [kind for kind, _ in b.host.events] == ["fleet.not_carried_out", "fleet.garbled"]
    assert b.host.events[0][1]["evidence"] == "there is no such region"


async def test_what_is_removed_has_no_state_any_more() -> None:
    server, a, b = pair()
    for what in (("registration", {"url": 1}), ("state", "draining")):
        a.does(what[0], "backend", "p/x", what[1])
        await a.states.exchange()
    await b.states.exchange()
    assert b.host.values["state:backend:p/x"] == "draining"
    a.does("registration", "backend", "p/x", REMOVED)
    await a.states.exchange()
    assert list(server.fields) == ["registration:backend:p/x"]
    b.start()
    a.does("registration", "backend", "p/x", {"url": 2})
    await a.states.exchange()
    await b.states.exchange()
    assert a.host.values == b.host.values == {"registration:backend:p/x": {"url": 2}}, "though b never saw it removed"
    assert list(server.fields) == ["registration:backend:p/x"]


async def test_a_new_machine_gets_the_state_of_what_was_registered_once_more_after_it() -> None:
    server, a, _ = pair()
    for what in (("registration", {"url": 1}), ("state", "draining"), ("registration", {"url": 2})):
        a.does(what[0], "backend", "p/x", what[1])
        await a.states.exchange()
    new = Edge("new", server)
    await new.states.exchange()
    assert new.host.values == a.host.values and not new.host.events


async def test_a_change_that_was_sent_is_not_sent_once_more_after_a_crash() -> None:
    server, a, b = pair()
    a.change("eu", "draining")
    before = a.host.kept
    await a.states.exchange()
    a.host.kept = before  # it ended before it could write down that it was sent
    a.start()
    await a.states.exchange()
    assert server.number == 1 and a.states.owed == 0
    await b.states.exchange()
    assert b.host.values == a.host.values and not a.host.events


@pytest.mark.parametrize(
    "found",
    [
        {}, {"aspect": "other"}, {"kind": "pool"}, {"name": 7}, {"value": 7}, {"value": {}}, {"expires_at": "x"},
        {"aspect": "registration", "value": "anything"}, {"actor": "x" * 501},
    ],
)  # fmt: skip
def test_what_is_no_change_is_refused(found: dict[str, Any]) -> None:
    whole = SharedChange("state", "region", "eu", "active", "ops", "", None, "a").plain()
    assert SharedChange.of(whole).plain() == whole
    assert SharedChange.of({**whole, "aspect": "registration", "value": REMOVED}).value == REMOVED
    with pytest.raises((ValueError, KeyError, TypeError)):
        SharedChange.of({**whole, **found} if found else {})


@pytest.mark.parametrize("seed", range(60))
def test_in_the_end_all_machines_agree(seed: int) -> None:
    asyncio.run(walk(Random(seed)))


WEIGHTS = {"change": 2, "backend": 4, "exchange": 5, "away": 1, "restart": 1, "save": 1, "lose": 1}
DONE: list[Callable[[int], tuple[str, str, str, Any]]] = [
    lambda step: ("registration", "backend", "p/x", {"url": step}),
    lambda step: ("registration", "backend", "p/x", REMOVED),
    lambda step: ("state", "backend", "p/x", f"v{step}"),
    lambda step: ("state", "backend", "p/x", "active"),
]


async def walk(random: Random) -> None:
    server = Server()
    edges = [Edge(name, server) for name in "abc"]
    saved: tuple[str, int, dict[str, tuple[int, bytes]]] = ("", 0, {})
    for step in range(120):
        edge = random.choice(edges)
        (what,) = random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if what == "change":
            edge.change(random.choice(("eu", "us")), f"v{step}")
        elif what == "backend":
            try:
                edge.does(*random.choice(DONE)(step))
            except EdgeError:
                pass  # it is not registered
        elif what == "exchange":
            try:
                await edge.states.exchange()
            except FleetAway:
                assert server.away
        elif what == "away":
            server.away = random.random() < 0.4
        elif what == "restart":
            edge.start()
        elif what == "save":
            saved = (server.name, server.number, dict(server.fields))
        elif random.random() < 0.2:
            server.name, server.number, server.fields = saved if random.random() < 0.7 else ("", 0, {})
            server.fields = dict(server.fields)
    server.away = False
    for _ in range(3):
        for edge in edges:
            await edge.states.exchange()
    edges.append(Edge("new", server))
    await edges[-1].states.exchange()
    first, *others = (edge.host.values for edge in edges)
    assert all(each == first for each in others)
    assert all(edge.states.number == edges[0].states.number and not edge.states.owed for edge in edges)
