"""Recovery points, decisions and findings as plain values for the API and the commands. Times are RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from edge.recovery.points import Point
from edge.recovery.retention import Decision
from edge.sidecar.prune import Pruned
from edge.sidecar.verify import Verified


def when(at: float | None) -> str | None:
    """A time as RFC 3339, in UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def point_view(point: Point) -> dict[str, Any]:
    """All that is known of a point, but for its files."""
    known = point.evidence
    return {
        "id": point.id,
        "kind": point.kind.value,
        "parent": point.parent,
        "needs": list(point.needs),
        "taken_at": when(point.taken_at),
        "status": point.status.value,
        "bytes": sum(file.size for file in point.files),
        "written": point.written,
        "sequence": {"from": point.sequence_from, "to": point.sequence_to},
        "history": point.history,
        "config_hash": point.config_hash,
        "schema_version": point.schema_version,
        "program": point.program,
        "source": point.source,
        "entries": point.entries,
        "bodies": point.bodies,
        "body_bytes": point.body_bytes,
        "digest": point.digest,
        "hash": point.hash,
        "promoted": point.promoted or None,
        "left_out": list(point.left_out),
        "verified_at": when(known.verified_at),
        "verified": known.verified or None,
        "drilled_at": when(known.drilled_at),
        "drill": None if known.drill is None else dict(known.drill),
        "corrupt": known.corrupt or None,
        "hold": known.hold or None,
    }


def files_view(point: Point) -> list[dict[str, Any]]:
    """The files of a point."""
    found = [("points", point.id, None), *(("index", file.name, file.size) for file in point.index)]
    found += [("packs", file.name, file.size) for file in point.packs]
    return [{"name": f"{folder}/{name}", "bytes": size} for folder, name, size in found]


def decision_view(decision: Decision) -> dict[str, Any]:
    """What happens to a point, and why, as plain values."""
    point = decision.point
    return {
        "id": point.id,
        "kind": point.kind.value,
        "taken_at": when(point.taken_at),
        "keep": decision.keep,
        "reasons": list(decision.reasons),
    }


def pruned_view(pruned: Pruned, dry_run: bool) -> dict[str, Any]:
    """What was decided and done, as plain values."""
    return {
        "dry_run": dry_run,
        "points": [decision_view(decision) for decision in pruned.decisions],
        "removed_points": pruned.removed_points,
        "removed_files": pruned.removed_files,
        "removed_bytes": pruned.removed_bytes,
        "note": pruned.note or None,
    }


def verified_view(found: Verified) -> dict[str, Any]:
    """What was checked and what is wrong, as plain values."""
    return {
        "ok": not found.problems,
        "points": found.points,
        "files": found.files,
        "bytes": found.data_bytes,
        "problems": [{"point": name, "problem": why} for name, why in found.problems.items()],
    }
