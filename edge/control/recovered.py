"""The journal as recovery points know it: read at one instant beside the writer, and built anew from a table.

    journal/facts/<name> · journal/numbers/<table> · journal/<table>/<key>      one entry for each row, a JSON list

Reading is a read transaction of SQLite's: it sees one log sequence number, blocks nobody, and nobody blocks it. A
rebuilt journal begins a history of its own; what it was built from is in its audit.

One rule: a purge that was acknowledged is in the rebuilt journal, or everything cached before is distrusted. Where the
lost state's journal survives, in the history that the point is of, the purges that it has beyond the point are
appended with their numbers. Where it does not, the gap is told (`Rebuilt.gap`), and whoever rebuilds the cache acts.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from edge.cache.purge import Purge, PurgeLog
from edge.control.journal import Journal, JournalError
from edge.control.journal_file import SCHEMA_VERSION, explained, make_file
from edge.errors import ChecksumMismatch, RepositoryNewer
from edge.recovery.table import Entry, Table

JOURNAL_FILE = "state.sqlite"
PREFIX = "journal/"
INLINE_BYTES = 2048
KEYS = {"registrations": 2, "admin_states": 2, "revisions": 1, "purges": 1, "audit": 1}  # table: key columns
COLUMNS = {
    "registrations": "kind, name, data, actor, reason, at, expires_at",
    "admin_states": "kind, name, state, actor, reason, at, expires_at",
    "revisions": "id, at, hash, text, files",
    "purges": "id, at, purge",
    "audit": "id, at, actor, action, target, detail",
}
SKIPPED = 1_000_000
FACTS = ("sequence", "epochs")  # the history is not taken over

Body = Callable[[Entry], bytes]


class Snapshot:
    """What a journal held at one instant. `bodies` are the values that are too long for an entry."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.table: Table = {}
        self.bodies: dict[bytes, bytes] = {}
        self.history, self.sequence, self.version = "", 0, SCHEMA_VERSION
        self.config_hash = ""
        self.texts: list[str] = []  # of the newest configuration
        with explained(path), closing(_reader(path)) as db:
            db.execute("BEGIN")
            self._read(db)
            self.taken_at = clock()
            db.execute("COMMIT")

    def _read(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise JournalError(f"the journal has schema version {version}, this program knows {SCHEMA_VERSION}")
        facts = dict(db.execute("SELECT name, value FROM facts").fetchall())
        self.history, self.sequence = str(facts["history"]), int(facts["sequence"])
        for name in FACTS:
            if name in facts:
                self.add(f"{PREFIX}facts/{name}", orjson.dumps(facts[name]))
        for table, count in KEYS.items():
            for row in db.execute(f"SELECT {COLUMNS[table]} FROM {table}"):
                self.add(f"{PREFIX}{table}/{_key(row[:count])}", orjson.dumps(list(row)))
        for name, number in db.execute("SELECT name, seq FROM sqlite_sequence"):
            self.add(f"{PREFIX}numbers/{name}", orjson.dumps(number))
        newest = db.execute("SELECT hash, text, files FROM revisions ORDER BY id DESC LIMIT 1").fetchone()
        if newest:
            self.config_hash = str(newest[0])
            self.texts = [str(newest[1]), *map(str, orjson.loads(newest[2]).values())]

    def add(self, name: str, value: bytes) -> None:
        """Add an entry; a long value becomes a body of its own."""
        if len(value) <= INLINE_BYTES:
            self.table[name] = Entry(value)
            return
        blob = hashlib.sha256(value).digest()
        self.bodies[blob] = value
        self.table[name] = Entry(b"", blob, len(value))


def _reader(path: Path) -> sqlite3.Connection:
    """A second, read-only connection."""
    if not path.exists():
        raise JournalError(f"journal {path} is not there: start the gateway once, or restore a recovery point")
    db = sqlite3.connect(path.absolute().as_uri() + "?mode=rw", uri=True, isolation_level=None, timeout=5.0)
    db.execute("PRAGMA query_only = ON")
    return db


def first_change_after(path: Path, history: str, sequence: int) -> float | None:
    """When the first change after a sequence number was made; None when there is none.

    In another history nothing of what is there is saved: the time of its first change.
    """
    with explained(path), closing(_reader(path)) as db:
        own = db.execute("SELECT value FROM facts WHERE name = 'history'").fetchone()[0]
        after = sequence if own == history else 0
        row = db.execute("SELECT at FROM changes WHERE id > ? ORDER BY id LIMIT 1", (after,)).fetchone()
        return None if row is None else float(row[0])


def position(path: Path) -> tuple[str, int]:
    """The journal's history id and its current sequence number."""
    with explained(path), closing(_reader(path)) as db:
        facts = dict(db.execute("SELECT name, value FROM facts WHERE name IN ('history', 'sequence')").fetchall())
        return str(facts["history"]), int(facts["sequence"])


def _key(values: tuple[Any, ...]) -> str:
    """A row's key as a name that sorts like the key."""
    return "/".join(f"{value:012d}" if isinstance(value, int) else str(value) for value in values)


# -- rebuilding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """What a journal is rebuilt from: the point, its history, and a journal that may know later purges."""

    point: str
    history: str
    survivor: Path | None = None


def rebuild(path: Path, table: Mapping[str, Entry], body: Body, origin: Origin) -> dict[str, Any]:
    """Make a journal of a table's entries. What was done: history, sequence, purges_replayed, gap."""
    make_file(path)
    with explained(path), closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        history = db.execute("SELECT value FROM facts WHERE name = 'history'").fetchone()[0]
        for name, entry in table.items():
            if name.startswith(PREFIX):
                _insert(db, name.removeprefix(PREFIX), _value(name, entry, body))
        later = _later_purges(origin, db)
        if later is None:  # numbers that may have been given since are not given again
            db.execute(
                "INSERT INTO sqlite_sequence SELECT 'purges', 0 WHERE NOT EXISTS "
                "(SELECT 1 FROM sqlite_sequence WHERE name = 'purges')"
            )
            db.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'purges'", (SKIPPED,))
        for number, at, purge in later or ():
            db.execute("INSERT INTO purges VALUES (?, ?, ?)", (number, at, purge))
        db.execute("COMMIT")
    with Journal.open(path) as journal, journal.transaction():
        replayed = None if later is None else len(later)
        journal.audit("restore", "state.restored", origin.point, {"purges_replayed": replayed})
        number = _save_purge_log(journal)
        sequence = journal.sequence
    return {
        "history": str(history),
        "sequence": sequence + 1,
        "purge_number": number,
        "purges_replayed": len(later or ()),
        "gap": later is None,
    }


def _value(name: str, entry: Entry, body: Body) -> Any:
    try:
        return orjson.loads(body(entry) if entry.blob else entry.data)
    except orjson.JSONDecodeError as error:
        raise ChecksumMismatch(f"entry {name} of the point is no JSON ({error}): restore an older point") from None


def _insert(db: sqlite3.Connection, name: str, value: Any) -> None:
    kind, _, rest = name.partition("/")
    if kind == "facts":
        db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (rest, value))
    elif kind == "numbers":
        db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (rest,))
        db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (rest, value))
    elif kind in COLUMNS:
        marks = ", ".join("?" * len(value))
        db.execute(f"INSERT INTO {kind} ({COLUMNS[kind]}) VALUES ({marks})", value)
    else:
        raise RepositoryNewer(f"the point holds {kind} of a newer journal: restore it with the program that took it")


