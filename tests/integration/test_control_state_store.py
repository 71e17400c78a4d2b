"""What operators changed is there after a restart: over a real journal, file and run-time entries apart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.disk import SmallDisk, small_disk

from edge.balance.health import Admin
from edge.cache.purge import Purge, PurgeKind, PurgeState
from edge.config.loader import load_text
from edge.control.instance import CannotStart, lock_state, orphaned
from edge.control.journal import Journal, JournalError
from edge.control.membership import Source
from edge.control.purging import Order
from edge.control.registry import Change
from edge.control.state_store import SAVE_EVERY, JournalStateStore

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
PURGE = Purge(PurgeKind.URL, b"http://a/")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    return tmp_path


def again(state: Path, state_store: JournalStateStore) -> JournalStateStore:
    """As after a kill: what was not durable is gone."""
    state_store.close()
    return JournalStateStore.open(state)


def test_registrations_and_states_survive(state: Path) -> None:
    state_store = JournalStateStore.open(state)
    state_store.register("region", "ap", {"tier": 2, "countries": ["JP"]}, ME)
    state_store.register("backend", "web/b", {"id": "b", "url": "http://127.0.0.1:10", "region": "ap"}, ME)
    state_store.set_state("region", "eu", Admin.DRAINING, ME)
    state_store.set_state("backend", "web/b", Admin.INACTIVE, ME)
    state_store = again(state, state_store)
    found = state_store.membership(CONFIG)
    region, backend = found.regions["ap"], found.backends["web", "b"]
    assert (region.source, region.spec.tier, region.spec.countries) == (Source.RUNTIME, 2, ("JP",))
    assert (backend.source, backend.admin, backend.spec.region) == (Source.RUNTIME, Admin.INACTIVE, "ap")
    assert backend.decision is not None and (backend.decision.actor, backend.decision.reason) == ("me", "because")
    assert (found.regions["eu"].source, found.regions["eu"].admin) == (Source.FILE, Admin.DRAINING)
    assert [line["action"] for line in state_store.audit(10)] == [
        "backend.inactive",
        "region.draining",
        "backend.register",
        "region.register",
    ]
    state_store.close()


def test_the_operator_wins_over_a_region_that_starts_drained(state: Path) -> None:
    state_store = JournalStateStore.open(state)
    assert state_store.membership(CONFIG).regions["us"].admin is Admin.DRAINING
    state_store.set_state("region", "us", Admin.ACTIVE, ME)
    assert state_store.membership(CONFIG).regions["us"].admin is Admin.ACTIVE
    state_store.close()


def test_the_file_wins_over_a_registration_of_the_same_name_and_the_state_stays(state: Path) -> None:
    state_store = JournalStateStore.open(state)
    state_store.register("region", "eu", {"tier": 7}, ME)
    state_store.register("backend", "web/127.0.0.1:9", {"url": "http://127.0.0.1:99", "region": "eu"}, ME)
    state_store.register("backend", "web/x", {"id": "x", "url": "http://127.0.0.1:9", "region": "eu"}, ME)
    state_store.register("backend", "gone/x", {"id": "x", "url": "http://127.0.0.1:1", "region": "eu"}, ME)
    state_store.register("backend", "web/y", {"id": "y", "url": "http://127.0.0.1:1", "region": "mars"}, ME)
    state_store.set_state("region", "eu", Admin.DRAINING, ME)
    found = state_store.membership(CONFIG)
    assert found.regions["eu"].spec.tier == 0
    assert found.regions["eu"].admin is Admin.DRAINING
    assert [entry.source for entry in found.of_pool("web")] == [Source.FILE]
    assert len(state_store.passed_over) == 5
    state_store.close()


def test_what_was_removed_does_not_leave_its_state_behind(state: Path) -> None:
    state_store = JournalStateStore.open(state)
    values = {"id": "b", "url": "http://127.0.0.1:10", "region": "eu"}
    state_store.register("backend", "web/b", values, ME)
    state_store.set_state("backend", "web/b", Admin.DRAINING, ME)
    state_store.unregister("backend", "web/b", ME)
    assert ("web", "b") not in state_store.membership(CONFIG).backends
    state_store.register("backend", "web/b", values, ME)
    assert state_store.membership(CONFIG).backends["web", "b"].admin is Admin.ACTIVE
    state_store.close()


@pytest.mark.parametrize("count", [1, SAVE_EVERY + 3])
def test_purges_are_known_again_and_numbers_go_on(state: Path, count: int) -> None:
    state_store = JournalStateStore.open(state)
    purge_log = state_store.purge_log()
    for number in range(count):
        purge = Purge(PurgeKind.TAG, b"t%d" % number)
        purge_log.record(purge, 1000.0, state_store.record_purges([Order(purge, ME)], None)[0])
        state_store.save_purge_log(purge_log)
    state_store = again(state, state_store)
    found = state_store.purge_log()
    assert found.seq == purge_log.seq
    assert found.admit(1, b"http://a/", [b"t%d" % (count - 1)]).verdict is PurgeState.GONE
    assert found.admit(1, b"http://a/", [b"other"]).verdict is PurgeState.KEPT
    assert state_store.record_purges([Order(Purge(PurgeKind.ALL), ME)], None) == [count + 1]
    state_store.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as made:
        yield made


@pytest.mark.parametrize("killed", [False, True])
def test_a_full_disk_starts_with_what_is_known_and_refuses_changes_until_there_is_room(
    disk: SmallDisk, killed: bool
) -> None:
    state = disk.path / "state"
    state_store = JournalStateStore.open(state)
    state_store.purge_log()
    state_store.register("region", "ap", {"tier": 2}, ME)
    number = state_store.record_purges([Order(PURGE, ME)], None)[0]
    if killed:  # the log is still there
        left = [(path.name, path.read_bytes()) for path in state.glob("state.sqlite*")]
        state_store.close()
        for name, data in left:
            (state / name).write_bytes(data)
    else:
        state_store.close()
    disk.fill()
    state_store = JournalStateStore.open(state)
    try:
        purge_log = state_store.purge_log()
        assert purge_log.seq == number << 32
        assert "ap" in state_store.membership(CONFIG).regions
        assert state_store.failed and "full" in state_store.failed[0]
        with pytest.raises(JournalError) as refused:
            state_store.record_purges([Order(PURGE, ME)], None)[0]
        assert refused.value.status == 503
        state_store.save_purge_log(purge_log, always=True)
        disk.clear()
        assert state_store.record_purges([Order(PURGE, ME)], None)[0] == number + 1
    finally:
        state_store.close()
    state_store = JournalStateStore.open(state)
    assert state_store.purge_log().seq == (number + 1) << 32
    state_store.close()


def test_that_epochs_cannot_be_saved_fails_no_purge(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state_store = JournalStateStore.open(state)
    purge_log = state_store.purge_log()

    def full(_: object, saved: object) -> None:
        raise JournalError("journal: database or disk is full")

    monkeypatch.setattr(Journal, "save_purge_log", full)
    for _ in range(SAVE_EVERY + 2):
        purge_log.record(PURGE, 1.0, state_store.record_purges([Order(PURGE, ME)], None)[0])
        state_store.save_purge_log(purge_log)
    assert state_store.failed == ["journal: database or disk is full"]
    state_store.close()
    monkeypatch.undo()
    state_store = JournalStateStore.open(state)
    assert state_store.purge_log().seq == (SAVE_EVERY + 2) << 32, "all of them are replayed"
    state_store.close()


@pytest.mark.parametrize("name", ["state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "state.sqlite.lock"])
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_no_file_of_the_journal_is_reached_through_a_link(state: Path, name: str, kind: str) -> None:
    JournalStateStore.open(state).close()
    target = state / "target"
    target.write_bytes(b"somebody's")
    (state / name).unlink(missing_ok=True)
    if kind == "link":
        (state / name).symlink_to(target)
    else:
        os.mkfifo(state / name)
    with pytest.raises(JournalError, match=r"is a symbolic link|is not a plain file"):
        JournalStateStore.open(state)
    assert target.read_bytes() == b"somebody's"


@pytest.mark.parametrize("name", ["supervisor.lock", "workers.json"])
def test_nobody_waits_for_a_state_file_that_is_none(state: Path, name: str) -> None:
    state.mkdir(parents=True, exist_ok=True)
    os.mkfifo(state / name)
    if name == "workers.json":
        assert orphaned(state) == []
    else:
        with pytest.raises(CannotStart, match=r"cannot be used as state directory: supervisor\.lock: "):
            lock_state(state)
