"""Administrative states and registrations that the machines of a fleet share.

    a change here ─► journal, as always ─► owed ─► its number ─► the others' next beat ─► carried out there

One rule: of two changes of one thing the one with the higher number is in force, on every machine. A change that was
made while the server was away gets its number when it is back; if others changed the same thing meanwhile, that is
told. What is known is kept in the journal, so that a server that lost it, or a primary that lacks the last of it, gets
it back. What was registered and is removed has no state any more: one that is registered again under the name begins
anew everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from edge.cache.fleet.machines import SILENT_S, Machines
from edge.cache.fleet.record import sealed, unsealed
from edge.errors import EdgeError

MAX_BYTES = 16 * 1024
REMOVED = "removed"
ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class SharedChange:
    """What became of one region or backend. `aspect` is "state" or "registration"; `value` is an administrative state,
    the values of a registration, or `REMOVED`."""

    aspect: str
    kind: str  # "region" or "backend"
    name: str
    value: Any
    actor: str
    reason: str
    expires_at: float | None
    machine: str

    @property
    def field(self) -> str:
        """What it is a change of: the last one of a field counts."""
        return f"{self.aspect}:{self.kind}:{self.name}"

    @property
    def ends(self) -> str:
        """The field that is no more with this change: the state of what is removed. Empty for any other change."""
        return f"state:{self.kind}:{self.name}" if self.value == REMOVED and self.aspect == "registration" else ""

    def plain(self) -> dict[str, Any]:
        """The change as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> SharedChange:
        """From JSON values. Raises ValueError, KeyError or TypeError where they are none."""
        words = [found[name] for name in ("aspect", "kind", "name", "actor", "reason", "machine")]
        if not all(isinstance(word, str) and len(word) <= 500 for word in words):
            raise ValueError("words")
        aspect, kind, name, actor, reason, machine = words
        if aspect not in ("state", "registration") or kind not in ("region", "backend"):
            raise ValueError("what it is of")
        expires_at = found["expires_at"]
        value = found["value"]
        if not isinstance(value, dict if aspect == "registration" and value != REMOVED else str):
            raise ValueError("value")
        return cls(aspect, kind, name, value, actor, reason, None if expires_at is None else float(expires_at), machine)


class StatesServer(Protocol):
    """Where the changes are. Every call is bounded in time and raises FleetAway."""

    async def states(self) -> tuple[str, dict[str, tuple[int, bytes]]]:
        """The name of this collection (another one: it was lost), and every field's number and value."""

    async def set_state(self, field: str, value: bytes, newer_than: int | None, instead_of: str = "") -> int:
        """Give a field a value; its number, or 0. With `newer_than`, only if what is there has a lower number.
        The field `instead_of` goes with it."""

    async def close(self) -> None:
        """Close the connections."""


class StatesHost(Protocol):
    """Who carries changes out on this machine, and remembers them."""

    async def carry_out(self, change: SharedChange) -> None:
        """Carry a change out as if an operator had made it here. Raises EdgeError."""

    def known_states(self) -> dict[str, Any]:
        """What `keep_states` was given last."""

    def keep_states(self, known: dict[str, Any]) -> None:
        """Keep this; durable when it returns. Raises EdgeError."""

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        """Tell the operator."""


