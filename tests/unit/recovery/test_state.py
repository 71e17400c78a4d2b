"""The state in points: what is in it, what never is, and what a rebuilt journal keeps of later purges."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge.cli.state import LocalState, write_below
from edge.config.loader import Config, load_text
from edge.control.journal import Journal
from edge.control.journal_file import JournalError
from edge.control.recovered import JOURNAL_FILE, SKIPPED, Snapshot, first_change_after
from edge.errors import RecoveryError, SecretInTheClear
from edge.recovery.points import Point, PointKind
from edge.sidecar.source import Rebuilt

TOML = """
listen.http = ["127.0.0.1:8080"]
admin = {{ token_file = "{home}/var/admin.token" }}
state = {{ path = "{home}/var" }}
geoip = {{ database = "{home}/geo.mmdb" }}
snapshots = {{ repository = "file:{home}/points", encryption_key_file = "{home}/snap.key" }}
pools.web.tls = {{ cert = "{home}/site.pem", key = "{home}/site.key" }}
pools.web.backends = [{{ url = "http://127.0.0.1:9" }}]
routes = [{{ pool = "web" }}]
"""


class Machine:
    def __init__(self, home: Path) -> None:
        self.home, self.state = home, home / "var"
        for name in ("site.pem", "site.key", "geo.mmdb", "snap.key"):
            (home / name).write_text(f"this is {name}")
        self.text = TOML.replace("{home}", str(home)).replace("{{", "{").replace("}}", "}")
        self.config: Config = load_text(self.text, "edge.toml")
        with Journal.open(self.state / JOURNAL_FILE) as journal:
            journal.record_revision(self.text, {"sites/a.toml": "# included"})
            journal.put_region("eu", {"tier": 1}, "ann", "why")
            journal.set_admin_state("region", "eu", "draining", "ann")
            self.first = journal.append_purge({"kind": "tag", "value": "t", "soft": False})
        (self.state / "admin.token").write_text("a secret token")

    def local(self, encrypted: bool = True) -> LocalState:
        return LocalState(self.state, encrypted, self.config, "edge.toml")

    def purge(self, count: int) -> None:
        with Journal.open(self.state / JOURNAL_FILE) as journal:
            for number in range(count):
                journal.append_purge({"kind": "tag", "value": f"later{number}", "soft": False})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def rebuilt(machine: Machine, survivor: Path | None, name: str = "again") -> tuple[Path, Rebuilt]:
    captured = machine.captured if hasattr(machine, "captured") else machine.local().capture({})
    point = Point("p", "hash", PointKind.FULL, 1.0, captured.history, 0, captured.sequence)
    folder = machine.home / name
    folder.mkdir()

    def body(entry):  # type: ignore[no-untyped-def]
        return captured.body(entry.blob)

    made = LocalState(folder, True).rebuild(point, captured.table, body, folder, survivor)
    LocalState(folder, True).load(folder, captured.table)
    return folder, made


def purges(folder: Path) -> list[tuple[int, str]]:
    with Journal.open(folder / JOURNAL_FILE) as journal:
        return [(record.id, record.purge["value"]) for record in journal.purges_since(0)]


def test_a_plain_point_has_no_secret_and_says_so(machine: Machine) -> None:
    found = machine.local(encrypted=False).capture({})
    names = [name for name in found.table if name.startswith("files/")]
    assert sorted(names) == [f"files/{machine.home}/geo.mmdb", f"files/{machine.home}/site.pem"]
    assert len(found.left_out) == 2
    assert any("site.key" in line for line in found.left_out) and any("admin.token" in line for line in found.left_out)


def test_an_encrypted_point_has_all_but_its_own_key(machine: Machine) -> None:
    found = machine.local().capture({})
    names = {Path(name).name for name in found.table if name.startswith("files/")}
    assert names == {"site.pem", "site.key", "geo.mmdb", "admin.token"} and found.left_out == ()


def test_certificates_by_acme_come_back_in_their_place_and_those_that_are_there_count(machine: Machine) -> None:
    home, names = machine.state / "acme" / "letsencrypt", ("account.json", "a.test.pem", "a.test.attempts", ".new-1")
    home.mkdir(parents=True)
    for name in names:
        (home / name).write_text(f"old {name}")
    plain = machine.local(encrypted=False).capture({})
    assert not any(name.startswith("acme/") for name in plain.table)
    assert any(line.startswith("acme: ") and "not encrypted" in line for line in plain.left_out)
    machine.captured = machine.local().capture({})  # type: ignore[attr-defined]
    folder, _ = rebuilt(machine, None, "elsewhere")
    found = {path.name: path for path in (folder / "acme" / "letsencrypt").iterdir()}
    assert sorted(found) == ["a.test.pem", "account.json"]
    assert found["a.test.pem"].read_text() == "old a.test.pem"
    assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o600}
    (home / "a.test.pem").write_text("renewed since")
    folder, _ = rebuilt(machine, machine.state)
    assert (folder / "acme" / "letsencrypt" / "a.test.pem").read_text() == "renewed since"


def test_a_password_in_the_configuration_is_never_in_the_clear(machine: Machine) -> None:
    with Journal.open(machine.state / JOURNAL_FILE) as journal:
        journal.record_revision(machine.text + "# redis://user:secret@host/0\n")
    with pytest.raises(SecretInTheClear) as refused:
        machine.local(encrypted=False).capture({})
    assert "secret@" not in refused.value.detail
    machine.local(encrypted=True).capture({})


def test_a_rebuilt_journal_is_the_old_one_with_a_history_of_its_own(machine: Machine) -> None:
    folder, made = rebuilt(machine, machine.state)
    with Journal.open(folder / JOURNAL_FILE) as new, Journal.open(machine.state / JOURNAL_FILE) as old:
        assert (new.regions(), new.admin_states(0.0), new.revisions()) == (
            *(old.regions(), old.admin_states(0.0), old.revisions()),
        )
        assert new.history == made.history != old.history
        assert new.audit_log(1)[0].action == "state.restored"
    assert (folder / "restored" / "edge.toml").read_text() == machine.text
    assert (folder / "restored" / "sites" / "a.toml").read_text() == "# included"
    key = folder / "restored" / str(machine.home).lstrip("/") / "site.key"
    assert key.read_text() == "this is site.key" and key.stat().st_mode & 0o77 == 0


def test_what_was_still_to_be_sent_to_the_fleet_is_not_in_a_point(machine: Machine) -> None:
    """It has been sent since, and others may have changed it: a machine that is restored asks the fleet instead."""
    with Journal.open(machine.state / JOURNAL_FILE) as journal:
        journal.save_fleet({"place": ["history", 7, "mark"], "states": {"name": "c", "owed": {"state:region:eu": {}}}})
    machine.captured = machine.local().capture({})  # type: ignore[attr-defined]
    folder, _ = rebuilt(machine, machine.state)
    with Journal.open(folder / JOURNAL_FILE) as journal:
        assert journal.fleet() == {}


def test_later_purges_are_replayed_with_their_numbers(machine: Machine) -> None:
    machine.captured = machine.local().capture({})  # type: ignore[attr-defined]
    machine.purge(3)
    folder, made = rebuilt(machine, machine.state)
    assert (made.gap, made.purges_replayed, made.purge_number) == (False, 3, machine.first + 3)
    assert purges(folder) == purges(machine.state)
    with Journal.open(folder / JOURNAL_FILE) as journal:
        assert journal.append_purge({"kind": "all"}) == machine.first + 4


def nothing(machine: Machine) -> None:
    for path in machine.state.glob("state.sqlite*"):
        path.unlink()


def damaged(machine: Machine) -> None:
    (machine.state / JOURNAL_FILE).write_bytes(b"no database at all " * 500)


def another_history(machine: Machine) -> None:
    db = sqlite3.connect(machine.state / JOURNAL_FILE)
    db.execute("UPDATE facts SET value = 'another' WHERE name = 'history'")
    db.commit()
    db.close()


def trimmed(machine: Machine) -> None:
    with Journal.open(machine.state / JOURNAL_FILE) as journal:
        journal.trim(1)


@pytest.mark.parametrize("loss", [nothing, damaged, another_history, trimmed])
def test_where_later_purges_cannot_be_known_it_is_a_gap(machine: Machine, loss) -> None:  # type: ignore[no-untyped-def]
    machine.captured = machine.local().capture({})  # type: ignore[attr-defined]
    machine.purge(3)
    loss(machine)
    folder, made = rebuilt(machine, machine.state)
    assert (made.gap, made.purges_replayed) == (True, 0)
    with Journal.open(folder / JOURNAL_FILE) as journal:
        assert journal.append_purge({"kind": "all"}) > SKIPPED  # no number is given twice


def test_reading_goes_beside_the_writer(machine: Machine) -> None:
    with Journal.open(machine.state / JOURNAL_FILE) as journal:
        before = Snapshot(machine.state / JOURNAL_FILE)
        with journal.transaction():
            journal.put_region("us", {})
            during = Snapshot(machine.state / JOURNAL_FILE)
        after = Snapshot(machine.state / JOURNAL_FILE)
    assert before.table == during.table and before.sequence == during.sequence == after.sequence - 1
    assert first_change_after(machine.state / JOURNAL_FILE, before.history, before.sequence) is not None
    assert first_change_after(machine.state / JOURNAL_FILE, after.history, after.sequence) is None
    assert first_change_after(machine.state / JOURNAL_FILE, "another", 10**6) is not None  # nothing of it is saved


def test_a_state_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="start the gateway once"):
        LocalState(tmp_path, True).capture({})


@pytest.mark.parametrize("name", ["../../out", "/etc/out", "a/../../../out"])
def test_a_restored_file_stays_below_its_folder(tmp_path: Path, name: str) -> None:
    home = tmp_path / "restored"
    home.mkdir()
    write_below(home, name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["restored"]
    assert len(list(home.rglob("out"))) == 1


def test_recovery_errors_are_one_family() -> None:
    assert issubclass(SecretInTheClear, RecoveryError)
