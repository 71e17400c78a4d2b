"""What the admin API shows of regions, pools, backends and the whole: plain values of what is known.

One rule: no secret is shown. The configuration is shown as it was checked, with the userinfo of URLs and whatever is
named like a secret hidden.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from time import monotonic
from typing import Any

from edge import __version__
from edge.balance.health import Health
from edge.config.types import Section
from edge.control.admin import store_help
from edge.control.admin.errors import missing
from edge.control.membership import BackendEntry, OperatorDecision, RegionEntry
from edge.control.supervisor import Supervisor
from edge.control.totals import summary
from edge.metrics import Meter

HIDDEN = "***"
_SECRET = re.compile(r"secret|password|passphrase|token$|private", re.IGNORECASE)
_USERINFO = re.compile(r"//[^/@\s]*@")
NO_NUMBERS = summary(Meter())

Gauge = tuple[str, str, dict[str, str], float]


class Views:
    """Plain values of one supervisor's state, for reading."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._all = supervisor

    # -- regions ---------------------------------------------------------------------------------------------------

    def regions(self) -> list[dict[str, Any]]:
        """One row for each region."""
        return [self._region(entry) for entry in self._all.routing.membership.regions.values()]

    def region(self, name: str) -> dict[str, Any]:
        """One region. Raises NotFound."""
        return self._region(self._all.registry.region(name))

    def _region(self, entry: RegionEntry) -> dict[str, Any]:
        routing, spec = self._all.routing, entry.spec
        return {
            "name": spec.name,
            "source": entry.source.value,
            "tier": spec.tier,
            "weight": spec.weight,
            "location": spec.location,
            "countries": spec.countries,
            "continents": spec.continents,
            "subdivisions": spec.subdivisions,
            "last_resort": spec.last_resort,
            "admin": entry.admin.value,
            "change": _decision(entry.decision),
            "registered": _decision(entry.registered),
            "health": routing.region_verdict(spec.name),
            "shares": {
                pool.name: round(pool.view.shares.get(spec.name, 0.0), 2)
                for pool in routing.pools.values()
                if spec.name in pool.health
            },
            "ramping": {
                pool.name: percent
                for pool in routing.pools.values()
                if (percent := routing.ramping(pool, spec.name, monotonic())) is not None
            },
            "backends": [f"{each.spec.pool}/{each.spec.id}" for each in routing.membership.in_region(spec.name)],
            "numbers": summary(self._all.totals.regions.get(spec.name) or Meter()),
        }

    # -- pools -----------------------------------------------------------------------------------------------------

    def pools(self) -> list[dict[str, Any]]:
        """All pools with their backends."""
        return [self.pool(name) for name in self._all.routing.pools]

    def pool(self, name: str) -> dict[str, Any]:
        """One pool with its backends. Raises NotFound."""
        pool = self._all.routing.pools.get(name)
        if pool is None:
            raise missing("pool", name, self._all.routing.pools)
        state = pool.state
        return {
            "name": name,
            "balance": pool.policy,
            "failover": pool.settings.mode.value,
            "phase": state.phase.value,
            "serving": state.serving,
            "frozen": state.frozen,
            "view": pool.view.as_dict(),
            "regions": {
                region: {
                    "health": health.verdict(pool.healthy_min).value,
                    "available": health.available,
                    "total": health.total,
                    "latency_ms": None if health.latency_s is None else round(health.latency_s * 1000, 2),
                    "ramping": self._all.routing.ramping(pool, region, monotonic()),
                }
                for region, health in pool.health.items()
            },
            "backends": [self._backend(entry) for entry in self._all.routing.membership.of_pool(name)],
            "numbers": summary(self._all.totals.pools.get(name) or Meter()),
        }

    def backend(self, pool: str, identity: str) -> dict[str, Any]:
        """One backend. Raises NotFound."""
        return self._backend(self._all.registry.backend((pool, identity)))

    def _backend(self, entry: BackendEntry) -> dict[str, Any]:
        spec, totals = entry.spec, self._all.totals
        live = self._all.routing.live((spec.pool, spec.id))
        meter = totals.backends.get((spec.pool, spec.id))
        now = monotonic()
        latency = live.latency.value
        host = f"[{spec.host}]" if ":" in spec.host else spec.host
        return {
            "id": spec.id,
            "pool": spec.pool,
            "url": f"{spec.scheme}://{host}:{spec.port}" if spec.port else f"{spec.scheme}:{spec.host}",
            "region": spec.region,
            "weight": spec.weight,
            "max_in_flight": spec.max_in_flight,
            "source": entry.source.value,
            "admin": entry.admin.value,
            "change": _decision(entry.decision),
            "registered": _decision(entry.registered),
            "health": live.health.value,
            "evidence": live.evidence,
            "since": live.since,
            "ejected": sum(1 for until in live.ejected.values() if until > now),
            "probe_ms": None if latency is None else round(latency * 1000, 2),
            "in_flight": totals.in_flight(spec.pool, spec.id),
            **(NO_NUMBERS if meter is None else summary(meter)),
        }

    # -- the whole -------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Workers, backends, regions, routes, and the outcome of the last reload."""
        whole = self._all
        running = whole.running
        ready, word = whole.readiness()
        listen = running.config.listen
        return {
            "version": __version__,
            "pid": os.getpid(),
            "ready": ready,
            "readiness": word,
            "started_at": whole.started_at,
            "uptime_s": time.time() - whole.started_at,
            "config": {"file": running.filename, "hash": running.hash, "loaded_at": running.loaded_at},
            "reload": None if whole.reloading is None else whole.reloading.status,
            "state": str(running.config.state.path),
            "listen": [str(each) for each in listen.http] + [f"{each.address} (https)" for each in listen.https],
            "workers": self._workers(),
            "requests": whole.totals.requests_report(monotonic()),
            "regions": [
                {
                    "pool": pool.name,
                    "name": name,
                    "tier": entry.spec.tier,
                    "admin": entry.admin.value,
                    "health": pool.health[name].verdict(pool.healthy_min).value,
                    "share": round(pool.view.shares.get(name, 0.0), 2),
                    "ramping": whole.routing.ramping(pool, name, monotonic()),
                }
                for pool in whole.routing.pools.values()
                for name, entry in whole.routing.membership.regions.items()
                if name in pool.health
            ],
            "backends": [self._backend(entry) for entry in whole.routing.membership.backends.values()],
            "counters": dict(whole.totals.counters),
            "fleet": whole.fleet is not None,
            "recovery": None if running.config.snapshots is None or whole.recovery is None else whole.recovery.status,
            "events": list(whole.events.recent)[-20:],
        }

    def _workers(self) -> list[dict[str, Any]]:
        gauges = self._all.totals.gauges
        return [
            {
                "index": slot.index,
                "pid": slot.child.pid if slot.child is not None else None,
                "state": slot.state.value,
                "restarts": slot.restarts,
                "connections": gauges.get(slot.index, {}).get("connections", 0),
            }
            for slot in self._all.workers.slots
        ]

    def config(self) -> dict[str, Any]:
        """The running configuration, secrets hidden."""
        running = self._all.running
        return {
            "file": running.filename,
            "hash": running.hash,
            "loaded_at": running.loaded_at,
            "config": plain(running.config),
        }

    def cache(self) -> dict[str, Any]:
        """Hit rates, offload and bandwidth, the contents of the tiers, the last purge's number."""
        found = {**self._all.totals.cache_report(monotonic()), "epoch": self._all.purge_log.seq}
        return found if self._all.tier is None else {**found, "disk": self._disk(found["store"])}

    def _disk(self, counts: dict[str, float]) -> dict[str, Any]:
        """The disk tier: what it holds, and what the workers counted; its share of all hits."""
        tier = self._all.tier
        workers = {name.removeprefix("disk_"): count for name, count in counts.items() if name.startswith("disk_")}
        hits = self._all.totals.accounts.total.lifetime.hits
        share = workers.get("hits", 0) / hits if hits else None
        return {**workers, **(tier.stats() if tier is not None else {}), "hit_share": share}

    def gauges(self) -> Iterable[Gauge]:
        """The gauges of `/metrics`."""
        whole = self._all
        if whole.recovery is not None:
            yield from whole.recovery.gauges()
        if whole.reloading is not None:
            yield from whole.reloading.gauges()
        if whole.issuing is not None:
            yield from whole.issuing.gauges()
        if whole.tier is not None:
            for name, value in whole.tier.stats().items():
                yield f"edge_disk_{name}", store_help.of_tier(name), {}, float(value)
        yield "edge_ready", "1 when every worker listens", {}, float(whole.readiness()[0])
        yield "edge_workers", "Workers that are alive", {}, float(len(whole.workers.live))
        yield "edge_worker_restarts_total", "Workers replaced", {}, float(sum(s.restarts for s in whole.workers.slots))
        for pool in whole.routing.pools.values():
            for region, health in pool.health.items():
                labels = {"pool": pool.name, "region": region}
                yield "edge_region_available", "Available part of a region's weight", labels, health.fraction
                share = pool.view.shares.get(region, 0.0)
                yield "edge_region_share", "Percent of a pool's new requests", labels, share
        for entry in whole.routing.membership.backends.values():
            labels = {"pool": entry.spec.pool, "backend": entry.spec.id}
            live = whole.routing.live((entry.spec.pool, entry.spec.id))
            healthy = float(live.health is not Health.UNHEALTHY)
            yield "edge_backend_healthy", "0 when probes say that it is down", labels, healthy


def _decision(decision: OperatorDecision | None) -> dict[str, Any] | None:
    if decision is None:
        return None
    return {"actor": decision.actor, "reason": decision.reason, "at": decision.at, "expires_at": decision.expires_at}


def plain(value: Any, name: str = "") -> Any:
    """A checked configuration as JSON values, secrets hidden."""
    if isinstance(value, Section):
        return {key: plain(getattr(value, key), key) for key in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): plain(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item, name) for item in items]
    if value is None or isinstance(value, bool | int | float):
        return value
    if is_secret(name):
        return HIDDEN
    text = str(value)
    return _USERINFO.sub(f"//{HIDDEN}@", text) if "//" in text else text


@lru_cache(1024)
def is_secret(name: str) -> bool:
    """Whether a key is named like what is never shown."""
    return _SECRET.search(name) is not None
