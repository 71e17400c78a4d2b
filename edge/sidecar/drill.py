"""The drill: proof that a point restores, and that the proof is worth something.

    copy      the files that the point needs, and no other, into an empty directory
    data      every byte of the copy is what was written
    restore   into an empty directory, from the copy alone; compared entry by entry
    config    this program accepts the restored configuration
    boot      a second gateway starts on spare ports, turns ready and answers
    golden    recorded requests get the same routes, keys, regions and backends; the administrative states are the same
    purged    what was purged before the point is refused by the restored purge log, and not served
    rpo, rto  what was measured is inside the targets
    damage    the same proof, on a copy with one byte changed and on one with a file missing, fails

One rule: a drill that passes has done all of it. What could not be looked at is said in the report and is never
counted as proved. The result is stored with the point, good or bad.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from edge.errors import DrillFailed, RecoveryError
from edge.ports import Repository
from edge.recovery.points import Point, closure
from edge.recovery.table import Entry, Table
from edge.sidecar.locks import locked
from edge.sidecar.restore import Restored, Target, restore
from edge.sidecar.source import State, Warm
from edge.sidecar.take import Work
from edge.sidecar.vault import CONFIG
from edge.sidecar.verify import Portion, verify


class Gateway(Protocol):
    """A second gateway that runs."""

    def differences(self, golden: Mapping[str, Any]) -> Iterator[str]:
        """What it answers differently from the recorded answers, one line each."""

    def served(self, table: Table) -> Iterator[str]:
        """What it serves although it was purged, and what it does not serve as recorded, one line each."""


class Lab(Protocol):
    """What a drill needs from outside the sidecar."""

    def open(self, directory: Path) -> Work:
        """The copy as a repository, with the same key."""

    def state(self, folder: Path) -> State:
        """The state directory `folder`."""

    warm: Warm | None

    def accepted(self, restored: Restored) -> list[str]:
        """The problems that this program has with the restored configuration."""

    def purges_hold(self, folder: Path, table: Table) -> list[str]:
        """Purges of the point that the restored log does not refuse, one line each."""

    def boot(self, restored: Restored, place: Path) -> AbstractContextManager[Gateway]:
        """A gateway on spare ports, ready and answering. Raises DrillFailed."""


@dataclass(slots=True)
class Found:
    """The result of a drill."""

    point: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rto_s: float | None = None
    rpo_s: float | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything was proved."""
        return not self.problems

    def view(self) -> dict[str, Any]:
        """Plain values; also what is stored with the point."""
        return {
            "point": self.point,
            "passed": self.passed,
            "steps": self.steps,
            "problems": self.problems,
            "notes": self.notes,
            "rto_s": self.rto_s,
            "rpo_s": self.rpo_s,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """Which point, where there is room, and the targets. `unsaved_at`: the first change that the point does not hold;
    `judged`: it is the newest point, so that this says what a loss now would lose."""

    point: Point
    place: Path
    rpo_s: float
    rto_s: float
    unsaved_at: float | None
    judged: bool


def drill(work: Work, request: DrillRequest, lab: Lab) -> Found:
    """Drill a point in an empty directory, which is removed afterwards; the evidence is stored with the point."""
    begun = monotonic()
    found = Found(request.point.id)
    copy = request.place / "copy"
    try:
        with locked(work.vault.repository, exclusive=False, purpose="drilling"):
            with _step(found, "copy"):
                _copy(work, request.point, copy)
            if found.passed:
                _prove(found, lab, copy, request.place / "proof", golden=True)
            _judge(found, request, work.wall())
            if found.passed:
                with _step(found, "damage"):
                    _damaged_copies_fail(found, lab, copy, request)
            found.seconds = monotonic() - begun
            work.vault.note(request.point.id, work.wall(), "drilled", found.view())
    finally:
        shutil.rmtree(request.place, ignore_errors=True)
    return found


class _step:
    """One step: timed, and what it raises is what is wrong."""

    def __init__(self, found: Found, name: str) -> None:
        self._found, self._name, self._begun = found, name, monotonic()
        self._before = len(found.problems)

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, RecoveryError):
            self._found.problems.append(f"{self._name}: {error.detail}")
        ok = error is None and len(self._found.problems) == self._before
        self._found.steps.append({"step": self._name, "ok": ok, "seconds": round(monotonic() - self._begun, 3)})
        return isinstance(error, RecoveryError)


