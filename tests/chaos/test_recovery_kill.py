"""kill -9 at every step of taking, expiring and restoring: each call that changes a file is one step, none is sampled.

The work runs in a forked child that kills itself right before its n-th such call, for n = 1, 2, … until one run needs
fewer. What is left is looked at by code that was not there before the kill.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.recovery import KEY, Clock, Little, pruned, restored, taken, work_on
from kit.tier import body_of, looked, response, tier

from edge.adapters.disk_awaited import AwaitedBodies, awaits
from edge.adapters.disk_export import DiskWarm
from edge.adapters.disk_room import MIN_SIZE, Limits
from edge.adapters.repository_directory import TEMPORARY, DirectoryRepository
from edge.cli.state import LocalState
from edge.control.journal import Journal
from edge.control.recovered import JOURNAL_FILE
from edge.recovery.points import PointKind
from edge.recovery.table import Table
from edge.sidecar import switch
from edge.sidecar.fill import Filler
from edge.sidecar.restore import Target, chosen, restore
from edge.sidecar.source import with_warm
from edge.sidecar.take import Work, take
from edge.sidecar.verify import Portion, verify

STEPS = ("write", "fsync", "replace", "link", "unlink", "rename", "mkdir", "rmdir")
FULL, INCR = PointKind.FULL, PointKind.INCREMENTAL


def killed_at(count: int, work: Callable[[], object]) -> bool:
    """Run work in a child that dies before its `count`-th step; whether it died."""
    child = os.fork()
    if child == 0:
        left = [count]

        def deadly(plain: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(*arguments, **named)

            return call

        for name in STEPS:
            setattr(os, name, deadly(getattr(os, name)))
        switch.exchange = deadly(switch.exchange)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


def each_step(before: Path, work: Callable[[Path], object], least: int) -> Iterator[Path]:
    """For each step, a copy of a directory in which work was killed there; there must be at least so many."""
    for count in range(1, 500):
        there = before.with_name(f"killed-{count}")
        shutil.copytree(before, there)
        died = killed_at(count, lambda there=there: work(there))  # type: ignore[misc]
        yield there
        shutil.rmtree(there)
        if not died:
            assert count > least
            return
    raise AssertionError("the work has no end")


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    found: bytes | None = request.param
    return found


class History:
    """A repository with three points, and what each must restore to."""

    def __init__(self, root: Path, key: bytes | None) -> None:
        self.root, self.key, self.clock, self.state = root, key, Clock(), Little()
        self.tables: dict[str, Table] = {}
        for number, kind in enumerate((FULL, INCR, FULL)):
            self.state.change(f"row{number}", b"v", b"body %d " % number * 40)
            self.tables[taken(self.open(root), self.state, kind).id] = self.state.table()
        self.state.change("row9", b"v", b"not in a point yet" * 9)

    def open(self, root: Path) -> Work:
        return work_on(DirectoryRepository(root), self.clock, self.key)

    def check(self, root: Path, wanted: set[str]) -> None:
        """At least these points are there, all that are there are whole, and life goes on."""
        work = self.open(root)
        points = set(work.vault.points())
        assert wanted <= points
        assert verify(work, None, Portion()).problems == {}
        for name in points & set(self.tables):
            assert restored(work, name)[0] == self.tables[name]
        for name in points - set(self.tables):
            assert restored(work, name)[0] == self.state.table()
        last = taken(work, self.state, INCR)
        assert restored(work, last.id)[0] == self.state.table()


def test_taking(tmp_path: Path, key: bytes | None) -> None:
    history = History(tmp_path / "repository", key)
    for root in each_step(tmp_path / "repository", lambda there: taken(history.open(there), history.state, INCR), 15):
        history.check(root, set(history.tables))
        pruned(history.open(root), last=1)
        left = {path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_file()}
        assert left <= {"config", "points", "index", "packs", "evidence"}
        assert list((root / TEMPORARY).iterdir()) == []


def test_expiring(tmp_path: Path, key: bytes | None) -> None:
    history = History(tmp_path / "repository", key)
    newest = list(history.tables)[-1]
    for root in each_step(tmp_path / "repository", lambda there: pruned(history.open(there), last=1), 8):
        history.check(root, {newest})
        pruned(history.open(root), last=1)
        points = history.open(root).vault.points()
        assert len(points) == 2  # the one that `check` took, and what it needs


def change(folder: Path, number: int) -> None:
    with Journal.open(folder / JOURNAL_FILE) as journal, journal.transaction():
        journal.put_region(f"r{number}", {"n": number})
        journal.append_purge({"kind": "tag", "value": f"t{number}", "soft": False})
        journal.record_revision(f"# {number}")


def regions(folder: Path) -> list[str]:
    with Journal.open(folder / JOURNAL_FILE) as journal:
        return sorted(journal.regions())


def test_restoring_in_place(tmp_path: Path, key: bytes | None) -> None:
    base = tmp_path / "base"
    repository, state = base / "repository", base / "var"
    change(state, 1)
    (state / "log").mkdir()
    (state / "log" / "access.jsonl").write_text("a line\n")
    work = work_on(DirectoryRepository(repository), Clock(), key)
    take(work, FULL, lambda: LocalState(state, True).capture({}))
    change(state, 2)  # after the point: its purge must survive, its region must not

    def again(there: Path) -> None:
        folder = there / "var"
        restore(
            work_on(DirectoryRepository(there / "repository"), Clock(), key),
            LocalState(folder, True),
            None,
            lambda points: chosen(points, None, None),
            Target(folder, replace=True, survivor=folder),
        )

    seen = set()
    for there in each_step(base, again, 30):
        found = tuple(regions(there / "var"))
        seen.add(found)
        assert found in ((("r1", "r2")), ("r1",))  # the old state or the new one, whole
        assert (there / "var" / "log" / "access.jsonl").read_text() == "a line\n"
        again(there)
        assert regions(there / "var") == ["r1"]
        with Journal.open(there / "var" / JOURNAL_FILE) as journal:
            purged = [record.purge["value"] for record in journal.purges_since(0)]
        # Restored twice: the second time what is replaced is of the history that the first restore began.
        assert purged in (["t1", "t2"], ["t1"])
        assert purged == ["t1", "t2"] or found == ("r1",)
        kept = sorted(path.name for path in there.iterdir())
        assert not [name for name in kept if name.startswith(".")], kept
        olds = [path for path in there.iterdir() if path.name.startswith("var.before-")]
        assert any(regions(path) == ["r1", "r2"] for path in olds), "the old state is kept"
        assert not (there / "var" / switch.UNFINISHED).exists()
    assert seen == {("r1", "r2"), ("r1",)}


def test_restoring_with_bodies_that_follow(tmp_path: Path, key: bytes | None) -> None:
    """The cache is the old one or a new one that awaits its bodies, whole; never a mixture."""
    base = tmp_path / "base"
    state = base / "var"
    change(state, 1)
    keys = [b"http://site.test/%d" % number for number in range(4)]
    old = tier(state / "cache")
    for number, each in enumerate(keys):
        assert old.put(response(each, bytes([number]) * (90_000 if number % 2 else 900)), 0)
    assert old.writer.flush()
    old.close()
    work = work_on(DirectoryRepository(base / "repository"), Clock(), key)
    warm = DiskWarm(state / "cache", MIN_SIZE)
    take(work, FULL, lambda: with_warm(LocalState(state, True).capture({}), warm))

    def again(there: Path) -> None:
        folder = there / "var"
        restore(
            work_on(DirectoryRepository(there / "repository"), Clock(), key),
            LocalState(folder, True),
            DiskWarm(folder / "cache", MIN_SIZE),
            lambda points: chosen(points, None, None),
            Target(folder, folder / "cache", replace=True, survivor=folder, later=True),
        )

    def filled(there: Path) -> None:
        filler = Filler(
            AwaitedBodies(there / "var" / "cache", Limits(MIN_SIZE)),
            lambda: work_on(DirectoryRepository(there / "repository"), Clock(), key),
            lambda: work,
        )
        while filler.turn():
            pass

    seen = set()
    for there in each_step(base, again, 30):
        waits = awaits(there / "var" / "cache")
        seen.add(waits)
        if waits:
            filled(there)
        found = tier(there / "var" / "cache")
        for number, each in enumerate(keys):
            (one,) = looked(found, each)
            assert body_of(found, one) == bytes([number]) * (90_000 if number % 2 else 900)
        found.close()
    assert seen == {False, True}
