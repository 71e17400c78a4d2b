"""How slow things are: a backend's peak EWMA, a region's EWMA, and which region is preferred for being faster.

One rule: worse news counts at once, better news only with time. Backends follow Finagle's peak EWMA: a sample above the
cost becomes the cost, below it the cost decays with `TAU_S`. Regions change places only for a gain that is large in
both senses and lasts. Percentiles for people are kept elsewhere (`metrics.Histogram`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

TAU_S = 10.0
FAILURE_S = 5.0  # what a failure costs at least, so that fast errors attract nothing


class PeakEwma:
    """The latency cost of one backend in seconds; 0 decays towards nothing, so an idle backend is tried again."""

    __slots__ = ("_at", "_value", "known")

    def __init__(self) -> None:
        self._value = 0.0
        self._at = 0.0
        self.known = False

    def observe(self, sample_s: float, now: float) -> None:
        """Take one attempt's seconds from request sent to response head."""
        if not self.known:
            self._value, self.known = sample_s, True
        else:
            left = exp((self._at - now) / TAU_S) if now > self._at else 1.0
            value = self._value * left
            self._value = sample_s if sample_s > value else value + sample_s * (1.0 - left)
        self._at = now

    def fail(self, sample_s: float, now: float) -> None:
        """Take the seconds of a failed attempt."""
        self.observe(sample_s if sample_s > FAILURE_S else FAILURE_S, now)

    def seed(self, sample_s: float, now: float) -> None:
        """Take a probe's seconds; only while there is no live sample."""
        if not self.known:
            self.observe(sample_s, now)

    def cost(self, now: float) -> float:
        """The cost now, in seconds."""
        age = now - self._at
        return self._value * exp(-age / TAU_S) if age > 0 else self._value


class Ewma:
    """A plain mean that forgets with time: a region's latency over probes and live heads."""

    __slots__ = ("_at", "value")

    def __init__(self) -> None:
        self.value: float | None = None
        self._at = 0.0

    def observe(self, sample_s: float, now: float) -> None:
        """Take one sample in seconds; samples that come together weigh as one moment."""
        if self.value is None:
            self.value = sample_s
        else:
            # Doubt: between samples closer than 10 ms the weight is that of 10 ms, so that a busy region still moves.
            left = exp(-max(now - self._at, 0.01) / TAU_S)
            self.value = self.value * left + sample_s * (1.0 - left)
        self._at = now


@dataclass(frozen=True, slots=True)
class PreferenceSettings:
    """How much better another region must be, and for how long, before it is preferred."""

    ratio: float = 0.20
    gain_s: float = 0.010
    hold_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Preference:
    """The preferred region of a tier, its challenger, and since when."""

    region: str | None = None
    challenger: str | None = None
    since: float = 0.0


def prefer(
    regions: Sequence[str],
    latencies: Mapping[str, float],
    before: Preference,
    now: float,
    settings: PreferenceSettings = PreferenceSettings(),
) -> Preference:
    """The preference among eligible regions with known latency (seconds). Without one so far, the fastest."""
    known = [name for name in regions if name in latencies]
    if not known:
        return before if before.region in regions else Preference()
    fastest = min(known, key=lambda name: (latencies[name], regions.index(name)))
    current = before.region
    if current not in known:
        return Preference(fastest)
    better = latencies[current] - latencies[fastest]
    if better < settings.gain_s or better < settings.ratio * latencies[current]:
        return Preference(current)
    if before.challenger != fastest:
        return Preference(current, fastest, now)
    if now - before.since < settings.hold_s:
        return before
    return Preference(fastest)
