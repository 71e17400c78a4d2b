"""The journal: what the gateway must know again after any kind of end, in one SQLite file.

    config revisions │ run-time registrations │ administrative states │ purge log │ audit │ changes

One rule: when a call that writes returns, its change is on the disk (WAL, synchronous=FULL: one fsync, some
milliseconds), and when it raises, nothing of it is. A cut of the write-ahead log at any byte loses only transactions
that were not whole there: SQLite checks each frame's checksum and stops at the first that does not fit.

Every change has a log sequence number, the next higher one, and `changes` says when each was made. The numbers belong
to one history: a restored journal begins a history of its own (`history`), so that a number that was given before the
loss and again after it never passes for the same change.

How the file comes into being and when it counts as damaged stands in `journal_file`. There is one writer: a lock file
keeps a second process out. Calls block and belong to one thread, the supervisor's.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from edge.config.loader import config_hash
from edge.control.journal_file import JournalError, damaged, explained, lock_file, make_file, open_file

__all__ = ["AdminState", "AuditRecord", "Journal", "JournalError", "PurgeRecord", "Registration", "Revision"]

TRIMMED = ("revisions", "purges", "audit", "changes")  # logs that grow without end unless `trim` is called


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted configuration; `hash` is its texts' SHA-256, `at` epoch seconds. `files` are the texts that it
    includes, by name."""

    id: int
    at: float
    hash: str
    text: str
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registration:
    """A region or backend that was registered at run time; whether it is over is its reader's to judge."""

    name: str
    data: dict[str, Any]
    actor: str
    reason: str
    at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class AdminState:
    """An administrative state of a region or backend: who set it, why, and until when."""

    kind: str
    name: str
    state: str
    actor: str
    reason: str
    at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """A purge as it was appended; ids ascend and are never used twice."""

    id: int
    at: float
    purge: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the audit log."""

    id: int
    at: float
    actor: str
    action: str
    target: str
    detail: Any


class Journal:
    """Open with `Journal.open`, end with `close`. Several writes in one `with journal.transaction()` are one change."""

    __slots__ = ("_clock", "_db", "_depth", "_lock", "_path")

    def __init__(self, path: Path, db: sqlite3.Connection, lock: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._db = db
        self._lock = lock
        self._clock = clock
        self._depth = 0

    @classmethod
    def open(cls, path: str | os.PathLike[str], clock: Callable[[], float] = time.time) -> Journal:
        """Open the journal, or make it if there was never one. `clock` gives epoch seconds.

        JournalError if it is damaged, another program's, a newer version's, or in use.
        """
        path = Path(path)
        lock = lock_file(path)
        try:
            make_file(path)
            return cls(path, open_file(path), lock, clock)
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Close the journal; harmless when closed already."""
        if self._lock >= 0:
            self._db.close()
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def sequence(self) -> int:
        """The number of the last change: two journals with one history and one number hold the same."""
        return int(self._rows("SELECT value FROM facts WHERE name = 'sequence'")[0][0])

    @property
    def history(self) -> str:
        """The id of this journal, to which its sequence numbers belong."""
        return str(self._rows("SELECT value FROM facts WHERE name = 'history'")[0][0])

    def first_change_after(self, sequence: int) -> float | None:
        """When the first change with a higher number was made; None when there is none."""
        rows = self._rows("SELECT at FROM changes WHERE id > ? ORDER BY id LIMIT 1", sequence)
        return float(rows[0][0]) if rows else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is durable together when this ends, or not there at all. Nests."""
        if self._depth:
            yield
            return
        with explained(self._path):
            at = self._clock()
            self._db.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self._db.execute("UPDATE facts SET value = value + 1 WHERE name = 'sequence'")
                self._db.execute("INSERT INTO changes SELECT value, ? FROM facts WHERE name = 'sequence'", (at,))
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # some failures (disk full) have rolled back already
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    # Config revisions

    def record_revision(self, text: str, files: dict[str, str] | None = None) -> int:
        """An accepted configuration's id; the newest one's if that has the same texts (a restart)."""
        digest, included = config_hash(text, files or {}), _json(files or {})
        newest = self._rows("SELECT id, hash, files FROM revisions ORDER BY id DESC LIMIT 1")
        if newest and newest[0][1:] == (digest, included):
            return int(newest[0][0])
        return self._insert(
            "INSERT INTO revisions (at, hash, text, files) VALUES (?, ?, ?, ?)",
            *(self._clock(), digest, text, included),
        )

    def revisions(self, limit: int = 100, newest: int | None = None) -> list[Revision]:
        """The newest first, or from that one on."""
        rows = self._rows(
            "SELECT id, at, hash, text, files FROM revisions WHERE id <= ? ORDER BY id DESC LIMIT ?",
            *(2**62 if newest is None else newest, limit),
        )
        return [Revision(number, at, digest, text, self._value(files)) for number, at, digest, text, files in rows]

    # Run-time registrations; a backend's name holds its pool's

    def put_region(
        self, name: str, data: dict[str, Any], actor: str = "", reason: str = "", expires_at: float | None = None
    ) -> None:
        """Register a region, or replace its registration. `data` is plain JSON values."""
        self._put("region", name, data, actor, reason, expires_at)

    def delete_region(self, name: str) -> bool:
        """Whether there was one. Its administrative state is not touched."""
        return self._delete("DELETE FROM registrations WHERE kind = 'region' AND name = ?", name)

    def regions(self) -> dict[str, Registration]:
        """All registered regions by name."""
        return self._registered("region")

    def put_backend(
        self, name: str, data: dict[str, Any], actor: str = "", reason: str = "", expires_at: float | None = None
    ) -> None:
        """Register a backend, or replace its registration. `data` is plain JSON values."""
        self._put("backend", name, data, actor, reason, expires_at)

    def delete_backend(self, name: str) -> bool:
        """Whether there was one. Its administrative state is not touched."""
        return self._delete("DELETE FROM registrations WHERE kind = 'backend' AND name = ?", name)

    def backends(self) -> dict[str, Registration]:
        """All registered backends by name."""
        return self._registered("backend")

    # Administrative states

    def set_admin_state(
        self, kind: str, name: str, state: str, actor: str, reason: str = "", expires_at: float | None = None
    ) -> None:
        """What is wanted of a region or backend (`kind`) from now on, until `expires_at` if given."""
        self._write(
            "INSERT OR REPLACE INTO admin_states VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(kind, name, state, actor, reason, self._clock(), expires_at),
        )

    def clear_admin_state(self, kind: str, name: str) -> bool:
        """Nothing is wanted any more; whether something was."""
        return self._delete("DELETE FROM admin_states WHERE kind = ? AND name = ?", kind, name)

    def admin_states(self, now: float) -> dict[tuple[str, str], AdminState]:
        """By kind and name, those that are not over at `now`."""
        rows = self._rows("SELECT * FROM admin_states WHERE expires_at IS NULL OR expires_at > ?", now)
        return {(row[0], row[1]): AdminState(*row) for row in rows}

    # Purges

    def append_purge(self, purge: dict[str, Any]) -> int:
        """Record a purge durably; returns its id, which is higher than any before."""
        return self._insert("INSERT INTO purges (at, purge) VALUES (?, ?)", self._clock(), _json(purge))

    def purges_since(self, after: int) -> list[PurgeRecord]:
        """The purges with an id above `after`, in order."""
        rows = self._rows("SELECT id, at, purge FROM purges WHERE id > ? ORDER BY id", after)
        return [PurgeRecord(row[0], row[1], self._value(row[2])) for row in rows]

    def save_purge_log(self, purge_log: dict[str, Any]) -> None:
        """Replace the purge log (plain JSON values)."""
        self._write("INSERT OR REPLACE INTO facts VALUES ('epochs', ?)", _json(purge_log))

    def load_purge_log(self) -> dict[str, Any] | None:
        """The purge log as it was saved last."""
        rows = self._rows("SELECT value FROM facts WHERE name = 'epochs'")
        return dict(self._value(rows[0][0])) if rows else None

    # The fleet

    def save_fleet(self, values: dict[str, Any]) -> None:
        """Replace what is known of the fleet's stream (plain JSON values)."""
        self._write("INSERT OR REPLACE INTO facts VALUES ('fleet', ?)", _json(values))

    def fleet(self) -> dict[str, Any]:
        """The fleet's state as it was saved last."""
        rows = self._rows("SELECT value FROM facts WHERE name = 'fleet'")
        return dict(self._value(rows[0][0])) if rows else {}

    # Audit

    def audit(self, actor: str, action: str, target: str, detail: Any = None) -> int:
        """Note who did what; `detail` is any JSON value. Inside a transaction it stands or falls with the deed."""
        return self._insert(
            "INSERT INTO audit (at, actor, action, target, detail) VALUES (?, ?, ?, ?, ?)",
            *(self._clock(), actor, action, target, _json(detail)),
        )

    def audit_log(self, limit: int = 100, before: int | None = None) -> list[AuditRecord]:
        """The newest first; those with an id below `before`."""
        rows = self._rows(
            "SELECT id, at, actor, action, target, detail FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
            *(2**63 - 1 if before is None else before, limit),
        )
        return [
            AuditRecord(number, at, actor, action, target, self._value(detail))
            for number, at, actor, action, target, detail in rows
        ]

    def trim(self, keep: int) -> None:
        """Keep the newest `keep` of revisions, purges, audit and changes each; ids go on from where they were."""
        newest = {table: f"SELECT id FROM {table} ORDER BY id DESC LIMIT 1 OFFSET ?" for table in TRIMMED}
        if not any(self._rows(query, keep) for query in newest.values()):
            return
        with self.transaction():
            for table, query in newest.items():
                self._db.execute(f"DELETE FROM {table} WHERE id <= ({query})", (keep,))

    # Statements

    def _put(
        self, kind: str, name: str, data: dict[str, Any], actor: str, reason: str, expires_at: float | None
    ) -> None:
        self._write(
            "INSERT OR REPLACE INTO registrations VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(kind, name, _json(data), actor, reason, self._clock(), expires_at),
        )

    def _registered(self, kind: str) -> dict[str, Registration]:
        rows = self._rows(
            "SELECT name, data, actor, reason, at, expires_at FROM registrations WHERE kind = ? ORDER BY at, name", kind
        )
        return {row[0]: Registration(row[0], self._value(row[1]), *row[2:]) for row in rows}

    def _write(self, statement: str, *values: Any) -> sqlite3.Cursor:
        with self.transaction():
            return self._db.execute(statement, values)

    def _insert(self, statement: str, *values: Any) -> int:
        return self._write(statement, *values).lastrowid or 0

    def _delete(self, statement: str, *values: Any) -> bool:
        return self._write(statement, *values).rowcount > 0

    def _value(self, text: str) -> Any:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise damaged(self._path, f"a value in it: {error}") from None

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with explained(self._path):
            return self._db.execute(statement, values).fetchall()


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
