"""A backend: one address we can send to, its configuration and its live state, as two types.

One rule: `take` and `give_back` come in pairs, and only they move `in_flight`. `BackendSpec` is what the file says;
`Backend` is what lives: a reload gives an existing `Backend` a new spec, so requests that are running give back to the
same object. The pool that owns a backend hears of everything that may change who is a candidate; policies never look
past `in_flight`, `share` and `latency`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from edge.balance.health import NEVER, Admin, EjectionSettings, Health, Outlier
from edge.balance.latency import PeakEwma

UNLIMITED = 1 << 60


class AttemptOutcome(Enum):
    """How one attempt at a backend ended."""

    SUCCESS = "success"
    GATEWAY_FAILURE = "gateway-failure"  # could not connect, connection lost, timed out, invalid, 502-504
    NEUTRAL = "neutral"  # the client left, or a limit of ours: never the backend's fault


SUCCESS = AttemptOutcome.SUCCESS  # a member through its class costs 50 ns in CPython 3.11, and each request asks


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A backend as the configuration or a registration describes it."""

    id: str
    pool: str
    scheme: str
    host: str
    port: int
    authority: bytes
    region: str = ""
    weight: int = 1
    max_in_flight: int | None = None

    def same_address(self, other: BackendSpec) -> bool:
        """Whether both have the same address, so that live state may be carried over."""
        return (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)


class Owner(Protocol):
    """The pool, as its backends see it."""

    def changed(self) -> None:
        """The set of candidates may have changed."""

    def suspect(self, backend: Backend, evidence: str, now: float) -> None:
        """Live traffic shows the backend to be an outlier: eject it if the pool can do without it."""

    def readmitted(self, backend: Backend, evidence: str, now: float) -> None:
        """An ejection is over: a trial request succeeded, or probes found the backend healthy again."""


