"""Taking a point.

    lock (shared) ─► points ─► base ─► capture ─► packs ─► index ─► check lock ─► manifest ─► read back

One rule: the manifest comes last. Until it is there the point does not exist, and everything before it is files that
nobody speaks of, which the next expiry removes; so a kill at any step harms no point. Nothing that another point uses
is ever written to.

A body that the repository holds already is not copied again. A full point makes one exception: what lies in packs that
it would use by less than half is written anew, so that old packs can go when the points that need them go.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from edge import __version__
from edge.errors import ChainBroken, ChecksumMismatch, ClockJumped
from edge.recovery import format as form
from edge.recovery.format import BodyPlace
from edge.recovery.points import Base, Point, PointKind, StoredFile, base_for, newest_first
from edge.recovery.table import Delta, Table, blobs, delta, digest
from edge.sidecar.locks import Lock, locked
from edge.sidecar.pace import Pace
from edge.sidecar.source import Captured, ReadBody
from edge.sidecar.vault import Vault

PACK_BYTES = 16 * 1024 * 1024
LONGEST_CHAIN = 48

Progress = Callable[[str, int, int], None]  # what is done, bytes so far, bytes in all


def silent(phase: str, done: int, whole: int) -> None:
    """Discards progress reports."""


@dataclass(slots=True)
class Taken:
    """A new point, and how it came about."""

    point: Point
    new_bodies: int = 0
    removed_locks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Work:
    """What a job works with. `wall` returns epoch seconds."""

    vault: Vault
    pace: Pace
    wall: Callable[[], float]
    progress: Progress = silent
    longest_chain: int = LONGEST_CHAIN


def take(work: Work, kind: PointKind, capture: Callable[[], Captured]) -> Taken:
    """Take a point. Raises RecoveryError; then there is no new point, and no old one was touched."""
    vault = work.vault
    with locked(vault.repository, exclusive=False, purpose=f"taking a {kind.value} point") as lock:
        points = vault.points()
        captured = capture()
        _check_clock(points, captured.taken_at)
        packs = vault.packs()
        start = _start(work, points, packs, base_for(points, kind, captured.history, work.longest_chain))
        held = start.places if start.base.parent is not None else _worth_keeping(vault, points, packs, captured.table)
        table, left_out, packer = _store_bodies(work, lock, captured, start.table, held)
        change = delta(start.table, table)
        used = {blob: packer.places.get(blob) or held[blob] for blob in blobs(change.put.values())}
        sizes = packs | packer.sizes
        index = _store_index(work, lock, change, used, sizes)
        point = replace(
            _described(captured, start.base, table),
            index=index,
            packs=tuple(StoredFile(pack.hex(), sizes[pack]) for pack in sorted({at.pack for at in used.values()})),
            written=packer.written + sum(file.size for file in index),
            left_out=left_out,
        )
        lock.check()
        return Taken(vault.publish(point), len(packer.places), lock.removed)


def _check_clock(points: Mapping[str, Point], now: float) -> None:
    newest = newest_first(points.values())[:1]
    if newest and now < newest[0].taken_at:
        raise ClockJumped(
            f"the clock is {newest[0].taken_at - now:.0f} s before point {newest[0].id}: set it right; "
            f"if it is that point's time that is wrong, delete the file points/{newest[0].id}"
        )


@dataclass(slots=True)
class _Start:
    """What a point builds on: the table there was, and where its bodies are."""

    base: Base
    table: Table = field(default_factory=dict)
    places: dict[bytes, BodyPlace] = field(default_factory=dict)


def _start(work: Work, points: Mapping[str, Point], packs: Mapping[bytes, int], base: Base) -> _Start:
    """Read what is built on. If it turns out to be damaged that is noted, and the point becomes full."""
    if base.parent is None:
        return _Start(base)
    try:
        table, places = work.vault.table(points, base.parent.id)
        for file in (file for link in base.needs for file in points[link].packs):
            if packs.get(bytes.fromhex(file.name)) != file.size:
                raise ChecksumMismatch(f"packs/{file.name} is missing or cut")
        return _Start(base, table, places)
    except (ChainBroken, ChecksumMismatch) as error:
        work.vault.note(base.parent.id, work.wall(), "corrupt", {"why": error.detail})
        return _Start(Base(PointKind.FULL, promoted=f"{base.parent.id} cannot be built on: {error.detail}"))


def _worth_keeping(
    vault: Vault, points: Mapping[str, Point], packs: Mapping[bytes, int], table: Table
) -> dict[bytes, BodyPlace]:
    """Bodies that a full point need not write: those of the newest readable point, in packs that it uses well."""
    known: dict[bytes, BodyPlace] = {}
    for point in newest_first(points.values()):
        try:
            _, known = vault.table(points, point.id)
            break
        except (ChainBroken, ChecksumMismatch):
            continue  # what cannot be read cannot be used again
    wanted = blobs(table.values())
    known = {blob: place for blob, place in known.items() if blob in wanted}
    use: dict[bytes, int] = {}
    for place in known.values():
        use[place.pack] = use.get(place.pack, 0) + place.stored
    return {blob: place for blob, place in known.items() if 0 < packs.get(place.pack, 0) <= use[place.pack] * 2}


def _store_bodies(
    work: Work, lock: Lock, captured: Captured, before: Table, held: Mapping[bytes, BodyPlace]
) -> tuple[Table, tuple[str, ...], _Packer]:
    """Write what the repository has not; the table without entries whose bodies could not be had."""
    packer = _Packer(work, lock)
    changed = blobs(entry for name, entry in captured.table.items() if before.get(name) != entry)
    gone = packer.store({blob: size for blob, size in changed.items() if blob not in held}, captured.body)
    if not gone:
        return captured.table, captured.left_out, packer
    table = {name: entry for name, entry in captured.table.items() if entry.blob not in gone}
    why = f"{len(gone)} bodies that were evicted meanwhile, or are damaged in the cache"
    return table, (*captured.left_out, why), packer


class _Packer:
    """Writes bodies into packs."""

    def __init__(self, work: Work, lock: Lock) -> None:
        self._work, self._lock = work, lock
        self._pieces: list[bytes] = []
        self._held: list[tuple[bytes, int, int, int]] = []  # blob, offset, stored, size
        self._length = form.HEAD_BYTES
        self.places: dict[bytes, BodyPlace] = {}
        self.sizes: dict[bytes, int] = {}
        self.written = 0

    def store(self, wanted: Mapping[bytes, int], read: ReadBody) -> set[bytes]:
        """Store bodies; those that could not be read, or are not what they should be."""
        gone: set[bytes] = set()
        whole, done = sum(wanted.values()), 0
        for blob, size in wanted.items():
            body = read(blob)
            if body is None or len(body) != size or sha256(body).digest() != blob:
                gone.add(blob)
            else:
                self._add(blob, body)
            done += size
            self._work.progress("bodies", done, whole)
            self._work.pace.step()
        self._flush()
        return gone

    def _add(self, blob: bytes, body: bytes) -> None:
        sealed = self._work.vault.sealer.seal(body, blob)
        self._held.append((blob, self._length, len(sealed), len(body)))
        self._pieces.append(sealed)
        self._length += len(sealed)
        if self._length >= PACK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        data = form.head(form.PACK) + b"".join(self._pieces)
        name = form.hash_of(data)
        self._lock.keep()
        # One that a killed take left may be there, cut short by a broken disk: it is written again.
        self._work.vault.repository.put(f"packs/{name}", data)
        pack = bytes.fromhex(name)
        for blob, offset, stored, size in self._held:
            self.places[blob] = BodyPlace(pack, offset, stored, size)
        self.sizes[pack] = len(data)
        self.written += len(data)
        self._pieces, self._held, self._length = [], [], form.HEAD_BYTES


def _store_index(
    work: Work, lock: Lock, change: Delta, used: Mapping[bytes, BodyPlace], sizes: Mapping[bytes, int]
) -> tuple[StoredFile, ...]:
    """Write the index files."""
    files: list[StoredFile] = []
    for number, payload in enumerate(form.index_payloads(change, used, sizes), 1):
        work.progress("index", number, number)
        data = form.sealed_file(form.INDEX, payload, work.vault.sealer)
        name = form.hash_of(data)
        lock.keep()
        work.vault.repository.put(f"index/{name}", data)
        files.append(StoredFile(name, len(data)))
    return tuple(files)


def _described(captured: Captured, base: Base, table: Table) -> Point:
    """The point, as far as it is known before its files are."""
    bodies, parent = blobs(table.values()), base.parent
    return Point(
        id="",
        hash="",
        kind=base.kind,
        taken_at=round(captured.taken_at, 3),
        history=captured.history,
        sequence_from=parent.sequence_to if parent is not None else 0,
        sequence_to=captured.sequence,
        parent=parent.id if parent is not None else None,
        parent_hash=parent.hash if parent is not None else "",
        needs=base.needs,
        config_hash=captured.config_hash,
        schema_version=captured.schema_version,
        program=__version__,
        source=platform.node(),
        digest=digest(table),
        entries=len(table),
        bodies=len(bodies),
        body_bytes=sum(bodies.values()),
        promoted=base.promoted,
    )
