"""Rows of the disk tier's index: put in, taken out, marked. All of it inside a transaction of whoever has the turn.

One rule: how many objects there are is kept with each change of them, so that nobody has to count.

Each step of a statement lets other threads run and may then wait for them, so many rows go into one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from edge.adapters.disk_index import Sums
from edge.cache.purge import STAMPED, Kind, Numbered, Purge

PURGED_ROWS = 512  # after which a transaction of purges ends
AT_ONCE = (128, 64, 16, 4, 1)  # rows in one statement: few sizes, so that each is prepared once
COLUMNS = "hash, variant, choice, base, segment, at, length, stale, until, body, tagged, part, seal"
_HASH, _VARIANT, _CHOICE, _PART = 0, 1, 2, 11
_ONE = "({})".format(", ".join("?" * len(COLUMNS.split(","))))
_ADD = {count: f"INSERT OR IGNORE INTO objects ({COLUMNS}) VALUES " + ", ".join([_ONE] * count) for count in AT_ONCE}
_PUT = {count: sql.replace("IGNORE", "REPLACE") for count, sql in _ADD.items()}
_DROP = {
    count: "DELETE FROM objects WHERE segment = ? AND hash IN ({0}) AND at IN ({0})".format(", ".join("?" * count))
    for count in AT_ONCE
}
_REMOVE = "DELETE FROM objects WHERE hash = ?1 AND variant = ?2 AND (?3 < 0 OR (segment = ?3 AND at = ?4))"
_USE = "UPDATE objects SET used = 1 WHERE hash = ? AND variant = ? AND used = 0"
_TAG = "INSERT OR IGNORE INTO tags VALUES (?, ?, ?)"

Row = tuple[Any, ...]  # of COLUMNS
T = TypeVar("T")


def insert_rows(db: sqlite3.Connection, rows: Sequence[Row], tags: Sequence[tuple[int, int, int]]) -> None:
    """Insert rows, replacing those with the same hash and variant; a complete response replaces its parts."""
    if any(row[_PART] for row in rows) or db.execute("SELECT 1 FROM objects WHERE part = 1 LIMIT 1").fetchone():
        _take_parts(db, rows)
    new = 0
    for some in split(rows):
        values = [value for row in some for value in row]
        added = db.execute(_ADD[len(some)], values).rowcount
        new += added
        if added < len(some):
            db.execute(_PUT[len(some)], values)
    count_objects(db, new)
    if tags:
        db.executemany(_TAG, tags)


def _take_parts(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    for row in rows:
        if not row[_PART]:
            drop_objects(db, "part = 1 AND hash = ? AND choice = ?", (row[_HASH], row[_CHOICE]))


def split(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split a list into the sizes for which statements are prepared."""
    at = 0
    for size in AT_ONCE:
        while len(rows) - at >= size:
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
        if purge.kind is Kind.TAG:
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