class Backend:
    """One backend's live state. `health` stays HEALTHY when the pool has no probes."""

    __slots__ = (
        "_outlier",
        "_owner",
        "admin",
        "authority",
        "ejected_until",
        "ejections",
        "failures",
        "half_open",
        "health",
        "host",
        "id",
        "in_flight",
        "latency",
        "limit",
        "max_in_flight",
        "neutrals",
        "pool",
        "port",
        "region",
        "returned_at",
        "scheme",
        "share",
        "slow_from",
        "spec",
        "successes",
        "taken",
        "turn",
        "weight",
    )

    def __init__(self, spec: BackendSpec, probed: bool = False, ejection: EjectionSettings | None = None) -> None:
        self.in_flight = 0
        self.health = Health.UNKNOWN if probed else Health.HEALTHY
        self.admin = Admin.ACTIVE
        self.ejected_until = NEVER
        self.half_open = False  # back from ejection, on trial: one request at a time until one succeeds
        self.returned_at = NEVER
        self.slow_from = NEVER  # slow start began
        self.turn: float = 0.0  # smooth round-robin's running value
        self.latency = PeakEwma()
        self.taken = self.successes = self.failures = self.neutrals = self.ejections = 0
        self._outlier = Outlier(ejection or EjectionSettings())
        self._owner: Owner | None = None
        self.respec(spec)

    def respec(self, spec: BackendSpec) -> None:
        """Use another configuration; live state stays."""
        self.spec = spec
        self.id, self.pool, self.scheme = spec.id, spec.pool, spec.scheme
        self.host, self.port, self.authority = spec.host, spec.port, spec.authority
        self.region, self.weight, self.max_in_flight = spec.region, spec.weight, spec.max_in_flight
        self.share = float(spec.weight)  # the weight after slow start; the pool keeps it
        self.limit = self.own_limit  # 1 while half open; the pool keeps it

    def belong(self, owner: Owner | None, ejection: EjectionSettings | None) -> None:
        """Join a pool, or leave it (None). Counts of live failures begin anew when the ejection settings differ."""
        self._owner = owner
        settings = ejection or EjectionSettings()
        if self._outlier.settings != settings:
            self._outlier = Outlier(settings)

    @property
    def own_limit(self) -> int:
        """The configured limit of requests in flight."""
        return UNLIMITED if self.max_in_flight is None else self.max_in_flight

    # -- questions -------------------------------------------------------------------------------------------------

    def is_in(self, now: float) -> bool:
        """Whether new requests may be sent here when it has room: active, not unhealthy, not ejected."""
        return self.admin is Admin.ACTIVE and self.health is not Health.UNHEALTHY and now >= self.ejected_until

    def available(self, now: float) -> bool:
        """Whether a new request may be sent here now: `is_in`, and with room."""
        return self.is_in(now) and self.in_flight < self.limit

    # -- requests --------------------------------------------------------------------------------------------------

    def take(self, now: float) -> None:
        """Count a request that was assigned; at selection, before any connect."""
        self.in_flight += 1
        self.taken += 1

    def give_back(self, now: float) -> None:
        """That request has ended, however it ended."""
        assert self.in_flight > 0, f"backend {self.id} was given back more often than taken"
        self.in_flight -= 1

    def observe(self, outcome: AttemptOutcome, latency_s: float, now: float) -> None:
        """Take the result of one attempt; `latency_s` runs from request sent to response head, or to the failure."""
        if outcome is SUCCESS:
            self.latency.observe(latency_s, now)
            self.successes += 1  # as `succeeded`, which would be one more call for each request
            self._outlier.on_success(now)
            if self.half_open:
                self._readmit("the trial request went well", now)
        elif outcome is AttemptOutcome.GATEWAY_FAILURE:
            self.failures += 1
            self.latency.fail(latency_s, now)
            evidence = self._outlier.on_failure(now)
            if self.half_open:
                evidence = "the trial request failed"
            if evidence is not None and self._owner is not None and now >= self.ejected_until:
                self._owner.suspect(self, evidence, now)
        else:
            self.neutrals += 1

    def answered(self, latency_s: float, now: float) -> None:
        """A good head came and its body is on its way; only a whole body counts as a success (`succeeded`)."""
        self.latency.observe(latency_s, now)

    def succeeded(self, now: float) -> None:
        """An attempt succeeded to its end."""
        self.successes += 1
        self._outlier.on_success(now)
        if self.half_open:
            self._readmit("the trial request went well", now)

    # -- changes of state ------------------------------------------------------------------------------------------

    def set_health(self, health: Health, now: float) -> None:
        """Take what probes found. A backend that was unhealthy starts slowly, and its ejection ends: the probes say
        that what live traffic saw is over.
        """
        if health is self.health:
            return
        back = health is Health.HEALTHY and self.health is Health.UNHEALTHY
        self.health = health
        if back:
            self.slow_from = now
            self._outlier.reset()
            if self.half_open or self.ejected_until > NEVER:
                self.ejected_until = NEVER
                self._readmit("its probes are well again", now)
        self._tell()

    def set_admin(self, admin: Admin, now: float) -> None:
        """Take what the operator wants. A backend that was drained starts slowly."""
        if admin is self.admin:
            return
        if admin is Admin.ACTIVE:
            self.slow_from = now
        self.admin = admin
        self._tell()

    def eject(self, now: float) -> float:
        """Eject it, and return until when (monotonic seconds). The pool has checked that it may."""
        in_service_s = now - self.returned_at if self.returned_at > NEVER else 0.0
        self.ejected_until = now + self._outlier.next_time_s(in_service_s)
        self.half_open = False
        self.ejections += 1
        self._outlier.reset()
        self._tell()
        return self.ejected_until

    def spare(self) -> None:
        """The pool cannot do without this outlier: start counting its failures anew."""
        self._outlier.reset()

    def try_again(self) -> None:
        """The ejection time is over: send one request at a time as a trial."""
        self.ejected_until = NEVER
        self.half_open = True
        self._outlier.reset()

    def _readmit(self, evidence: str, now: float) -> None:
        self.half_open = False
        self.returned_at = self.slow_from = now
        if self._owner is not None:
            self._owner.readmitted(self, evidence, now)

    def _tell(self) -> None:
        if self._owner is not None:
            self._owner.changed()
