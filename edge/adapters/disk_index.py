"""The disk tier's index: which record of which segment answers a key. SQLite (WAL), read by every worker directly.

One rule: it is a hint. What it points to carries its own checksum, key and purge number; a row has a seal over the
little that it decides by itself (where to read, and since when a soft purge holds), so damage here ends in a miss.

Keys are 63 bits of a hash salted for this store: the tree is one of integers, and nobody outside can make two meet.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

from edge.adapters.disk_place import Place, TierError

SCHEMA_VERSION = 2
MAX_KNOWN, KNOWN_BYTES = 4096, 256  # hashes of keys, up to this length
PAGE_BYTES = 4096
LOG_SHARE = (
    0.75  # of what the log may take: where it is so long, a commit folds it in; `Changer` sees to it before that
)
# Rows lie in the order in which they come and go, as their records do: a batch touches pages all over `by_hash` alone,
# which is small. An older store has its rows by hash, and an index `by_segment`; every statement fits both.
SCHEMA = """
CREATE TABLE objects (
    hash INTEGER NOT NULL, variant INTEGER NOT NULL,
    choice INTEGER NOT NULL,      -- the variant without its range: what a whole response supersedes
    base INTEGER NOT NULL,        -- the key without what rules added to it: what a purge by URL names
    segment INTEGER NOT NULL, at INTEGER NOT NULL, length INTEGER NOT NULL,
    stale REAL NOT NULL,          -- since when a soft purge holds, 0: none
    until REAL NOT NULL,          -- when it is of no more use
    body BLOB,                    -- the name of a body in a file of its own
    tagged INTEGER NOT NULL, part INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0,
    seal INTEGER NOT NULL, PRIMARY KEY (segment, at)) WITHOUT ROWID;
CREATE UNIQUE INDEX by_hash ON objects (hash, variant);
CREATE INDEX by_part ON objects (hash) WHERE part = 1;
CREATE INDEX by_base ON objects (base) WHERE base <> hash;
CREATE TABLE tags (
    tag INTEGER NOT NULL, hash INTEGER NOT NULL, variant INTEGER NOT NULL, PRIMARY KEY (tag, hash, variant)
) WITHOUT ROWID;
CREATE INDEX by_object ON tags (hash, variant);
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, main INTEGER NOT NULL,
    bytes INTEGER NOT NULL,       -- of the file
    charge INTEGER NOT NULL);     -- bytes of the file and of the bodies that its records name