class States:
    """The shared states as one machine knows them (`host.Companion`)."""

    def __init__(
        self, server: StatesServer, host: StatesHost, machines: Machines, key: bytes, hurry: Callable[[], None]
    ) -> None:
        self._server = server
        self._host = host
        self._machines = machines
        self._key = key
        self._hurry = hurry
        found = host.known_states()
        self._name: str = found.get("name", "")
        self._known: dict[str, tuple[int, SharedChange]] = {
            field: (int(number), SharedChange.of(value)) for field, (number, value) in found.get("known", {}).items()
        }
        self._owed = {field: SharedChange.of(value) for field, value in found.get("owed", {}).items()}
        self._unreadable: dict[str, bytes] = {}  # what was told of already
        self._line = ("", "")  # in which it was exchanged last
        self._now_line = ("", "")
        self._wake = asyncio.Event()

    @property
    def number(self) -> int:
        """The number of the last change that is carried out here."""
        return max((number for number, _ in self._known.values()), default=0)

    @property
    def owed(self) -> int:
        """How many changes are still to be sent."""
        return len(self._owed)

    def changed(self, change: SharedChange) -> None:
        """Somebody changed this here; durable when it returns. Raises EdgeError."""
        before = self._owed.pop(change.field, None)
        self._forget(change.ends)
        self._owed[change.field] = change
        if before is not None and before.ends and not change.ends:  # the others never hear that it was away
            begins = replace(change, aspect="state", value=ACTIVE)
            self._owed[begins.field] = begins
        self._keep()
        self._wake.set()

    # -- Companion -----------------------------------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        """As `Companion.told`."""
        return {"states": self.number}

    def look(self, line: tuple[str, str], now: float) -> None:
        """As `Companion.look`: exchange when the line is another, something is owed, or somebody is further."""
        others = (machine.facts.get("states") for machine, silent_s in self._machines.all(now) if silent_s <= SILENT_S)
        further = any(isinstance(number, int) and number > self.number for number in others)
        if line != self._line or self._owed or further:
            self._wake.set()
        self._now_line = line

    async def close(self) -> None:
        """As `Companion.close`."""
        await self._server.close()

    async def run(self) -> None:
        """As `Companion.run`."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            line = self._now_line
            if not line[0]:
                continue  # not in step; `look` comes again
            try:
                await self.exchange()
            except EdgeError:
                continue  # as above
            self._line = line

    async def exchange(self) -> None:
        """Send what is owed, carry out what is newer. Raises FleetAway, and EdgeError where the journal refuses."""
        name, found = await self._server.states()
        sent = await self._give_back(name, found)
        self._owe_states(found)
        for field, change in list(self._owed.items()):
            before = found.get(field)
            if before is not None and self._loads(field, before[1]) == change:
                number = before[0]  # it was sent, and the journal did not come to know
            else:
                number = await self._server.set_state(field, self._dumps(change), None, change.ends)
            self._tell_conflict(change, before)
            self._known[field] = (number, change)
            if self._owed.get(field) is change:
                del self._owed[field]
            sent = True
        if sent:
            self._keep()
            self._hurry()
            name, found = await self._server.states()
        await self._take(name, found)

    async def _give_back(self, name: str, found: Mapping[str, tuple[int, bytes]]) -> bool:
        """What the server has lost; whether there was something."""
        given = False
        for field, (number, change) in list(self._known.items()):
            there = found.get(field, (0, b""))[0]
            if there and (name != self._name or there >= number):
                continue
            if not there and self._was_removed(change, number, name, found):
                continue
            bound = number if name == self._name else 1
            got = await self._server.set_state(field, self._dumps(change), bound, change.ends)
            if got:
                self._known[field] = (got, change)
                given = True
        return given

    def _owe_states(self, found: Mapping[str, tuple[int, bytes]]) -> None:
        """Of what was changed here while others removed it: a registration begins anew there, and gets the state that
        it has here; a state has nothing any more that it is of."""
        for change in list(self._owed.values()):
            registration, state = (f"{aspect}:{change.kind}:{change.name}" for aspect in ("registration", "state"))
            there = self._loads(registration, found[registration][1]) if registration in found else None
            if there is None or not there.ends or change.ends:
                continue
            if registration not in self._owed:
                del self._owed[state]
                self._tell_conflict(change, found[registration])
            elif state in self._known and state not in found:
                self._owed.setdefault(state, self._known[state][1])

    def _was_removed(
        self, change: SharedChange, number: int, name: str, found: Mapping[str, tuple[int, bytes]]
    ) -> bool:
        """Whether a state is missing in the server because what had it was removed, not because the server lost it."""
        field = f"registration:{change.kind}:{change.name}"
        if change.aspect != "state" or field not in found:
            return False
        later, value = found[field]
        registration = self._loads(field, value)
        return (name == self._name and later > number) or (registration is not None and registration.value == REMOVED)

    def _forget(self, field: str) -> None:
        """What had this state is removed."""
        self._known.pop(field, None)
        self._owed.pop(field, None)

    async def _take(self, name: str, found: Mapping[str, tuple[int, bytes]]) -> None:
        newer = [
            (number, field, value)
            for field, (number, value) in found.items()
            if name != self._name or self._is_news(field, number, value)
        ]
        if not newer and name == self._name:
            return
        ended = [
            change
            for field, (number, change) in self._known.items()
            if field not in found and self._was_removed(change, number, name, found)
        ]
        self._name = name
        for number, field, value in sorted(newer, key=_in_order):
            change = self._loads(field, value)
            if change is None:
                if self._unreadable.get(field) != value:
                    self._host.event("fleet.garbled", {"field": field[:200]})
                self._unreadable[field] = value
                continue
            before = self._known.get(field)
            self._known[field] = (number, change)
            self._forget(change.ends)
            if (before is not None and before[1] == change) or field in self._owed:
                continue  # known, or changed here meanwhile: that comes later
            await self._carry_out(change)
        for change in ended:
            if change.field in self._known and change.field not in self._owed:  # registered again meanwhile
                self._forget(change.field)
                await self._carry_out(replace(change, value=ACTIVE))
        self._keep()

    async def _carry_out(self, change: SharedChange) -> None:
        try:
            await self._host.carry_out(change)
        except EdgeError as error:
            facts = {"what": change.field, "machine": change.machine, "evidence": error.detail}
            self._host.event("fleet.not_carried_out", facts)

    def _is_news(self, field: str, number: int, value: bytes) -> bool:
        """A server that went back gives numbers again."""
        known = self._known.get(field)
        return known is None or number > known[0] or (number == known[0] and self._loads(field, value) != known[1])

    def _tell_conflict(self, change: SharedChange, before: tuple[int, bytes] | None) -> None:
        """Somebody else changed it too, and we had not heard of that."""
        known = self._known.get(change.field, (0, None))[0]
        other = None if before is None or before[0] <= known else self._loads(change.field, before[1])
        if other is not None and other.value != change.value:
            facts = {"what": change.field, "machine": other.machine, "actor": other.actor, "was": other.value}
            self._host.event("fleet.conflict", {**facts, "is": change.value, "evidence": "the later one counts"})

    def _dumps(self, change: SharedChange) -> bytes:
        return sealed(orjson.dumps(change.plain()), self._key)

    def _loads(self, field: str, value: bytes) -> SharedChange | None:
        text = unsealed(value, self._key) if len(value) <= MAX_BYTES else None
        try:
            change = None if text is None else SharedChange.of(orjson.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return change if change is not None and change.field == field else None

    def _keep(self) -> None:
        known = {field: [number, change.plain()] for field, (number, change) in self._known.items()}
        owed = {field: change.plain() for field, change in self._owed.items()}
        self._host.keep_states({"name": self._name, "known": known, "owed": owed})


def _in_order(news: tuple[int, str, bytes]) -> tuple[bool, int]:
    """What is registered first, then its state, whichever was changed last."""
    number, field, _ = news
    return field.startswith("state:"), number
