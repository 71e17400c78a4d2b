"""Probes at work: what is to be asked, who judges the answers (`balance.health`), and what a verdict sets in motion.

One rule: a backend's record follows its address. One that is drained is asked on, so that its return is informed; one
that comes back under the same name with another address starts unknown.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from time import monotonic

from edge.adapters.tls import client_context, stamps
from edge.balance.backend import BackendSpec
from edge.balance.health import ProbeSettings, ProbeState
from edge.config.loader import Config
from edge.config.routing import APP_SCHEME
from edge.config.routing import Health as HealthConfig
from edge.config.routing import Pool as PoolConfig
from edge.control.app_probes import ask_workers
from edge.control.fleet.opinions import Opinions
from edge.control.membership import Key
from edge.control.probes import ProbeKind, Prober, ProbeTarget
from edge.control.supervisor import Supervisor


class Probing:
    """The probes of one gateway. Raises ConfigError when a pool's TLS files cannot be used."""

    def __init__(self, config: Config, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._pools = {name: pool for name, pool in config.pools.items() if pool.health is not None}
        self._tls: dict[str, tuple[object, ssl.SSLContext]] = {}  # and what it was made from
        self._targets: dict[Key, ProbeTarget] = {}
        self._states: dict[Key, ProbeState] = {}
        self._prober: Prober | None = None
        self._chance = random.Random()
        self._lost: set[str] = set()  # pools that have nobody left
        self._follow()

    def start(self) -> None:
        """Probe every backend at once, and then at its interval."""
        self._prober = Prober(self._targets.values(), self._told, self._next_delay)
        self._supervisor.on_members = self.follow
        self._supervisor.on_failing = self.hurry
        self._supervisor.on_decided = self.look_for_lost

    async def stop(self) -> None:
        """Stop all probes."""
        if self._prober is not None:
            await self._prober.close()

    def follow(self) -> None:
        """The membership changed: probe its current backends."""
        self._follow()
        if self._prober is not None:
            self._prober.update(self._targets.values())

    def reload(self, config: Config, before: Config) -> None:
        """Use another configuration, whose membership is in use already. Records of unchanged targets stay."""
        self._pools = {name: pool for name, pool in config.pools.items() if pool.health is not None}
        self.follow()

    def hurry(self, key: Key) -> None:
        """A live request failed at this backend: probe it soon."""
        state = self._states.get(key)
        if state is not None and self._prober is not None and not state.in_transition:
            state.hurry()
            self._prober.hurry(key)

    def look_for_lost(self) -> None:
        """Who is available may have changed. With nobody left in a pool all its probes go on at the pace of a
        transition, at once."""
        lost = {name for name in self._pools if self._supervisor.routing.is_lost(name)}
        fresh, self._lost = lost - self._lost, lost
        if self._prober is not None and fresh:
            for key in self._targets:
                if key[0] in fresh:
                    self._prober.hurry(key)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        targets: dict[Key, ProbeTarget] = {}
        states: dict[Key, ProbeState] = {}
        for key, entry in self._supervisor.routing.membership.backends.items():
            pool = self._pools.get(key[0])
            if pool is None or pool.health is None:
                continue
            tls = self._context(key[0], pool) if entry.spec.scheme == "https" else None
            target = probe_target(key, entry.spec, pool, tls)
            if entry.spec.scheme == APP_SCHEME:
                target = replace(target, ask=partial(ask_workers, self._supervisor.workers))
            targets[key] = target
            known, settings = self._states.get(key), probe_settings(pool.health)
            if known is None or not self._targets[key].same_address(target):
                known = ProbeState(settings)
            known.settings = settings
            states[key] = known
        if self._opinions is not None:
            self._opinions.only([key for key, state in states.items() if self._states.get(key) is state])
        self._targets, self._states = targets, states

    @property
    def _opinions(self) -> Opinions | None:
        """The fleet's opinions, if health is shared."""
        fleet = self._supervisor.fleet
        return None if fleet is None else fleet.opinions

    def _context(self, name: str, pool: PoolConfig) -> ssl.SSLContext:
        """A pool's TLS settings, read once: reading the system's certificates takes long."""
        tls = pool.tls
        now = (tls, stamps(tls.ca, tls.cert, tls.key))
        read, found = self._tls.get(name, (None, None))
        if found is None or read != now:
            found = client_context(tls.ca, tls.cert, tls.key, tls.verify)
            self._tls[name] = (now, found)
        return found

    def _told(self, identity: Hashable, ok: bool, seconds: float, evidence: str) -> None:
        """Handle the result of one probe."""
        key: Key = identity  # type: ignore[assignment]  # ours: `probe_target` gives them
        state = self._states.get(key)
        if state is None:
            return
        now = monotonic()
        routing = self._supervisor.routing
        if ok:
            routing.probe_took(key, seconds, now)
        change = state.on_result(ok, now, key[0] in self._lost)
        if change is None:
            return
        said = f"{change.evidence}: {evidence}"
        if self._opinions is not None and not self._targets[key].is_ours:
            self._opinions.judged(key, change.new, said, now)
        else:
            routing.set_health(key, change.new, said)
            self._supervisor.decide()

    def _next_delay(self, identity: Hashable, now: float) -> float:
        key: Key = identity  # type: ignore[assignment]  # as above
        state = self._states.get(key)
        return 1.0 if state is None else float(state.next_delay(self._chance.randrange, key[0] in self._lost))


def probe_settings(health: HealthConfig) -> ProbeSettings:
    """A pool's `health` table as balancing reads it."""
    return ProbeSettings(
        interval_s=health.interval,
        timeout_s=health.timeout,
        fall=health.fall,
        rise=health.rise,
        transition_s=health.interval_transition,
        down_factor=health.interval_down / health.interval,
    )


def probe_target(key: Key, spec: BackendSpec, pool: PoolConfig, tls: ssl.SSLContext | None) -> ProbeTarget:
    """What to probe for one backend."""
    health = pool.health
    assert health is not None
    return ProbeTarget(
        id=key,
        host=spec.host,
        port=spec.port,
        timeout_s=health.timeout,
        kind=ProbeKind(health.kind),
        authority=spec.authority if health.host is None else health.host.encode(),
        path=health.path,
        method=health.method,
        headers=tuple(health.headers.items()),
        expect=health.expect,
        body=health.body or "",
        tls=tls,
        server_name=pool.tls.server_name,
        proxy_protocol=pool.proxy_protocol,
    )
