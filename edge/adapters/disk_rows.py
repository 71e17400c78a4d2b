"""Rows of the disk tier's index: put in, taken out, marked. All of it inside a transaction of whoever has the turn.

One rule: how many objects there are is kept with each change of them, so that nobody has to count.

Each step of a statement lets other threads run and may then wait for them, so many rows go into one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edge.adapters.disk_index import Sums
from edge.cache.body import BodyFile
from edge.cache.purge import STAMPED, Numbered, Purge, PurgeKind, base_of
from edge.cache.record import head_of
from edge.cache.stored import Stored

PURGED_ROWS = 512  # after which a transaction of purges ends
AT_ONCE = (128, 64, 16, 4, 1)  # rows in one statement: few sizes, so that each is prepared once
# What every row says, and what most say by these: no variant, no tags, no part, no body in a file, the URL for a key.
COLUMNS = ("hash", "segment", "at", "length", "until", "seal", "variant", "choice", "base", "body", "tagged", "part")
PLAIN = 6
_HASH, _CHOICE, _PART = 0, 7, 11


def _add(count: int, width: int) -> str:
    """The statement for so many rows that say so many columns; their values follow the plain variant."""
    rows = []
    for first in range(2, 2 + count * width, width):
        marks = [f"?{at}" for at in range(first, first + width)]
        unsaid = ["?1", "?1", marks[_HASH], "NULL", "0", "0"] if width == PLAIN else []
        rows.append(f"({', '.join(marks + unsaid)}, 0)")
    return f"INSERT OR IGNORE INTO objects ({', '.join(COLUMNS)}, stale) VALUES {', '.join(rows)}"


_ADD = {(count, width): _add(count, width) for count in AT_ONCE for width in (PLAIN, len(COLUMNS))}
_PUT = {which: sql.replace("IGNORE", "REPLACE") for which, sql in _ADD.items()}
_DROP = {
    count: "DELETE FROM objects WHERE segment = ? AND hash IN ({0}) AND at IN ({0})".format(", ".join("?" * count))
    for count in AT_ONCE
}
_REMOVE = "DELETE FROM objects WHERE hash = ?1 AND variant = ?2 AND (?3 < 0 OR (segment = ?3 AND at = ?4))"
_USE = "UPDATE objects SET used = 1 WHERE hash = ? AND variant = ? AND used = 0"
_TAG = "INSERT OR IGNORE INTO tags VALUES (?, ?, ?)"

Values = list[Any]  # of rows, one after the other
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Addition:
    """A response to be stored: its record, and its body's file when the body is not in the record."""

    stored: Stored
    record: bytes = b""  # what stands before `rest`; empty: not made yet
    body: BodyFile | None = None
    temp: str | None = None  # the body's temporary file; None where the body is there already
    seq: int = 0  # the worker's purge sequence when it was asked for
    rest: tuple[bytes, ...] = ()  # the body, where it is not in `record`: it need not be copied
    plain: tuple[int, float] | None = None  # hash and `until` of a row that says no more: no need to look at `stored`
    length: int = 0  # of record and rest

    def __post_init__(self) -> None:
        self.length = len(self.record)

    def make(self, sums: Sums) -> None:
        """Make the record of a response with its body, and what can be of its row."""
        stored = self.stored
        self.record, self.rest = head_of(stored, self.seq >> 32), stored.chunks
        self.length = len(self.record) + stored.length
        if is_plain(stored):
            self.plain = sums.of_key(stored.key), stored.keep_until


@dataclass(slots=True)
class Rows:
    """Rows to be added: the values of those that say COLUMNS up to PLAIN, those that say all, and tags."""

    variant: int  # of plain ones
    plain: Values = field(default_factory=list)
    others: list[tuple[Any, ...]] = field(default_factory=list)
    tags: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, sums: Sums, each: Addition, place: tuple[int, int, int]) -> None:
        """The row of a response whose record is at this place: segment, offset and length."""
        if each.plain is not None:
            hashed, until = each.plain
            self.plain += (hashed, *place, until, sums.seal(hashed, self.variant, place, 0.0))
            return
        stored = each.stored
        hashed = sums.of_key(stored.key)
        variant = sums.of_variant(stored.variant)
        said = (hashed, *place, stored.keep_until, sums.seal(hashed, variant, place, 0.0))
        if each.body is None and is_plain(stored):
            self.plain += said
            return
        choice = variant if stored.part is None else sums.of_variant(stored.choice)
        base_key = base_of(stored.key)
        base = hashed if base_key == stored.key else sums.of(base_key)
        body = None if each.body is None else each.body.name
        self.others.append((*said, variant, choice, base, body, int(bool(stored.tags)), int(stored.part is not None)))
        self.tags += [(sums.of(tag), hashed, variant) for tag in stored.tags]

    def hashes(self) -> list[int]:
        """The hashes of all keys."""
        return [*self.plain[_HASH::PLAIN], *(row[_HASH] for row in self.others)]


