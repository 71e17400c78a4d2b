"""What `/metrics` says of processes, tiers, memory, queues and certificates, beside what workers count.

One rule: labels are bounded by the configuration and the code: workers, pools, backends, tiers, certificates' files,
kinds of events, status codes. Names that end in `_total` are counters, the others gauges.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge import __version__
from edge.adapters.tls import expiry
from edge.dataplane.worker.vitals import of_process

if TYPE_CHECKING:
    from edge.control.supervisor import Supervisor

Gauge = tuple[str, str, dict[str, str], float]
CERTIFICATES_S = 600.0  # how often the files are read again


class Vitals:
    """The gauges of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._all = supervisor
        self._certificates: dict[str, float] = {}
        self._read_at = float("-inf")

    def gauges(self) -> Iterator[Gauge]:
        """Every gauge: name, help text, labels, value."""
        yield from self._build()
        yield from self._processes()
        yield from self._pools()
        yield from self._tiers()
        yield from self._memory()
        yield from self._fleet()
        yield from self._admin()
        for path, ends_at in self._ends().items():
            days = (ends_at - time.time()) / 86400
            yield "edge_certificate_days", "Days until a certificate ends", {"certificate": path}, round(days, 3)

    def _build(self) -> Iterator[Gauge]:
        whole = self._all
        about = {"version": __version__, "python": platform.python_version(), "config": whole.running.hash[:12]}
        yield "edge_build_info", "Version and configuration that run; always 1", about, 1.0
        yield "edge_start_timestamp_seconds", "When the supervisor began", {}, whole.started_at
        yield "edge_config_loaded_timestamp_seconds", "When the configuration was loaded", {}, whole.running.loaded_at

    def _processes(self) -> Iterator[Gauge]:
        whole = self._all
        rows = {"supervisor": {**of_process(os.getpid()), **whole.vitals.now()}}
        for slot in whole.workers.slots:
            gauges = whole.totals.gauges.get(slot.index, {})
            worker = {"worker": str(slot.index)}
            yield "edge_worker_up", "1 when the worker listens", worker, float(slot in whole.workers.live)
            yield "edge_worker_connections", "Its client connections", worker, float(gauges.get("connections", 0))
            vitals = gauges.get("vitals", {})
            if vitals:
                rows[f"worker-{slot.index}"] = vitals
                help_text = "How late the loop's timer was at most in the last second"
                yield "edge_worker_loop_lag_seconds", help_text, worker, vitals["lag_s"]
        yield "edge_supervisor_loop_lag_seconds", "The same of the supervisor", {}, rows["supervisor"]["lag_s"]
        for name, help_text, key in (
            ("resident_memory_bytes", "Resident memory", "rss_bytes"),
            ("cpu_seconds_total", "Processor time", "cpu_s"),
            ("open_files", "Open file descriptors", "open_files"),
        ):
            for process, values in rows.items():
                if key in values:
                    yield f"edge_process_{name}", help_text, {"process": process}, float(values[key])

    def _pools(self) -> Iterator[Gauge]:
        whole = self._all
        for pool in whole.routing.pools:
            queued = sum(found.get("queued", {}).get(pool, 0) for found in whole.totals.gauges.values())
            yield "edge_pool_queued", "Requests that wait for a backend", {"pool": pool}, float(queued)
        for pool, identity in whole.routing.membership.backends:
            open_ = sum(
                found.get("upstream", {}).get(pool, {}).get(identity, 0) for found in whole.totals.gauges.values()
            )
            labels = {"pool": pool, "backend": identity}
            yield "edge_backend_connections", "Open connections to a backend", labels, float(open_)

    def _tiers(self) -> Iterator[Gauge]:
        whole = self._all
        store = whole.totals.store()
        hits = whole.totals.accounts.total.lifetime.hits
        if not store:
            return
        tiers = {"memory": {**store, "hits": hits - store.get("disk_hits", 0)}}
        if whole.tier is not None:
            tiers["disk"] = {**whole.tier.stats(), "hits": store.get("disk_hits", 0)}
        for name, help_text in (
            ("bytes", "What a tier holds"),
            ("budget_bytes", "What a tier may hold"),
            ("objects", "Stored responses in a tier"),
            ("hits_total", "Requests answered from a tier"),
        ):
            for tier, values in tiers.items():
                value = float(max(0, values.get(name.removesuffix("_total"), 0)))
                yield f"edge_tier_{name}", help_text, {"tier": tier}, value

    def _memory(self) -> Iterator[Gauge]:
        store = self._all.totals.store()
        for use, key in (("store", "bytes"), ("fills", "reserved_bytes"), ("disk_queue", "disk_waiting_bytes")):
            if key in store:
                yield "edge_memory_bytes", "Memory of the workers by use", {"use": use}, float(store[key])

    def _fleet(self) -> Iterator[Gauge]:
        fleet, store = self._all.fleet, self._all.totals.store()
        if fleet is None:
            return
        yield "edge_fleet_in_step", "1 when every purge of the stream is applied here", {}, float(fleet.in_step)
        blind = float(fleet.follower.blind)
        yield "edge_fleet_blind", "1 when all that is stored is validated before use", {}, blind
        yield "edge_fleet_lag", "Purges of the stream that are not applied here", {}, float(fleet.lag)
        machines = float(len(fleet.machines.all(time.monotonic())))
        yield "edge_fleet_machines", "Machines that were heard of", {}, machines
        for word in ("hits", "misses", "written", "dropped", "garbled", "errors"):
            value = float(store.get(f"shared_{word}", 0))
            yield "edge_shared_responses_total", "What became of responses in the shared tier", {"result": word}, value

    def _admin(self) -> Iterator[Gauge]:
        whole = self._all
        for code, count in sorted({200: 0, 401: 0, **whole.admin_answers}.items()):
            yield "edge_admin_responses_total", "Answers of the admin API", {"code": str(code)}, float(count)
        for kind, count in sorted(whole.events.counts.items()):
            yield "edge_events_total", "Events by kind", {"kind": kind}, float(count)
        yield "edge_event_listeners", "Who listens to events now", {}, float(whole.events.listeners)

    def _ends(self) -> dict[str, float]:
        """Certificates' ends; the files are read again now and then, as they are renewed."""
        if time.monotonic() - self._read_at > CERTIFICATES_S:
            self._read_at = time.monotonic()
            config = self._all.running.config
            paths = {cert for each in config.listen.https for cert, _ in each.pems(config.state.path)}
            found = {str(path): expiry(str(path)) for path in sorted(map(str, paths))}
            self._certificates = {path: at for path, at in found.items() if at is not None}
        return self._certificates
