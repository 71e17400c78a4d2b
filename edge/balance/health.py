"""Whether a backend is well: what probes say (rise, fall, flaps) and what live traffic says (ejection).

One rule: a change of mind needs evidence, and the evidence is kept in words. Nothing here reads a clock or sends a
probe; results come in with `now` in monotonic seconds.

Probes follow gdnsd's flap rule: failures accumulate even when successes stand between them, and only ten successes in a
row clear the count. So a backend that fails one probe in three is found, and because a flapping backend must then show
ten successes in a row to return (not just `rise`), it is taken out once, not in and out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

Randbelow = Callable[[int], int]

FLAP_FACTOR = 2.0  # times the interval between probes of a backend that is down because it flaps
CLEAN_RUN = 10  # successes in a row that clear the count of failures (gdnsd's ok_thresh)
NEVER = float("-inf")


class Health(Enum):
    """The health of a backend or of a region; DEGRADED is only for regions."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class Admin(Enum):
    """What the operator wants of a backend or region. Independent of health."""

    ACTIVE = "active"
    DRAINING = "draining"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True)
class Event:
    """Something for the operator to read later: what happened to what, when, and on what evidence."""

    kind: str
    subject: str
    evidence: str
    at: float


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A change of a backend's health."""

    old: Health
    new: Health
    evidence: str


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How a pool is probed; durations in seconds."""

    interval_s: float = 5.0
    timeout_s: float = 2.0
    fall: int = 3
    rise: int = 2
    transition_s: float = 1.0  # while in doubt, either way
    # While down: a dead host is not worth a full rate. Two successes, the last one a transition later, bring it back,
    # which with these figures is within 10 s of its recovery.
    down_factor: float = 1.2  # times the interval
    jitter: float = 0.1  # of the delay, both ways


class ProbeState:
    """One backend's health as its probes see it."""

    __slots__ = ("_clean", "_failures", "_good_run", "_interleaved", "_need", "health", "hurried", "settings")

    def __init__(self, settings: ProbeSettings) -> None:
        self.settings = settings  # a reload gives others
        self.health = Health.UNKNOWN
        self.hurried = False  # live traffic saw a failure: ask soon
        self._failures = 0  # since the last clean run
        self._good_run = 0
        self._interleaved = False  # a success stood between the failures that are counted
        self._clean = True  # no trouble since the last clean run, or since the start
        self._need = settings.rise

    def on_result(self, ok: bool, now: float, needed: bool = False) -> HealthChange | None:
        """Take one probe's result. Returns the change of health that it causes, if any.

        `needed`: its pool has no other backend, so one that flapped is taken back after `rise` successes too.
        """
        self.hurried = False
        return self._on_success(needed) if ok else self._on_failure()

    def _on_success(self, needed: bool) -> HealthChange | None:
        self._good_run += 1
        if self._failures:
            self._interleaved = True
        if self._good_run >= CLEAN_RUN:
            self._failures, self._interleaved, self._clean = 0, False, True
        if self.health is Health.HEALTHY:
            return None
        if self.health is Health.UNKNOWN:
            return self._become(Health.HEALTHY, "first success")
        if self._good_run < (self.settings.rise if needed else self._need):
            return None
        # Back, but the record is clean only after a clean run from here on: down again before that counts as flapping.
        evidence = f"{self._good_run} successes in a row"
        self._failures, self._good_run, self._interleaved, self._clean = 0, 0, False, False
        return self._become(Health.HEALTHY, evidence)

    def _on_failure(self) -> HealthChange | None:
        self._good_run = 0
        self._failures += 1
        if self.health is Health.UNHEALTHY or self._failures < self.settings.fall:
            return None
        flapping = self._interleaved or not self._clean
        self._need = max(CLEAN_RUN, self.settings.rise) if flapping else self.settings.rise
        self._clean = False
        how = "with successes between" if self._interleaved else "in a row"
        return self._become(Health.UNHEALTHY, f"{self._failures} failures {how}")

    def _become(self, health: Health, evidence: str) -> HealthChange:
        old, self.health = self.health, health
        return HealthChange(old, health, evidence)

    def hurry(self) -> None:
        """A live request failed here: make the next probe due at the pace of a transition."""
        self.hurried = True

    @property
    def in_transition(self) -> bool:
        """Whether one of the next results may change its health."""
        if self.health is Health.UNHEALTHY:
            return self._good_run > 0
        return self._failures > 0 or self.health is Health.UNKNOWN or self.hurried

    def next_delay(self, randbelow: Randbelow, needed: bool = False) -> float:
        """Seconds until the next probe: quick in transition, slow when down, with jitter so that probes spread out.

        Quick too where the pool has nobody else (`needed`): every second that a return is not seen is an outage.
        """
        settings = self.settings
        if self.in_transition or needed:
            delay = min(settings.transition_s, settings.interval_s)
        elif self.health is Health.UNHEALTHY:
            flaps = self._need > settings.rise  # it must show a long row anyhow
            delay = settings.interval_s * (max(FLAP_FACTOR, settings.down_factor) if flaps else settings.down_factor)
        else:
            delay = settings.interval_s
        return delay * (1.0 + settings.jitter * (randbelow(2001) - 1000) / 1000)