def is_plain(stored: Stored) -> bool:
    """Whether a row without a body's name says all by its plain columns: no variant, tags, part, or rule's key."""
    return not (stored.vary or stored.part or stored.tags) and b" " not in stored.key


def insert_rows(db: sqlite3.Connection, rows: Rows, breathe: Callable[[], None] = lambda: None) -> None:
    """Insert rows, replacing those with the same hash and variant; a complete response replaces its parts."""
    others = rows.others
    if any(row[_PART] for row in others) or db.execute("SELECT 1 FROM objects WHERE part = 1 LIMIT 1").fetchone():
        _take_parts(db, rows)
    new = 0
    for width, values in ((PLAIN, rows.plain), (len(COLUMNS), [value for row in others for value in row])):
        at = 0
        for count in sizes(len(values) // width):
            some = [rows.variant, *values[at : at + count * width]]
            at += count * width
            added = db.execute(_ADD[count, width], some).rowcount
            new += added
            if added < count:
                db.execute(_PUT[count, width], some)
            breathe()
    count_objects(db, new)
    if rows.tags:
        db.executemany(_TAG, rows.tags)


def _take_parts(db: sqlite3.Connection, rows: Rows) -> None:
    """Delete the parts that whole responses supersede; a plain row's choice is its variant."""
    whole = [(row[_HASH], row[_CHOICE]) for row in rows.others if not row[_PART]]
    for each in (*((hashed, rows.variant) for hashed in rows.plain[_HASH::PLAIN]), *whole):
        drop_objects(db, "part = 1 AND hash = ? AND choice = ?", each)


def sizes(count: int) -> Iterator[int]:
    """A number of rows as sizes for which statements are prepared."""
    for size in AT_ONCE:
        for _ in range(count // size):
            yield size
        count %= size


def split(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split a list into those sizes."""
    at = 0
    for size in sizes(len(rows)):
        yield rows[at : at + size]
        at += size


def remove_rows(db: sqlite3.Connection, removed: Sequence[tuple[int, int, int, int]]) -> None:
    """Delete rows, if they still point to the given place."""
    if removed:
        count_objects(db, -db.executemany(_REMOVE, removed).rowcount)


def drop_rows(db: sqlite3.Connection, segment: int, rows: Sequence[tuple[int, int]]) -> None:
    """Delete rows of one segment by hash and offset."""
    for some in split(rows):
        hashes, offsets = zip(*some, strict=True)
        count_objects(db, -db.execute(_DROP[len(some)], (segment, *hashes, *offsets)).rowcount)


def use_rows(db: sqlite3.Connection, used: Sequence[tuple[int, int]]) -> None:
    """Mark rows as used, so that eviction keeps them."""
    if used:
        db.executemany(_USE, used)


def purge_rows(db: sqlite3.Connection, sums: Sums, purges: Sequence[tuple[Purge, float]]) -> set[tuple[int, int]]:
    """Carry out purges by URL and tag; returns (hash, variant) of what was still usable."""
    touched: set[tuple[int, int]] = set()
    for purge, now in purges:
        named = sums.of(purge.value)
        if purge.kind is PurgeKind.TAG:
            where, values = "(hash, variant) IN (SELECT hash, variant FROM tags WHERE tag = ?)", [named]
        else:
            where, values = "(hash = ? AND base = hash) OR (base = ? AND base <> hash)", [named, named]
        query = f"SELECT hash, variant, segment, at, length, until FROM objects WHERE {where}"
        rows = db.execute(query, values).fetchall()
        touched.update((row[0], row[1]) for row in rows if row[5] > now)
        if not purge.soft:
            remove_rows(db, [(hashed, variant, -1, -1) for hashed, variant, *_ in rows])
            continue
        for hashed, variant, *place, _ in rows:
            seal = sums.seal(hashed, variant, (place[0], place[1], place[2]), now)
            db.execute(
                "UPDATE objects SET stale = ?, seal = ? WHERE hash = ? AND variant = ? AND stale = 0",
                (now, seal, hashed, variant),
            )
    return touched


def purge_some(db: sqlite3.Connection, sums: Sums, purges: Sequence[Numbered], at: float) -> list[set[tuple[int, int]]]:
    """Carry out the first of these purges, as many as touch few rows together, because nobody else can write until
    their transaction ends; returns for each what `purge_rows` does."""
    found: list[set[tuple[int, int]]] = []
    rows = 0
    for each in purges:
        found.append(purge_rows(db, sums, [(purge, at) for purge in each.purges if purge.kind not in STAMPED]))
        rows += len(found[-1])
        if rows >= PURGED_ROWS:
            break
    return found


def drop_objects(db: sqlite3.Connection, where: str, values: Sequence[Any]) -> int:
    """Delete rows and adjust the object count; returns how many."""
    return count_objects(db, -db.execute(f"DELETE FROM objects WHERE {where}", values).rowcount)


def count_objects(db: sqlite3.Connection, more: int) -> int:
    """Adjust the object count by `more`; returns its absolute value."""
    if more:
        db.execute("UPDATE facts SET value = value + ? WHERE name = 'objects'", (more,))
    return abs(more)
