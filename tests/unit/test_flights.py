"""Coalescing: for each way a leader can end, what the followers do; each one settles exactly once, whatever happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.cache.calls import TURN
from edge.cache.flights import Alone, Flight, FlightMember, Flights, Follow, Lead, Outcome, Why


class Client:
    """A party that writes down what it is told, and may do something at once when it is."""

    def __init__(self, name: str = "", variant: str = "") -> None:
        self.name, self.variant = name, variant
        self.told: list[object] = []
        self.then: Callable[[Flight | None], None] | None = None

    def on_attach(self, flight: Flight) -> None:
        self._told("attach", flight)

    def on_lead(self, flight: Flight) -> None:
        self._told("lead", flight)

    def on_alone(self, why: Why) -> None:
        self._told(why, None)

    def _told(self, what: object, flight: Flight | None) -> None:
        self.told.append(what)
        if self.then is not None:
            self.then(flight)


def crowd(flights: Flights, followers: int) -> tuple[Flight, Client, list[Client]]:
    """A leader and its followers at time 0."""
    leader = Client("leader")
    lead = flights.join("key", leader, 0)
    assert isinstance(lead, Lead)
    clients = [Client(f"f{n}") for n in range(followers)]
    for client in clients:
        follow = flights.join("key", client, 0)
        assert isinstance(follow, Follow)
        assert follow.flight is lead.flight
        assert not follow.flight.filling
    return lead.flight, leader, clients


def test_storable_attaches_all_and_later_ones_at_once() -> None:
    flights = Flights()
    flight, _, clients = crowd(flights, 3)
    flights.storable(flight, "stream")
    assert [client.told for client in clients] == [["attach"]] * 3
    late = flights.join("key", Client(), 1)
    assert isinstance(late, Follow)
    assert late.flight.filling
    assert late.flight.stream == "stream"
    flights.end(flight, Outcome.STORED, 2)
    assert len(flights) == 0
    assert isinstance(flights.join("key", Client(), 3), Lead)


def test_storable_sends_those_of_another_variant_to_look_up_again() -> None:
    flights = Flights()
    lead = flights.join("key", Client(variant="gzip"), 0)
    assert isinstance(lead, Lead)
    same, other = Client(variant="gzip"), Client(variant="br")
    flights.join("key", same, 0)
    flights.join("key", other, 0)

    def accepts(party: FlightMember, late: bool) -> bool:
        assert isinstance(party, Client)
        return party.variant == "gzip"

    flights.storable(lead.flight, None, accepts)
    assert (same.told, other.told) == (["attach"], [Why.OTHER_VARIANT])
    assert flights.join("key", Client(variant="br"), 1) == Alone(Why.OTHER_VARIANT)


@pytest.mark.parametrize(
    ("outcome", "why"), [(Outcome.UNCACHEABLE, Why.UNCACHEABLE), (Outcome.TOO_LARGE, Why.TOO_LARGE)]
)
def test_what_cannot_be_shared_sends_all_at_once_and_is_remembered(outcome: Outcome, why: Why) -> None:
    flights = Flights()
    flight, _, clients = crowd(flights, 100)
    flights.end(flight, outcome, 10)
    assert [client.told for client in clients] == [[why]] * 100
    assert flights.join("key", Client(), 129.9) == Alone(why)
    assert isinstance(flights.join("key", Client(), 130), Lead)


def test_a_storable_answer_to_one_that_went_alone_ends_the_marker() -> None:
    flights = Flights()
    flight, _, _ = crowd(flights, 0)
    flights.end(flight, Outcome.UNCACHEABLE, 0)
    flights.forget("key")
    assert isinstance(flights.join("key", Client(), 1), Lead)


def test_failed_promotes_one_and_the_others_wait_on() -> None:
    flights = Flights()
    flight, _, (first, second, third) = crowd(flights, 3)
    flights.end(flight, Outcome.FAILED, 1)
    assert (first.told, second.told, third.told) == (["lead"], [], [])
    flights.storable(flight, None)
    assert (first.told, second.told, third.told) == (["lead"], ["attach"], ["attach"])


def test_failed_in_mid_body_ends_the_flight_and_leaves_the_attached_to_their_stream() -> None:
    flights = Flights()
    flight, _, (client,) = crowd(flights, 1)
    flights.storable(flight, None)
    flights.end(flight, Outcome.FAILED, 1)
    assert client.told == ["attach"]
    assert isinstance(flights.join("key", Client(), 1), Lead)


def test_too_large_in_mid_body_leaves_a_marker_and_the_attached_on_their_stream() -> None:
    flights = Flights()
    flight, _, (client,) = crowd(flights, 1)
    flights.storable(flight, None)
    flights.end(flight, Outcome.TOO_LARGE, 1)
    assert client.told == ["attach"]
    assert flights.join("key", Client(), 1) == Alone(Why.TOO_LARGE)


def test_a_wait_has_a_limit_for_each_follower() -> None:
    flights = Flights()
    flight, _, (early,) = crowd(flights, 1)
    late, short = Client(), Client()
    flights.join("key", late, 3)
    flights.join("key", short, 3, wait_s=1)
    flights.tick(4.9)
    assert (early.told, late.told, short.told) == ([], [], [Why.SLOW])
    flights.tick(5)
    assert (early.told, late.told) == ([Why.SLOW], [])
    flights.storable(flight, None)
    flights.tick(100)
    assert (early.told, late.told) == ([Why.SLOW], ["attach"])
    assert not flights._limits


def test_the_fill_goes_on_while_anybody_is_left() -> None:
    flights = Flights()
    flight, leader, (first, second) = crowd(flights, 2)
    assert flights.leave(flight, leader)
    assert flights.leave(flight, first)
    flights.storable(flight, None)
    assert (first.told, second.told) == ([], ["attach"])
    assert not flights.leave(flight, second)


def test_a_flight_that_fails_while_only_followers_are_left_goes_on_with_one_of_them() -> None:
    flights = Flights()
    flight, leader, (first,) = crowd(flights, 1)
    flights.leave(flight, leader)
    flights.end(flight, Outcome.FAILED, 1)
    assert first.told == ["lead"]
    assert flight.leader is first


def test_five_hundred_that_fail_at_once_need_no_deep_stack() -> None:
    flights = Flights()
    flight, _, clients = crowd(flights, 5000)
    for client in clients:
        client.then = lambda found: flights.end(flight, Outcome.FAILED, 1)
    flights.end(flight, Outcome.FAILED, 1)
    assert all(client.told == ["lead"] for client in clients)
    assert len(flights) == 0


def test_a_party_that_joins_from_within_its_callback_meets_the_new_state() -> None:
    flights = Flights()
    flight, _, clients = crowd(flights, 2)
    answers: list[object] = []
    for client in clients:
        client.then = lambda found: answers.append(flights.join("key", Client(), 1))
    flights.end(flight, Outcome.UNCACHEABLE, 1)
    assert answers == [Alone(Why.UNCACHEABLE)] * 2


def test_a_party_that_raises_does_not_keep_the_others_from_being_told() -> None:
    flights = Flights()
    flight, _, clients = crowd(flights, 3)

    def fail(found: Flight | None) -> None:
        raise RuntimeError("a bug")

    clients[0].then = fail
    with pytest.raises(RuntimeError, match="a bug"):
        flights.storable(flight, None)
    assert [client.told for client in clients] == [["attach"]] * 3
    flights.end(flight, Outcome.STORED, 1)


def test_an_end_that_comes_twice_or_too_late_changes_nothing() -> None:
    flights = Flights()
    flight, _, _ = crowd(flights, 0)
    flights.end(flight, Outcome.FAILED, 0)
    other = flights.join("key", Client(), 0)
    flights.end(flight, Outcome.UNCACHEABLE, 0)
    flights.storable(flight, None)
    assert isinstance(other, Lead)
    assert len(flights) == 1
    assert flights.marker("key", 0) is None


def test_markers_are_bounded_and_the_oldest_gives_way() -> None:
    flights = Flights(max_markers=10)
    for n in range(25):
        lead = flights.join(n, Client(), 0)
        assert isinstance(lead, Lead)
        flights.end(lead.flight, Outcome.UNCACHEABLE, 0)
    assert [n for n in range(25) if flights.marker(n, 1)] == list(range(15, 25))
    assert len(flights._markers) == 10


class LaterTurns:
    """Later turns of a loop, as `use_turns` wants them; a test makes them come."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def later(self, call: Callable[[], None]) -> None:
        self.waiting.append(call)

    def turn(self) -> bool:
        """One of them; False when there was none."""
        if not self.waiting:
            return False
        self.waiting.pop(0)()
        return True


