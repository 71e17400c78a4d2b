"""The journal's file: how it comes into being, who may open it, and when it counts as damaged.

One rule: nothing is ever made anew in the place of something that was there. The file comes into being whole (made
under another name, synced, renamed), so one that is empty, is no database, or has lost its main file next to a log is
damage, and opening it says so in one line that tells what to do. A torn tail of the log is no damage: SQLite stops at
the first frame whose checksum does not fit, and what was acknowledged stands before it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from edge.adapters.durable_file import sync
from edge.control.state_files import open_plain, refuse_link
from edge.errors import EdgeError

SCHEMA_VERSION = 2
PAGE_BYTES = 4096  # set when the file is made, whatever SQLite was built with
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
APPLICATION_ID = 0x45444745  # "EDGE", in the file's header
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE revisions (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, hash TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE registrations (
    kind TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
    at REAL NOT NULL, expires_at REAL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE admin_states (
    kind TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
    at REAL NOT NULL, expires_at REAL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE purges (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, purge TEXT NOT NULL);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL,
    actor TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, detail TEXT NOT NULL);
INSERT INTO facts VALUES ('sequence', 0);
"""
# What brings a journal of version N to N + 1. A new one is made at version 1 and taken up the same stairs, so that
# there is one way to each version, and every test of a new journal is a test of the migrations.
MIGRATIONS: dict[int, str] = {
    1: """
ALTER TABLE revisions ADD COLUMN files TEXT NOT NULL DEFAULT '{}';
CREATE TABLE changes (id INTEGER PRIMARY KEY, at REAL NOT NULL);
INSERT INTO facts VALUES ('history', lower(hex(randomblob(8))));
""",
}


class JournalError(EdgeError):
    """The journal cannot be opened, read or written; the text names the file and says what to do."""

    status: ClassVar[int] = 503  # the disk is full or sick: nothing was changed, and it may be tried again


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns SQLite errors inside the block into one line that names the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise damaged(path, str(error)) from error
        raise JournalError(f"journal {path}: {error}") from error


def damaged(path: Path, what: str) -> JournalError:
    """The error for a damaged journal, which says what to do."""
    return JournalError(
        f"journal {path} is damaged ({what}): restore it from a recovery point, "
        f"or move it away together with its -wal file to start without run-time state"
    )


@contextmanager
def _system_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(f"journal {path}: {error.strerror or error}") from error


def lock_file(path: Path) -> int:
    """A descriptor that holds the lock, on a file beside: closing one of the database would drop SQLite's own locks."""
    with _system_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open_plain(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise JournalError(f"journal {path} is in use by another process") from None
    return lock


def make_file(path: Path) -> None:
    """Create a journal if there is none."""
    with _system_explained(path), explained(path):
        for suffix in ("", "-wal", "-shm"):
            refuse_link(path.with_name(path.name + suffix))
        if path.exists():
            _refuse_cut(path)
            return
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise damaged(path, f"it is missing, but {log.name} is there")
        fresh = path.with_name(path.name + ".new")
        for suffix in ("", "-wal", "-shm", "-journal"):  # what a killed maker left
            fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(fresh, isolation_level=None)
        try:
            db.executescript(
                f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA synchronous = FULL; PRAGMA application_id = {APPLICATION_ID};"
                f"BEGIN; {SCHEMA} {_stairs(1)} COMMIT; PRAGMA journal_mode = WAL;"
            )
        finally:
            db.close()
        sync(fresh)
        os.replace(fresh, path)
        sync(path.parent)


def _stairs(version: int) -> str:
    """The statements that upgrade a journal from this version."""
    steps = "".join(MIGRATIONS[step] for step in range(version, SCHEMA_VERSION))
    return f"{steps} PRAGMA user_version = {SCHEMA_VERSION};"


def _refuse_cut(path: Path) -> None:
    """What SQLite would not: it takes less than one page for a new database, and fills half a page up with zeros."""
    size = path.stat().st_size
    if size < PAGE_BYTES:
        raise damaged(path, f"it is shorter than one page, {size} bytes" if size else "it is empty")
    log = path.with_name(path.name + "-wal")
    # With a log, a half page may be a checkpoint that a power cut ended; the log still has that page.
    if size % PAGE_BYTES and not (log.exists() and log.stat().st_size):
        raise damaged(path, "its last page is cut")


def open_file(path: Path) -> sqlite3.Connection:
    """Open and check an existing journal."""
    with explained(path):
        try:
            return _opened(path, alone=False)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in NO_ROOM:
                raise
            return _opened(path, alone=True)


def _opened(path: Path, alone: bool) -> sqlite3.Connection:
    # mode=rw: a file that vanished since `make_file` looked is an error here, too.
    db = sqlite3.connect(path.absolute().as_uri() + "?mode=rw", uri=True, isolation_level=None, timeout=5.0)
    try:
        if alone:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        _check(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise JournalError(f"journal {path} is another program's database")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if not 1 <= version <= SCHEMA_VERSION:
        raise JournalError(
            f"journal {path} has schema version {version}, this program knows 1 to {SCHEMA_VERSION}: "
            f"run the program that wrote it, or a newer one"
        )
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise JournalError(f"journal {path}: its file system has no write-ahead logging (a network share?)")
    db.execute("PRAGMA synchronous = FULL")
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, found.splitlines()[-1])
    if version < SCHEMA_VERSION:  # after the check: what is damaged is left as it is
        _migrate(db, version)


def _migrate(db: sqlite3.Connection, version: int) -> None:
    """All steps are one transaction: a kill leaves the old version or the new one."""
    try:
        db.executescript(f"BEGIN IMMEDIATE; {_stairs(version)} COMMIT;")
    except sqlite3.DatabaseError:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
