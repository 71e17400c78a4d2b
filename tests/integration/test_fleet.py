"""Three gateways as processes, each with its own link to one real redis-server: purges reach all of them.

The property that matters most is asked from outside: what was purged and acknowledged by all is never served again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from kit.fleet import HOST, Machine
from kit.fleet import LinkedMachines as World
from kit.processes import GatewayProcess
from kit.waiting import WAIT_S, until_blocking

from edge.adapters.shared_tier import name_of


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three machines, certain that they are all."""
    with closing(World(tmp_path_factory.mktemp("fleet"), 3)) as made:
        made.wait_sure()
        yield made


@pytest.fixture
def world(fleet: World) -> World:
    """The same, in step as a test begins, whatever the machine did meanwhile."""
    until_blocking(fleet.all_in_step)
    return fleet


ALL_OF_THEM = {"applied": 3, "of": 3, "late": [], "sent": True, "sure": True}

KINDS = {
    "url": lambda target: {"url": f"http://{HOST}{target}"},
    "tag": lambda target: {"tag": "tag"},
    "prefix": lambda target: {"prefix": f"{HOST}{target}"},
    "host": lambda target: {"host": HOST},
    "all": lambda target: {"all": True},
}


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_purge_on_one_machine_is_in_force_on_all_when_it_is_answered(world: World, kind: str, soft: bool) -> None:
    target = f"/{kind}-{soft}"
    world.origin.now = f"old {target}"
    assert world.all_get(target) == {world.origin.now.encode()}
    world.origin.now = f"new {target}"
    assert world.all_get(target) == {f"old {target}".encode()}
    found = world.machines[1].purge(**KINDS[kind](target), soft=soft)
    assert found["machines"] == ALL_OF_THEM
    assert world.all_get(target) == {f"new {target}".encode()}


def test_many_purges_in_one_request_are_answered_together(world: World) -> None:
    world.origin.now = "old"
    targets = [f"/many-{number}" for number in range(5)]
    for target in targets:
        world.all_get(target)
    world.origin.now = "new"
    found = world.machines[0].purge(items=[{"url": f"http://{HOST}{target}"} for target in targets])
    assert [each["machines"] for each in found["purges"]] == [ALL_OF_THEM] * 5
    assert {body for target in targets for body in world.all_get(target)} == {b"new"}


def test_an_unsafe_request_on_one_machine_is_known_to_the_others_soon(world: World) -> None:
    world.origin.now = "before"
    world.all_get("/form")
    world.origin.now = "after"
    before = world.machines[0].fleet["position"]
    world.machines[2].get("/form", "POST")
    until_blocking(lambda: all(machine.fleet["position"] > before for machine in world.machines))
    assert world.all_get("/form") == {b"after"}


def test_what_one_machine_fetched_the_others_take_from_it(world: World) -> None:
    world.origin.now = "once"
    first, second, _ = world.machines
    name = f"edge:{name_of(f'http://{HOST}/once'.encode(), b'')}"
    first.get_shared("/once", lambda: world.server.say("EXISTS", name) == b":1\r\n")
    asked = world.origin.asked
    assert second.get("/once") == b"once" and world.origin.asked == asked
    until_blocking(lambda: second.fleet["shared"]["hits"] > 0)  # counts come once a second


def test_a_machine_that_was_cut_off_validates_and_then_catches_up(world: World) -> None:
    """A thousand purges pass meanwhile, one of which names what it has."""
    cut, other = world.machines[0], world.machines[1]
    world.origin.now = "old"
    world.all_get("/cut")
    world.link(cut).cut()
    until_blocking(lambda: not cut.fleet["in_step"])
    assert cut.get("/cut") == b"old"
    world.origin.now = "new"
    found = other.purge(url=f"http://{HOST}/cut")
    assert (found["machines"]["applied"], found["machines"]["late"]) == (2, ["edge-0"])
    other.purge(items=[{"tag": f"t{number}"} for number in range(999)])
    until_blocking(lambda: cut.fleet["blind"])
    assert cut.get("/cut") == b"new", "blind: the origin was asked"
    world.origin.now = "newer"
    assert cut.get("/cut") == b"newer", "and is asked for what was stored while blind"
    assert cut.told("fleet.cut_off") and cut.told("fleet.blind")
    world.origin.now = "newest"
    world.link(cut).mend()
    seen = set()

    def caught_up() -> bool:
        seen.add(cut.get("/cut"))
        return world.in_step(cut)

    until_blocking(caught_up, WAIT_S)
    assert seen <= {b"newest"}, "nothing older on its way back"
    assert not cut.fleet["blind"] and cut.get("/cut") == b"newest"
    assert cut.fleet["position"] == other.fleet["position"]