def _later_purges(origin: Origin, db: sqlite3.Connection) -> list[tuple[int, float, str]] | None:
    """The purges that a surviving journal has beyond the rebuilt one; None when nobody can know."""
    survivor = origin.survivor
    if survivor is None or not survivor.exists():
        return None
    held = [row[0] for row in db.execute("SELECT id FROM purges")]
    given = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'purges'").fetchone()
    last = max([0, *held, *(given or ())])
    try:
        with explained(survivor), closing(_reader(survivor)) as old:
            if old.execute("SELECT value FROM facts WHERE name = 'history'").fetchone()[0] != origin.history:
                return None
            rows = old.execute("SELECT id, at, purge FROM purges WHERE id > ? ORDER BY id", (last,)).fetchall()
            number = old.execute("SELECT seq FROM sqlite_sequence WHERE name = 'purges'").fetchone()
            newest = number[0] if number else 0
    except JournalError:
        return None  # it is damaged: the reason for restoring, most likely
    if newest < last or [row[0] for row in rows] != list(range(last + 1, newest + 1)):
        return None  # trimmed since, or of another line of descent
    return [(int(row[0]), float(row[1]), str(row[2])) for row in rows]


def _save_purge_log(journal: Journal) -> int:
    """What all purges say together, so that the first start has it though the log is trimmed; the last one's number."""
    found = journal.load_purge_log()
    purge_log = PurgeLog() if found is None else PurgeLog.from_dict(found["epochs"])
    number = 0 if found is None else int(found["number"])
    for record in journal.purges_since(number):
        purge_log.record(Purge.from_dict(record.purge), record.at, record.id)
        number = record.id
    journal.save_purge_log({"number": number, "epochs": purge_log.to_dict()})
    return number


def compare(path: Path, table: Mapping[str, Entry]) -> Iterator[str]:
    """What a rebuilt journal lacks of a table, one line each; the audit and later purges may only be more."""
    built = Snapshot(path)
    for name, entry in table.items():
        if not name.startswith(PREFIX) or name.split("/")[1] in ("facts", "numbers"):
            continue
        if built.table.get(name) != entry:
            yield f"{name} is not what the point holds"
