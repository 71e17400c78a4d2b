"""The supervisor's memory in the journal: each change as one transaction with its audit line, and read back at start.

One rule: the file says what a region or backend is, the journal adds those that were registered at run time and every
administrative state. A registration that the configuration no longer has a place for (its pool or region is gone, or
the file now names the same thing) stays in the journal, is passed over, and `passed_over` says why.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from edge.balance.health import Admin
from edge.cache.fleet.purges import UNREADABLE
from edge.cache.fleet.stream import StreamPlace
from edge.cache.purge import Purge, PurgeLog
from edge.config.loader import Config
from edge.config.sources import Sources
from edge.control.admin.errors import Refusal
from edge.control.fleet.host import Unsent
from edge.control.journal import AdminState, Journal, JournalError, Registration, Revision
from edge.control.membership import BackendEntry, Membership, OperatorDecision, RegionEntry, Source, of_file
from edge.control.purging import Order
from edge.control.registry import Change, backend_of, region_of

JOURNAL_FILE = "state.sqlite"
KEPT = 10_000  # rows of each log; older ones are dropped at start, when the purge log holds what purges said
SAVE_EVERY = 256  # purges that a start has to replay at most


class _Elsewhere:
    """Stands in for a journal that another process has."""

    def __init__(self, why: str) -> None:
        self._why = why

    def close(self) -> None:
        """Nothing is open."""

    def __getattr__(self, name: str) -> Any:
        raise JournalError(self._why)


class JournalStateStore:
    """`supervisor.SupervisorStore` over the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._path: Path | None = None
        self._saved = self._last = 0
        self.passed_over: list[str] = []
        self.failed: list[str] = []  # housekeeping that the disk refused; what it was for is there all the same

    @classmethod
    def open(cls, state: Path) -> JournalStateStore:
        """Open the journal of a state directory. Raises JournalError."""
        found = cls(Journal.open(state / JOURNAL_FILE))
        found._path = state / JOURNAL_FILE
        return found

    def freeze(self, why: str | None) -> None:
        """Give the journal to another process. Until `freeze(None)` every use of it is refused with this line.

        Raises JournalError when it cannot be taken back.
        """
        if why is not None:
            self._journal.close()
            self._journal = cast(Journal, _Elsewhere(why))
        elif self._path is not None:
            self._journal = Journal.open(self._path)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    # -- changes: registry.StateStore ----------------------------------------------------------------------------------

    def register(self, kind: str, name: str, values: dict[str, Any], change: Change) -> None:
        """Store a registration; durable when this returns."""
        journal = self._journal
        put = journal.put_region if kind == "region" else journal.put_backend
        with journal.transaction():
            put(name, values, change.actor, change.reason, change.expires_at)
            self._audit("register", kind, name, change, values)

    def unregister(self, kind: str, name: str, change: Change) -> None:
        """Remove a registration and its administrative state."""
        journal = self._journal
        with journal.transaction():
            (journal.delete_region if kind == "region" else journal.delete_backend)(name)
            journal.clear_admin_state(kind, name)
            self._audit("unregister", kind, name, change, None)

    def set_state(self, kind: str, name: str, state: Admin, change: Change) -> None:
        """Store an administrative state; durable when this returns."""
        journal = self._journal
        with journal.transaction():
            journal.set_admin_state(kind, name, state.value, change.actor, change.reason, change.expires_at)
            self._audit(state.value, kind, name, change, None)

    def note(self, action: str, name: str, change: Change, kind: str = "region") -> None:
        """Add an audit line."""
        self._audit(action, kind, name, change, None)

    def _audit(self, action: str, kind: str, name: str, change: Change, values: dict[str, Any] | None) -> None:
        detail = {"reason": change.reason, "forced": change.force, "expires_at": change.expires_at, "values": values}
        self._journal.audit(change.actor, f"{kind}.{action}", name, detail)

    # -- purges ----------------------------------------------------------------------------------------------------

    def record_purges(self, orders: Sequence[Order], place: StreamPlace | None) -> list[int | None]:
        """Their numbers, None for those that need not last; durable when this returns, all or none of them, and the
        place in the fleet's stream with them."""
        journal = self._journal
        numbers: list[int | None] = []
        if place is None and not any(order.lasting for order in orders):
            return [None] * len(orders)
        with journal.transaction():
            for order in orders:
                numbers.append(self._record(order) if order.lasting else None)
            if place is not None:
                self._keep(place=[place.history, place.position, place.mark])
        self._last = max((number for number in numbers if number is not None), default=self._last)
        return numbers

    def _record(self, order: Order) -> int:
        purge, change = order.purge, order.change
        target = f"{purge.kind.value} {purge.value.decode('latin-1')}".rstrip()
        detail = {"reason": change.reason, "soft": purge.soft}
        self._journal.audit(change.actor, "cache.purge", target, detail)
        if not order.own:
            return self._journal.append_purge(purge.to_dict())
        number = self._journal.append_purge({**purge.to_dict(), "own": [change.actor, change.reason]})
        if self._journal.fleet().get("unsent") is None:
            self._keep(unsent=number)
        return number

    # -- the fleet: control.fleet.machine.FleetStore -------------------------------------------------------------------

    def place(self) -> StreamPlace | None:
        """The place in the fleet's purge stream up to which purges are applied."""
        found = self._journal.fleet().get("place")
        return None if found is None else StreamPlace(str(found[0]), int(found[1]), str(found[2]))

    def keep_place(self, place: StreamPlace) -> None:
        """Store that place; durable when this returns."""
        self._keep(place=[place.history, place.position, place.mark])

    def unsent(self) -> list[Unsent]:
        """Purges that were carried out here alone; where some may have been trimmed, everything instead of them."""
        first = self._journal.fleet().get("unsent")
        if first is None:
            return []
        rows = self._journal.purges_since(int(first) - 1)
        found = [
            Unsent(row.id, Purge.from_dict(row.purge), *(str(word) for word in row.purge["own"]))
            for row in rows
            if "own" in row.purge
        ]
        if rows and rows[0].id > int(first):
            found.insert(
                0, Unsent(rows[0].id - 1, UNREADABLE, "fleet", "which purges were made here is not known any more")
            )
        if not found:
            self._keep(unsent=None)
        return found

    def sent(self, number: int) -> None:
        """Purges up to this number are in the fleet's stream."""
        self._keep(unsent=number + 1)

    def known_states(self) -> dict[str, Any]:
        """What is known of the states that machines share."""
        return dict(self._journal.fleet().get("states") or {})

    def keep_states(self, known: dict[str, Any]) -> None:
        """Store the shared states; durable when this returns."""
        self._keep(states=known)

    def _keep(self, **values: Any) -> None:
        self._journal.save_fleet({**self._journal.fleet(), **values})

    def save_purge_log(self, purge_log: PurgeLog, always: bool = False) -> None:
        """Spare the next start a long replay. A disk that refuses it fails nothing: the purges themselves are there."""
        if self._last - self._saved >= SAVE_EVERY or (always and self._last > self._saved):
            try:
                self._journal.save_purge_log({"number": self._last, "epochs": purge_log.to_dict()})
            except JournalError as error:
                self._note_failed(error)
            else:
                self._saved = self._last

    @property
    def history(self) -> str:
        """The id of this journal's purge history."""
        return self._journal.history

    def purge_log(self) -> PurgeLog:
        """All purges of earlier runs: the saved log and what was appended after them."""
        found = self._journal.load_purge_log()
        purge_log = PurgeLog() if found is None else PurgeLog.from_dict(found["epochs"])
        self._saved = self._last = 0 if found is None else int(found["number"])
        for record in self._journal.purges_since(self._saved):
            purge_log.record(Purge.from_dict(record.purge), record.at, record.id)
            self._last = record.id
        self.save_purge_log(purge_log, always=True)
        if self._saved == self._last:  # else the rows are still needed
            try:
                self._journal.trim(KEPT)
            except JournalError as error:
                self._note_failed(error)
        return purge_log

    def _note_failed(self, error: JournalError) -> None:
        if error.detail not in self.failed:
            self.failed.append(error.detail)

    # -- what is read back -----------------------------------------------------------------------------------------

    def membership(self, config: Config) -> Membership:
        """The file's entries and the journal's."""
        found = of_file(config)
        self.passed_over = []
        for registration in self._journal.regions().values():
            found = self._add(found, config, "region", registration)
        for registration in self._journal.backends().values():
            found = self._add(found, config, "backend", registration)
        for state in self._journal.admin_states(time.time()).values():
            found = _with_state(found, state)
        return found

    def _add(self, found: Membership, config: Config, kind: str, registration: Registration) -> Membership:
        name = registration.name
        try:
            if kind == "region":
                return _with_region(found, registration)
            return _with_backend(found, config, registration)
        except Refusal as error:
            self.passed_over.append(f"{kind} {name}, registered at run time: {error.detail}")
            return found

    def revision(self, sources: Sources) -> int:
        """Store an accepted configuration; returns its revision number."""
        return self._journal.record_revision(sources.text, dict(sources.files))

    def revisions(self, limit: int, newest: int | None = None) -> list[Revision]:
        """The accepted configurations, the newest first, from `newest` on."""
        return self._journal.revisions(limit, newest)

    def audit(self, limit: int, before: int | None = None) -> list[dict[str, Any]]:
        """The audit lines, the newest first; those with an id below `before`."""
        return [
            {
                "id": record.id,
                "at": record.at,
                "actor": record.actor,
                "action": record.action,
                "target": record.target,
                "detail": record.detail,
            }
            for record in self._journal.audit_log(limit, before)
        ]


