"""Header compression, the reading half (RFC 7541): a field block and a dynamic table make a list of fields and a table.

A table is a value that never changes: reading a block makes another one where the block changes it. So the same block
after the same table is the same list and the same table, which is what the memory of blocks (`requests`) rests on.

One rule: what a block may cost is bounded while it is read. A list that is over the limits is dropped and read on for
the table's sake, as its stream alone is refused; one that is far over them ends the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge.http2 import huffman
from edge.http2.frames import Code, ConnectionFault
from edge.http2.static_table import FIRST_DYNAMIC, STATIC

Field = tuple[bytes, bytes]
DEFAULT_TABLE = 4096  # what a connection begins with, whatever is announced (RFC 9113 6.5.2)
ENTRY_BYTES = 32  # what an entry counts beside its bytes (RFC 7541 4.1)
SIZE_UPDATES = 2  # more never make sense at the start of one block (RFC 7541 4.2)
FAR_OVER = 4  # a block with so many times the fields or bytes of the limit is an attack


@dataclass(frozen=True, slots=True)
class ListLimits:
    """How large a decoded list may be. Cookie crumbs count one by one, as they come."""

    fields: int = 100
    size: int = 32 * 1024  # of names and values, and FIELD_BYTES for each
    table: int = DEFAULT_TABLE  # what we announce as SETTINGS_HEADER_TABLE_SIZE


FIELD_BYTES = 4  # what a field line has besides name and value in HTTP/1.1
PSEUDO_FIELDS = 5  # they come on top of the limit of fields


class Table:
    """One content of the dynamic table, newest entry first. `mark` is a hash of it, where somebody asked."""

    __slots__ = ("entries", "limit", "mark", "size")

    def __init__(self, entries: tuple[Field, ...], size: int, limit: int, mark: int) -> None:
        self.entries = entries
        self.size = size
        self.limit = limit
        self.mark = mark


def empty_table(limit: int) -> Table:
    """The table of a connection that has just begun."""
    return Table((), 0, limit, 0)


class Listed:
    """What a block held: `fields`, or None where they were over the limits; and the table after it."""

    __slots__ = ("fields", "size", "table")

    def __init__(self, fields: list[Field] | None, size: int, table: Table) -> None:
        self.fields = fields
        self.size = size
        self.table = table


def compression_fault(reason: str) -> ConnectionFault:
    """The table cannot be trusted any more, so the connection ends (RFC 9113 4.3)."""
    return ConnectionFault(Code.COMPRESSION_ERROR, reason)


def integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """An integer with a prefix (RFC 7541 5.1) and where it ends. Raises IndexError when the block ends before."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 21:
            raise compression_fault("hpack_integer")


def string(block: bytes, at: int, decoded: Callable[[bytes], bytes]) -> tuple[bytes, int]:
    """A string literal (RFC 7541 5.2) and where it ends."""
    coded = block[at] & 128
    length, at = integer(block, at, 127)
    raw = block[at : at + length]
    if len(raw) != length:
        raise compression_fault("hpack_short")
    return (decoded(raw) if coded else raw), at + length


def huffman_decoded(raw: bytes) -> bytes:
    """A Huffman string; a bad one is the block's fault."""
    try:
        return huffman.decode(raw)
    except ValueError:
        raise compression_fault("hpack_huffman") from None


def read(block: bytes, table: Table, limits: ListLimits, decoded: Callable[[bytes], bytes] = huffman_decoded) -> Listed:
    """Read one whole field block. Raises ConnectionFault."""
    try:
        return _read(block, table, limits, decoded)
    except IndexError:
        raise compression_fault("hpack_index" if block else "hpack_short") from None


def _read(block: bytes, table: Table, limits: ListLimits, decoded: Callable[[bytes], bytes]) -> Listed:
    entries, size, limit = table.entries, table.size, table.limit
    at, end, updates, total, changed = 0, len(block), 0, 0, False
    out: list[Field] = []
    add = out.append
    while at < end:
        byte = block[at]
        if byte >= 128:  # an indexed field
            if byte < 255:
                index = byte & 127
                at += 1
            else:
                index, at = integer(block, at, 127)
            if not index:
                raise compression_fault("hpack_index")
            field = STATIC[index] if index < FIRST_DYNAMIC else entries[index - FIRST_DYNAMIC]
        elif byte >= 64 or byte < 32:  # a literal, with or without a place in the table
            index, at = integer(block, at, 63 if byte >= 64 else 15)
            if index:
                name = (STATIC[index] if index < FIRST_DYNAMIC else entries[index - FIRST_DYNAMIC])[0]
            else:
                name, at = string(block, at, decoded)
            value, at = string(block, at, decoded)
            field = (name, value)
            if byte >= 64:
                changed = True
                size += len(name) + len(value) + ENTRY_BYTES
                entries = (field, *entries)
                if size > limit:
                    entries, size = evicted(entries, size, limit)
        else:
            updates += 1
            if out or total or updates > SIZE_UPDATES:
                raise compression_fault("hpack_update")
            limit, at = integer(block, at, 31)
            if limit > limits.table:
                raise compression_fault("hpack_update")
            entries, size = evicted(entries, size, limit)
            changed = True
            continue
        total += len(field[0]) + len(field[1]) + FIELD_BYTES
        add(field)
        if total > limits.size or len(out) > limits.fields:
            _far_over(out, total, limits)
    after = Table(entries, size, limit, 0) if changed else table
    over = total > limits.size or len(out) > limits.fields + PSEUDO_FIELDS
    return Listed(None if over else out, total, after)


def _far_over(out: list[Field], total: int, limits: ListLimits) -> None:
    if total > limits.size * FAR_OVER or len(out) > (limits.fields + PSEUDO_FIELDS) * FAR_OVER:
        raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "header_list")


def evicted(entries: tuple[Field, ...], size: int, limit: int) -> tuple[tuple[Field, ...], int]:
    """The entries that fit into the limit, oldest ones dropped (RFC 7541 4.3, 4.4)."""
    keep = len(entries)
    while size > limit:
        keep -= 1
        name, value = entries[keep]
        size -= len(name) + len(value) + ENTRY_BYTES
    return entries[:keep], size
