"""From rows of the disk tier's index to the records that they point to.

One rule: a row is a hint. What does not fit its seal, its checksum or the key is told apart from what is merely gone or
not there yet: the first is damage, to be removed and told; the others are misses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edge.adapters.disk_asker import Asker, NotNow
from edge.adapters.disk_files import Segments
from edge.adapters.disk_index import Row, Sums
from edge.cache.record import Damaged, Kept, decode


class Read(NamedTuple):
    """What the disk had for a key."""

    rows: list[tuple[Row, Kept]]
    damaged: list[tuple[Row, str]]


def read_rows(
    rows: Iterable[Row], sums: Sums, hashed: int, key: bytes, segments: Segments, asker: Asker | None, wait: bool
) -> Read:
    """The records of a key's rows. `asker` is there while bodies are awaited after a restore. Raises Cold."""
    found = Read([], [])
    for row in rows:
        if not sums.holds(hashed, row):
            found.damaged.append((row, "a row of the index does not fit its seal"))
            continue
        try:
            record = segments.read(row.segment, row.at, row.length, wait)
            kept = decode(record, key)
            if asker is not None and kept.stored.file is not None:
                kept = asker.with_body(kept, record, wait)
            found.rows.append((row, kept))
        except (FileNotFoundError, NotNow):
            continue  # its segment was evicted between the two, or its body has not come yet
        except (Damaged, OSError) as error:
            found.damaged.append((row, str(error)))
    return found
