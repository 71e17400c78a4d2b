"""What a recovery point is, what it needs, and which point the next one builds on.

    full          restorable from its own files alone; needs nothing
    differential  what changed since the last full; needs that full
    incremental   what changed since the last point of any kind; needs every link back to a full

One rule: `needs` is written into the point when it is taken and never worked out again later, so that what a point
needs is the same for whoever takes, keeps, verifies or restores it. The order of `needs` is the order of applying.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import Any

from edge.errors import ChainBroken, NoRecoveryPoint


class PointKind(Enum):
    """How much of the state a point holds."""

    FULL = "full"
    DIFFERENTIAL = "differential"
    INCREMENTAL = "incremental"


class Status(Enum):
    """The state of a point, as far as it was checked. A point without a manifest does not exist."""

    COMPLETE = "complete"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the repository: named by the SHA-256 of its bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found out about a point after it was taken; times are epoch seconds."""

    verified_at: float | None = None
    verified: str = ""  # how far: "structure", "data", "load"
    drilled_at: float | None = None
    drill: Mapping[str, Any] | None = None  # what the last drill measured
    corrupt: str = ""  # what is wrong; empty = nothing known
    hold: str = ""  # why it must be kept; empty = it need not


@dataclass(frozen=True, slots=True)
class Point:
    """One recovery point: its manifest, its id, and the evidence."""

    id: str
    hash: str  # of the manifest's bytes
    kind: PointKind
    taken_at: float
    history: str  # what the sequence numbers belong to
    sequence_from: int  # changes after this one …
    sequence_to: int  # … up to this one, inclusive
    parent: str | None = None
    parent_hash: str = ""
    needs: tuple[str, ...] = ()
    config_hash: str = ""
    schema_version: int = 0
    program: str = ""
    source: str = ""  # the machine
    digest: str = ""  # of the whole table at this instant
    entries: int = 0
    bodies: int = 0
    body_bytes: int = 0
    index: tuple[StoredFile, ...] = ()
    packs: tuple[StoredFile, ...] = ()
    written: int = 0  # bytes that this point added to the repository
    promoted: str = ""  # why it is full though something else was asked for
    left_out: tuple[str, ...] = ()  # what belongs to the state and is not in the point, with the reason
    evidence: Evidence = Evidence()

    @property
    def status(self) -> Status:
        """Its state, as far as it was checked."""
        return Status.CORRUPT if self.evidence.corrupt else Status.COMPLETE

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files that its manifest names."""
        return (*self.index, *self.packs)

    def with_evidence(self, evidence: Evidence) -> Point:
        """The same point with this evidence."""
        return replace(self, evidence=evidence)


def closure(points: Mapping[str, Point], wanted: str) -> list[Point]:
    """The point and all that it needs, in the order of applying: a full first, the point itself last.

    Raises NoRecoveryPoint when there is no such point, ChainBroken when a link is missing, another, or out of order.
    """
    point = points.get(wanted)
    if point is None:
        raise NoRecoveryPoint(f"there is no recovery point {wanted}: `edge snapshot list` shows those that there are")
    chain: list[Point] = []
    for name in point.needs:
        link = points.get(name)
        if link is None:
            raise ChainBroken(f"point {wanted} needs {name}, which is missing: restore an older point, take a full one")
        chain.append(link)
    chain.append(point)
    _check_links(chain)
    return chain


def _check_links(chain: list[Point]) -> None:
    """Each link was taken on the one before it, as that was then."""
    wanted = chain[-1].id
    if chain[0].kind is not PointKind.FULL:
        raise ChainBroken(f"point {wanted}: its chain begins with {chain[0].id}, which is not full; take a full one")
    for before, link in pairwise(chain):
        if link.parent != before.id or link.parent_hash != before.hash:
            raise ChainBroken(
                f"point {wanted}: {link.id} was taken on {link.parent}, and {before.id} is not that: "
                f"restore an older point, take a full one"
            )
        if link.history != before.history or link.sequence_from != before.sequence_to:
            raise ChainBroken(
                f"point {wanted}: {link.id} does not go on where {before.id} ends: restore an older point"
            )


def needed(points: Mapping[str, Point], kept: Iterable[str]) -> set[str]:
    """The kept points with all that they need, as far as it is there."""
    found: set[str] = set()
    for name in kept:
        found.add(name)
        found.update(link for link in points[name].needs if link in points)
    return found


def is_sound(points: Mapping[str, Point], point: Point) -> bool:
    """Whether neither the point nor any point that it needs is known to be damaged."""
    try:
        return all(link.status is Status.COMPLETE for link in closure(points, point.id))
    except (ChainBroken, NoRecoveryPoint):
        return False


def newest_first(points: Iterable[Point]) -> list[Point]:
    """Sorted by time, newest first, then by id, so that all machines agree on the order."""
    return sorted(points, key=lambda point: (point.taken_at, point.id), reverse=True)


@dataclass(frozen=True, slots=True)
class Base:
    """What the next point builds on. `promoted` says why it is full although another kind was asked for."""

    kind: PointKind
    parent: Point | None = None
    needs: tuple[str, ...] = ()
    promoted: str = ""


def base_for(points: Mapping[str, Point], kind: PointKind, history: str, longest: int) -> Base:
    """What a point of this kind builds on now. A differential or incremental without a valid parent becomes full."""
    if kind is PointKind.FULL:
        return Base(kind)
    own = [point for point in newest_first(points.values()) if point.history == history]
    if kind is PointKind.DIFFERENTIAL:
        own = [point for point in own if point.kind is PointKind.FULL]
    if not own:
        other = "; those that there are belong to another history" if points else ""
        what = "full point" if kind is PointKind.DIFFERENTIAL else "point"
        return Base(PointKind.FULL, promoted=f"there is no {what} to build on{other}")
    parent = own[0]
    if not is_sound(points, parent):
        why = parent.evidence.corrupt or "its chain is broken"
        return Base(PointKind.FULL, promoted=f"{parent.id} cannot be built on: {why}")
    needs = (*parent.needs, parent.id)
    if len(needs) > longest:
        return Base(PointKind.FULL, promoted=f"the chain would have {len(needs)} links, more than {longest}")
    return Base(kind, parent, needs)


def point_at(points: Mapping[str, Point], at: float | None, bad: Collection[str] = ()) -> Point:
    """The newest sound point, or the newest that is not younger than `at`. Raises NoRecoveryPoint."""
    for point in newest_first(points.values()):
        if (at is None or point.taken_at <= at) and point.id not in bad and is_sound(points, point):
            return point
    if not points:
        raise NoRecoveryPoint("the repository holds no recovery point: `edge snapshot take` takes one")
    raise NoRecoveryPoint(
        "no sound recovery point is old enough: `edge snapshot list` shows those that there are"
        if at is not None
        else "no recovery point is sound: `edge snapshot list` shows what is wrong with each"
    )
