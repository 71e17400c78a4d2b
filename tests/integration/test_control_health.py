"""From a probe's answer to a worker's next pick: health, live failures, regions, events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic

import pytest_asyncio
from kit.control import Whole, until
from kit.origin import ScriptedOrigin

from edge.balance.health import Health
from edge.control.probing import Probing
from edge.control.registry import Change

TOML = """
[listen]
http = ["127.0.0.1:0"]
[log]
access = "off"
[regions.eu]
[regions.us]
tier = 1
[pools.web]
ejection = { consecutive = 2, time = "5s" }
[pools.web.health]
path = "/healthz"
interval = "@INTERVAL@"
timeout = "80ms"
interval_transition = "20ms"
interval_down = "100ms"
[[pools.web.backends]]
id = "one"
url = "http://127.0.0.1:@ONE@"
region = "eu"
[[pools.web.backends]]
id = "two"
url = "http://127.0.0.1:@TWO@"
region = "us"
[[routes]]
pool = "web"
cache = false
"""


class Probed:
    """A gateway whose backends are two scripted origins, and its probes."""

    def __init__(self, one: ScriptedOrigin, two: ScriptedOrigin, interval: str) -> None:
        toml = TOML.replace("@ONE@", str(one.port)).replace("@TWO@", str(two.port)).replace("@INTERVAL@", interval)
        self.whole = Whole(toml)
        self.probing = Probing(self.whole.supervisor.running.config, self.whole.supervisor)

    async def start(self) -> None:
        await self.whole.start()
        self.probing.start()
        await until(lambda: {self.health("one"), self.health("two")} == {Health.HEALTHY})

    async def stop(self) -> None:
        await self.probing.stop()
        await self.whole.supervisor.close()

    def health(self, identity: str) -> Health:
        return self.whole.supervisor.routing.live(("web", identity)).health

    def shares(self) -> dict[str, float]:
        """As the worker has them."""
        worker = self.whole.children[0].worker
        assert worker is not None
        view = worker.pools["web"].pool.view
        return {} if view is None else dict(view.shares)


@pytest_asyncio.fixture
async def two() -> AsyncIterator[ScriptedOrigin]:
    found = ScriptedOrigin()
    await found.start()
    yield found
    await found.stop()


async def test_a_region_that_stops_answering_loses_its_traffic(origin: ScriptedOrigin, two: ScriptedOrigin) -> None:
    probed = Probed(origin, two, "100ms")
    await probed.start()
    try:
        await until(lambda: probed.shares() == {"eu": 100.0})
        await origin.stop()
        await until(lambda: probed.shares() == {"us": 100.0})
        (event,) = [
            event for event in probed.whole.supervisor.events.recent if event.get("is") == Health.UNHEALTHY.value
        ]
        assert event["backend"] == "one"
        assert event["evidence"].endswith(": connection refused")
    finally:
        await probed.stop()


async def test_a_failed_request_brings_the_next_probe_forward(origin: ScriptedOrigin, two: ScriptedOrigin) -> None:
    probed = Probed(origin, two, "10m")
    await probed.start()
    try:
        await origin.stop()
        worker = probed.whole.children[0].worker
        assert worker is not None
        backend = worker.pools["web"].pool.get("one")
        assert backend is not None
        backend.failures += 1  # as one failed attempt counts it
        await until(lambda: probed.health("one") is Health.UNHEALTHY)
        assert probed.health("two") is Health.HEALTHY
    finally:
        await probed.stop()


async def test_a_registered_backend_is_probed_and_a_removed_one_forgotten(
    origin: ScriptedOrigin, two: ScriptedOrigin
) -> None:
    probed = Probed(origin, two, "100ms")
    await probed.start()
    try:
        registry = probed.whole.supervisor.registry
        body = {"url": f"http://localhost:{two.port}", "region": "eu"}
        await registry.put_backend("web", "three", body, Change("test"))
        await until(lambda: probed.health("three") is Health.HEALTHY)
        await registry.remove_backend(("web", "three"), Change("test"))
        assert ("web", "three") not in probed.whole.supervisor.routing.membership.backends
    finally:
        await probed.stop()


async def test_a_backend_that_every_worker_ejected_is_out_of_its_regions_health(
    origin: ScriptedOrigin, two: ScriptedOrigin
) -> None:
    probed = Probed(origin, two, "10m")
    await probed.start()
    try:
        worker = probed.whole.children[0].worker
        assert worker is not None
        backend = worker.pools["web"].pool.get("one")
        assert backend is not None
        backend.eject(monotonic())
        await until(lambda: probed.shares() == {"us": 100.0})
        assert probed.whole.supervisor.routing.pools["web"].health["eu"].available == 0
    finally:
        await probed.stop()
