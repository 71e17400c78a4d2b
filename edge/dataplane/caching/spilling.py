"""Where the body of a fill is kept while it streams: in memory, or on its way to the disk.

    up to 64 KiB               in memory, also where the memory tier has no room: it goes to the disk packed
    up to the memory's share   in memory, within its budget; written to the disk when it is whole
    larger, or no room         to the disk as it comes (`Spill`), never whole in memory

One rule: what is not kept in memory is dropped piece by piece when its followers have it, and the backend is held
back while the slowest of them, or the disk, does not keep up. What is set aside is given back piece by piece too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edge.cache.body import BodyFile
from edge.cache.flights import Outcome
from edge.cache.stored import Plan, build
from edge.dataplane.caching.origin_outcome import outrun
from edge.dataplane.caching.pieces import pump

if TYPE_CHECKING:
    from edge.dataplane.caching.filling import Filling

PACKED_BYTES = 64 * 1024
JOIN_BYTES = 64 * 1024  # a stored body up to here is kept as one piece


def kept(fill: Filling, data: bytes, total: int) -> bool:
    """Keep one more piece of a body, of which `total` bytes have arrived. False when there is no room."""
    store = fill.store
    if total > fill.rules.max_object_bytes or fill.plan is None:
        return False
    if fill.spill is not None:
        if fill.spill.failed:
            return False
        fill.spill.write(data)
        return True
    disk, announced = store.disk, fill.plan.length
    if (disk is None or max(total, announced or 0) <= store.share) and reserve(fill, len(data)):
        return True
    if disk is None or (total <= PACKED_BYTES and (announced is None or announced <= PACKED_BYTES)):
        return disk is not None
    fill.spill = spill = disk.spill(announced)
    spill.drained = partial(pump, fill)
    for chunk in fill.chunks:
        spill.write(chunk)
    spill.write(data)
    return True


def reserve(fill: Filling, count: int) -> bool:
    """Reserve memory. False when there is none."""
    if not fill.store.index.reserve(count, fill.store.clock()):
        return False
    fill.reserved += count
    return True


def unreserve(fill: Filling) -> None:
    """Give the reserved memory back."""
    if fill.reserved:
        fill.store.index.release(fill.reserved)
        fill.reserved = 0


def put(fill: Filling, plan: Plan) -> None:
    """The body is complete in memory: store it."""
    unreserve(fill)
    chunks = tuple(fill.chunks)
    if len(chunks) > 1 and sum(map(len, chunks)) <= JOIN_BYTES:
        chunks = (b"".join(chunks),)
    try:
        stored = build(plan, chunks)
    except ValueError:
        return  # not what its head announced: served as it came, never stored
    now = fill.store.clock()
    if outrun(fill, stored, now):
        return
    fill.store.put(stored, fill.seq, now)
    prefetcher = fill.exchange.routed.prefetcher
    if prefetcher is not None:
        prefetcher.served(fill.exchange, stored)


def finish(fill: Filling, plan: Plan) -> None:
    """The body is complete. The flight ends when the disk has it, so that nobody fetches it meanwhile."""
    assert fill.spill is not None
    fill.spill.drained = None
    fill.spill.finish(partial(_done, fill, plan))


def _done(fill: Filling, plan: Plan, file: BodyFile | None, temp: str) -> None:
    store, disk = fill.store, fill.store.disk
    fill.spill = None  # which knows the fill by this call
    if file is None or disk is None:
        fill.settle(Outcome.FAILED)
        return
    try:
        stored = build(plan, (), file)
    except ValueError:
        disk.forsake(temp)
        fill.settle(Outcome.FAILED)
        return
    now = store.clock()
    if outrun(fill, stored, now) or not disk.put(stored, fill.seq, temp):
        disk.forsake(temp)
    else:
        store.index.put(stored, now, fill.seq, min_uses=1)
    fill.settle(Outcome.STORED)


def give_up(fill: Filling) -> None:
    """Drop what was written to disk so far."""
    spill, fill.spill = fill.spill, None
    if spill is not None:
        spill.drained = None
        spill.abort()
