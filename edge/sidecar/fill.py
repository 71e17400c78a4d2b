"""Bringing the bodies that a restore left in the repository, while the gateway serves.

    wanted by the cache ─► where they lie (the restored point, else newer ones) ─► pack by pack ─► compared ─► put in
    a request that wants one ─► that body alone, at once

One rule: nothing is given or put in that was not compared with its name. What no point holds any more, or only damaged,
is a miss; a repository that does not answer is tried again, and what was brought stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Event
from time import monotonic

from edge.errors import ChainBroken, ChecksumMismatch, NoRecoveryPoint, RecoveryError
from edge.recovery.format import BodyPlace
from edge.recovery.points import Point, newest_first
from edge.sidecar.locks import locked
from edge.sidecar.source import Awaiting
from edge.sidecar.take import Work

TURN_S = 20.0  # the lock is given back so often: expiry waits for it
BATCH_BYTES = 4 * 1024 * 1024
KNOWN_S = 2.0  # a request waits this long until it is known where bodies lie
MOST_POINTS = 4  # that are looked through for bodies which the restored one has not


@dataclass(slots=True)
class Filled:
    """The progress of filling the tier."""

    point: str = ""
    bodies: int = 0
    body_bytes: int = 0
    left: int = 0  # bodies
    lost: int = 0  # responses


class Filler:
    """Brings bodies. `turn` belongs to one thread; `ask` may be called from any, and uses a `Work` of its own."""

    def __init__(self, awaiting: Awaiting, work: Callable[[], Work], hasty: Callable[[], Work]) -> None:
        self._awaiting, self._work, self._hasty = awaiting, work, hasty
        self._asked: Work | None = None
        self._places: dict[bytes, BodyPlace] = {}
        self._useless: set[tuple[bytes, bytes]] = set()  # body and pack: it cannot be had there
        self._put_in: set[bytes] = set()  # what is wanted after that has no sound record to belong to
        self._looked = Event()
        self.filled = Filled()

    # -- in the background -----------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Bring bodies for a while; False when nothing is left to bring. Raises RecoveryError."""
        point = self._awaiting.point()
        if point is None:
            return False
        self.filled.point = point
        work = self._work()
        with locked(work.vault.repository, exclusive=False, purpose="bringing cached bodies") as lock:
            wanted = self._awaiting.wanted()
            self.filled.left = len(wanted)
            self._look(work, point, wanted)
            self._lose(name for name in wanted if name not in self._places or name in self._put_in)
            until = monotonic() + TURN_S
            left = (name for name in wanted if name in self._places and name not in self._put_in)
            for pack in _packs({name: self._places[name] for name in left}):
                self._bring(work, pack)
                lock.keep()
                if monotonic() > until:
                    return True
        if self._awaiting.wanted():
            return True
        self._awaiting.end()
        return False

    def _look(self, work: Work, restored: str, wanted: Mapping[bytes, int]) -> None:
        """Find out where bodies lie: in the restored point, or in one that was taken since and holds them too."""
        points = work.vault.points()
        others = [point.id for point in newest_first(points.values()) if point.id != restored]
        for name in [restored, *others][:MOST_POINTS]:
            if all(blob in self._places for blob in wanted):
                break
            for blob, place in _placed(work, points, name).items():
                if blob in wanted and blob not in self._places and (blob, place.pack) not in self._useless:
                    self._places[blob] = place
        self._looked.set()

    def _bring(self, work: Work, pack: Mapping[bytes, BodyPlace]) -> None:
        """The bodies of one pack; where that is damaged, those of it that are not."""
        left = dict(pack)
        try:
            batch: list[tuple[bytes, bytes]] = []
            for name, body in work.vault.bodies(pack):
                batch.append((name, body))
                if sum(len(each) for _, each in batch) >= BATCH_BYTES:
                    self._put(work, batch, left)
                    batch = []
            self._put(work, batch, left)
        except ChecksumMismatch:
            for name, place in left.items():
                try:
                    self._put(work, [(name, work.vault.body(name, place))], {name: place})
                except ChecksumMismatch:
                    self._useless.add((name, place.pack))
                    self._places.pop(name, None)  # another point may have it elsewhere: the next turn looks

    def _put(self, work: Work, batch: list[tuple[bytes, bytes]], left: dict[bytes, BodyPlace]) -> None:
        if batch:
            self._awaiting.put(batch)
        for name, body in batch:
            left.pop(name)
            self._put_in.add(name)
            self.filled.bodies += 1
            self.filled.body_bytes += len(body)
            self.filled.left = max(0, self.filled.left - 1)
        work.pace.step()

    def _lose(self, names: Iterable[bytes]) -> None:
        gone = list(names)
        if gone:
            self.filled.lost += self._awaiting.lose(gone)
            self.filled.left -= len(gone)

    # -- for a request ---------------------------------------------------------------------------------------------

    def ask(self, name: bytes) -> bytes | None:
        """A body that a request waits for; None when it was put into the cache. Raises RecoveryError."""
        self._looked.wait(KNOWN_S)
        body = self._body(name)
        return None if self._awaiting.place(name, body) else body

    def read(self, name: bytes) -> bytes | None:
        """A body for a point that is taken meanwhile; None when it cannot be had."""
        try:
            return self._body(name)
        except RecoveryError:
            return None

    def _body(self, name: bytes) -> bytes:
        place = self._places.get(name)
        if place is None:
            raise RecoveryError("it is not known where this body lies")
        if self._asked is None:
            self._asked = self._hasty()
        return self._asked.vault.body(name, place)


def _placed(work: Work, points: Mapping[str, Point], name: str) -> Mapping[bytes, BodyPlace]:
    try:
        return work.vault.table(points, name)[1]
    except (ChainBroken, ChecksumMismatch, NoRecoveryPoint):
        return {}  # expired, or damaged: another one may do


def _packs(places: Mapping[bytes, BodyPlace]) -> list[dict[bytes, BodyPlace]]:
    found: dict[bytes, dict[bytes, BodyPlace]] = {}
    for name, place in places.items():
        found.setdefault(place.pack, {})[name] = place
    return list(found.values())
