"""What a point holds: a table of entries by name; and what changed between two tables.

Everything that is recovered is an entry: a row of the journal, a file that the configuration names, a stored response.
Small things are in the entry; a body is content-addressed beside it (`blob`), so that it is stored once, whatever the
number of points.

One rule: a table has one digest, of all names and values in order, and each point's manifest tells the digest of the
*whole* table at its instant, whatever the point itself carries. So a chain that was applied in a wrong order, or with
a link that is not the right one, cannot pass for whole, though each file in it is sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

BLOB_ID_BYTES = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a point. `blob` is the SHA-256 of a body of `size` bytes, empty without a body."""

    data: bytes = b""
    blob: bytes = b""
    size: int = 0


Table = dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Delta:
    """The difference of two tables: entries that are new or changed, and names that are gone (sorted)."""

    put: Mapping[str, Entry] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.put) or bool(self.removed)


def delta(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> Delta:
    """The change from `old` to `new`: `apply(old, delta(old, new))` gives `new`."""
    put = {name: entry for name, entry in new.items() if old.get(name) != entry}
    return Delta(put, tuple(sorted(name for name in old if name not in new)))


def apply(table: Table, change: Delta) -> None:
    """Apply a change to a table in place. Removing a name that is not there does nothing: the digest is checked
    after.
    """
    for name in change.removed:
        table.pop(name, None)
    table.update(change.put)


def digest(table: Mapping[str, Entry]) -> str:
    """The SHA-256 of the whole table, the same in whatever order it was made."""
    whole = sha256()
    for name in sorted(table):
        entry, key = table[name], name.encode()
        whole.update(b"%d:%b%d:%b" % (len(key), key, len(entry.data), entry.data))
        whole.update(b"%d:%b%d;" % (len(entry.blob), entry.blob, entry.size))
    return whole.hexdigest()


def blobs(entries: Iterable[Entry]) -> dict[bytes, int]:
    """The bodies that entries name, each once, with their sizes."""
    return {entry.blob: entry.size for entry in entries if entry.blob}
