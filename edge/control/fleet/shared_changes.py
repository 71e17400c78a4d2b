"""An operator's changes on their way to the fleet's other machines, and theirs on this one.

One rule: what came from another machine is not sent on. A time that is over ends a change on each machine by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any, Protocol

from edge.balance.health import Admin
from edge.control.fleet.states import REMOVED, SharedChange
from edge.control.registry import EXPIRY, Change, Registry, StateStore
from edge.errors import EdgeError

if TYPE_CHECKING:
    from edge.control.supervisor import Supervisor


class KnownStates(Protocol):
    """Where what is known of shared states is durable."""

    def known_states(self) -> dict[str, Any]: ...
    def keep_states(self, known: dict[str, Any]) -> None: ...


class TellingStore:
    """A store of changes that tells of each one made here, once it is durable."""

    def __init__(self, store: StateStore, machine: str, tell: Callable[[SharedChange], None]) -> None:
        self._store = store
        self._machine = machine
        self._tell = tell

    def register(self, kind: str, name: str, values: dict[str, Any], change: Change) -> None:
        """As `StateStore.register`."""
        self._store.register(kind, name, values, change)
        self._told("registration", kind, name, values, change)

    def unregister(self, kind: str, name: str, change: Change) -> None:
        """As `StateStore.unregister`."""
        self._store.unregister(kind, name, change)
        self._told("registration", kind, name, REMOVED, change)

    def set_state(self, kind: str, name: str, state: Admin, change: Change) -> None:
        """As `StateStore.set_state`."""
        self._store.set_state(kind, name, state, change)
        self._told("state", kind, name, state.value, change)

    def note(self, action: str, name: str, change: Change, kind: str = "region") -> None:
        """As `StateStore.note`."""
        self._store.note(action, name, change, kind)

    def _told(self, aspect: str, kind: str, name: str, value: Any, change: Change) -> None:
        if not change.from_fleet and change.actor != EXPIRY:
            words = (change.actor, change.reason, change.expires_at)
            self._tell(SharedChange(aspect, kind, name, value, *words, self._machine))


class ChangesHost:
    """`states.StatesHost` over the supervisor."""

    def __init__(self, supervisor: Supervisor, store: KnownStates) -> None:
        self._supervisor = supervisor
        self.known_states, self.keep_states = store.known_states, store.keep_states
        self.event = supervisor.events.add

    async def carry_out(self, change: SharedChange) -> None:
        """As `StatesHost.carry_out`."""
        if change.expires_at is not None and change.expires_at <= time():
            return
        by = Change(f"{change.actor} on {change.machine}", change.reason, True, change.expires_at, from_fleet=True)
        try:
            await _carry_out(self._supervisor.registry, change, by)
        except ValueError as error:
            raise EdgeError(f"cannot be read: {error}") from None


async def _carry_out(registry: Registry, change: SharedChange, by: Change) -> None:
    pool, _, identity = change.name.partition("/")
    key = (pool, identity)
    if change.aspect == "state" and change.kind == "region":
        await registry.set_region_state(change.name, Admin(change.value), by)
    elif change.aspect == "state":
        await registry.set_backend_state(key, Admin(change.value), by)
    elif change.value == REMOVED and change.kind == "region":
        await registry.remove_region(change.name, by)
    elif change.value == REMOVED:
        await registry.remove_backend(key, by)
    elif change.kind == "region":
        await registry.put_region(change.name, change.value, by)
    else:
        await registry.put_backend(pool, identity, change.value, by)
