"""The two tiers as one store for a look-up: memory first, then the disk, before anybody asks an origin.

One rule: a fresh hit in memory never comes here. Whatever memory cannot answer by itself is looked up on the disk once
for a request; what is newer there is taken into memory, or used as it is where memory has no room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge.cache.index import Group, Node
from edge.cache.stored import Stored
from edge.dataplane.core.store import newer_of, together, trusted
from edge.errors import outcome_of

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.store import Store, trusted


class Merged(Group[Stored]):
    """What both tiers have for a key, where memory cannot hold it all."""

    __slots__ = ()

    def __init__(self, variants: tuple[Stored, ...]) -> None:
        self.nodes = ()
        self.variants = variants
        self.seq = 0
        self.freq = 1 << 30


def from_disk(store: Store, key: bytes) -> Stored | None:
    """The one response of a key that memory has nothing of, where it is at hand and answers anybody; counted as used.

    What else was found is left for `consult`, which comes next for the same request.
    """
    disk = store.disk
    assert disk is not None
    found = trusted(store, disk.look(key))
    if found is None:
        return None
    if len(found) == 1 and found[0].simple and found[0].is_fresh(store.clock()):
        stored = found[0]
        store.disk_hits += 1
        disk.used(stored)
        if store.index.fits(stored):
            store.index.put(stored, store.clock(), store.purge_log.now_seq(), min_uses=1)
        return stored
    store.looked = (key, found)
    return None


def consult(exchange: Exchange, again: Callable[[], None]) -> bool:
    """Look on the disk; False when that takes a thread, and `again` is called when it is done.

    What was found that memory has not stands in `exchange.from_disk`, and in `exchange.found` with the rest.
    """
    store, key = exchange.worker.store, exchange.key
    assert store is not None and store.disk is not None and key is not None
    exchange.asked_disk = True
    looked, store.looked = store.looked, None
    found = looked[1] if looked is not None and looked[0] == key else trusted(store, store.disk.look(key))
    if found is not None:
        if found:
            _take(exchange, store, key, found)
        return True

    def come(found: tuple[Stored, ...]) -> None:
        if exchange.ended:  # the client left meanwhile
            return
        try:
            exchange.found = store.index.peek(key)
            _take(exchange, store, key, trusted(store, found) or ())
            again()
        except Exception as error:
            exchange.fail(outcome_of(error, exchange.worker.report_bug))

    store.disk.look_later(key, come)
    return False


def _take(exchange: Exchange, store: Store, key: bytes, found: Sequence[Stored]) -> None:
    here = exchange.found
    newer = newer_of(here.variants if here is not None else (), found)
    if newer:
        exchange.from_disk = newer
        exchange.found = into_memory(store, key, here.variants if here is not None else (), newer)


def into_memory(
    store: Store, key: bytes, memory: Sequence[Stored], newer: Sequence[Stored]
) -> Node[Stored] | Group[Stored] | None:
    """Take into memory what came from the disk, together with everything that is known of the key."""
    now, seq = store.clock(), store.purge_log.now_seq()
    all_kept = True
    for one in reversed(newer):
        if not store.index.fits(one):
            all_kept = False
            continue
        all_kept = store.index.put(one, now, seq, min_uses=1).ok and all_kept
    return store.index.peek(key) if all_kept else Merged(together(memory, newer))
