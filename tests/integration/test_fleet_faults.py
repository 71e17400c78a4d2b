"""What goes wrong with the fleet's server is a named event; requests are served on, and all is well when it is over.

Two gateways as processes, each with a link of its own to one real redis-server. What is wrong with stored values stands
in test_shared_tier, a link that breaks in test_fleet and test_fleet_back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kit.fleet import HOST, LinkedMachines, Machine, Machines, Settings
from kit.redis import RedisProcess
from kit.waiting import until_blocking

HEAD, MACHINES, PURGES = "{edge}:head", "{edge}:machines", "{edge}:purges"


class World(LinkedMachines):
    """Two machines; one that is not in step uses what it has for longer than a test takes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 2, Settings(max_blind_s=600.0))

    def break_links(self) -> None:
        """Every connection ends; new ones are let through."""
        for link in self.links:
            link.cut()
        until_blocking(lambda: not any(machine.fleet["in_step"] for machine in self.machines))
        for link in self.links:
            link.mend()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closing(World(tmp_path_factory.mktemp("faults"))) as made:
        yield made


def evidence(machine: Machine) -> list[str]:
    """Why it was cut off, each time."""
    events = machine.call("GET", "/v1/events?follow=0&kind=fleet.cut_off")["events"]
    return [str(event["evidence"]) for event in events]


def refused(world: World) -> None:
    world.server.say("CONFIG", "SET", "requirepass", "another")
    world.break_links()


def full(world: World) -> None:
    world.server.say("CONFIG", "SET", "maxmemory", "1")


def no_number(world: World) -> None:
    world.server.say("HSET", HEAD, "position", "a lot")


def no_hash(world: World) -> None:
    world.server.say("DEL", MACHINES)
    world.server.say("RPUSH", MACHINES, "a list")