def test_back_before_it_is_blind_a_machine_has_applied_all_that_it_missed(world: World) -> None:
    cut, other = world.machines[0], world.machines[1]
    world.origin.now = "old"
    world.all_get("/short")
    world.link(cut).cut()
    until_blocking(lambda: not cut.fleet["in_step"])
    world.origin.now = "new"
    other.purge(url=f"http://{HOST}/short")
    world.link(cut).mend()
    until_blocking(lambda: world.in_step(cut))
    assert cut.get("/short") == b"new"


def test_a_link_that_carries_nothing_is_a_link_that_is_cut(world: World) -> None:
    cut = world.machines[2]
    world.link(cut).hold()
    until_blocking(lambda: cut.fleet["trouble"] == "no answer in time")
    assert not cut.fleet["in_step"]
    world.link(cut).mend()
    until_blocking(lambda: world.in_step(cut))


def stored(machine: Machine) -> int:
    """Responses in its disk tier."""
    found: int = machine.call("GET", "/v1/cache")["disk"]["objects"]
    return found


def test_what_was_purged_while_a_machine_was_away_is_not_served_from_its_disk(world: World) -> None:
    away, other = world.machines[2], world.machines[1]
    world.origin.now = "old"
    before = stored(away)
    world.all_get("/away")
    until_blocking(lambda: stored(away) > before)
    away.gateway.stop()
    world.origin.now = "new"
    assert other.purge(url=f"http://{HOST}/away")["machines"] == {**ALL_OF_THEM, "applied": 2, "of": 2}, "it has left"
    away.gateway = GatewayProcess(away.toml, away.directory)
    away.wait_ready()
    assert away.get("/away") == b"new"
    until_blocking(lambda: world.in_step(away))


def test_a_start_without_the_server_believes_nothing_of_what_it_has(world: World) -> None:
    machine = world.machines[2]
    world.origin.now = "old"
    before = stored(machine)
    world.all_get("/lonely")
    until_blocking(lambda: stored(machine) > before)
    world.link(machine).cut()
    machine.restart(lambda gateway: gateway.kill())
    world.origin.now = "new"
    assert machine.get("/lonely") == b"new"
    assert machine.fleet["blind"]
    world.link(machine).mend()
    until_blocking(lambda: world.in_step(machine))


def test_purges_without_the_server_are_in_force_here_and_sent_when_it_is_back(world: World) -> None:
    machine, other = world.machines[0], world.machines[1]
    world.origin.now = "old"
    world.all_get("/later")
    world.link(machine).cut()
    until_blocking(lambda: not machine.fleet["in_step"])
    world.origin.now = "new"
    found = machine.purge(url=f"http://{HOST}/later")
    assert found["machines"]["sent"] is False and found["machines"]["applied"] == 1
    assert machine.get("/later") == b"new" and other.get("/later") == b"old"
    world.link(machine).mend()
    until_blocking(lambda: world.in_step(machine))
    until_blocking(lambda: other.get("/later") == b"new")


def test_an_entry_that_cannot_be_read_distrusts_everything(world: World) -> None:
    world.origin.now = "old"
    world.all_get("/garbled")
    position = world.machines[0].fleet["position"]
    world.server.say("HSET", "{edge}:head", "position", str(position + 1), "mark", "evil")
    world.server.say("XADD", "{edge}:purges", f"{position + 1}-0", "mark", "evil", "purge", "\x00garbage")
    until_blocking(lambda: all(machine.fleet["position"] == position + 1 for machine in world.machines))
    world.origin.now = "new"
    assert world.all_get("/garbled") == {b"new"}
    assert world.machines[0].told("fleet.garbled")


def test_a_server_that_loses_everything_makes_everybody_validate(world: World) -> None:
    world.origin.now = "old"
    world.all_get("/lost")
    history = world.machines[0].fleet["history"]
    world.server.say("FLUSHALL")
    until_blocking(
        lambda: all(machine.fleet["history"] != history and machine.fleet["in_step"] for machine in world.machines)
    )
    world.origin.now = "new"
    assert world.all_get("/lost") == {b"new"}
    found = world.machines[0].purge(all=True)["machines"]
    assert (found["applied"], found["sure"]) == (3, False), "the stream is young"


def test_another_process_of_the_server_is_found_out(world: World) -> None:
    """Killed and started again, empty: requests are served on, nothing stored before is believed."""
    world.origin.now = "old"
    world.all_get("/killed")
    world.server.kill()
    until_blocking(lambda: not any(machine.fleet["in_step"] for machine in world.machines))
    assert world.all_get("/killed") == {b"old"}
    world.server = world.server.again()
    until_blocking(lambda: all(world.in_step(machine) for machine in world.machines))
    world.origin.now = "new"
    assert world.all_get("/killed") == {b"new"}
