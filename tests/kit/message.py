"""A strict reader of HTTP/1.1 messages for tests: heads, bodies by framing, trailers (RFC 9112 2-7).

One rule: what is not exactly right raises `Malformed`; a body that ended before its framing said so comes back with
`complete` false. It is written apart from the gateway's own grammar so that the two check each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from kit.waiting import WAIT_S
from kit.wire import Wire

Line = tuple[bytes, bytes]
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x20-\x7e\x80-\xff\t]*?)[ \t]*")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")
DIGITS = re.compile(rb"[0-9]{1,19}")


class Malformed(Exception):
    """A peer sent something that is not HTTP/1.1."""


class Framing(Enum):
    """How a body's end is known (RFC 9112 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Body:
    """`wire` is what crossed the connection, `content` what it means. `extensions` are chunk extensions as received."""

    framing: Framing
    content: bytes = b""
    wire: bytes = b""
    trailers: tuple[Line, ...] = ()
    extensions: tuple[bytes, ...] = ()
    complete: bool = True


def split_head(raw: bytes) -> tuple[bytes, tuple[Line, ...]]:
    """The start line and the field lines of a head that ends in an empty line."""
    if not raw.endswith(b"\r\n\r\n"):
        raise Malformed(f"head without its empty line: {raw[-80:]!r}")
    start, *lines = raw[:-4].split(b"\r\n")
    if b"\n" in start or b"\r" in start or b"\0" in start:
        raise Malformed(f"control bytes in the start line: {start[:80]!r}")
    return start, tuple(_field(line) for line in lines)


def _field(line: bytes) -> Line:
    match = FIELD.fullmatch(line)
    if match is None:
        raise Malformed(f"not a field line: {line[:80]!r}")
    return match[1], match[2]


def values(fields: tuple[Line, ...], name: bytes) -> tuple[bytes, ...]:
    """The values of a lower-case name, in order."""
    return tuple(value for key, value in fields if key.lower() == name)


def framing_of(fields: tuple[Line, ...], absent: Framing) -> tuple[Framing, int]:
    """The framing that a head's fields give, and the length; `absent` when they give none."""
    codings, lengths = values(fields, b"transfer-encoding"), values(fields, b"content-length")
    if codings and lengths:
        raise Malformed("both Transfer-Encoding and Content-Length")
    if codings:
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise Malformed(f"Transfer-Encoding is {codings!r}")
        return Framing.CHUNKED, 0
    if lengths:
        if len(lengths) != 1 or DIGITS.fullmatch(lengths[0]) is None:
            raise Malformed(f"Content-Length is {lengths!r}")
        return Framing.LENGTH, int(lengths[0])
    return absent, 0


async def read_body(wire: Wire, framing: Framing, length: int, wait_s: float = WAIT_S) -> Body:
    """Read one body to its end, or to the connection's."""
    if framing is Framing.NONE:
        return Body(framing)
    if framing is Framing.LENGTH:
        content = await wire.exactly(length, wait_s)
        if content is None:
            rest = wire.take(len(wire.buffer))
            return Body(framing, rest, rest, complete=False)
        return Body(framing, content, content)
    if framing is Framing.CLOSE:
        content = await wire.until_end(wait_s)
        return Body(framing, content, content, complete=not wire.was_reset)
    return await _read_chunks(wire, wait_s)


async def _read_chunks(wire: Wire, wait_s: float) -> Body:
    content, seen, extensions = bytearray(), bytearray(), []
    while True:
        line = await wire.until(b"\r\n", wait_s)
        if line is None:
            return _cut(wire, content, seen)
        seen += line
        match = CHUNK_SIZE.fullmatch(line[:-2])
        if match is None:
            raise Malformed(f"not a chunk-size line: {line[:80]!r}")
        if match[2]:
            extensions.append(match[2])
        size = int(match[1], 16)
        if size == 0:
            break
        data = await wire.exactly(size + 2, wait_s)
        if data is None:
            return _cut(wire, content, seen)
        if data[-2:] != b"\r\n":
            raise Malformed(f"chunk data without CRLF: {data[-20:]!r}")
        seen += data
        content += data[:-2]
    trailers: list[Line] = []
    while (line := await wire.until(b"\r\n", wait_s)) is not None:
        seen += line
        if line == b"\r\n":
            return Body(Framing.CHUNKED, bytes(content), bytes(seen), tuple(trailers), tuple(extensions))
        trailers.append(_field(line[:-2]))
    return _cut(wire, content, seen)


def _cut(wire: Wire, content: bytearray, seen: bytearray) -> Body:
    seen += wire.take(len(wire.buffer))
    return Body(Framing.CHUNKED, bytes(content), bytes(seen), complete=False)
