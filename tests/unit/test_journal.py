"""The journal: what was written is read back after opening again, changes are whole, damage is named."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from kit.clock import StandingClock

from edge.control import journal_file
from edge.control.journal import Journal, JournalError


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "state.sqlite"


@pytest.fixture
def journal(path: Path, clock: StandingClock) -> Iterator[Journal]:
    with Journal.open(path, clock) as opened:
        yield opened


def again(journal: Journal, path: Path) -> Journal:
    """The journal after closing and opening it."""
    journal.close()
    return Journal.open(path)


def test_registrations_are_kept_with_who_and_why(journal: Journal, path: Path) -> None:
    journal.put_region("eu", {"tier": 0, "countries": ["FR"]}, "ann", "new site", 2000.0)
    journal.put_backend("web/b1", {"url": "http://10.0.0.1"}, "bob")
    journal.put_backend("web/b1", {"url": "http://10.0.0.2"}, "cid", "moved")
    with again(journal, path) as opened:
        region = opened.regions()["eu"]
        assert (region.data, region.actor, region.reason) == ({"tier": 0, "countries": ["FR"]}, "ann", "new site")
        assert (region.at, region.expires_at) == (1000.0, 2000.0)
        assert [(b.name, b.data["url"], b.actor) for b in opened.backends().values()] == [
            ("web/b1", "http://10.0.0.2", "cid")
        ]


def test_deleting_says_whether_there_was_one_and_leaves_the_other_kind(journal: Journal) -> None:
    journal.put_region("same", {})
    journal.put_backend("same", {})
    assert journal.delete_region("same")
    assert not journal.delete_region("same")
    assert journal.regions() == {} and list(journal.backends()) == ["same"]
    assert journal.delete_backend("same") and not journal.delete_backend("same")


def test_admin_states_end_at_their_expiry(journal: Journal) -> None:
    journal.set_admin_state("region", "eu", "draining", "ann", "upgrade", 1500.0)
    journal.set_admin_state("backend", "eu", "inactive", "bob")
    assert {key: state.state for key, state in journal.admin_states(1499.9).items()} == {
        ("region", "eu"): "draining",
        ("backend", "eu"): "inactive",
    }
    assert list(journal.admin_states(1500.0)) == [("backend", "eu")]
    assert journal.clear_admin_state("backend", "eu") and not journal.clear_admin_state("backend", "eu")
    assert journal.admin_states(1500.0) == {}


def test_a_new_admin_state_replaces_the_old_one_and_its_expiry(journal: Journal) -> None:
    journal.set_admin_state("region", "eu", "inactive", "ann", "fire", 1100.0)
    journal.set_admin_state("region", "eu", "draining", "bob", "later")
    state = journal.admin_states(9999.0)["region", "eu"]
    assert (state.state, state.actor, state.reason, state.expires_at) == ("draining", "bob", "later", None)


def test_the_same_configuration_again_is_no_new_revision(journal: Journal, clock: StandingClock) -> None:
    first = journal.record_revision("a = 1\n")
    clock.now = 1001.0
    assert journal.record_revision("a = 1\n") == first
    second = journal.record_revision("a = 2\n")
    third = journal.record_revision("a = 1\n")  # going back is a revision
    assert first < second < third
    assert [(r.id, r.text) for r in journal.revisions(2)] == [(third, "a = 1\n"), (second, "a = 2\n")]
    assert journal.revisions()[0].hash == journal.revisions()[2].hash != journal.revisions()[1].hash


def test_purge_ids_ascend_and_are_not_used_twice(journal: Journal, path: Path) -> None:
    ids = [journal.append_purge({"kind": "tag", "value": str(number)}) for number in range(5)]
    assert ids == sorted(set(ids))
    assert [record.id for record in journal.purges_since(ids[2])] == ids[3:]
    journal.trim(0)
    assert journal.purges_since(0) == []
    with again(journal, path) as opened:
        assert opened.append_purge({"kind": "all"}) > ids[-1]


def test_epochs_are_replaced(journal: Journal, path: Path) -> None:
    assert journal.load_purge_log() is None
    journal.save_purge_log({"seq": 1, "stamps": []})
    journal.save_purge_log({"seq": 2, "stamps": [["host", "a", 1, 0, 0.0]]})
    with again(journal, path) as opened:
        assert opened.load_purge_log() == {"seq": 2, "stamps": [["host", "a", 1, 0, 0.0]]}


def old_journal(path: Path) -> None:
    """A journal as version 1 of the schema had it, with one change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.executescript(
        f"PRAGMA page_size = 4096; PRAGMA application_id = {journal_file.APPLICATION_ID}; PRAGMA user_version = 1;"
        f"{journal_file.SCHEMA} INSERT INTO revisions (at, hash, text) VALUES (5.0, 'h', 'a = 1');"
        "UPDATE facts SET value = 1 WHERE name = 'sequence'; PRAGMA journal_mode = WAL;"
    )
    db.close()


