"""Three gateways as processes, each with its own link to one real redis-server: purges reach all of them.

The property that matters most is asked from outside: what was purged and acknowledged by all is never served again.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_toml
from kit.redis import RedisProcess
from kit.relay import Relay

from edge.adapters.shared_tier import name_of

HOST = "site.example"
MAX_BLIND_S = 2.0
WAIT_S = 20.0


class Machine:
    """One gateway and its link."""

    def __init__(self, number: int, origin_port: int, server: RedisProcess, directory: Path) -> None:
        self.name = f"edge-{number}"
        self.relay = Relay(server.port)
        self.directory = directory
        directory.mkdir()
        toml = gateway_toml(origin_port, route="cache = true")
        url = f"redis://{LOOPBACK}:{self.relay.port}/0"
        self.toml = f"""{toml}
[cache]
disk = {{ path = "{directory}/cache", size = "64MiB", min_free = "0B" }}
shared = {{ url = "{url}", timeout = "250ms" }}
[fleet]
url = "{url}"
name = "{self.name}"
max_blind = "{MAX_BLIND_S:g}s"
"""
        self.gateway = GatewayProcess(self.toml, directory)

    def wait_ready(self) -> None:
        self.gateway.wait_ready(lambda: self.gateway.admin_status("/readyz") == 200)

    def restart(self, how: Callable[[GatewayProcess], Any]) -> None:
        """End it and start it again with what it had on its disk."""
        how(self.gateway)
        self.gateway = GatewayProcess(self.toml, self.directory)
        self.wait_ready()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The admin API."""
        token = (self.directory / "state" / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(LOOPBACK, self.gateway.admin_port, timeout=WAIT_S)
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, found
        return found

    def purge(self, **what: Any) -> Any:
        return self.call("POST", "/v1/purge", what)

    @property
    def fleet(self) -> Any:
        return self.call("GET", "/v1/fleet")

    def get(self, target: str, method: str = "GET") -> bytes:
        """A client's request; the body."""
        connection = http.client.HTTPConnection(LOOPBACK, self.gateway.http_port, timeout=WAIT_S)
        connection.request(method, target, headers={"Host": HOST})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, (answer.status, body)
        return body

    def told(self, kind: str) -> bool:
        """Whether there was such an event."""
        return bool(self.call("GET", f"/v1/events?follow=0&kind={kind}")["events"])

    def close(self) -> None:
        self.gateway.kill()
        self.relay.close()


class World:
    """The machines, the server and an origin whose answer is what it has now."""

    def __init__(self, directory: Path, count: int) -> None:
        self.origin = Origin()
        self.server = RedisProcess.start(directory)
        self.machines = [
            Machine(number, self.origin.port, self.server, directory / str(number)) for number in range(count)
        ]
        for machine in self.machines:
            machine.wait_ready()
        until(lambda: all(self.in_step(machine) for machine in self.machines))
        until(lambda: all(machine.fleet["sure"] for machine in self.machines))

    def in_step(self, machine: Machine) -> bool:
        found = machine.fleet
        words = [each["state"] for each in found["machines"]]
        return found["in_step"] and words == ["in step"] * len(self.machines)

    def all_get(self, target: str) -> set[bytes]:
        return {machine.get(target) for machine in self.machines}

    def close(self) -> None:
        for machine in self.machines:
            machine.close()
        self.server.kill()
        self.origin.close()


class Origin:
    """What it has is `now`, whatever is asked for; it knows its own ETag again."""

    def __init__(self) -> None:
        self.now = "1"
        self.asked = 0
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                origin.asked += 1
                body, tag = origin.now.encode(), f'"{origin.now}"'
                same = self.headers.get("If-None-Match") == tag
                self.send_response(304 if same else 200)
                lines = {"Cache-Control": "max-age=600", "Surrogate-Key": "tag", "ETag": tag}
                for name, value in (lines if same else {**lines, "Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"" if same else body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def until(fact: Callable[[], object], wait_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + wait_s
    while not fact():
        assert time.monotonic() < deadline, f"never came true: line {fact.__code__.co_firstlineno}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("fleet"), 3)
    yield made
    made.close()


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
    until(lambda: all(machine.fleet["position"] > before for machine in world.machines))
    assert world.all_get("/form") == {b"after"}


def test_what_one_machine_fetched_the_others_take_from_it(world: World) -> None:
    world.origin.now = "once"
    first, second, _ = world.machines
    name = f"edge:{name_of(f'http://{HOST}/once'.encode(), b'')}"
    first.get("/once")
    until(lambda: world.server.say("EXISTS", name) == b":1\r\n")
    asked = world.origin.asked
    assert second.get("/once") == b"once" and world.origin.asked == asked
    until(lambda: second.fleet["shared"]["hits"] > 0)  # counts come once a second


def test_a_machine_that_was_cut_off_validates_and_then_catches_up(world: World) -> None:
    """A thousand purges pass meanwhile, one of which names what it has."""
    cut, other = world.machines[0], world.machines[1]
    world.origin.now = "old"
    world.all_get("/cut")
    cut.relay.cut()
    until(lambda: not cut.fleet["in_step"])
    assert cut.get("/cut") == b"old"
    world.origin.now = "new"
    found = other.purge(url=f"http://{HOST}/cut")
    assert (found["machines"]["applied"], found["machines"]["late"]) == (2, ["edge-0"])
    other.purge(items=[{"tag": f"t{number}"} for number in range(999)])
    until(lambda: cut.fleet["blind"], MAX_BLIND_S + 5)
    assert cut.get("/cut") == b"new", "blind: the origin was asked"
    world.origin.now = "newer"
    assert cut.get("/cut") == b"newer", "and is asked for what was stored while blind"
    assert cut.told("fleet.cut_off") and cut.told("fleet.blind")
    cut.relay.mend()
    until(lambda: world.in_step(cut))
    assert not cut.fleet["blind"]
    assert cut.fleet["position"] == other.fleet["position"]


def test_back_before_it_is_blind_a_machine_has_applied_all_that_it_missed(world: World) -> None:
    cut, other = world.machines[0], world.machines[1]
    world.origin.now = "old"
    world.all_get("/short")
    cut.relay.cut()
    until(lambda: not cut.fleet["in_step"])
    world.origin.now = "new"
    other.purge(url=f"http://{HOST}/short")
    cut.relay.mend()
    until(lambda: world.in_step(cut))
    assert cut.get("/short") == b"new"


def test_a_link_that_carries_nothing_is_a_link_that_is_cut(world: World) -> None:
    cut = world.machines[2]
    cut.relay.hold()
    until(lambda: cut.fleet["trouble"] == "no answer in time")
    assert not cut.fleet["in_step"]
    cut.relay.mend()
    until(lambda: world.in_step(cut))


def test_what_was_purged_while_a_machine_was_away_is_not_served_from_its_disk(world: World) -> None:
    away, other = world.machines[2], world.machines[1]
    world.origin.now = "old"
    world.all_get("/away")
    time.sleep(0.2)  # written to the disk
    away.gateway.stop()
    world.origin.now = "new"
    assert other.purge(url=f"http://{HOST}/away")["machines"] == {**ALL_OF_THEM, "applied": 2, "of": 2}, "it has left"
    away.gateway = GatewayProcess(away.toml, away.directory)
    away.wait_ready()
    assert away.get("/away") == b"new"
    until(lambda: world.in_step(away))


def test_a_start_without_the_server_believes_nothing_of_what_it_has(world: World) -> None:
    machine = world.machines[2]
    world.origin.now = "old"
    world.all_get("/lonely")
    time.sleep(0.2)
    machine.relay.cut()
    machine.restart(lambda gateway: gateway.kill())
    world.origin.now = "new"
    assert machine.get("/lonely") == b"new"
    assert machine.fleet["blind"]
    machine.relay.mend()
    until(lambda: world.in_step(machine))


def test_purges_without_the_server_are_in_force_here_and_sent_when_it_is_back(world: World) -> None:
    machine, other = world.machines[0], world.machines[1]
    world.origin.now = "old"
    world.all_get("/later")
    machine.relay.cut()
    until(lambda: not machine.fleet["in_step"])
    world.origin.now = "new"
    found = machine.purge(url=f"http://{HOST}/later")
    assert found["machines"]["sent"] is False and found["machines"]["applied"] == 1
    assert machine.get("/later") == b"new" and other.get("/later") == b"old"
    machine.relay.mend()
    until(lambda: world.in_step(machine))
    until(lambda: other.get("/later") == b"new")


def test_an_entry_that_cannot_be_read_distrusts_everything(world: World) -> None:
    world.origin.now = "old"
    world.all_get("/garbled")
    position = world.machines[0].fleet["position"]
    world.server.say("HSET", "{edge}:head", "position", str(position + 1), "mark", "evil")
    world.server.say("XADD", "{edge}:purges", f"{position + 1}-0", "mark", "evil", "purge", "\x00garbage")
    until(lambda: all(machine.fleet["position"] == position + 1 for machine in world.machines))
    world.origin.now = "new"
    assert world.all_get("/garbled") == {b"new"}
    assert world.machines[0].told("fleet.garbled")


def test_a_server_that_loses_everything_makes_everybody_validate(world: World) -> None:
    world.origin.now = "old"
    world.all_get("/lost")
    history = world.machines[0].fleet["history"]
    world.server.say("FLUSHALL")
    until(lambda: all(machine.fleet["history"] != history and machine.fleet["in_step"] for machine in world.machines))
    world.origin.now = "new"
    assert world.all_get("/lost") == {b"new"}
    found = world.machines[0].purge(all=True)["machines"]
    assert (found["applied"], found["sure"]) == (3, False), "the stream is young"


def test_another_process_of_the_server_is_found_out(world: World) -> None:
    """Killed and started again, empty: requests are served on, nothing stored before is believed."""
    world.origin.now = "old"
    world.all_get("/killed")
    world.server.kill()
    until(lambda: not any(machine.fleet["in_step"] for machine in world.machines))
    assert world.all_get("/killed") == {b"old"}
    world.server = world.server.again()
    until(lambda: all(world.in_step(machine) for machine in world.machines))
    world.origin.now = "new"
    assert world.all_get("/killed") == {b"new"}