def in_turns(followers: int) -> tuple[Flights, LaterTurns, Flight, list[Client]]:
    """A crowd of a table that has turns."""
    flights, turns = Flights(), LaterTurns()
    flights.use_turns(turns.later)
    flight, _, clients = crowd(flights, followers)
    return flights, turns, flight, clients


def told(clients: list[Client]) -> int:
    return sum(len(client.told) for client in clients)


HOW: dict[str, Callable[[Flights, Flight], object]] = {
    "attach": lambda flights, flight: flights.storable(flight, "stream"),
    "uncacheable-memory": lambda flights, flight: flights.end(flight, Outcome.UNCACHEABLE, 1),
    "size": lambda flights, flight: flights.end(flight, Outcome.TOO_LARGE, 1),
    "vary": lambda flights, flight: flights.storable(flight, "stream", lambda party, late: False),
    "slow": lambda flights, flight: flights.tick(100),
    "given": lambda flights, flight: flights.answered(flight, lambda party: party.told.append("given") or True),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("how", HOW)
def test_many_are_told_a_few_in_a_turn(how: str) -> None:
    flights, turns, flight, clients = in_turns(1500)
    HOW[how](flights, flight)
    assert told(clients) == TURN
    counts = []
    while True:
        before = told(clients)
        if not turns.turn():
            break
        counts.append(told(clients) - before)
    assert max(counts) <= TURN
    expected = how if how in ("attach", "given") else Why(how)
    assert [client.told for client in clients] == [[expected]] * 1500
    assert not flight.due


def test_who_leaves_before_its_turn_is_not_told() -> None:
    flights, turns, flight, clients = in_turns(100)
    flights.storable(flight, "stream")
    for client in clients[TURN:]:
        assert flights.leave(flight, client)
    while turns.turn():
        pass
    assert [client.told for client in clients] == [["attach"]] * TURN + [[]] * (100 - TURN)
    assert not flights._calls


def test_those_who_are_due_keep_the_stream_of_a_flight_that_is_over() -> None:
    flights, turns, flight, clients = in_turns(100)
    streams: list[object] = []
    for client in clients:
        client.then = lambda found: streams.append(found and found.stream)
    flights.storable(flight, "stream")
    flights.end(flight, Outcome.STORED, 1)
    assert isinstance(flights.join("key", Client(), 1), Lead)
    while turns.turn():
        pass
    assert streams == ["stream"] * 100
    assert flight.stream is None


def test_the_next_one_leads_when_the_one_that_was_to_leaves() -> None:
    flights, turns, flight, _ = in_turns(3)
    other = flights.join("other", Client(), 0)
    assert isinstance(other, Lead)
    many = [Client() for _ in range(TURN)]
    for client in many:
        flights.join("other", client, 0)
    flights.end(other.flight, Outcome.UNCACHEABLE, 1)  # the turn is full
    first, second, third = (party for party in flight.waiting.values() if isinstance(party, Client))
    flights._calls._goes_on = True  # as while others are told
    turns.later(flights._calls._go_on)
    flights.end(flight, Outcome.FAILED, 1)
    assert flight.leader is first
    assert flights.leave(flight, first)
    while turns.turn():
        pass
    assert (first.told, second.told, third.told) == ([], ["lead"], [])
    assert flight.leader is second


class FlightMachine(RuleBasedStateMachine):
    """Two keys, any order of events. Each follower: one callback, or its own leave; and nobody is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.flights = Flights()
        self.now = 0.0
        self.leading: list[tuple[Flight, Client]] = []  # fetches under way and who makes them
        self.followers: list[tuple[Flight, Client, bool]] = []  # with: settled by what `join` said
        self.left: list[Client] = []
        self.rejoins = True

    @rule(key=st.sampled_from("ab"), variant=st.sampled_from(["g", "b"]), wait=st.sampled_from([1.0, 5.0]))
    def join(self, key: str, variant: str, wait: float) -> None:
        self.arrive(key, variant, wait)

    def arrive(self, key: str, variant: str, wait: float) -> None:
        client = Client(variant=variant)
        client.then = lambda found: self._settled(client, found)
        answer = self.flights.join(key, client, self.now, wait)
        if isinstance(answer, Lead):
            self.leading.append((answer.flight, client))
        elif isinstance(answer, Follow):
            self.followers.append((answer.flight, client, answer.flight.filling))

    def _settled(self, client: Client, found: Flight | None) -> None:
        if client.told[-1] == "lead":
            assert found is not None
            self.leading.append((found, client))
        if self.rejoins and self.now % 2:
            self.arrive("a", "g", 5.0)  # from within a callback

    @precondition(lambda self: self.leading)
    @rule(data=st.data(), variant=st.sampled_from(["g", "b"]))
    def storable(self, data: st.DataObject, variant: str) -> None:
        flight, _ = self.leading[data.draw(st.integers(0, len(self.leading) - 1))]
        if not flight.filling:
            self.flights.storable(flight, "stream", lambda party, late: getattr(party, "variant") == variant)  # noqa: B009

    @precondition(lambda self: self.leading)
    @rule(data=st.data(), outcome=st.sampled_from([one for one in Outcome if one is not Outcome.STORABLE]))
    def end(self, data: st.DataObject, outcome: Outcome) -> None:
        flight, _ = self.leading.pop(data.draw(st.integers(0, len(self.leading) - 1)))
        promotes = outcome is Outcome.FAILED and bool(flight.waiting)
        self.flights.end(flight, outcome, self.now)
        assert flight.over != promotes

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        flight, client, _ = self.followers[data.draw(st.integers(0, len(self.followers) - 1))]
        self.flights.leave(flight, client)
        self.left.append(client)

    @precondition(lambda self: self.leading)
    @rule(data=st.data())
    def leaders_client_goes(self, data: st.DataObject) -> None:
        flight, client = self.leading[data.draw(st.integers(0, len(self.leading) - 1))]
        self.left.append(client)
        assert self.flights.leave(flight, client) == bool(flight.waiting or flight.attached or flight.due)

    @rule()
    def take_turns(self) -> None:
        """All that wait, where there are any."""

    @rule(seconds=st.sampled_from([1.0, 2.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.flights.tick(self.now)

    @invariant()
    def each_follower_is_settled_once_or_still_waits(self) -> None:
        for flight, client, at_once in self.followers:
            waits = flight.waiting.get(id(client)) is client or id(client) in self.flights._calls._due
            settled = len(client.told) + at_once
            assert settled + waits == 1 or (client in self.left and settled + waits == 0)
            assert not (flight.waiting and flight.over)

    @invariant()
    def every_flight_of_the_table_has_a_fetch(self) -> None:
        led = {flight for flight, _ in self.leading}
        due = {flight for flight in self.flights._flights.values() if id(flight.leader) in self.flights._calls._due}
        assert not led & due
        assert set(self.flights._flights.values()) == led | due

    def teardown(self) -> None:
        """Whatever was going on: when the waits have run out, nobody waits any more."""
        self.rejoins = False
        self.take_turns()
        self.flights.tick(self.now + 1000)
        self.take_turns()
        assert all(client.told or at_once or client in self.left for _, client, at_once in self.followers)


class TurnsMachine(FlightMachine):
    """The same with one callback in each turn of a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = LaterTurns()
        self.flights.use_turns(self.turns.later)
        self.flights._calls.turn = 1

    @rule()
    def take_turns(self) -> None:
        while self.turns.turn():
            pass

    @rule()
    def take_one(self) -> None:
        self.turns.turn()


FlightMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TurnsMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestFlights = FlightMachine.TestCase
TestFlightsInTurns = TurnsMachine.TestCase


def test_markers_do_not_hold_the_keys() -> None:
    """A client's long URLs leave marks of one size."""
    flights = Flights()
    for number in range(20):
        lead = flights.join((b"%d" % number + b"x" * 8000, number), Client(), 0)
        assert isinstance(lead, Lead)
        flights.end(lead.flight, Outcome.UNCACHEABLE, 0)
    assert all(type(mark) is int for mark in flights._markers)
    assert flights.join((b"7" + b"x" * 8000, 7), Client(), 1) == Alone(Why.UNCACHEABLE)
    assert isinstance(flights.join((b"7" + b"x" * 8000, 8), Client(), 1), Lead)
