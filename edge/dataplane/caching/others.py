"""What other machines stored: the tier that is asked last before an origin, and where this machine stands with them.

One rule: nobody waits for the others who need not. Not asked are a key that is being fetched here already, one that is
known not to be stored, and anything while the machine is not in step with the fleet's purges.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from edge.cache.fleet.record import SharedEntry
from edge.cache.fleet.view import StreamPurge
from edge.cache.purge import Purge
from edge.cache.selection import comparable
from edge.cache.stored import Stored, choice_of
from edge.dataplane.caching.purging import names_of
from edge.dataplane.caching.tiers import Merged, into_memory
from edge.dataplane.core.store import newer_of
from edge.errors import outcome_of
from edge.http.message import RequestHead

if TYPE_CHECKING:
    from edge.dataplane.core.context import WorkerContext
    from edge.dataplane.core.exchange import Exchange


def ask_others(exchange: Exchange, request: RequestHead, again: Callable[[], None]) -> bool:
    """Ask the shared tier; False when it was asked, and `again` is called when it has answered.

    What was found stands in `exchange.found` with the rest.
    """
    store, key, rules = exchange.worker.store, exchange.key, exchange.routed.rules
    assert store is not None and store.shared is not None and key is not None and rules is not None
    shared = store.shared
    exchange.asked_others = True
    if not shared.usable or store.flights.may_go(key, monotonic()) is not True:
        return True

    def come(entry: SharedEntry | None, by_name: bool = False) -> None:
        if exchange.ended:  # the client left meanwhile
            return
        try:
            if entry is not None and entry.stored is None and not by_name:
                vary = tuple((name, comparable(name, request.fields, rules)) for name in entry.names)
                if shared.look(key, choice_of(vary), lambda found: come(found, by_name=True)):
                    return
            _take(exchange, shared.left_of(entry) if entry is not None else None)
            again()
        except Exception as error:
            exchange.fail(outcome_of(error, exchange.worker.report_bug))

    return not shared.look(key, b"", come)


def _take(exchange: Exchange, stored: Stored | None) -> None:
    store, key = exchange.worker.store, exchange.key
    assert store is not None and key is not None
    here = store.index.peek(key)
    if here is not None or not isinstance(exchange.found, Merged):
        exchange.found = here
    if stored is None:
        return
    memory = exchange.found.variants if exchange.found is not None else ()
    newer = newer_of(memory, (stored,))
    if newer:
        store.shared_hits += 1
        exchange.found = into_memory(store, key, memory, newer)
        if store.disk is not None:
            store.disk.put(stored, store.purge_log.now_seq())


def follow(worker: WorkerContext, body: dict[str, Any]) -> None:
    """Where this machine stands in its fleet (a FLEET frame, or what the first frame has of it)."""
    store = worker.store
    if store is None:
        return
    load = body.get("load")
    if load is not None and store.shared is not None:
        purges = (
            StreamPurge(position, names_of(worker, Purge.from_dict(found)), at)
            for position, found, at in load["purges"]
        )
        store.shared.view.load(load["whole"], load["position"], purges)
    if "in_step" not in body:
        return
    store.may_be_blind_at = monotonic() + body["lease_s"]
    if body["blind"]:
        store.go_blind()
    elif body["in_step"]:
        store.blind = False
    worker.hold(body["catching_up"] and not store.blind)
    if store.shared is not None:
        store.shared.view.stands(body["in_step"], *body["line"])
        store.shared.view.offset_s = body["offset_s"]
