"""Restoring a point.

    lock (shared) ─► point ─► table ─► new directory: journal, files, cache ─► check ─► fsync ─► switch ─► old one kept

One rule: nothing that is there is changed before the new directory was checked as a whole; then one instant decides.
Everything is compared with what the point says of it while it is read, so that a damaged repository ends a restore and
never makes a damaged state.

A purge that was acknowledged after the point was taken must not be undone. Where the journal of what is replaced can
be read, and is of the point's history, its later purges are replayed. Where not, the cached bodies are of no proven
purge state: each is kept for revalidation only (`Warm.rebuild` with `distrust`).

Bodies may stay behind (`Target.later`): everything else is restored and checked as ever, and each body is compared with
its name when it comes. What a request wants before that comes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import orjson

from edge.errors import ChecksumMismatch, RestoreRefused
from edge.recovery.format import BodyPlace
from edge.recovery.points import Point, closure, point_at
from edge.recovery.table import Entry, Table, blobs
from edge.sidecar import switch
from edge.sidecar.locks import locked
from edge.sidecar.source import CACHE, Rebuilt, State, Warm
from edge.sidecar.take import Work

NOTE = "restored.json"
JOURNAL_NAMES = ("state.sqlite", "state.sqlite.lock", "restored", NOTE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to restore to. `replace`: keep what is there beside it; else the directory must be missing or empty."""

    state: Path
    cache: Path | None = None  # None: bodies are not restored
    replace: bool = False
    survivor: Path | None = None
    rehearsal: bool = False
    later: bool = False


@dataclass(slots=True)
class Restored:
    """The result of a restore."""

    point: Point
    state: Path
    rebuilt: Rebuilt
    bodies: int = 0
    awaited_bytes: int = 0  # of bodies that come later
    kept: list[Path] = field(default_factory=list)  # where the old directories are
    seconds: float = 0.0


def chosen(points: dict[str, Point], wanted: str | None, at: float | None) -> Point:
    """The point that is meant. Raises NoRecoveryPoint."""
    if wanted is None:
        return point_at(points, at)
    return closure(points, wanted)[-1]


def restore(
    work: Work, state: State, warm: Warm | None, choose: Callable[[dict[str, Point]], Point], target: Target
) -> Restored:
    """Restore the point that `choose` picks. Raises RecoveryError; then everything is as it was."""
    begun = monotonic()
    refuse_unfit(target)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(work.wall()))
    with locked(work.vault.repository, exclusive=False, purpose="restoring") as lock:
        points = work.vault.points()
        point = choose(points)
        table, places = work.vault.table(points, point.id)
        kept = switch.tidy(target.state, stamp)
        fresh = switch.begin(target.state)
        lock.keep()
        rebuilt = state.rebuild(point, table, _reader(work, places), fresh, target.survivor)
        note = {"point": point.id, "at": work.wall(), "history": rebuilt.history, "gap": rebuilt.gap}
        (fresh / NOTE).write_bytes(orjson.dumps(note))
        state.load(fresh, table)
        found = Restored(point, target.state, rebuilt, kept=kept)
        if warm is not None and target.cache is not None:
            found.bodies = _restore_cache(work, warm, table, places, target, fresh, rebuilt, stamp, found)
        if target.replace and target.state.is_dir():
            switch.carry_over(target.state, fresh, JOURNAL_NAMES, target.cache)
        # The cache need not be durable: each of its records has a checksum, and what a power cut took is a miss.
        switch.sync_tree(fresh, _inside(target, fresh))
        old = switch.finish(fresh, target.state, stamp)
        found.kept += [old] if old is not None else []
        found.seconds = monotonic() - begun
        return found


def refuse_unfit(target: Target) -> None:
    """Raises RestoreRefused when the target may not be restored to."""
    for path in (target.state, target.cache):
        if path is not None and path.exists() and not path.is_dir():
            raise RestoreRefused(f"{path} is no directory: give another one with --to")
    if not target.replace and target.state.exists() and any(target.state.iterdir()):
        raise RestoreRefused(f"{target.state} is not empty: give a new directory with --to; nothing was changed")


def _reader(work: Work, places: dict[bytes, BodyPlace]) -> Callable[[Entry], bytes]:
    def read(entry: Entry) -> bytes:
        place = places.get(entry.blob)
        if place is None:
            raise ChecksumMismatch("the point speaks of a body that it does not hold: restore an older point")
        return work.vault.body(entry.blob, place)

    return read


def _restore_cache(
    work: Work,
    warm: Warm,
    table: Table,
    places: dict[bytes, BodyPlace],
    target: Target,
    fresh: Path,
    rebuilt: Rebuilt,
    stamp: str,
    found: Restored,
) -> int:
    """Cached bodies, in a directory of their own, or inside the state's where the cache is there."""
    assert target.cache is not None
    inside = _inside(target, fresh)
    if inside is not None:
        folder = inside
        folder.mkdir(parents=True, exist_ok=True)
    else:
        found.kept += switch.tidy(target.cache, stamp)
        folder = switch.begin(target.cache)
    entries = {name: entry for name, entry in table.items() if name.startswith(CACHE)}
    distrust = rebuilt.gap and not target.rehearsal
    number = rebuilt.purge_number
    if target.later and warm.expect(entries, folder, number, distrust, found.point.id):
        count, found.awaited_bytes = len(entries), sum(blobs(entries.values()).values())
    else:
        count = warm.rebuild(entries, _bodies(work, entries, places), folder, number, distrust)
    warm.adopt(folder, rebuilt.history)
    if inside is None:
        # The cache first: a kill in between leaves it beside the older journal, which knows at least as many purges.
        old = switch.finish(folder, target.cache, stamp)
        found.kept += [old] if old is not None else []
    return count


def _inside(target: Target, fresh: Path) -> Path | None:
    """Where the new cache is built when it belongs into the state directory."""
    if target.cache is None or target.state not in target.cache.parents:
        return None
    return fresh / target.cache.relative_to(target.state)


def _bodies(work: Work, entries: Table, places: dict[bytes, BodyPlace]) -> Iterator[tuple[bytes, bytes]]:
    """The bodies that entries speak of, each once, in the order in which they lie."""
    wanted = {entry.blob for entry in entries.values() if entry.blob}
    done, whole = 0, sum(places[blob].size for blob in wanted)
    for blob, body in work.vault.bodies({blob: places[blob] for blob in wanted}):
        done += len(body)
        work.progress("bodies", done, whole)
        work.pace.step()
        yield blob, body
