"""What operators changed is there after a restart: over a real journal, file and run-time entries apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.balance.health import Admin
from edge.cache.purge import Kind, Purge, Verdict
from edge.config import load_text
from edge.control.keeper import SAVE_EVERY, JournalKeeper
from edge.control.membership import Source
from edge.control.registry import Change

TOML = """
[listen]
http = ["127.0.0.1:8080"]
[regions.eu]
[regions.us]
drained = true
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:9"
region = "eu"
[[routes]]
pool = "web"
"""
CONFIG = load_text(TOML, "test.toml")
ME = Change("me", "because")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    return tmp_path


def again(state: Path, keeper: JournalKeeper) -> JournalKeeper:
    """As after a kill: what was not durable is gone."""
    keeper.close()
    return JournalKeeper.open(state)


def test_registrations_and_states_survive(state: Path) -> None:
    keeper = JournalKeeper.open(state)
    keeper.register("region", "ap", {"tier": 2, "countries": ["JP"]}, ME)
    keeper.register("backend", "web/b", {"id": "b", "url": "http://127.0.0.1:10", "region": "ap"}, ME)
    keeper.set_state("region", "eu", Admin.DRAINING, ME)
    keeper.set_state("backend", "web/b", Admin.INACTIVE, ME)
    keeper = again(state, keeper)
    found = keeper.membership(CONFIG)
    region, backend = found.regions["ap"], found.backends["web", "b"]
    assert (region.source, region.spec.tier, region.spec.countries) == (Source.RUNTIME, 2, ("JP",))
    assert (backend.source, backend.admin, backend.spec.region) == (Source.RUNTIME, Admin.INACTIVE, "ap")
    assert backend.word is not None and (backend.word.actor, backend.word.reason) == ("me", "because")
    assert (found.regions["eu"].source, found.regions["eu"].admin) == (Source.FILE, Admin.DRAINING)
    assert [line["action"] for line in keeper.audit(10)] == [
        "backend.inactive",
        "region.draining",
        "backend.register",
        "region.register",
    ]
    keeper.close()


def test_the_operator_wins_over_a_region_that_starts_drained(state: Path) -> None:
    keeper = JournalKeeper.open(state)
    assert keeper.membership(CONFIG).regions["us"].admin is Admin.DRAINING
    keeper.set_state("region", "us", Admin.ACTIVE, ME)
    assert keeper.membership(CONFIG).regions["us"].admin is Admin.ACTIVE
    keeper.close()


def test_the_file_wins_over_a_registration_of_the_same_name_and_the_state_stays(state: Path) -> None:
    keeper = JournalKeeper.open(state)
    keeper.register("region", "eu", {"tier": 7}, ME)
    keeper.register("backend", "web/127.0.0.1:9", {"url": "http://127.0.0.1:99", "region": "eu"}, ME)
    keeper.register("backend", "web/x", {"id": "x", "url": "http://127.0.0.1:9", "region": "eu"}, ME)
    keeper.register("backend", "gone/x", {"id": "x", "url": "http://127.0.0.1:1", "region": "eu"}, ME)
    keeper.register("backend", "web/y", {"id": "y", "url": "http://127.0.0.1:1", "region": "mars"}, ME)
    keeper.set_state("region", "eu", Admin.DRAINING, ME)
    found = keeper.membership(CONFIG)
    assert found.regions["eu"].spec.tier == 0
    assert found.regions["eu"].admin is Admin.DRAINING
    assert [entry.source for entry in found.of_pool("web")] == [Source.FILE]
    assert len(keeper.passed_over) == 5
    keeper.close()


def test_what_was_removed_does_not_leave_its_state_behind(state: Path) -> None:
    keeper = JournalKeeper.open(state)
    values = {"id": "b", "url": "http://127.0.0.1:10", "region": "eu"}
    keeper.register("backend", "web/b", values, ME)
    keeper.set_state("backend", "web/b", Admin.DRAINING, ME)
    keeper.unregister("backend", "web/b", ME)
    assert ("web", "b") not in keeper.membership(CONFIG).backends
    keeper.register("backend", "web/b", values, ME)
    assert keeper.membership(CONFIG).backends["web", "b"].admin is Admin.ACTIVE
    keeper.close()


@pytest.mark.parametrize("count", [1, SAVE_EVERY + 3])
def test_purges_are_known_again_and_numbers_go_on(state: Path, count: int) -> None:
    keeper = JournalKeeper.open(state)
    epochs = keeper.epochs()
    for number in range(count):
        purge = Purge(Kind.TAG, b"t%d" % number)
        epochs.record(purge, 1000.0, keeper.purge(purge, ME))
        keeper.save_epochs(epochs)
    keeper = again(state, keeper)
    found = keeper.epochs()
    assert found.seq == epochs.seq
    assert found.admit(1, b"http://a/", [b"t%d" % (count - 1)]).verdict is Verdict.GONE
    assert found.admit(1, b"http://a/", [b"other"]).verdict is Verdict.KEPT
    assert keeper.purge(Purge(Kind.ALL), ME) == count + 1
    keeper.close()
