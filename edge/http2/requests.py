"""Reading requests from field blocks, with a memory: what clients repeat is worked out once for a worker.

A browser sends the same block again and again, but for its `:path`. Where that is a literal that leaves the table
alone, it is cut out, and what is left is remembered with the table before it: to the facts, and the table after it.

One rule: with the memory off the same blocks are the same requests. What was cut out is proven each time, and counted.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.http2.frames import ConnectionFault
from edge.http2.generations import Generations
from edge.http2.hpack import (
    DEFAULT_TABLE,
    Field,
    Listed,
    ListLimits,
    Table,
    empty_table,
    huffman_decoded,
    read,
    string,
)
from edge.http2.request_fields import RequestFields, good_path, request_fields

BUDGET_BYTES = 8 * 1024 * 1024
WHOLE_BYTES = 4 * 1024 * 1024  # of blocks as they came, besides the facts
STRINGS_BYTES = 2 * 1024 * 1024  # of Huffman strings that were read
STRING_LONGEST = 512
TABLES_BYTES = 4 * 1024 * 1024  # of tables that several connections come to have
BLOCK_LONGEST = 4096  # longer ones are never remembered
_PATHS = frozenset((0x04, 0x14, 0x05, 0x15))  # literals without indexing that have the name from the static table
_LEADING = 4  # bytes in which `:path` has to begin: the other fields before it are indexed ones
# What a remembered block holds, measured: its facts with the grammar's, which have its bytes about four times.
_COST_BLOCK, _COST_BYTE, _COST_ENTRY = 2600, 5, 8
_COST_STRING, _COST_TABLE, _COST_WHOLE = 200, 400, 350

Mend = Callable[[bytes], bytes | None]
Read = tuple[RequestFields | None, bytes | None, Table]  # the facts, the `:path`, the table after it
Block = tuple[Table, bytes | None, bytes]  # table before it; the block up to `:path`, which is cut out; what is left
_STARTS = 1024  # beginnings of blocks of which it is known whether `:path` comes next


class RequestReader:
    """Reads the field blocks of requests; one for a worker."""

    __slots__ = (
        "_blocks",
        "_limits",
        "_mend",
        "_paths",
        "_starts",
        "_strings",
        "_tables",
        "_turn",
        "_whole",
        "first_table",
        "remembers",
    )

    def __init__(self, limits: ListLimits, budget: int = BUDGET_BYTES, mend: Mend | None = None) -> None:
        self._limits = limits
        self._mend = mend  # makes a `:path` of one that is none, or says that it cannot
        self._blocks: Generations[Block, tuple[RequestFields, Table]] = Generations(budget)
        self._whole: Generations[tuple[Table, bytes], Read] = Generations(WHOLE_BYTES)  # with their `:path`
        self._turn = 0  # of `_blocks`, whose facts `_whole` holds
        self._strings: Generations[bytes, bytes] = Generations(STRINGS_BYTES)
        self._paths: Generations[bytes, bytes] = Generations(STRINGS_BYTES)  # proven ones, by their literals
        self._starts: dict[bytes, int] = {}  # how many indexed fields they begin with; -1 where no `:path` follows
        self._tables: Generations[tuple[tuple[Field, ...], int], Table] = Generations(TABLES_BYTES)
        self.first_table = empty_table(DEFAULT_TABLE)  # the one of every connection at its start
        self.remembers = True  # off to compare

    def request(self, block: bytes, table: Table) -> Read:
        """No facts where the list is over the limits. Raises ConnectionFault. Whether the facts make a request is for
        the caller to see (`malformed`)."""
        if not self.remembers or len(block) > BLOCK_LONGEST:
            return self._plain(block, table)
        key = (table, block)
        known = self._whole.get(key)
        if known is not None:
            return known[0]
        return self._whole.older(key) or self._by_parts(block, table)

    def _by_parts(self, block: bytes, table: Table) -> Read:
        """A block that did not come with this `:path` lately."""
        start, proven = block[:_LEADING], False
        path: bytes | None = None
        at = self._starts.get(start)
        if at is None:
            at = self._begins(start)
        if at >= 0 and len(block) > at + 1:
            stop = at + 2 + (block[at + 1] & 127)
            known_path = self._paths.get(block[at + 1 : stop])  # with its length, so that nothing that is cut fits
            if known_path is not None:
                path, proven = known_path[0], True
            else:
                path, stop = self._path(block, at)
        key = (table, None, block) if path is None else (table, block[: at + 1], block[stop:])
        known = self._blocks.get(key)
        if known is not None:
            facts, after = known[0]
        else:
            older = self._blocks.older(key)
            if older is None:
                older = self._work_out(block, key, path)
                if older is None:
                    return self._plain(block, table)
            facts, after = older
        if path is None:
            path = facts.path
        elif len(path) > facts.room or not (proven or good_path(path, facts.method)):
            return self._plain(block, table)  # its fault is told as ever
        found = facts, path, after
        if known is not None:
            self._keep_whole((table, block), found)
        return found

    def _keep_whole(self, key: tuple[Table, bytes], found: Read) -> None:
        """What the facts cost is counted where they were remembered first: with those, these go too."""
        if self._turn != self._blocks.turns:
            self._turn = self._blocks.turns
            self._whole.clear()
        self._whole.keep(key, hash(key), found, _COST_WHOLE + len(key[1]))

    def _begins(self, start: bytes) -> int:
        """How many indexed fields a block begins with, where a literal `:path` follows them; else -1."""
        at = 0
        while at < len(start) and 128 <= start[at] < 255:
            at += 1
        found = at if at < len(start) and start[at] in _PATHS else -1
        if len(self._starts) >= _STARTS:
            self._starts.clear()
        self._starts[start] = found
        return found

    def _work_out(self, block: bytes, key: Block, path: bytes | None) -> tuple[RequestFields, Table] | None:
        """Read a block that is not known, and keep what is read; None when it is over the limits."""
        table, start, rest = key
        before = 0 if start is None else len(start) - 1
        listed = read(block, table, self._limits, self._string)
        if listed.fields is None:
            return None
        if path is not None and not all(name[:1] == b":" for name, _ in listed.fields[:before]):
            return None  # `:path` comes too late: as if it had not been cut out
        facts = self._facts(listed, None if path is None else before)
        after = listed.table
        cost = _COST_BLOCK + _COST_BYTE * (len(rest) + facts.size)
        if after is not table:
            after = self._one_of(after)
            cost += after.size + _COST_ENTRY * len(after.entries)
        self._blocks.keep(key, hash((table.mark, start, rest)), (facts, after), cost)
        return facts, after

    def _one_of(self, table: Table) -> Table:
        """The one table with this content, so that what comes after it is known by it, on whatever connection."""
        content = (table.entries, table.limit)
        known = self._tables.get(content)
        if known is not None:
            return known[0]
        found = self._tables.older(content)
        if found is None:
            table.mark = hash(content)
            self._tables.keep(content, table.mark, table, _COST_TABLE + 2 * table.size)
            return table
        return found

    def _facts(self, listed: Listed, path_at: int | None) -> RequestFields:
        fields = listed.fields
        assert fields is not None
        size = listed.size
        if path_at is not None:
            size -= len(fields[path_at][1])
            fields = fields[:path_at] + fields[path_at + 1 :]
        elif self._mend is not None:
            fields = [_mended(each, self._mend) for each in fields]
        facts = request_fields(fields, path_at is not None)
        facts.size = size
        facts.room = -1 if facts.malformed else self._limits.size - size
        return facts

    def _plain(self, block: bytes, table: Table) -> Read:
        listed = read(block, table, self._limits, self._string if self.remembers else huffman_decoded)
        if listed.fields is None:
            return None, None, listed.table
        facts = self._facts(listed, None)
        return facts, facts.path, listed.table

    def trailers(self, block: bytes, table: Table) -> Listed:
        """A field block that is no request's head. Raises ConnectionFault."""
        return read(block, table, self._limits, self._string)

    def _path(self, block: bytes, at: int) -> tuple[bytes | None, int]:
        """The value of the literal at `at`, and where it ends; None where it cannot be read."""
        try:
            path, stop = string(block, at + 1, self._string)
        except (IndexError, ConnectionFault):
            return None, 0  # its fault is told when the whole block is read
        literal = block[at + 1 : stop]
        short = literal[0] & 127 < 127  # its length is one byte, as whoever looks it up takes for granted
        if short and self._paths.older(literal) is None and good_path(path, b"GET"):
            self._paths.keep(literal, hash(literal), path, _COST_STRING + len(literal) + len(path))
        return path, stop

    def _string(self, raw: bytes) -> bytes:
        """A Huffman string, from memory where it came before."""
        known = self._strings.get(raw)
        if known is not None:
            return known[0]
        found = self._strings.older(raw)
        if found is None:
            found = huffman_decoded(raw)
            if len(raw) <= STRING_LONGEST:
                self._strings.keep(raw, hash(raw), found, _COST_STRING + len(raw) + len(found))
        return found


def _mended(field: Field, mend: Mend) -> Field:
    name, value = field
    return (name, mend(value) or value) if name == b":path" and not value.isascii() else field
