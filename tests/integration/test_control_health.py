"""From a probe's answer to a worker's next pick: health, live failures, regions, events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic
from typing import Self

import pytest_asyncio
from kit.control import Whole
from kit.origin import ScriptedOrigin
from kit.waiting import until

from edge.balance.health import Admin, Health
from edge.control.admin.views import Views
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
ejection = { consecutive = 2, time = "60s" }
[pools.web.health]
path = "/healthz"
interval = "@INTERVAL@"
timeout = "2s"
interval_transition = "20ms"
interval_down = "@DOWN@"
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

    def __init__(self, one: ScriptedOrigin, two: ScriptedOrigin, interval: str, down: str = "100ms") -> None:
        toml = TOML.replace("@ONE@", str(one.port)).replace("@TWO@", str(two.port)).replace("@INTERVAL@", interval)
        toml = toml.replace("@DOWN@", down)
        self.whole = Whole(toml)
        self.probing = Probing(self.whole.supervisor.running.config, self.whole.supervisor)

    async def __aenter__(self) -> Self:
        await self.whole.start()
        self.probing.start()
        await until(lambda: {self.health("one"), self.health("two")} == {Health.HEALTHY})
        return self

    async def __aexit__(self, *error: object) -> None:
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
    async with Probed(origin, two, "2100ms") as probed:
        await until(lambda: probed.shares() == {"eu": 100.0})
        await origin.stop()
        await until(lambda: probed.shares() == {"us": 100.0})
        told = [
            event
            for event in probed.whole.supervisor.events.recent
            if event["kind"] in ("backend.health", "region.health") and event["is"] == Health.UNHEALTHY.value
        ]
        assert [(each["kind"], each.get("backend") or each["region"]) for each in told] == [
            ("backend.health", "one"),
            ("region.health", "eu"),
        ]
        event = told[0]
        assert event["backend"] == "one"
        assert event["evidence"].endswith(": connection refused")


async def test_a_failed_request_brings_the_next_probe_forward(origin: ScriptedOrigin, two: ScriptedOrigin) -> None:
    async with Probed(origin, two, "10m") as probed:
        await origin.stop()
        worker = probed.whole.children[0].worker
        assert worker is not None
        backend = worker.pools["web"].pool.get("one")
        assert backend is not None
        backend.failures += 1  # as one failed attempt counts it
        await until(lambda: probed.health("one") is Health.UNHEALTHY)
        assert probed.health("two") is Health.HEALTHY


async def test_a_registered_backend_is_probed_and_a_removed_one_forgotten(
    origin: ScriptedOrigin, two: ScriptedOrigin
) -> None:
    async with Probed(origin, two, "2100ms") as probed:
        registry = probed.whole.supervisor.registry
        body = {"url": f"http://localhost:{two.port}", "region": "eu"}
        await registry.put_backend("web", "three", body, Change("test"))
        await until(lambda: probed.health("three") is Health.HEALTHY)
        await registry.remove_backend(("web", "three"), Change("test"))
        assert ("web", "three") not in probed.whole.supervisor.routing.membership.backends


async def test_a_backend_that_every_worker_ejected_is_out_of_its_regions_health(
    origin: ScriptedOrigin, two: ScriptedOrigin
) -> None:
    async with Probed(origin, two, "10m") as probed:
        worker = probed.whole.children[0].worker
        assert worker is not None
        backend = worker.pools["web"].pool.get("one")
        assert backend is not None
        backend.eject(monotonic())
        await until(lambda: probed.shares() == {"us": 100.0})
        assert probed.whole.supervisor.routing.pools["web"].health["eu"].available == 0


async def test_with_nobody_left_probes_are_quick_and_the_first_to_return_serves(
    origin: ScriptedOrigin, two: ScriptedOrigin
) -> None:
    async with Probed(origin, two, "2100ms", down="10m") as probed:
        await two.stop()
        await until(lambda: probed.health("two") is Health.UNHEALTHY)
        await origin.stop()
        await until(lambda: probed.health("one") is Health.UNHEALTHY)
        await two.start()  # asked ten minutes later, were there anybody else
        await until(lambda: probed.shares() == {"us": 100.0})
        assert probed.health("one") is Health.UNHEALTHY


async def test_an_ejection_ends_with_the_outage_that_probes_saw(origin: ScriptedOrigin, two: ScriptedOrigin) -> None:
    async with Probed(origin, two, "2100ms") as probed:
        worker = probed.whole.children[0].worker
        assert worker is not None
        backend = worker.pools["web"].pool.get("one")
        assert backend is not None
        for _ in range(8):
            backend.eject(monotonic())  # the last one is for minutes
        await origin.stop()
        await until(lambda: backend.health is Health.UNHEALTHY)
        assert backend.ejected_until > monotonic() + 60
        await origin.start()
        await until(lambda: backend.available(monotonic()))
        await until(lambda: probed.shares().get("eu", 0.0) > 0)
        kinds = [event["kind"] for event in probed.whole.supervisor.events.recent]
        assert "readmitted" in kinds and "region.ramp" in kinds
        shown = Views(probed.whole.supervisor)
        assert 10.0 <= shown.pool("web")["regions"]["eu"]["ramping"] < 100.0
        assert 10.0 <= shown.region("eu")["ramping"]["web"] <= shown.status()["regions"][0]["ramping"] < 100.0


async def test_what_operators_change_is_told(origin: ScriptedOrigin, two: ScriptedOrigin) -> None:
    async with Probed(origin, two, "2100ms") as probed:
        registry, change = probed.whole.supervisor.registry, Change("me", "night shift")
        await registry.put_region("ap", {"tier": 1}, change)
        await registry.put_backend("web", "three", {"url": f"http://localhost:{two.port}", "region": "ap"}, change)
        await registry.set_backend_state(("web", "three"), Admin.DRAINING, change)
        await registry.set_region_state("eu", Admin.DRAINING, change)
        await until(lambda: probed.shares() == {"us": 100.0})
        await registry.set_region_state("eu", Admin.ACTIVE, change)
        assert probed.shares() == {"eu": 100.0}, "at once, for it was well all the while"
        await registry.ask_failback("eu", change)
        await registry.remove_backend(("web", "three"), change)
        await registry.remove_region("ap", change)
        told = [event for event in probed.whole.supervisor.events.recent if event.get("actor") == "me"]
        assert [(each["kind"], each.get("is")) for each in told] == [
            ("region.added", None),
            ("backend.added", None),
            ("backend.admin", "draining"),
            ("region.admin", "draining"),
            ("region.admin", "active"),
            ("region.failback_asked", None),
            ("backend.removed", None),
            ("region.removed", None),
        ]
        assert {each["reason"] for each in told} == {"night shift"}
