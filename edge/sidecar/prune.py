"""Expiring points: what the rules do not keep, and then the files that nobody speaks of any more.

    lock (exclusive) ─► points ─► decide ─► delete manifests, those that need others first ─► delete their evidence
                     ─► files of the points that are left ─► delete all other packs and indexes ─► leftovers

One rule: a point ends with its manifest. That goes first and alone, so that a kill at any step leaves points that are
whole, and files that the next expiry finds and removes. As long as a point is there whose manifest cannot be read, no
file is deleted at all: nobody can tell which ones it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo

from edge.recovery.points import Point
from edge.recovery.retention import Decision, KeepRules, decide
from edge.sidecar.locks import locked
from edge.sidecar.take import Work
from edge.sidecar.vault import is_hash


@dataclass(slots=True)
class Pruned:
    """What was decided for each point, and what was done."""

    decisions: list[Decision]
    removed_points: list[str] = field(default_factory=list)
    removed_files: int = 0
    removed_bytes: int = 0
    note: str = ""


def prune(work: Work, rules: KeepRules, zone: tzinfo, dry_run: bool) -> Pruned:
    """Expire points; with `dry_run` only say what would be done (under a lock that disturbs nobody)."""
    with locked(work.vault.repository, exclusive=not dry_run, purpose="looking" if dry_run else "expiring") as lock:
        points = work.vault.points()
        found = Pruned(decide(points, rules, zone))
        going = [decision.point for decision in found.decisions if not decision.keep]
        if dry_run:
            return found
        repository = work.vault.repository
        for point in going:  # newest first: what needs others goes before them
            lock.keep()
            repository.delete(f"points/{point.id}")
            found.removed_points.append(point.id)
            work.progress("points", len(found.removed_points), len(going))
        kept = [decision.point for decision in found.decisions if decision.keep]
        if any(not point.hash for point in kept):
            found.note = "a kept point cannot be read, and nobody knows which files it needs: no file was deleted"
            return found
        for name, size in _orphans(work, kept):
            lock.keep()
            repository.delete(name)
            found.removed_files += 1
            found.removed_bytes += size
        repository.clean()
        return found


def _orphans(work: Work, kept: list[Point]) -> list[tuple[str, int]]:
    """Files that belong to no point that is left: of points that went, and of takes that were killed."""
    used = {f"index/{file.name}" for point in kept for file in point.index}
    used |= {f"packs/{file.name}" for point in kept for file in point.packs}
    ids = {point.id for point in kept}
    found = []
    for folder in ("index/", "packs/"):
        for file in work.vault.repository.files(folder):
            if file.name not in used and is_hash(file.name.removeprefix(folder)):
                found.append((file.name, file.size))
    for file in work.vault.repository.files("evidence/"):
        if file.name.split("/")[1] not in ids:
            found.append((file.name, file.size))
    return found
