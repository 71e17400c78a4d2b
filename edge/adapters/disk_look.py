"""From a key to the records that the disk tier has for it, by one thread: its connection, its files, what it remembers.

    index ─► rows ─┬─ as they were when they were read last ─► the body alone, against its sums
                   └─ others ─► the whole record, against its seal, checksum and key

One rule: a row is a hint. What does not fit its seal, its checksum or the key is told apart from what is merely gone or
not there yet: the first is damage, to be removed and told; the others are misses. Every byte that is given out has been
compared with its sum since it was read from the file, by each look-up anew; remembered is only what stands before the
body, for as long as the index says the same of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from edge.adapters.disk_asker import Asker, NotNow
from edge.adapters.disk_files import Cold, Segments
from edge.adapters.disk_filter import Filter
from edge.adapters.disk_index import Row, Sums, connect
from edge.adapters.disk_pending import Waiting, left_of
from edge.adapters.disk_place import Place
from edge.adapters.disk_version import Version
from edge.cache.purge import KEPT, Purge, PurgeLog
from edge.cache.record import Damaged, Kept, Outline, decode, outlined
from edge.cache.stored import Stored

MAX_REMEMBERED = 4 * 1024 * 1024  # bytes of heads, and what belongs to them
MAX_SEEN = 16384  # keys that were looked up once: what comes again is remembered
ONE_IN = 8  # is remembered where something else has to go for it: where all of it comes again, that is work for nothing
_EACH_BYTES = 1500  # of a key with one row: what is made for it, its head excepted; measured
_QUERY = "SELECT variant, segment, at, length, stale, seal FROM objects WHERE hash = ? LIMIT 256"


class Read(NamedTuple):
    """The result of a look-up on disk."""

    rows: list[tuple[Row, Kept]]
    damaged: list[tuple[Row, str]]
    outlines: list[Outline]  # of the rows, where they are to be remembered


NOTHING = Read([], [], [])


class Remembered:
    """The rows of a key and the outlines of their records, valid for one version of the index."""

    __slots__ = ("bodies", "bytes", "number", "rows", "sole", "told", "version")

    def __init__(self, version: bytes | None, rows: tuple[Row, ...], outlines: tuple[Outline, ...]) -> None:
        self.version = version
        self.rows = rows
        self.bodies = tuple((row, each, row.at + each.at) for row, each in zip(rows, outlines, strict=True))
        self.bytes = sum(_EACH_BYTES + len(each.stored.key) + len(each.stored.wire) for each in outlines)
        self.told = False  # the writer knows that it is used
        self.sole = self.bodies[0] if len(rows) == 1 and not rows[0].stale else None  # of most keys
        self.number = min((each.number for each in outlines), default=0)  # purges up to here have left it as it is


class Looker:
    """Looks up keys. `remembers`: keep outlines between look-ups (on the loop; a reader thread checks everything)."""

    def __init__(
        self, place: Place, sums: Sums, absent: Filter | None = None, busy_s: float = 5.0, remembers: bool = False
    ) -> None:
        self._filter = absent  # what it says is not there is not looked for
        self.db = connect(place, busy_s)
        self.segments = Segments(place)
        self._version = Version(place) if remembers else None
        self._sums = sums
        self._known: OrderedDict[bytes, Remembered] = OrderedDict()
        self._bytes = 0
        self._seen: set[int] = set()
        self._full = False
        self._asked = 0
        self.floor = 0  # what was fetched before this purge is not to be used

    def close(self) -> None:
        """Close the connection and the segments."""
        self._known.clear()
        self.segments.close()
        if self._version is not None:
            self._version.close()
        self.db.close()

    def remembered(self, key: bytes) -> Remembered | None:
        """The outlines remembered for a key; None if there are none."""
        return self._known.get(key)

    def lacks(self, hashed: int) -> bool:
        """Whether the index has no row of this hash, for all that is known without asking it."""
        return self._filter is not None and not self._filter.may_have(hashed)

    def again(self, key: bytes, before: tuple[Waiting, Waiting], purge_log: PurgeLog) -> Stored | None:
        """The one response of a key, where neither the index nor a purge nor what waits has touched what is remembered.

        `before`: what waited before this was called. None: `read` finds out.
        """
        known = self._known.get(key)
        if known is None or known.sole is None or known.number < self.floor:
            return None
        taken, waiting = before
        if key in taken.responses or key in waiting.responses or taken.purges.times or waiting.purges.times:
            return None
        row, outline, at = known.sole
        if known.number < purge_log.seq >> 32:
            if purge_log.settled(known.number, key, outline.stored.tags) is not KEPT:
                return None
            known.number = purge_log.number
        version = known.version
        if version is None or self._version is None or self._version.now() != version:
            return None
        try:
            return outline.with_body(self.segments.read(row.segment, at, outline.length, False))
        except (Cold, Damaged, OSError):
            return None

    def read(self, key: bytes, hashed: int, asker: Asker | None, wait: bool) -> Read:
        """The records of a key. `asker`: bodies are awaited after a restore. Raises Cold, sqlite3.Error."""
        known = self._known.get(key)
        if known is None and self.lacks(hashed):
            return NOTHING
        if self._version is None or asker is not None:
            return self._whole(key, hashed, self.rows(hashed), asker, wait, False)
        again = known is not None or hashed in self._seen
        version = self._version.now() if again else None
        if known is not None and known.version == version is not None:
            return self._bodies(key, known, wait)
        rows = self.rows(hashed)
        if known is not None and known.rows == rows:
            known.version = version
            return self._bodies(key, known, wait)
        self._forget(key)
        found = self._whole(key, hashed, rows, None, wait, again)
        if again:
            self._remember(key, version, rows, found)
        elif rows:
            self._see(hashed)
        return found

    def left(
        self,
        kept: Kept,
        stale: float,
        purge_log: PurgeLog,
        before: tuple[Waiting, ...],
        meanwhile: list[tuple[Purge, float]],
    ) -> Stored | None:
        """What purges leave of a record: itself, a stale version, or None."""
        stored: Stored | None = kept.stored
        assert stored is not None
        if kept.number < self.floor:
            return None
        if kept.number < purge_log.number:
            stored = purge_log.settled(kept.number, stored.key, stored.tags).left_of(stored)
            if stored is None:
                return None
        if stale:
            stored = stored.expired(stale)
        for waiting in before:
            if waiting.purges:
                stored = waiting.purges.left_of(stored)
                if stored is None:
                    return None
        return left_of(stored, meanwhile) if meanwhile else stored

    def rows(self, hashed: int) -> tuple[Row, ...]:
        """The rows of the index for a hash. Raises sqlite3.Error."""
        return tuple(map(Row._make, self.db.execute(_QUERY, (hashed,))))

    def _whole(
        self, key: bytes, hashed: int, rows: Sequence[Row], asker: Asker | None, wait: bool, remember: bool
    ) -> Read:
        """Read and check complete records."""
        found = Read([], [], [])
        for row in rows:
            if not self._sums.holds(hashed, row):
                found.damaged.append((row, "a row of the index does not fit its seal"))
                continue
            try:
                record = self.segments.read(row.segment, row.at, row.length, wait)
                kept = decode(record, key)
                if asker is not None and kept.stored.file is not None:
                    kept = asker.with_body(kept, record, wait)
                found.rows.append((row, kept))
                if remember:
                    found.outlines.append(outlined(kept, record))
            except (FileNotFoundError, NotNow):
                continue  # its segment was evicted between the two, or its body has not come yet
            except (Damaged, OSError) as error:
                found.damaged.append((row, str(error)))
        return found

    def _bodies(self, key: bytes, known: Remembered, wait: bool) -> Read:
        """Read only the bodies of records whose rows have not changed."""
        rows: list[tuple[Row, Kept]] = []
        damaged: list[tuple[Row, str]] = []
        read = self.segments.read
        for row, outline, at in known.bodies:
            try:
                stored = outline.with_body(read(row.segment, at, outline.length, wait))
                rows.append((row, Kept(stored, outline.number)))
            except FileNotFoundError:
                self._forget(key)
            except (Damaged, OSError) as error:
                self._forget(key)
                damaged.append((row, str(error)))
        return Read(rows, damaged, [])

    def _remember(self, key: bytes, version: bytes | None, rows: tuple[Row, ...], found: Read) -> None:
        if not rows or len(found.rows) != len(rows):
            return
        self._asked += 1
        if self._full and self._asked % ONE_IN:
            return
        known = self._known[key] = Remembered(version, rows, tuple(found.outlines))
        self._bytes += known.bytes
        while self._bytes > MAX_REMEMBERED:
            self._full = True
            self._bytes -= self._known.popitem(last=False)[1].bytes

    def _see(self, hashed: int) -> None:
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(hashed)

    def _forget(self, key: bytes) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._bytes -= known.bytes
