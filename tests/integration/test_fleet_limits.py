"""Two gateways whose rate limits are one, against one real redis-server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from kit.asking import ask
from kit.fleet import HOST, Machine, Machines, Settings
from kit.redis import RedisProcess
from kit.waiting import until_blocking

BURST = 6
SETTINGS = Settings(
    max_blind_s=30.0,
    fleet='share = ["rate_limits"]',
    route=f'rate_limit = {{ rate = "6/h", burst = {BURST}, by = "header:X-Who" }}',
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    made = RedisProcess.start(tmp_path_factory.mktemp("redis"))
    yield made
    made.kill()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: RedisProcess) -> Iterator[Machines]:
    made = Machines(tmp_path_factory.mktemp("limits"), [server.url] * 2, SETTINGS)
    yield made
    made.close()


def status(machine: Machine, who: str) -> int:
    return ask(machine.gateway.http_port, fields={"Host": HOST, "X-Who": who}).status


def left(machine: Machine, who: str) -> str:
    """What the machine would let through."""
    url = quote(f"http://{HOST}/", safe="")
    found = machine.call("GET", f"/v1/explain?url={url}&header={quote(f'X-Who: {who}')}")
    return json.dumps(found)


def test_what_one_machine_let_through_is_owed_on_the_other(world: Machines, server: RedisProcess) -> None:
    (first, second), who = world.machines, "one"
    assert [status(first, who) for _ in range(BURST)] == [200] * BURST
    assert status(first, who) == 429
    until_blocking(lambda: server.say("KEYS", "{edge}:limit:*") != b"*0\r\n")
    assert status(second, who) == 200, "it has not heard of this key yet"
    until_blocking(lambda: " 0 left" in left(second, who))
    assert status(second, who) == 429
    assert status(second, who + "else") == 200
    assert b"X-Who" not in server.say("KEYS", "*") and b"one" not in server.say("KEYS", "{edge}:limit:*")


def test_without_the_server_each_machine_limits_by_itself(world: Machines, server: RedisProcess) -> None:
    server.kill()
    for machine in world.machines:
        until_blocking(lambda machine=machine: not machine.fleet["in_step"])  # type: ignore[misc]
        assert [status(machine, "alone") for _ in range(BURST + 1)] == [200] * BURST + [429]