FAULTS: dict[str, tuple[Callable[[World], None], Callable[[World], Any], str]] = {
    "wrong password": (
        refused,
        lambda world: world.server.say_as("another", "CONFIG", "SET", "requirepass", ""),
        "the server refuses the user or password",
    ),
    "full memory": (full, lambda world: world.server.say("CONFIG", "SET", "maxmemory", "0"), "memory is full"),
    "a head of nonsense": (no_number, lambda world: world.server.say("DEL", HEAD, PURGES), "makes no sense"),
    "a key of another type": (no_hash, lambda world: world.server.say("DEL", MACHINES), "WRONGTYPE"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_told_and_requests_are_served_on(world: World, name: str) -> None:
    break_it, mend_it, words = FAULTS[name]
    first, second = world.machines
    target = f"/{name.replace(' ', '-')}"
    until_blocking(world.all_in_step)
    world.origin.now = "old"
    assert world.all_get(target) == {b"old"}
    break_it(world)
    until_blocking(lambda: all(words in (machine.fleet["trouble"] or "") for machine in world.machines))
    world.origin.now = "new"
    assert world.all_get(target) == {b"old"}, "what is stored is used"
    assert world.all_get(f"{target}/2") == {b"new"}, "what is not is fetched"
    found = first.purge(url=f"http://{HOST}{target}")["machines"]
    assert (found["applied"], found["sent"], found["late"]) == (1, False, [second.name])
    assert first.get(target) == b"new" and second.get(target) == b"old"
    mend_it(world)
    until_blocking(world.all_in_step)
    assert world.all_get(target) == {b"new"}, "it was sent"
    assert all(any(words in why for why in evidence(machine)) for machine in world.machines)


def test_a_slow_server_makes_purges_slow_and_nothing_else(world: World) -> None:
    """100 ms each way."""
    until_blocking(world.all_in_step)
    events = [len(evidence(machine)) for machine in world.machines]
    for link in world.links:
        link.slow(0.1)
    world.origin.now = "old"
    assert world.all_get("/slow") == {b"old"}
    world.origin.now = "new"
    found = world.machines[0].purge(url=f"http://{HOST}/slow")["machines"]
    assert (found["applied"], found["of"], found["sent"]) == (2, 2, True)
    assert world.all_get("/slow") == {b"new"}
    for link in world.links:
        link.mend()
    assert [len(evidence(machine)) for machine in world.machines] == events, "nobody was cut off"


def test_a_link_that_carries_nothing_for_a_moment_makes_a_purge_wait(world: World) -> None:
    """Too short to be noticed, as a rule: nobody says that it is applied before it is."""
    until_blocking(world.all_in_step)
    first, second = world.machines
    world.origin.now = "old"
    world.all_get("/moment")
    world.origin.now = "new"
    position = first.fleet["position"]
    world.links[1].hold()
    with ThreadPoolExecutor(1) as pool:
        purge = pool.submit(first.purge, url=f"http://{HOST}/moment")
        until_blocking(lambda: first.fleet["position"] == position + 1)
        world.links[1].mend()
        found = purge.result()["machines"]
    assert second.get("/moment") == b"new" if found["applied"] == 2 else found["late"] == [second.name]
    until_blocking(world.all_in_step)
    assert world.all_get("/moment") == {b"new"}


HOSTILE = {
    "no words": b"garbage",
    "no time": b"x|{}",
    "no JSON": b"1|{",
    "a list": b"1|[]",
    "no name": b'1|{"position": 1, "max_blind_s": 1, "history": "", "run": ""}',
    "no number": b'1|{"position": "far", "max_blind_s": 1, "name": "x", "history": "", "run": ""}',
    "out of range": b'1|{"position": -7, "max_blind_s": 1, "name": "x", "history": "", "run": ""}',
    "for ever": b'1|{"position": 1, "max_blind_s": 1e300, "name": "x", "history": "", "run": ""}',
    "much too large": b'1|{"position": 1e400, "max_blind_s": 1, "name": "x", "history": "", "run": ""}',
    "\udcff\udcfe": b"\xff\xfe|\xff",
}


def test_words_of_nobody_in_the_server_are_passed_over(world: World) -> None:
    until_blocking(world.all_in_step)
    for identity, words in HOSTILE.items():
        world.server.say("HSET", MACHINES, identity.encode("utf-8", "surrogateescape"), words)
    world.origin.now = "old"
    world.all_get("/hostile")
    world.origin.now = "new"
    found = world.machines[0].purge(url=f"http://{HOST}/hostile")["machines"]
    assert (found["applied"], found["of"], found["late"]) == (2, 2, [])
    assert world.all_get("/hostile") == {b"new"}
    for identity in HOSTILE:
        world.server.say("HDEL", MACHINES, identity.encode("utf-8", "surrogateescape"))


def test_a_machine_with_a_hostile_name_is_shown_as_it_is_and_waited_for(world: World) -> None:
    """Whoever can write there can make purges late, and nothing else."""
    until_blocking(world.all_in_step)
    name = "\\u001b]0;x\\u0007<b>" + "n" * 200
    at = "99999999999999"
    words = f'{at}|{{"position": 1, "max_blind_s": 1, "name": "{name}", "history": "", "run": "", "workers": "many"}}'
    world.server.say("HSET", MACHINES, "evil", words)
    until_blocking(lambda: any(each["id"] == "evil" for each in world.machines[0].fleet["machines"]))
    [shown] = [each for each in world.machines[0].fleet["machines"] if each["id"] == "evil"]
    assert shown["name"] == "\x1b]0;x\x07<b>" + "n" * 91 and shown["workers"] == 0
    assert world.machines[0].purge(tag="none")["machines"]["late"] == [shown["name"]]
    world.server.say("HDEL", MACHINES, "evil")
    until_blocking(world.all_in_step)


def test_a_server_that_comes_after_its_machines_is_found(tmp_path: Path) -> None:
    """Away at the start: nothing that an earlier run stored is believed, what is asked for is served."""
    server = RedisProcess.start(tmp_path)
    server.kill()
    machines = Machines(tmp_path, [])
    try:
        machine = machines.add(server.url)
        assert machine.get("/first") == b"1"
        assert evidence(machine) == ["cannot reach the server"]
        assert machine.told("fleet.blind") and machine.fleet["blind"]
        server = server.again()
        until_blocking(lambda: machines.in_step(machine))
        assert machine.get("/first") == b"1" and not machine.fleet["blind"]
    finally:
        machines.close()
        server.kill()
