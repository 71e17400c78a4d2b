"""Taking, expiring and verifying: what is written, what is shared, what is refused, and what any damage does."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kit.recovery import KEY, Clock, Little, pruned, restored, taken, work_on
from kit.repository import MemoryRepository, Watched

from edge.adapters.repository_directory import DirectoryRepository
from edge.errors import (
    ChainBroken,
    ChecksumMismatch,
    ClockJumped,
    LockLost,
    NoRecoveryPoint,
    RecoveryError,
    RepositoryLocked,
    RepositoryNewer,
    WrongKey,
)
from edge.recovery import format as form
from edge.recovery.points import PointKind, closure, is_sound
from edge.recovery.table import digest
from edge.sidecar import locks
from edge.sidecar import take as taking
from edge.sidecar.locks import Lock, locked
from edge.sidecar.take import Work
from edge.sidecar.verify import Portion, verify

FULL, DIFF, INCR = PointKind.FULL, PointKind.DIFFERENTIAL, PointKind.INCREMENTAL


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    found: bytes | None = request.param
    return found


@pytest.fixture
def state() -> Little:
    little = Little()
    for number in range(20):
        little.change(f"row{number:02d}", b"v%d" % number, b"body %d " % number * 50)
    return little


@pytest.fixture
def held() -> dict[str, bytes]:
    return {}


@pytest.fixture
def work(held: dict[str, bytes], key: bytes | None) -> Work:
    return work_on(MemoryRepository(held), Clock(), key)


def names(held: dict[str, bytes], folder: str) -> set[str]:
    return {name for name in held if name.startswith(folder)}


def test_each_kind_restores_to_its_own_instant(work: Work, state: Little) -> None:
    points = {}
    for number, kind in enumerate((FULL, INCR, INCR, DIFF, INCR, FULL, INCR)):
        state.change(f"row{number:02d}", b"changed %d" % number, b"other %d" % number * 9)
        state.change(f"row{19 - number:02d}", None)
        points[taken(work, state, kind).id] = state.table()
    assert len(points) == 7
    for point, table in points.items():
        found, bodies = restored(work, point)
        assert found == table
        assert {entry.blob for entry in table.values() if entry.blob} == set(bodies)
        assert all(sha256(body).digest() == blob for blob, body in bodies.items())


def test_what_is_there_is_not_written_again(work: Work, state: Little, held: dict[str, bytes]) -> None:
    first = taken(work, state, FULL)
    packs = names(held, "packs/")
    again = taken(work, state, FULL)
    assert names(held, "packs/") == packs and again.packs == first.packs
    assert again.written < first.written
    idle = taken(work, state, INCR)
    assert (idle.kind, idle.packs, idle.sequence_from) == (INCR, (), again.sequence_to)
    state.change("row03", b"x", b"new body")
    assert len(taken(work, state, INCR).packs) == 1
    assert len(names(held, "packs/")) == len(packs) + 1


def test_a_full_point_leaves_packs_that_it_hardly_uses(work: Work, state: Little, held: dict[str, bytes]) -> None:
    first = taken(work, state, FULL)
    for number in range(15):
        state.change(f"row{number:02d}", None)
    again = taken(work, state, FULL)
    assert again.packs and set(again.packs).isdisjoint(first.packs)
    pruned(work, last=1)
    assert names(held, "packs/") == {f"packs/{file.name}" for file in again.packs}
    assert restored(work, again.id)[0] == state.table()


def test_the_closure_is_all_that_is_needed_and_all_of_it_is(work: Work, state: Little, held: dict[str, bytes]) -> None:
    taken(work, state, FULL)
    base = taken(work, state, FULL)
    state.change("row01", b"x", b"another body")
    taken(work, state, INCR)
    state.change("row02", b"y", b"one more body")
    last = taken(work, state, INCR)
    chain = closure(work.vault.points(), last.id)
    needed = {f"points/{link.id}" for link in chain} | {"config"}
    needed |= {f"index/{file.name}" for link in chain for file in link.index}
    needed |= {f"packs/{file.name}" for link in chain for file in link.packs}
    assert base.id in {link.id for link in chain} and len(needed) < len(held)
    key = KEY if work.vault.sealer.encrypted else None

    def tried(files: set[str]) -> None:
        copy = work_on(MemoryRepository({name: held[name] for name in files}), Clock(), key)
        assert restored(copy, last.id)[0] == state.table()

    tried(needed)
    for name in needed:
        with pytest.raises(RecoveryError):
            tried(needed - {name})


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_any_file_is_found(data: st.DataObject, key: bytes | None) -> None:
    """Over the real files of a directory: any bit, any truncation, anything appended."""
    with tempfile.TemporaryDirectory() as folder:
        root, state = Path(folder), Little()
        for number in range(4):
            state.change(f"row{number}", b"v", b"body %d" % number * 30)
        work = work_on(DirectoryRepository(root), Clock(), key)
        taken(work, state, FULL)
        state.change("row1", b"w", b"changed" * 20)
        point = taken(work, state, INCR)
        files = [path for path in root.rglob("*") if path.is_file()]
        files.sort(key=lambda path: (path.parent.name, path.stat().st_size))
        path = files[data.draw(st.integers(0, 1000)) % len(files)]
        whole = path.read_bytes()
        bit = data.draw(st.integers(0, 10**6)) % (len(whole) * 8)
        bad = {
            "flip": whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :],
            "cut": whole[: bit // 8],
            "longer": whole + b"\0",
        }[data.draw(st.sampled_from(["flip", "cut", "longer"]))]
        path.write_bytes(bad)
        try:
            again = work_on(DirectoryRepository(root), Clock(), key)
        except (ChecksumMismatch, RepositoryNewer):
            return
        problems = verify(again, None, Portion()).problems
        assert problems
        if path.name != closure(work.vault.points(), point.id)[0].id:
            assert point.id in problems or path.parent.name == "points"


def test_verifying_in_turn_reads_every_file_once(work: Work, state: Little, held: dict[str, bytes]) -> None:
    for number in range(30):
        state.change(f"row{number % 20:02d}", b"%d" % number, b"next %d" % number * 5)
        taken(work, state, INCR)
    files = len(names(held, "packs/")) + len(names(held, "index/"))
    assert sum(verify(work, None, Portion(number, 7)).files for number in range(1, 8)) == files
    assert verify(work, None, None).files == 0


def test_what_is_found_is_written_down_and_not_built_on(work: Work, state: Little, held: dict[str, bytes]) -> None:
    first = taken(work, state, FULL)
    second = taken(work, state, INCR)
    pack = f"packs/{first.packs[0].name}"
    whole = held[pack]
    held[pack] = whole[:-1] + bytes([whole[-1] ^ 1])
    assert set(verify(work, None, Portion()).problems) == {first.id, second.id}
    points = work.vault.points()
    assert not is_sound(points, points[second.id])
    third = taken(work, state, INCR)
    assert third.kind is FULL and second.id in third.promoted
    held[pack] = whole  # somebody put it right
    assert verify(work, [first.id], Portion()).problems == {}
    assert work.vault.points()[first.id].evidence.corrupt == ""


@pytest.mark.parametrize("folder", ["index/", "packs/"])
def test_a_parent_that_turns_out_to_be_damaged_is_noted(
    work: Work, state: Little, held: dict[str, bytes], folder: str
) -> None:
    parent = taken(work, state, FULL)
    del held[next(iter(names(held, folder)))]
    point = taken(work, state, DIFF)
    assert point.kind is FULL and "missing" in point.promoted
    assert work.vault.points()[parent.id].evidence.corrupt
    assert restored(work, point.id)[0] == state.table()


def test_a_body_that_went_meanwhile_is_left_out_and_told(work: Work, state: Little) -> None:
    captured = state.captured(work.wall())
    lost = sha256(state.bodies["row07"]).digest()
    read = captured.body
    captured.body = lambda blob: b"not it" if blob == lost else read(blob)
    point = taking.take(work, FULL, lambda: captured).point
    assert "cache/row07" not in restored(work, point.id)[0]
    assert len(point.left_out) == 1 and "1 bodies" in point.left_out[0]


def test_a_clock_that_went_back_takes_nothing(work: Work, state: Little, held: dict[str, bytes]) -> None:
    taken(work, state, FULL)
    before = dict(held)
    late = replace(work, wall=lambda: 1000.0)
    with pytest.raises(ClockJumped, match="set it right"):
        taken(late, state, FULL)
    assert held == before


# -- keys and versions -------------------------------------------------------------------------------------------------


def test_the_key_must_be_the_repositorys(held: dict[str, bytes]) -> None:
    work_on(MemoryRepository(held), Clock(), KEY)
    for wrong in (None, bytes(32)):
        with pytest.raises(WrongKey):
            work_on(MemoryRepository(held), Clock(), wrong)
    plain = MemoryRepository()
    work_on(plain, Clock())
    with pytest.raises(WrongKey, match="not encrypted"):
        work_on(plain, Clock(), KEY)


def test_nothing_of_an_encrypted_repository_can_be_read(state: Little, held: dict[str, bytes]) -> None:
    work = work_on(MemoryRepository(held), Clock(), KEY)
    point = taken(work, state, FULL)
    work.vault.note(point.id, 1.0, "hold", {"reason": "a secret reason"})
    whole = b"".join(held.values())
    assert not any(word in whole for word in (b"row0", b"body", b"digest", b"secret reason"))


def test_a_repository_of_a_newer_program_is_left_alone(held: dict[str, bytes], state: Little) -> None:
    work = work_on(MemoryRepository(held), Clock())
    taken(work, state, FULL)
    data = b"EDGERP\x02M" + b"of the future"
    held[f"points/20261118T000000Z-full-{form.hash_of(data)[:16]}"] = data
    with pytest.raises(RepositoryNewer, match="update"):
        work.vault.points()
    with pytest.raises(RepositoryNewer):
        pruned(work, last=1)
    held["config"] = form.config_file({"version": 2})
    with pytest.raises(RepositoryNewer):
        work_on(MemoryRepository(held), Clock())


def test_a_repository_without_its_own_file_is_not_made_anew(held: dict[str, bytes], state: Little) -> None:
    taken(work_on(MemoryRepository(held), Clock()), state, FULL)
    del held["config"]
    with pytest.raises(ChecksumMismatch, match="put it back"):
        work_on(MemoryRepository(held), Clock())


# -- expiring ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing(work: Work, state: Little, held: dict[str, bytes]) -> None:
    for _ in range(4):
        taken(work, state, FULL)
    before = dict(held)
    decisions = pruned(work, dry_run=True, last=1).decisions
    assert [decision.keep for decision in decisions] == [True, False, False, False]
    assert held == before


def test_expiring_leaves_just_what_the_kept_points_need(work: Work, state: Little, held: dict[str, bytes]) -> None:
    tables = {}
    for number, kind in enumerate((FULL, INCR, INCR, FULL, INCR, DIFF)):
        state.change("row00", b"%d" % number, b"only here %d" % number * 40)
        tables[taken(work, state, kind).id] = state.table()
    held["packs/" + "0" * 64] = b"left by a killed take"
    pruned(work, last=2)
    points = work.vault.points()
    assert [point.kind for point in points.values()] == [FULL, INCR, DIFF]
    files = {f"index/{file.name}" for point in points.values() for file in point.index}
    files |= {f"packs/{file.name}" for point in points.values() for file in point.packs}
    assert names(held, "index/") | names(held, "packs/") == files
    for name in points:
        assert restored(work, name)[0] == tables[name]


def test_while_a_kept_point_cannot_be_read_no_file_goes(work: Work, state: Little, held: dict[str, bytes]) -> None:
    taken(work, state, FULL)
    state.change("row00", b"x", b"only in the second")
    second = taken(work, state, FULL)
    held[f"points/{second.id}"] += b"x"
    held["packs/" + "0" * 64] = b"left by a killed take"
    fresh = work_on(work.vault.repository, Clock(), KEY if work.vault.sealer.encrypted else None)
    before = names(held, "packs/")
    found = pruned(fresh, last=1)
    assert "no file was deleted" in found.note and names(held, "packs/") == before


def test_a_hold_whose_record_is_damaged_holds(work: Work, state: Little, held: dict[str, bytes]) -> None:
    first = taken(work, state, FULL)
    work.vault.note(first.id, 1.0, "hold", {"reason": "court"})
    record = next(iter(names(held, "evidence/")))
    held[record] = held[record][:-1]
    taken(work, state, FULL)
    pruned(work, last=1)
    assert first.id in work.vault.points()


def test_evidence_of_one_kind_does_not_pile_up(work: Work, state: Little, held: dict[str, bytes]) -> None:
    point = taken(work, state, FULL)
    for _ in range(5):
        verify(work, None, None)
    for what in ("hold", "release", "hold", "release"):
        work.vault.note(point.id, work.wall(), what, {"reason": "x"})
    assert len(names(held, "evidence/")) == 2
    assert work.vault.points()[point.id].evidence.hold == ""


# -- locks -------------------------------------------------------------------------------------------------------------


def test_takers_go_together_and_expiring_alone(work: Work, state: Little, held: dict[str, bytes]) -> None:
    taken(work, state, FULL)
    with locked(work.vault.repository, exclusive=False, purpose="reading"):
        taken(work, state, FULL)
        with pytest.raises(RepositoryLocked, match="reading"):
            pruned(work, last=1)
    with locked(work.vault.repository, exclusive=True, purpose="expiring"):
        with pytest.raises(RepositoryLocked, match="expiring"):
            taken(work, state, FULL)
        with pytest.raises(RepositoryLocked):
            pruned(work, last=1)
    assert names(held, "locks/") == set()
    assert len(work.vault.points()) == 2


def test_a_dead_owners_lock_expires(work: Work, state: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = work.vault.repository
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(locks.socket, "gethostname", lambda: "another-machine")
        left = Lock(repository, True, "expiring", wall=lambda: 1000.0)
        left.acquire()
    with pytest.raises(RepositoryLocked):
        Lock(repository, False, "taking", wall=lambda: 1000.0 + locks.COUNTS_S).acquire()
    mine = Lock(repository, False, "taking", wall=lambda: 1001.0 + locks.COUNTS_S)
    mine.acquire()
    assert mine.removed == [f"expiring of another-machine, process {locks.os.getpid()}"]
    with pytest.raises(LockLost):
        left.check()


def test_the_lock_of_a_process_that_is_gone_is_dead_at_once(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(locks, "started_of", lambda pid: "an earlier process of this number")
        Lock(work.vault.repository, True, "expiring").acquire()
    Lock(work.vault.repository, True, "expiring").acquire()


def test_nothing_is_published_under_a_lost_lock(held: dict[str, bytes], state: Little) -> None:
    memory = MemoryRepository(held)

    def before(operation: str, name: str) -> None:
        if operation == "put" and name.startswith("index/"):
            for lock in names(held, "locks/"):
                del held[lock]

    work = work_on(Watched(memory, before), Clock())
    with pytest.raises(LockLost, match="nothing was published"):
        taken(work, state, FULL)
    assert names(held, "points/") == set()


# -- everything in any order -------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Points hold what the state was when they were taken, whatever was done before, between and after."""

    @initialize(encrypted=st.booleans())
    def begin(self, encrypted: bool) -> None:
        self.held: dict[str, bytes] = {}
        self.key = KEY if encrypted else None
        self.clock = Clock()
        self.state = Little()
        self.tables: dict[str, str] = {}
        self.work = work_on(MemoryRepository(self.held), self.clock, self.key, chain=3)

    @rule(
        name=st.sampled_from("abcdef"), value=st.binary(max_size=4), body=st.none() | st.binary(min_size=1, max_size=99)
    )
    def change(self, name: str, value: bytes, body: bytes | None) -> None:
        self.state.change(name, value, body)

    @rule(name=st.sampled_from("abcdef"))
    def remove(self, name: str) -> None:
        self.state.change(name, None)

    @rule(kind=st.sampled_from(list(PointKind)))
    def take(self, kind: PointKind) -> None:
        self.tables[taken(self.work, self.state, kind).id] = digest(self.state.table())

    @rule(kind=st.sampled_from(list(PointKind)), after=st.integers(0, 12))
    def take_and_die(self, kind: PointKind, after: int) -> None:
        left = [after]

        def before(operation: str, name: str) -> None:
            if operation in ("put", "delete", "create") and not name.startswith("locks/"):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt

        dying = work_on(Watched(MemoryRepository(self.held), lambda *_: None), self.clock, self.key, chain=3)
        dying = replace(
            dying, vault=type(dying.vault)(Watched(MemoryRepository(self.held), before), dying.vault.sealer)
        )
        try:
            self.tables[taken(dying, self.state, kind).id] = digest(self.state.table())
        except KeyboardInterrupt:
            pass

    @rule(last=st.integers(1, 4))
    def expire(self, last: int) -> None:
        pruned(self.work, last=last)
        self.tables = {name: table for name, table in self.tables.items() if name in self.work.vault.points()}

    @rule()
    def restart(self) -> None:
        self.work = work_on(MemoryRepository(self.held), self.clock, self.key, chain=3)

    @rule(history=st.sampled_from(["h", "i"]))
    def fork(self, history: str) -> None:
        self.state.history = history

    @rule()
    def verify_all(self) -> None:
        assert verify(self.work, None, Portion()).problems == {}

    @invariant()
    def holds(self) -> None:
        points = self.work.vault.points()
        assert set(points) == set(self.tables)
        for name in list(points)[-3:]:
            table, _ = restored(self.work, name)
            assert digest(table) == self.tables[name]


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_missing_points_are_named(work: Work, state: Little) -> None:
    with pytest.raises(NoRecoveryPoint, match="snapshot list"):
        restored(work, "nothing")
    taken(work, state, FULL)
    last = taken(work, state, INCR)
    work.vault.repository.delete(f"points/{last.parent}")
    with pytest.raises(ChainBroken, match="missing"):
        restored(work, last.id)