CREATE TABLE bodies (name BLOB PRIMARY KEY, bytes INTEGER NOT NULL, refs INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX unused_bodies ON bodies (name) WHERE refs = 0;
CREATE TABLE temps (name TEXT PRIMARY KEY, writer INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES ('objects', 0), ('bodies', 0), ('purged', 0), ('floor', 0), ('evicted', 0);
CREATE TRIGGER body_comes AFTER INSERT ON objects WHEN NEW.body IS NOT NULL BEGIN
    UPDATE bodies SET refs = refs + 1 WHERE name = NEW.body;
END;
CREATE TRIGGER body_goes AFTER DELETE ON objects WHEN OLD.body IS NOT NULL BEGIN
    UPDATE bodies SET refs = refs - 1 WHERE name = OLD.body;
END;
CREATE TRIGGER tags_go AFTER DELETE ON objects WHEN OLD.tagged BEGIN
    DELETE FROM tags WHERE hash = OLD.hash AND variant = OLD.variant;
END;
"""
# Version 1 counted objects by triggers, which cost as much as the rows.
_FROM_1 = "BEGIN; DROP TRIGGER object_comes; DROP TRIGGER object_goes; PRAGMA user_version = 2; COMMIT;"
_HASH = struct.Struct(">q")
_SEALED = struct.Struct(">qqqqqd")


class Row(NamedTuple):
    """One row of the index: where a record lies, and what it needs to be checked."""

    variant: int
    segment: int
    at: int
    length: int
    stale: float
    seal: int


class Sums:
    """Salted hashes and seals of one store."""

    __slots__ = ("_begun", "_first", "_known", "plain")

    def __init__(self, place: Place) -> None:
        salt = place.salt
        self._begun = blake2b(digest_size=8, key=salt).copy
        self._first = int.from_bytes(salt[:4], "big")
        self.plain = self.of(b"") if place.format == 1 else 0  # the variant of most responses: 0 takes no room in a row
        self._known: dict[bytes, int] = {}

    def of_key(self, key: bytes) -> int:
        """As `of`; remembers the last keys, because who stores a response has looked for it. For all threads."""
        known = self._known
        hashed = known.get(key)
        if hashed is None:
            hashed = self.of(key)
            if len(known) >= MAX_KNOWN:
                known.clear()
            if len(key) <= KNOWN_BYTES:
                known[key] = hashed
        return hashed

    def of(self, data: bytes) -> int:
        """A signed 64-bit integer that stands for a key, a variant or a tag."""
        state = self._begun()  # half the cost of a new one
        state.update(data)
        return int(_HASH.unpack(state.digest())[0])

    def of_variant(self, name: bytes) -> int:
        """As `of`, for the name of a variant."""
        return self.of(name) if name else self.plain

    def seal(self, hashed: int, variant: int, place: tuple[int, int, int], stale: float) -> int:
        """The checksum that a row must carry."""
        return crc32(_SEALED.pack(hashed, variant, *place, stale), self._first)

    def holds(self, hashed: int, row: Row) -> bool:
        """Whether a row matches its seal."""
        return self.seal(hashed, row.variant, (row.segment, row.at, row.length), row.stale) == row.seal


def connect(place: Place, busy_s: float = 5.0) -> sqlite3.Connection:
    """A connection to the index for one thread; waits up to `busy_s` seconds for a lock. Raises sqlite3.Error."""
    # A damaged page ends in an error: SQLite reads with `pread`, and never through a map that a cut file could tear.
    db = sqlite3.connect(
        place.index, timeout=busy_s, isolation_level=None, cached_statements=64, check_same_thread=False
    )
    db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last transactions, it never mixes them up
    db.execute("PRAGMA recursive_triggers = ON")  # what REPLACE takes away counts as deleted
    db.execute("PRAGMA mmap_size = 0")
    db.execute("PRAGMA temp_store = MEMORY")
    return db


def limit_log(db: sqlite3.Connection, size: int) -> None:
    """How long the log may become by this connection's commits, in bytes."""
    db.execute(f"PRAGMA wal_autocheckpoint = {int(size * LOG_SHARE) // PAGE_BYTES}")
    db.execute(f"PRAGMA journal_size_limit = {size}")


def fold_in(db: sqlite3.Connection) -> None:
    """Checkpoint: copy the log into the index file, as far as no reader prevents it."""
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def make_index(place: Place) -> None:
    """Create the index, or check that the existing one has this version. Raises sqlite3.DatabaseError."""
    fresh = not place.index.exists()
    db = sqlite3.connect(place.index, timeout=5.0, isolation_level=None)
    try:
        if fresh:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version == 1:
            db.executescript(_FROM_1)
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"index of version {version}")
        names = {name for (name,) in db.execute("SELECT name FROM facts")}
        if not names >= {"objects", "bodies", "purged", "floor", "evicted"}:
            raise sqlite3.DatabaseError("facts are missing")
        db.execute("SELECT count(*), sum(bytes), sum(charge) FROM segments").fetchone()
    finally:
        db.close()


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error means a damaged file, rather than a full, missing or busy disk."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, sqlite3.OperationalError):
        return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
    return isinstance(error, sqlite3.DatabaseError)


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Turns SQLite errors inside the block into one line that names the tier."""
    try:
        yield
    except sqlite3.Error as error:
        raise TierError(f"disk cache {place.path}: {error}") from error
