"""Three gateways that share administrative states and what their probes say, against one real redis-server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kit.fleet import HOST, LinkedMachines, Machine, Settings
from kit.relay import Relay
from kit.waiting import until_blocking

SETTINGS = Settings(
    max_blind_s=30.0,
    fleet='share = ["states", "health"]',
    pool='health = { path = "/", interval = "2100ms", timeout = "2s", interval_transition = "100ms", '
    'interval_down = "300ms", fall = 2, rise = 1 }',  # who refuses is known at once, who is slow is not
)


class World(LinkedMachines):
    """Each of three machines has a way of its own to the one backend, too."""

    def __init__(self, directory: Path) -> None:
        self.ways: list[Relay] = []
        super().__init__(directory, 3, SETTINGS)

    def way_to_origin(self) -> int:
        self.ways.append(Relay(self.origin.port))
        return self.ways[-1].port

    def close(self) -> None:
        super().close()
        for way in self.ways:
            way.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closing(World(tmp_path_factory.mktemp("sharing"))) as made:
        yield made


def backend(machine: Machine, what: str) -> str:
    """Its administrative state (`admin`), or what the machine believes of its health."""
    [found] = machine.call("GET", "/v1/pools/origin/backends")["backends"]
    return str(found[what])


def all_say(world: World, what: str, word: str) -> bool:
    return all(backend(machine, what) == word for machine in world.machines)


def test_what_most_machines_reach_is_up_and_what_most_do_not_is_down(world: World) -> None:
    until_blocking(lambda: all_say(world, "health", "healthy"))
    first, _, third = world.machines
    world.ways[0].cut()
    until_blocking(lambda: first.fleet["disputes"])
    [dispute] = first.fleet["disputes"]
    assert dispute == {"pool": "origin", "backend": "b", "believed": "healthy", "up": 2, "down": 1}
    assert backend(first, "health") == "healthy" and first.told("fleet.disputed")
    world.ways[1].cut()
    until_blocking(lambda: all_say(world, "health", "unhealthy"))
    assert [each["believed"] for each in third.fleet["disputes"]] == ["unhealthy"], "it reaches it by itself"
    world.links[2].cut()
    until_blocking(lambda: backend(third, "health") == "healthy")
    assert not third.fleet["disputes"], "a machine that hears nobody judges alone"
    for relay in (*world.ways, *world.links):
        relay.mend()
    until_blocking(
        lambda: all_say(world, "health", "healthy") and not any(each.fleet["disputes"] for each in world.machines)
    )


def test_a_backend_is_drained_on_all_machines_and_comes_back_on_all(world: World) -> None:
    first, second, third = world.machines
    until_blocking(lambda: all(world.in_step(machine) for machine in world.machines))
    path = "/v1/pools/origin/backends/b/state"
    second.call("POST", path, {"state": "draining", "reason": "new kernel", "force": True})
    until_blocking(lambda: all_say(world, "admin", "draining"))
    [line, *_] = first.call("GET", "/v1/audit?limit=1")["audit"]
    assert line["actor"].endswith(" on edge-1") and "new kernel" in str(line)
    world.links[0].cut()
    until_blocking(lambda: not first.fleet["in_step"])
    third.call("POST", path, {"state": "active"})
    first.call("POST", path, {"state": "inactive", "force": True})
    assert first.fleet["states"]["owed"] == 1
    until_blocking(lambda: backend(second, "admin") == "active")
    first.restart(lambda gateway: gateway.kill())
    assert backend(first, "admin") == "inactive"
    world.links[0].mend()
    until_blocking(lambda: all_say(world, "admin", "inactive"))
    assert first.told("fleet.conflict"), "the others had changed it meanwhile"
    world.server.say("FLUSHALL")
    second.call("POST", path, {"state": "active"})
    until_blocking(lambda: all_say(world, "admin", "active"))


def test_a_registration_is_on_all_machines_until_it_is_removed_on_one(world: World) -> None:
    first, _, third = world.machines
    until_blocking(lambda: all(world.in_step(machine) for machine in world.machines))
    first.call("PUT", "/v1/pools/origin/backends/extra", {"url": f"http://{HOST}:1"})

    def names(machine: Machine) -> list[str]:
        return sorted(each["id"] for each in machine.call("GET", "/v1/pools/origin/backends")["backends"])

    until_blocking(lambda: all(names(machine) == ["b", "extra"] for machine in world.machines))
    third.call("DELETE", "/v1/pools/origin/backends/extra")
    until_blocking(lambda: all(names(machine) == ["b"] for machine in world.machines))
