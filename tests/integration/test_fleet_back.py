"""A machine whose link to the fleet's server is back: from when the server hears it, nothing that it missed is served.

Two gateways as processes, one real redis-server; the link of one is cut, and held when it asks for what it missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kit.fleet import HOST, LinkedMachines, Machine, Settings
from kit.relay import Relay
from kit.waiting import until_blocking

TARGETS = ("/purged", "/as-it-was")


@dataclass
class World:
    """`late` has missed a purge, is back, and its question for what it missed gets no answer until `relay.mend()`."""

    machines: LinkedMachines
    late: Machine
    relay: Relay
    purge: Future[Any]


def opened(directory: Path, pool: ThreadPoolExecutor, catch_up: str) -> Iterator[World]:
    settings = Settings(max_blind_s=60.0, fleet=f'catch_up = "{catch_up}"')
    with closing(LinkedMachines(directory, 2, settings)) as machines:
        late, other = machines.machines
        relay = machines.link(late)
        machines.origin.now = "old"
        for target in TARGETS:
            assert machines.all_get(target) == {b"old"}
        relay.cut()
        until_blocking(lambda: not late.fleet["in_step"])
        machines.origin.now = "new"
        purge = pool.submit(other.purge, url=f"http://{HOST}/purged")
        until_blocking(lambda: other.fleet["position"] == 1)
        assert late.get("/purged") == b"old", "it cannot know yet"
        relay.mend(hold_at=b"XRANGE")
        until_blocking(lambda: relay.is_held)
        heard = machines.server.say("HGET", "{edge}:machines", late.fleet["id"])
        assert b'"in_step":false' in heard, "the server hears it again"
        yield World(machines, late, relay, purge)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as made:
        yield made


@pytest.fixture
def patient(tmp_path: Path, pool: ThreadPoolExecutor) -> Iterator[World]:
    yield from opened(tmp_path, pool, "60s")


@pytest.fixture
def hasty(tmp_path: Path, pool: ThreadPoolExecutor) -> Iterator[World]:
    yield from opened(tmp_path, pool, "500ms")


def test_requests_wait_until_what_was_missed_is_applied(patient: World, pool: ThreadPoolExecutor) -> None:
    late, asked = patient.late, patient.machines.origin.asked
    purged, kept = (pool.submit(late.get, target) for target in TARGETS)
    until_blocking(lambda: late.fleet["catching_up"])
    assert not purged.done() and not kept.done()
    patient.relay.mend()
    assert purged.result() == b"new" and kept.result() == b"old"
    assert patient.machines.origin.asked == asked + 1, "what was not purged is not validated"
    until_blocking(lambda: patient.machines.in_step(late))
    assert patient.purge.result()["machines"]["applied"] >= 1


def test_who_cannot_read_what_it_missed_validates_soon(hasty: World) -> None:
    assert {hasty.late.get(target) for target in TARGETS} == {b"new"}
    assert hasty.late.fleet["blind"] and not hasty.late.fleet["catching_up"]
    hasty.relay.mend()
    until_blocking(lambda: hasty.machines.in_step(hasty.late))


def test_a_server_that_dies_while_a_machine_catches_up_leaves_it_validating(hasty: World) -> None:
    hasty.machines.server.kill()
    assert {hasty.late.get(target) for target in TARGETS} == {b"new"}, "it knows that it has missed something"
    hasty.machines.server = hasty.machines.server.again()
    hasty.relay.mend()
    until_blocking(lambda: hasty.machines.in_step(hasty.late))
