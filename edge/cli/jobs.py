"""The jobs of recovery for one configuration: what the sidecar does in a thread, and commands do at once.

One rule: each job opens what it needs and lets go of it: credentials, a key file and a mount that were put right help
the next job without a restart.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any
from zoneinfo import ZoneInfo

from edge.adapters.key_file import key_of
from edge.cli.drill import run_drill
from edge.cli.recovery import Where, awaiting_of, open_work, pace_of, rules_of, state_of, warm_of
from edge.config.loader import Config
from edge.config.schedule import Schedule
from edge.errors import NoRecoveryPoint, RecoveryError
from edge.recovery.points import Point, PointKind, is_sound, newest_first
from edge.recovery.report import Targets, report, report_view
from edge.recovery.schedule import next_due
from edge.sidecar.fill import Filler
from edge.sidecar.prune import prune
from edge.sidecar.restore import chosen
from edge.sidecar.shown import point_view, pruned_view, verified_view
from edge.sidecar.source import with_warm
from edge.sidecar.take import Progress, Work, silent, take
from edge.sidecar.verify import Portion, verify

HEARTBEAT_S = 5.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class LocalJobs:
    """`sidecar.agent.Jobs` for a configuration with `[snapshots]`."""

    def __init__(self, config: Config, filename: str) -> None:
        assert config.snapshots is not None
        self._config, self._filename = config, filename
        self._values = config.snapshots
        self._pace = pace_of(config.snapshots)
        self._warm = warm_of(config)  # it remembers what it has read
        self._opened: Work | None = None
        self._filler: Filler | None = None

    def renew(self, config: Config, filename: str) -> None:
        """What the next points hold is read from another configuration, with the same [snapshots]."""
        self._config, self._filename = config, filename
        self._warm = warm_of(config)

    def _work(self, make: bool = False, step: Progress = silent) -> Work:
        """The repository; what is known of its manifests is kept from job to job."""
        fresh = open_work(Where.of(self._values), make, self._pace, step, self._values.chain)
        if self._opened is not None:
            fresh.vault.remember(self._opened.vault)
        self._opened = fresh
        return fresh

    def filler(self) -> Filler | None:
        """What brings the bodies that a restore left in the repository; None where nothing is awaited."""
        awaiting = awaiting_of(self._config)
        if awaiting is None:
            return None
        where, pace = Where.of(self._values), pace_of(self._values)
        self._filler = Filler(awaiting, lambda: open_work(where, False, pace), lambda: open_work(where, False))
        return self._filler

    def history(self) -> str:
        """The history of the journal as it is now."""
        return state_of(self._config, self._filename, True).now()[0]

    def points(self) -> dict[str, Point]:
        """All points; none in a repository that does not exist yet."""
        try:
            return self._work().vault.points()
        except NoRecoveryPoint:
            return {}

    @staticmethod
    def ordered(points: Mapping[str, Point]) -> list[Point]:
        """The points, newest first."""
        return newest_first(points.values())

    def take(self, kind: PointKind, extra: Mapping[str, bytes], step: Progress) -> dict[str, Any]:
        """Take a point; returns it as plain values."""
        work = self._work(True, step)
        state = state_of(self._config, self._filename, work.vault.sealer.encrypted)
        awaited = None if self._filler is None else self._filler.read
        return point_view(take(work, kind, lambda: with_warm(state.capture(extra), self._warm, awaited)).point)

    def prune(self) -> dict[str, Any]:
        """Expire points by the retention rules; returns what was kept and removed."""
        zone = ZoneInfo(self._values.timezone)
        return pruned_view(prune(self._work(), rules_of(self._values.keep), zone, dry_run=False), False)

    def verify(self, point: str | None, part: tuple[int, int] | None, step: Progress) -> dict[str, Any]:
        """Verify one point, or all of them (None); `part`: read the n-th of t parts of their data as well."""
        wanted = None if point is None else [point]
        return verified_view(verify(self._work(False, step), wanted, None if part is None else Portion(*part)))

    def drill(self, point: str | None, step: Progress) -> dict[str, Any]:
        """Drill one, or the newest sound one."""
        work = self._work(False, step)
        found = chosen(work.vault.points(), point, None)
        key = key_of(self._values.encryption_key_file)
        return run_drill(work, found, self._values, Path(self._config.state.path), key).view()

    def note(self, point: str, what: str, reason: str) -> dict[str, Any]:
        """Hold a point, or release it (`what`). Raises NoRecoveryPoint."""
        work = self._work()
        if point not in work.vault.points():
            raise NoRecoveryPoint(f"there is no recovery point {point}: `edge snapshot list` shows those there are")
        work.vault.note(point, work.wall(), what, {"reason": reason})
        return {"id": point, "what": what}

    def report(self, points: Mapping[str, Point]) -> dict[str, Any]:
        """How well the state is protected."""
        work_state = state_of(self._config, self._filename, True)
        newest = next((point for point in self.ordered(points) if is_sound(points, point)), None)
        history, sequence = ("", 0) if newest is None else (newest.history, newest.sequence_to)
        now = time()
        return report_view(report(points, work_state.unsaved_since(history, sequence), self._targets(now), now))

    def _targets(self, now: float) -> Targets:
        values = self._values
        drill_s = None if values.drill is None else 2 * _period(values.drill, now, ZoneInfo(values.timezone))
        return Targets(values.targets.rpo, values.targets.rto, drill_s)

    def heartbeat(self) -> None:
        """Tell whoever watches from outside that all is well."""
        if self._values.heartbeat is None:
            return
        try:
            with _DIRECT.open(self._values.heartbeat, timeout=HEARTBEAT_S):
                pass
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise RecoveryError(f"the heartbeat did not get through ({error}): see snapshots.heartbeat") from None


def _period(schedule: Schedule, now: float, zone: ZoneInfo) -> float:
    """Seconds between two runs."""
    first = next_due(schedule, now, now, zone)
    return next_due(schedule, first, first, zone) - first
