"""Coalescing: who fetches a key that is not stored, and what the others do for each way the fetch can end.

One flight per flight key (cache key + what is known of the variant): its leader fetches, followers wait. Pure: a party
is an opaque object with three callbacks; nothing here fetches, stores or reads a clock.

    how it ends      known when      waiting followers           attached followers        later requests
    STORABLE         leader's head   attach to the stream (1)    –                         attach while it fills (1)
    STORED           body's end      (none are left)             served by the stream      found in the index
    UNCACHEABLE      leader's head   all go alone, at once       –                         alone, for MARKER_TTL_S
    TOO_LARGE        head            all go alone, at once       –                         alone, for MARKER_TTL_S
                     in mid-body     –                           stay on the stream (2)    alone, for MARKER_TTL_S
    FAILED           before a head   the first one leads, the    –                         follow the new leader
                                     others wait on
                     in mid-body     –                           their stream aborts (2)   a new flight
    slow             wait limit      that one goes alone         –                         follow as before
    client gone      any time        the fill goes on while anybody else is in the flight; else `leave` says so

    (1) Those whom the response's Vary does not match are told OTHER_VARIANT: look up again with the variant known.
    (2) By the stream itself: it is never stored, and never ended as if whole.

The rule: each follower that waits is settled exactly once, by one callback or by its own `leave`. Callbacks run after
the table is in its next state and never inside one another, so that a party may join, fail or leave from within one,
and five hundred followers that fail one after the other need no deep stack. A few run at once; where many are due, the
rest is called in later turns (`calls`), and who leaves meanwhile is not. Those of a STORABLE flight who are still to be
called are its `due`: they begin with the first piece of its stream.

Markers are 64-bit marks of keys, whatever the keys' length, and bounded in number; the oldest gives way, which costs
one coalesced fetch and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from heapq import heappop, heappush
from typing import Protocol

from edge.cache.calls import Calls, Later

MARKER_TTL_S = 120.0
MAX_MARKERS = 8192
WAIT_S = 5.0
LIMITS = 200  # waits whose end is looked at in one go


class Outcome(Enum):
    """How the fetch of a flight ended, or that it turned out to be storable."""

    STORABLE = "storable"
    STORED = "stored"
    UNCACHEABLE = "uncacheable"
    TOO_LARGE = "too-large"
    FAILED = "failed"


class Why(Enum):
    """Why a request fetches alone, without sharing."""

    UNCACHEABLE = "uncacheable-memory"
    TOO_LARGE = "size"
    SLOW = "slow"
    OTHER_VARIANT = "vary"


class FlightMember(Protocol):
    """A request that leads or follows. A follower gets exactly one of the three calls, unless it leaves first."""

    def on_attach(self, flight: Flight) -> None:
        """The response is storable: take it from the flight's stream (`flight.stream`)."""

    def on_lead(self, flight: Flight) -> None:
        """The leader failed: fetch, and tell the table how it ends."""

    def on_alone(self, why: Why) -> None:
        """Fetch without regard to others (OTHER_VARIANT: look up again)."""


class Lone(Protocol):
    """A fetch that nobody follows yet. It has no flight until a second request asks for the same."""

    def share(self) -> object:
        """A second request wants the same response: make this fetch a flight, by `Flights.share`."""


Accepts = Callable[["FlightMember", bool], bool]  # whether it is for this one; True: who asked after the head came


class Flight:
    """One fetch that several requests share. `stream` is what followers attach to; whoever fills sets it."""

    __slots__ = (
        "accepts",
        "attached",
        "due",
        "failures",
        "filling",
        "key",
        "leader",
        "over",
        "since",
        "stream",
        "tags",
        "waiting",
    )

    def __init__(self, key: Hashable, leader: FlightMember) -> None:
        self.key = key
        self.leader: FlightMember | None = leader  # None: its client has gone, the fill goes on
        self.waiting: dict[int, FlightMember] = {}  # in the order they came; by id(), parties need not be hashable
        self.attached: dict[int, FlightMember] = {}
        self.due: dict[int, FlightMember] = {}  # who waited when it turned out storable, and was not called yet
        self.accepts: Accepts | None = None
        self.stream: object = None
        self.since = 0  # the purge sequence when its fetch started; set by whoever fetches
        self.tags: frozenset[bytes] = frozenset()  # of the response, once its head is there
        self.filling = False
        self.over = False
        self.failures = 0

    def __repr__(self) -> str:
        state = "over" if self.over else "filling" if self.filling else "asking"
        waiting = len(self.waiting) + len(self.due)
        return f"<Flight {self.key!r} {state}, {waiting} waiting, {len(self.attached)} attached>"