def _copy(work: Work, point: Point, copy: Path) -> None:
    """The files of the closure, and the repository's own; nothing else is there."""
    source, chain = work.vault.repository, closure(work.vault.points(), point.id)
    names = [CONFIG]
    for link in chain:
        names += [f"points/{link.id}"]
        names += [f"index/{file.name}" for file in link.index] + [f"packs/{file.name}" for file in link.packs]
    for number, name in enumerate(dict.fromkeys(names), 1):
        _copy_file(source, name, copy)
        work.progress("copy", number, len(names))
        work.pace.step()


def _copy_file(source: Repository, name: str, copy: Path) -> None:
    data = source.get(name)
    if data is None:
        raise DrillFailed(f"{name} is missing in the repository")
    path = copy / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _prove(found: Found, lab: Lab, copy: Path, place: Path, golden: bool) -> None:
    """Everything from the copy alone; ends at the first step that fails."""
    place.mkdir()
    with _step(found, "data"):
        work = lab.open(copy)
        verified = verify(work, [found.point], Portion())
        found.problems += [f"data: {why}" for why in verified.problems.values()]
    if not found.passed:
        return
    begun = monotonic()
    restored: Restored | None = None
    with _step(found, "restore"):
        cache = place / "state" / "cache" if lab.warm is not None else None
        target = Target(place / "state", cache, rehearsal=True)
        restored = restore(
            work, lab.state(target.state), lab.warm, lambda points: closure(points, found.point)[-1], target
        )
    if restored is None:
        return
    with _step(found, "config"):
        found.problems += [f"config: {line}" for line in lab.accepted(restored)]
    table, places = work.vault.table(work.vault.points(), found.point)
    with _step(found, "purged"):
        found.problems += [f"purged: {line}" for line in lab.purges_hold(restored.state, table)]
    if not found.passed or not golden:
        return
    with _step(found, "boot"), lab.boot(restored, place) as gateway:
        found.rto_s = round(monotonic() - begun, 3)

        def value(entry: Entry) -> bytes:
            return work.vault.body(entry.blob, places[entry.blob]) if entry.blob else entry.data

        recorded = {name: value(entry) for name, entry in table.items() if name.startswith("golden/")}
        with _step(found, "golden"):
            if recorded:
                found.problems += [f"golden: {line}" for line in gateway.differences(recorded)]
            else:
                found.notes.append("golden: the point holds no golden requests: it was taken while no gateway ran")
        with _step(found, "served"):
            found.problems += [f"served: {line}" for line in gateway.served(table)]


def _judge(found: Found, request: DrillRequest, now: float) -> None:
    """Against the targets."""
    if found.rto_s is not None and found.rto_s > request.rto_s:
        found.problems.append(f"rto: {found.rto_s:.1f} s until the first answer, the target is {request.rto_s:g} s")
    if not request.judged:
        found.notes.append("rpo: not judged: there are younger points")
        return
    found.rpo_s = 0.0 if request.unsaved_at is None else round(max(0.0, now - request.unsaved_at), 3)
    if found.rpo_s > request.rpo_s:
        found.problems.append(f"rpo: what changed in {found.rpo_s:.0f} s is in no point, target {request.rpo_s:g} s")


def _damaged_copies_fail(found: Found, lab: Lab, copy: Path, request: DrillRequest) -> None:
    """Change one byte of a file of each kind, and take one file away: each time the same proof must fail."""
    files = sorted(path for folder in ("points", "index", "packs") for path in (copy / folder).glob("*"))
    kinds = {path.parent.name: path for path in files}  # one of each kind
    for number, path in enumerate([*kinds.values(), files[0]]):
        whole, missing = path.read_bytes(), number == len(kinds)
        if missing:
            path.unlink()
        else:
            at = len(whole) // 2
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        trial = Found(found.point)
        try:
            _prove(trial, lab, copy, request.place / f"damaged-{number}", golden=False)
        except RecoveryError as error:
            trial.problems.append(error.detail)
        path.write_bytes(whole)
        name = path.relative_to(copy).as_posix()
        if trial.passed:
            found.problems.append(f"damage: {name} was {'removed' if missing else 'changed'}, and the drill passed")
        else:
            how = "removed" if missing else "with one byte changed"
            found.notes.append(f"damage: {name} {how}: refused ({trial.problems[0]})")
