"""Verifying points, in depths.

    1 structure   each link is there, each file is there with its size, the index files make up the table that was
                  taken, each body has a place inside a pack
    2 data        every byte of every file is compared with the file's name; or of a rotating n-th part of t
    3 load        the point is restored to an empty directory and opened as a start would (`restore`)
    4 boot        a gateway is started from it (`drill`)

One rule: what is found is written down with the point, good or bad, and a bad point is not built on or restored from
by default any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge.errors import ChainBroken, ChecksumMismatch
from edge.recovery import format as form
from edge.recovery.points import Point, closure
from edge.recovery.table import blobs
from edge.sidecar.locks import locked
from edge.sidecar.take import Work


@dataclass(frozen=True, slots=True)
class Portion:
    """The n-th of t parts of the files, by their names; 1 of 1 is all."""

    number: int = 1
    of: int = 1

    def holds(self, name: str) -> bool:
        """Whether a file belongs to this part."""
        return int(name[:8], 16) % self.of == self.number - 1


@dataclass(slots=True)
class Verified:
    """What was checked, and what is wrong with which point."""

    points: list[str] = field(default_factory=list)
    files: int = 0
    data_bytes: int = 0
    problems: dict[str, str] = field(default_factory=dict)  # point: what is wrong


def verify(work: Work, wanted: Iterable[str] | None, part: Portion | None) -> Verified:
    """Verify points (None: all) with all that they need; `part`: read their data as well. Notes what it finds."""
    with locked(work.vault.repository, exclusive=False, purpose="verifying") as lock:
        points = work.vault.points()
        names = list(points) if wanted is None else list(wanted)
        found = Verified(names)
        chains: dict[str, list[Point]] = {}
        packs = work.vault.packs()
        for number, name in enumerate(names, 1):
            lock.keep()
            try:
                chains[name] = closure(points, name)
                _structure(work, points, name, packs)
            except (ChainBroken, ChecksumMismatch) as error:
                found.problems[name] = points[name].evidence.corrupt if not points[name].hash else error.detail
            work.progress("structure", number, len(names))
        if part is not None:
            _data(work, chains, part, found)
        _note(work, points, found, part)
        return found


def _structure(work: Work, points: Mapping[str, Point], name: str, packs: Mapping[bytes, int]) -> None:
    """Depth 1 of one point. Raises ChainBroken, ChecksumMismatch."""
    listed: dict[bytes, int] = {}
    for link in closure(points, name):
        for file in link.packs:
            pack = bytes.fromhex(file.name)
            listed[pack] = file.size
            if pack not in packs:
                raise ChecksumMismatch(f"packs/{file.name} is missing: restore a point that does not need it")
            if packs[pack] != file.size:
                raise ChecksumMismatch(f"packs/{file.name} has {packs[pack]} bytes, not {file.size}: it was cut")
    table, places = work.vault.table(points, name)
    for blob, size in blobs(table.values()).items():
        place = places.get(blob)
        if place is None or place.size != size or place.offset + place.stored > listed.get(place.pack, 0):
            raise ChecksumMismatch(f"point {name}: a body of {size} bytes has no place in its packs: take a full point")


def _data(work: Work, chains: Mapping[str, list[Point]], part: Portion, found: Verified) -> None:
    """Depth 2: each file once, whoever needs it."""
    users: dict[str, set[str]] = {}
    sizes: dict[str, int] = {}
    for name, chain in chains.items():
        for link in chain:
            for folder, files in (("index", link.index), ("packs", link.packs)):
                for file in files:
                    users.setdefault(f"{folder}/{file.name}", set()).add(name)
                    sizes[f"{folder}/{file.name}"] = file.size
    looked = {name: size for name, size in sizes.items() if part.holds(name.partition("/")[2])}
    whole = sum(looked.values())
    for name, size in looked.items():
        data = work.vault.repository.get(name)
        if data is None or form.hash_of(data) != name.partition("/")[2]:
            for user in users[name]:
                found.problems.setdefault(user, f"{name}: its bytes are not those that were written")
        found.files += 1
        found.data_bytes += size
        work.progress("data", found.data_bytes, whole)
        work.pace.step()


def _note(work: Work, points: Mapping[str, Point], found: Verified, part: Portion | None) -> None:
    depth = "structure" if part is None else "data" if part.of == 1 else f"data {part.number}/{part.of}"
    now = work.wall()
    for name in found.points:
        if name in found.problems:
            if points[name].hash:  # a damaged manifest says so by itself
                work.vault.note(name, now, "corrupt", {"why": found.problems[name]})
        else:
            work.vault.note(name, now, "verified", {"depth": depth})