@dataclass(frozen=True, slots=True)
class Lead:
    """This request fetches; others may follow it."""

    flight: Flight


@dataclass(frozen=True, slots=True)
class Follow:
    """Wait for a callback. When `flight.filling` is set, take the stream now instead: no callback comes."""

    flight: Flight


@dataclass(frozen=True, slots=True)
class Alone:
    """Fetch without sharing."""

    why: Why


class Flights:
    """All flights of one worker. `now` is in seconds of any one clock."""

    def __init__(self, marker_ttl_s: float = MARKER_TTL_S, max_markers: int = MAX_MARKERS) -> None:
        self.marker_ttl_s = marker_ttl_s
        self.max_markers = max_markers
        self._flights: dict[Hashable, Flight] = {}
        self._lone: dict[Hashable, Lone] = {}
        self._markers: dict[int, tuple[float, Why]] = {}  # by the key's hash: until; the oldest first
        self._limits: list[
            tuple[float, int, Flight, FlightMember]
        ] = []  # a heap; settled ones leave it when their time comes
        self._count = 0
        self._calls: Calls[FlightMember] = Calls()
        self._later: Later | None = None

    def use_turns(self, later: Later) -> None:
        """Spread long work over several turns of the event loop, which `later` schedules."""
        self._later = self._calls.later = later

    def join(self, key: Hashable, me: FlightMember, now: float, wait_s: float = WAIT_S) -> Lead | Follow | Alone:
        """Decide whether a request that found nothing usable leads, follows or goes alone.

        A background refresh that would follow has nothing left to do and ends.
        """
        flight = self.find(key)
        if flight is None:
            marker = self._markers.get(hash(key))
            if marker is not None:
                if now < marker[0]:
                    return Alone(marker[1])
                del self._markers[hash(key)]
            self._flights[key] = flight = Flight(key, me)
            return Lead(flight)
        if flight.filling:
            if flight.accepts is not None and not flight.accepts(me, True):
                return Alone(Why.OTHER_VARIANT)
            flight.attached[id(me)] = me
            return Follow(flight)
        flight.waiting[id(me)] = me
        self._count += 1
        heappush(self._limits, (now + wait_s, self._count, flight, me))
        return Follow(flight)

    def may_go(self, key: Hashable, now: float) -> Why | bool:
        """True when a lone fetch may begin (`go`), False when somebody fetches the key already, otherwise why its
        requests are not shared.
        """
        if key in self._flights or key in self._lone:
            return False
        marker = self._markers.get(hash(key))
        if marker is not None:
            if now < marker[0]:
                return marker[1]
            del self._markers[hash(key)]
        return True

    def go(self, key: Hashable, me: Lone) -> None:
        """Begin a lone fetch."""
        self._lone[key] = me

    def share(self, key: Hashable, leader: FlightMember) -> Flight:
        """A lone fetch becomes a flight."""
        del self._lone[key]
        self._flights[key] = flight = Flight(key, leader)
        return flight

    def end_lone(self, key: Hashable, outcome: Outcome, now: float) -> None:
        """As `end`, for a lone fetch."""
        del self._lone[key]
        if outcome in _ALONE:
            self._mark(key, _ALONE[outcome], now)

    def storable(self, flight: Flight, stream: object, accepts: Accepts | None = None) -> None:
        """The response of a flight may be stored and `stream` will carry its body. `accepts` tells which followers
        its Vary matches.
        """
        if flight.over:
            return
        flight.filling, flight.stream, flight.accepts = True, stream, accepts
        self._markers.pop(hash(flight.key), None)
        flight.due, flight.waiting = flight.waiting, {}
        self._calls.add(flight.due, partial(self._attach, flight))
        self._calls.run()

    def _attach(self, flight: Flight, party: FlightMember) -> None:
        if flight.accepts is None or flight.accepts(party, False):
            flight.attached[id(party)] = party
            party.on_attach(flight)
        else:
            party.on_alone(Why.OTHER_VARIANT)
        self._clear(flight)

    def end(self, flight: Flight, outcome: Outcome, now: float) -> None:
        """The fetch of a flight ended without a storable response. A second or late call does nothing."""
        if flight.over:
            return
        if outcome is Outcome.FAILED and not flight.filling and flight.waiting:
            self._promote(flight)
        else:
            self._close(flight)
            if outcome in _ALONE:
                self._mark(flight.key, _ALONE[outcome], now)
            # Without an outcome that says why (a leader that stored without `storable`), look up again.
            self._alone(flight, _ALONE.get(outcome, Why.OTHER_VARIANT))
        self._calls.run()

    def answered(self, flight: Flight, give: Callable[[FlightMember], bool]) -> None:
        """The fetch ended with a response for those who wait: `give` is called for each, and returns False where it
        is not for that one.
        """
        if flight.over:
            return
        self._close(flight)
        waiting, flight.waiting = flight.waiting, {}
        self._calls.add(waiting, partial(_given, give))
        self._calls.run()

    def leave(self, flight: Flight, me: FlightMember) -> bool:
        """A request has left the flight, because its client is gone or it has all it wanted. Returns whether anybody is
        left; if not, the fetch may stop.

        Not for a request that leads and goes on: its fetch ends by `end`.
        """
        if flight.leader is me:
            flight.leader = None
        flight.waiting.pop(id(me), None)
        flight.attached.pop(id(me), None)
        if self._calls.drop(me) is _TO_LEAD:
            self._lead_next(flight)
        self._clear(flight)
        return bool(flight.leader or flight.waiting or flight.attached or flight.due)

    def _lead_next(self, flight: Flight) -> None:
        """The one that was to lead has left before it heard of it."""
        if flight.waiting:
            self._promote(flight)
            self._calls.run()
        else:
            self._close(flight)

    def find(self, key: Hashable) -> Flight | None:
        """The flight that a request for this key would join, or None. A lone fetch becomes a flight."""
        lone = self._lone.get(key)
        if lone is not None:
            lone.share()
        return self._flights.get(key)

    def detach(self, flight: Flight) -> None:
        """Let nobody join this flight any more, because a purge named its key. Its members stay, and the next
        request leads.
        """
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def tick(self, now: float) -> None:
        """Let requests go alone whose wait has reached its limit. To be called a few times a second."""
        limits, slow, looked = self._limits, dict[int, FlightMember](), 0
        while limits and limits[0][0] <= now and (looked < LIMITS or self._later is None):
            _, _, flight, party = heappop(limits)
            looked += 1
            if flight.waiting.get(id(party)) is party:
                slow[id(party)] = flight.waiting.pop(id(party))
        self._calls.add(slow, lambda party: party.on_alone(Why.SLOW))
        self._calls.run()
        if self._later is not None and limits and limits[0][0] <= now:
            self._later(partial(self.tick, now))

    def marker(self, key: Hashable, now: float) -> Why | None:
        """Why requests for a key are not shared at present; None when they are."""
        found = self._markers.get(hash(key))
        return found[1] if found is not None and now < found[0] else None

    def forget(self, key: Hashable) -> None:
        """A request that went alone got a storable response: share the key's requests again."""
        self._markers.pop(hash(key), None)

    def __len__(self) -> int:
        """Flights under way."""
        return len(self._flights) + len(self._lone)

    def __repr__(self) -> str:
        return f"<Flights {len(self)} under way, {len(self._markers)} markers>"

    def _promote(self, flight: Flight) -> None:
        party = flight.waiting.pop(next(iter(flight.waiting)))
        flight.leader = party
        flight.failures += 1
        flight.stream = None  # of the one that failed
        self._calls.add({id(party): party}, lambda party: party.on_lead(flight), _TO_LEAD)

    def _close(self, flight: Flight) -> None:
        flight.over = True
        flight.leader = None
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        self._clear(flight)

    def _clear(self, flight: Flight) -> None:
        """Whoever still knows a flight that is over holds no body by it; those who are due are to get it first."""
        if flight.over and not flight.due:
            flight.stream = flight.accepts = None
            flight.attached = {}

    def _alone(self, flight: Flight, why: Why) -> None:
        waiting, flight.waiting = flight.waiting, {}
        self._calls.add(waiting, lambda party: party.on_alone(why))

    def _mark(self, key: Hashable, why: Why, now: float) -> None:
        self._markers.pop(hash(key), None)
        if len(self._markers) >= self.max_markers:
            del self._markers[next(iter(self._markers))]
        self._markers[hash(key)] = (now + self.marker_ttl_s, why)


def _given(give: Callable[[FlightMember], bool], party: FlightMember) -> None:
    if not give(party):
        party.on_alone(Why.OTHER_VARIANT)


_TO_LEAD = object()
_ALONE = {Outcome.UNCACHEABLE: Why.UNCACHEABLE, Outcome.TOO_LARGE: Why.TOO_LARGE}
