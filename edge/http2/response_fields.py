"""From a response head in HTTP/1.1's words to field blocks (RFC 9113 8.3.2, RFC 7541 6).

Names and values come from static entries and literals that leave the client's table alone: a coded head is the same
bytes on every connection, so that it is made once for a stored response and written to all clients.

One rule: nothing here depends on a connection. A line that repeats is coded once; the memory of lines is bounded.
"""

from __future__ import annotations

from edge.http2 import huffman
from edge.http2.generations import Generations
from edge.http2.static_table import NAMES, STATUSES

BUDGET_BYTES = 2 * 1024 * 1024  # of lines
HEADS_BYTES = 12 * 1024 * 1024
HEAD_LONGEST = 4096
TAILS = 4096  # of hits: pairs of an age and a time to live
LINE_LONGEST = 1024  # longer ones are coded without Huffman, and not remembered
_COST_LINE, _COST_HEAD = 250, 600
NO_TABLE = b"\x20"  # "my table has no room": what a client that makes its table smaller has to hear once


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """An integer with a prefix of so many bits (RFC 7541 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out = [first | most]
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def string(text: bytes, short: bool = True) -> bytes:
    """A string literal, by Huffman's code where that is shorter."""
    if short:
        coded = huffman.encode(text)
        if len(coded) < len(text):
            return integer(len(coded), 7, 128) + coded
    return integer(len(text), 7) + text


def field(name: bytes, value: bytes, short: bool = True) -> bytes:
    """A field that is in no table: a literal without indexing. The name is in lower case."""
    index = NAMES.get(name)
    return (integer(index, 4) if index else b"\0" + string(name, short)) + string(value, short)


def status(code: bytes) -> bytes:
    """The encoded `:status` field."""
    index = STATUSES.get(code)
    return bytes((0x80 | index,)) if index else b"\x08" + string(code)


class CodedHead:
    """A stored head as a field block, and the same as that of a hit of this age and time to live, in whole seconds."""

    __slots__ = ("age", "block", "of_hit", "ttl")

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.age = self.ttl = -1  # of none yet
        self.of_hit = b""


class HeadCoder:
    """Codes response heads, and remembers the lines that come again; one for a worker."""

    __slots__ = ("_heads", "_lines", "_tails")

    def __init__(self, budget: int = BUDGET_BYTES, heads_budget: int = HEADS_BYTES) -> None:
        self._lines: Generations[bytes, bytes] = Generations(budget)
        self._heads: Generations[bytes, CodedHead] = Generations(heads_budget)
        self._tails: dict[tuple[int, int], bytes] = {}

    def head(self, wire: bytes) -> bytes:
        """A status line and field lines, each with its CRLF, as a field block; from memory where it came before."""
        known = self._heads.get(wire)
        return known[0].block if known is not None else self._coded(wire).block

    def hit(self, wire: bytes, age: int, ttl: int) -> bytes:
        """The field block of a hit: the stored head with its Age and Cache-Status."""
        known = self._heads.get(wire)
        coded = known[0] if known is not None else self._coded(wire)
        if coded.age != age or coded.ttl != ttl:
            coded.age, coded.ttl = age, ttl
            coded.of_hit = coded.block + self._tail(age, ttl)
        return coded.of_hit

    def _coded(self, wire: bytes) -> CodedHead:
        found = self._heads.older(wire)
        if found is None:
            line, _, rest = wire.partition(b"\r\n")
            found = CodedHead(status(line[9:12]) + self.lines(rest))
            if len(wire) <= HEAD_LONGEST:
                self._heads.keep(wire, hash(wire), found, _COST_HEAD + len(wire) + 2 * len(found.block))
        return found

    def _tail(self, age: int, ttl: int) -> bytes:
        """The encoded fields that end the head of a hit."""
        tail = self._tails.get((age, ttl))
        if tail is None:
            if len(self._tails) >= TAILS:
                self._tails.clear()
            tail = self.lines(b"Age: %d\r\nCache-Status: edge; hit; ttl=%d\r\n" % (age, ttl))
            self._tails[age, ttl] = tail
        return tail

    def lines(self, lines: bytes) -> bytes:
        """Field lines, each with its CRLF, as a piece of a field block."""
        get, out = self._lines.get, []
        for line in lines.split(b"\r\n"):
            known = get(line)
            if known is not None:
                out.append(known[0])
            elif line:
                out.append(self._line(line))
        return b"".join(out)

    def _line(self, line: bytes) -> bytes:
        found = self._lines.older(line)
        if found is None:
            name, _, value = line.partition(b":")
            if len(line) > LINE_LONGEST:
                return field(name.lower(), value.strip(b" \t"), False)
            found = field(name.lower(), value.strip(b" \t"))
            self._lines.keep(line, hash(line), found, _COST_LINE + 2 * len(line))
        return found