def _decision_of(found: Registration | AdminState) -> OperatorDecision:
    return OperatorDecision(found.actor, found.reason, found.at, found.expires_at)


def _with_region(found: Membership, registration: Registration) -> Membership:
    name = registration.name
    if name in found.regions:
        raise Refusal("the configuration file has a region of this name, which counts")
    return found.with_region(
        RegionEntry(region_of(name, registration.data), Source.RUNTIME, registered=_decision_of(registration))
    )


def _with_backend(found: Membership, config: Config, registration: Registration) -> Membership:
    pool, _, identity = registration.name.partition("/")
    if pool not in config.pools:
        raise Refusal(f"the configuration file has no pool {pool} any more")
    if (pool, identity) in found.backends:
        raise Refusal("the configuration file has a backend of this name, which counts")
    spec = backend_of(pool, registration.data)
    if spec.region not in found.regions:
        raise Refusal(f"there is no region {spec.region} any more")
    if any(entry.spec.same_address(spec) for entry in found.of_pool(pool)):
        raise Refusal("the configuration file has a backend at this address, which counts")
    return found.with_backend(BackendEntry(spec, Source.RUNTIME, registered=_decision_of(registration)))


def _with_state(found: Membership, state: AdminState) -> Membership:
    """The operator's state, for an entry of either source; one for something that is gone waits in the journal."""
    admin, decision = Admin(state.state), _decision_of(state)
    if state.kind == "region":
        region = found.regions.get(state.name)
        return found if region is None else found.with_region(replace(region, admin=admin, decision=decision))
    pool, _, identity = state.name.partition("/")
    backend = found.backends.get((pool, identity))
    return found if backend is None else found.with_backend(replace(backend, admin=admin, decision=decision))