@dataclass(frozen=True, slots=True)
class EjectionSettings:
    """When live failures eject a backend (as Envoy's outlier detection); durations in seconds."""

    consecutive: int = 5
    time_s: float = 5.0
    max_time_s: float = 300.0
    max_ejected: float = 0.5  # of the pool's backends
    window_s: float = 10.0
    min_sample: int = 20
    min_success: float = 0.5  # the window's success rate under which a backend is an outlier
    forget_s: float = 60.0  # each such span in service undoes one repeat


class Outlier:
    """One backend as live traffic sees it: failures in a row, and the success rate over the last window.

    The window is two halves: the running one and the one before, so that a rate always covers at least half a window.
    """

    __slots__ = ("_bad", "_bad_before", "_good", "_good_before", "_half_ends", "consecutive", "repeats", "settings")

    def __init__(self, settings: EjectionSettings) -> None:
        self.settings = settings
        self.repeats = 0
        self.reset()

    def reset(self) -> None:
        """Forget what was counted, because the backend was ejected or came back."""
        self.consecutive = 0
        self._good = self._bad = self._good_before = self._bad_before = 0
        self._half_ends = NEVER

    def on_success(self, now: float) -> None:
        """Count an answer that is not a gateway failure."""
        self.consecutive = 0
        if now >= self._half_ends:
            self._turn(now)
        self._good += 1

    def on_failure(self, now: float) -> str | None:
        """Count a failure of the backend's own. Returns the evidence if it is an outlier now."""
        settings = self.settings
        self.consecutive += 1
        if now >= self._half_ends:
            self._turn(now)
        self._bad += 1
        if self.consecutive >= settings.consecutive:
            return f"{self.consecutive} gateway failures in a row"
        good = self._good + self._good_before
        total = good + self._bad + self._bad_before
        if total >= settings.min_sample and good < settings.min_success * total:
            return f"{good} of {total} answers good within {settings.window_s:g} s"
        return None

    def _turn(self, now: float) -> None:
        half = self.settings.window_s / 2
        if now < self._half_ends + half:
            self._good_before, self._bad_before = self._good, self._bad
        else:  # nothing came for a whole half: both are old
            self._good_before = self._bad_before = 0
        self._good = self._bad = 0
        self._half_ends = now + half

    def next_time_s(self, in_service_s: float) -> float:
        """How long to eject now: doubles with each repeat up to the cap; time in service without trouble undoes
        repeats.
        """
        settings = self.settings
        self.repeats = max(0, self.repeats - int(min(in_service_s / settings.forget_s, self.repeats)))
        time_s = min(settings.max_time_s, settings.time_s * 2.0 ** min(self.repeats, 30))
        self.repeats += 1
        return time_s
