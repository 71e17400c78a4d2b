"""The disk tier in points: responses come back byte for byte, only what is new is copied, nothing purged is served."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kit.recovery import KEY, Clock, work_on
from kit.repository import MemoryRepository
from kit.tier import body_of, looked, response, tier

from edge.adapters.disk_export import DiskWarm
from edge.adapters.disk_room import MIN_SIZE
from edge.adapters.disk_tier import DiskTier
from edge.cache.purge import Purge, PurgeKind, PurgeLog
from edge.cli.state import LocalState
from edge.control.journal import Journal
from edge.control.recovered import JOURNAL_FILE
from edge.recovery.points import Point, PointKind
from edge.sidecar.restore import Restored, Target, chosen, restore
from edge.sidecar.source import with_warm
from edge.sidecar.take import Work, take
from edge.sidecar.verify import Portion, verify

KEYS = [b"http://site.test/%d" % number for number in range(12)]
BODIES = [random.Random(number).randbytes(3_000 if number % 3 else 90_000) for number in range(12)]
FULL, INCR = PointKind.FULL, PointKind.INCREMENTAL


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def work(request: pytest.FixtureRequest) -> Work:
    return work_on(MemoryRepository(), Clock(), request.param)


class Machine:
    """A state directory with a disk tier."""

    def __init__(self, home: Path) -> None:
        self.state, self.cache = home / "var", home / "var" / "cache"
        self.purge_log = PurgeLog()
        with Journal.open(self.state / JOURNAL_FILE):
            pass
        self.tier = tier(self.cache, purge_log=self.purge_log)
        self.warm = DiskWarm(self.cache, MIN_SIZE)

    def fill(self, numbers: range) -> None:
        for number in numbers:
            self.tier.put(response(KEYS[number], BODIES[number]), self.purge_log.seq)
        assert self.tier.writer.flush()

    def purge(self, key: bytes) -> None:
        """Acknowledged: in the journal, and by the tier."""
        purge = Purge(PurgeKind.URL, key)
        with Journal.open(self.state / JOURNAL_FILE) as journal:
            number = journal.append_purge(purge.to_dict())
        self.purge_log.record(purge, 1.0, number)
        self.tier.forget(purge, 1.0)
        assert self.tier.writer.flush()

    def take(self, work: Work, kind: PointKind) -> Point:
        state = LocalState(self.state, True)
        return take(work, kind, lambda: with_warm(state.capture({}), self.warm)).point


def put_back(work: Work, machine: Machine, survivor: bool, point: str | None = None) -> tuple[Restored, DiskTier]:
    machine.tier.close()
    target = Target(machine.state, machine.cache, replace=True, survivor=machine.state if survivor else None)
    local = LocalState(machine.state, True)
    found = restore(work, local, machine.warm, lambda points: chosen(points, point, None), target)
    with Journal.open(machine.state / JOURNAL_FILE) as journal:
        saved = journal.load_purge_log()
        assert journal.history == found.rebuilt.history
    assert saved is not None
    return found, tier(machine.cache, purge_log=PurgeLog.from_dict(saved["epochs"]))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.fill(range(10))
    return found


def test_responses_come_back_byte_for_byte(work: Work, machine: Machine) -> None:
    before = {key: looked(machine.tier, key) for key in KEYS[:10]}
    point = machine.take(work, FULL)
    assert point.bodies == 10 and verify(work, None, Portion()).problems == {}
    found, again = put_back(work, machine, survivor=True)
    assert (found.bodies, found.rebuilt.gap) == (10, False)
    for key, body in zip(KEYS[:10], BODIES[:10], strict=True):
        (one,) = looked(again, key)
        assert body_of(again, one) == body
        (old,) = before[key]
        assert (one.wire, one.vary, one.fresh_until, one.no_cache) == (old.wire, old.vary, old.fresh_until, False)
    assert looked(again, KEYS[11]) == ()
    again.close()


def test_only_what_is_new_is_copied(work: Work, machine: Machine) -> None:
    first = machine.take(work, FULL)
    machine.fill(range(10, 12))
    second = machine.take(work, INCR)
    changed = len(BODIES[10]) + len(BODIES[11])
    assert changed <= second.written < 2 * changed < first.written
    idle = machine.take(work, INCR)
    assert idle.written < 200
    fresh = DiskWarm(machine.cache, MIN_SIZE)  # another process, which remembers nothing
    machine.warm = fresh
    assert machine.take(work, INCR).written < 200
    found, again = put_back(work, machine, survivor=True)
    assert found.bodies == 12
    again.close()


@pytest.mark.parametrize("survivor", [True, False])
def test_what_was_purged_before_the_point_stays_purged(work: Work, machine: Machine, survivor: bool) -> None:
    machine.purge(KEYS[3])
    machine.take(work, FULL)
    _, again = put_back(work, machine, survivor)
    assert looked(again, KEYS[3]) == () and looked(again, KEYS[4])
    again.close()


def test_what_was_purged_after_the_point_stays_purged_where_the_journal_survives(work: Work, machine: Machine) -> None:
    machine.take(work, FULL)
    machine.purge(KEYS[3])
    found, again = put_back(work, machine, survivor=True)
    assert found.rebuilt.purges_replayed == 1
    assert looked(again, KEYS[3]) == ()
    (one,) = looked(again, KEYS[4])
    assert not one.no_cache
    again.close()


def test_where_no_journal_survives_nothing_is_served_unvalidated(work: Work, machine: Machine) -> None:
    machine.take(work, FULL)
    machine.purge(KEYS[3])
    found, again = put_back(work, machine, survivor=False)
    assert found.rebuilt.gap
    for key in KEYS[:10]:
        (one,) = looked(again, key)
        assert one.no_cache and not one.simple  # each use asks the origin, which knows what is gone
        assert body_of(again, one) is not None
    again.close()


def test_a_number_from_after_the_point_does_not_outlive_later_purges(work: Work, machine: Machine) -> None:
    """Fetched after a purge that the point does not know: the next purge gets a number that may be no higher."""
    with Journal.open(machine.state / JOURNAL_FILE):
        pass
    machine.purge_log.record(Purge(PurgeKind.TAG, b"x"), 1.0, 900)  # numbers that the journal never had
    machine.fill(range(10, 11))
    machine.take(work, FULL)
    _, again = put_back(work, machine, survivor=True)
    purge_log = again.purge_log()
    purge_log.record(Purge(PurgeKind.URL, KEYS[10]), 2.0, purge_log.number + 1)
    assert looked(again, KEYS[10]) == ()
    again.close()


def test_a_damaged_record_is_left_out_and_the_others_taken(work: Work, machine: Machine) -> None:
    segment = max((machine.cache / "store" / "segments").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    point = machine.take(work, FULL)
    assert (point.bodies, machine.warm.damaged) == (9, 1)


def test_a_machine_without_a_tier_has_nothing_warm(tmp_path: Path) -> None:
    assert DiskWarm(tmp_path / "nothing", MIN_SIZE).capture() == {}


def test_a_smaller_tier_gets_what_fits(work: Work, machine: Machine) -> None:
    for number in range(20, 420):
        machine.tier.put(response(b"http://site.test/%d" % number, random.Random(number).randbytes(90_000)), 1)
        if number % 50 == 0:
            assert machine.tier.writer.flush()
    assert machine.tier.writer.flush()
    taken = machine.take(work, FULL)
    kept = taken.bodies
    machine.tier.close()
    small = DiskWarm(machine.cache, MIN_SIZE)
    large = DiskWarm(machine.cache, 4 * MIN_SIZE)
    for number, warm in enumerate((small, large)):
        folder = machine.state.parent / f"again-{number}"
        target = Target(folder, folder / "cache")
        found = restore(work, LocalState(folder, True), warm, lambda points: chosen(points, None, None), target)
        assert found.bodies == kept
        again = tier(folder / "cache")
        held = sum(bool(looked(again, b"http://site.test/%d" % each)) for each in range(420))
        assert held == kept if warm is large else 100 < held <= kept
        again.close()