def test_an_old_journal_is_brought_up_to_date_once(path: Path) -> None:
    old_journal(path)
    with Journal.open(path) as journal:
        assert [(found.text, found.files) for found in journal.revisions()] == [("a = 1", {})]
        assert journal.sequence == 1 and len(journal.history) == 16
        journal.put_region("eu", {})
        assert journal.sequence == 2
        history = journal.history
    with Journal.open(path) as journal:
        assert journal.history == history and list(journal.regions()) == ["eu"]


def test_a_migration_that_fails_leaves_the_old_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_journal(path)
    with monkeypatch.context() as broken:
        broken.setitem(journal_file.MIGRATIONS, 1, journal_file.MIGRATIONS[1] + "CREATE TABLE facts (a);")
        with pytest.raises(JournalError, match="already exists"):
            Journal.open(path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone()[0] == 1
    assert [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE name = 'changes'")] == []
    db.close()
    with Journal.open(path) as journal:
        assert journal.sequence == 1


def test_every_change_has_a_number_and_a_time(journal: Journal, clock: StandingClock) -> None:
    for number in range(1, 6):
        clock.now = 1000.0 + number
        with journal.transaction():
            journal.put_region("eu", {"n": number})
            journal.audit("ann", "region.add", "eu")
        assert journal.sequence == number
    assert [journal.first_change_after(number) for number in (0, 3, 4, 5)] == [1001.0, 1004.0, 1005.0, None]
    journal.trim(2)
    assert (journal.sequence, journal.first_change_after(0)) == (6, 1004.0)
    journal.trim(100)  # takes nothing away, and so is no change
    assert journal.sequence == 6


def test_two_journals_never_share_a_history(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "a") as one, Journal.open(tmp_path / "b") as other:
        assert one.history != other.history


def test_a_revision_holds_the_files_that_it_includes(journal: Journal, path: Path) -> None:
    first = journal.record_revision("include = ['s/*']", {"s/b.toml": "b", "s/a.toml": "a"})
    assert journal.record_revision("include = ['s/*']", {"s/a.toml": "a", "s/b.toml": "b"}) == first
    assert journal.record_revision("include = ['s/*']", {"s/a.toml": "other"}) > first
    with again(journal, path) as opened:
        assert [found.files for found in opened.revisions()] == [
            {"s/a.toml": "other"},
            {"s/a.toml": "a", "s/b.toml": "b"},
        ]


def test_audit_is_newest_first(journal: Journal) -> None:
    journal.audit("ann", "region.add", "eu")
    journal.audit("bob", "purge", "all", {"soft": True})
    assert [(a.actor, a.action, a.target, a.detail) for a in journal.audit_log(5)] == [
        ("bob", "purge", "all", {"soft": True}),
        ("ann", "region.add", "eu", None),
    ]
    assert len(journal.audit_log(1)) == 1


def test_trim_keeps_the_newest(journal: Journal) -> None:
    for number in range(10):
        journal.audit("a", "b", str(number))
        journal.record_revision(str(number))
    journal.trim(3)
    assert [a.target for a in journal.audit_log()] == ["9", "8", "7"]
    assert [r.text for r in journal.revisions()] == ["9", "8", "7"]
    journal.trim(3)
    journal.trim(100)
    assert len(journal.audit_log()) == 3


def test_a_transaction_is_one_change_or_none(journal: Journal, path: Path) -> None:
    before = journal.sequence
    with journal.transaction():
        journal.put_region("eu", {})
        with journal.transaction():
            journal.audit("ann", "region.add", "eu")
    assert journal.sequence == before + 1
    with pytest.raises(TypeError), journal.transaction():  # noqa: PT012  # that the second write fails is the point
        journal.put_region("us", {})
        journal.audit("ann", "region.add", "us", detail=object())
    assert journal.sequence == before + 1
    with again(journal, path) as opened:
        assert list(opened.regions()) == ["eu"] and len(opened.audit_log()) == 1
        opened.put_region("us", {})  # the failed one left nothing open
        assert opened.sequence == before + 2


def test_a_value_that_is_no_json_changes_nothing(journal: Journal) -> None:
    before = journal.sequence
    with pytest.raises(TypeError):
        journal.put_region("eu", {"bad": object()})
    assert journal.regions() == {} and journal.sequence == before


def test_every_write_is_synced(journal: Journal) -> None:
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_full_disk_is_one_line_and_changes_nothing(journal: Journal) -> None:
    journal.put_region("eu", {})
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="full"):
        journal.record_revision("x" * 100_000)
    assert journal.revisions() == [] and list(journal.regions()) == ["eu"]
    journal._db.execute("PRAGMA max_page_count = 100000")
    journal.record_revision("x" * 100_000)


def test_one_writer(journal: Journal, path: Path) -> None:
    with pytest.raises(JournalError, match="in use"):
        Journal.open(path)
    journal.put_region("eu", {})
    journal.close()
    journal.close()
    Journal.open(path).close()


def test_only_the_owner_may_read_it(journal: Journal, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def other_program(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (a)")
    db.commit()
    db.close()


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(4096, len(content)):
        content[at] ^= 0x5A
    path.write_bytes(content)


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


def lost(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"x" * 5000)
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[tuple[Callable[[Path], Any], str]] = [
    (lambda path: path.write_bytes(b""), "damaged.*empty"),
    (lambda path: path.write_bytes(b"not a database, whatever it was before\n" * 200), "damaged.*recovery point"),
    (lambda path: path.write_bytes(path.read_bytes()[:6000]), "damaged"),
    (flipped, "damaged"),
    (lost, "missing, but .*-wal is there"),
    (newer, "version 99"),
    (other_program, "another program"),
    (folder, "journal"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damage_is_named_and_left_as_it_is(path: Path, damage: Callable[[Path], Any], words: str) -> None:
    with Journal.open(path) as journal:
        journal.put_region("eu", {})
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):  # the first refusal must not repair, make or lock anything
        with pytest.raises(JournalError, match=words) as refused:
            Journal.open(path)
        assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_damaged_value_is_named(journal: Journal, path: Path) -> None:
    journal.put_region("eu", {"tier": 0})
    journal._db.execute("UPDATE registrations SET data = '{\"tier\": ' ")
    with pytest.raises(JournalError, match="damaged"):
        journal.regions()


def test_what_a_killed_first_start_left_is_cleared(path: Path) -> None:
    path.parent.mkdir()
    path.with_name(path.name + ".new").write_bytes(b"half")
    path.with_name(path.name + ".new-journal").write_bytes(b"half")
    with Journal.open(path) as journal:
        journal.put_region("eu", {})
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["state.sqlite", "state.sqlite.lock"]


NAMES = st.sampled_from(["a", "b", "c/1"])


class Model(RuleBasedStateMachine):
    """The journal agrees with plain dictionaries, through closing and opening at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "state.sqlite"
        self.journal = Journal.open(self.path)
        self.regions: dict[str, int] = {}
        self.states: dict[tuple[str, str], tuple[str, float | None]] = {}
        self.purges: list[int] = []

    @rule(name=NAMES, value=st.integers(0, 9))
    def put(self, name: str, value: int) -> None:
        self.journal.put_region(name, {"v": value})
        self.regions[name] = value

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        assert self.journal.delete_region(name) == (self.regions.pop(name, None) is not None)

    @rule(name=NAMES, state=st.sampled_from(["active", "draining"]), expires=st.none() | st.floats(0, 10))
    def want(self, name: str, state: str, expires: float | None) -> None:
        self.journal.set_admin_state("region", name, state, "x", "", expires)
        self.states["region", name] = (state, expires)

    @rule(number=st.integers(0, 1000))
    def purge(self, number: int) -> None:
        self.journal.append_purge({"n": number})
        self.purges.append(number)

    @rule()
    def reopen(self) -> None:
        self.journal = again(self.journal, self.path)

    @invariant()
    def agrees(self) -> None:
        assert {name: found.data["v"] for name, found in self.journal.regions().items()} == self.regions
        assert [record.purge["n"] for record in self.journal.purges_since(0)] == self.purges
        for now in (0.0, 5.0, 10.0):
            live = {key: state for key, (state, end) in self.states.items() if end is None or end > now}
            assert {key: found.state for key, found in self.journal.admin_states(now).items()} == live

    def teardown(self) -> None:
        self.journal.close()
        self.folder.cleanup()


Model.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


TestModel = Model.TestCase
