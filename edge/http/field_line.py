"""One field line: proven, sorted by what it may decide, and remembered, for most lines of a head came before.

    ORDINARY    goes on as it is and decides nothing: User-Agent, Accept, most names
    HOST, KEEP_ALIVE, CLOSE, COOKIE    decide one thing each, known from the line alone
    OTHER       may decide more, or only together with other lines
    MALFORMED   is no field line

One rule: everything here follows from the bytes of the one line. What several lines mean together is `grammar`'s.
"""

from __future__ import annotations

import re

from edge.errors import TooLarge
from edge.http.fields import MAX_MEMBERS
from edge.http.forwarding import ASSERTED_AND_TRACE, EARLIER_HOPS, OVERRIDES, looks_like
from edge.http.hopbyhop import HOP_BY_HOP
from edge.http.host import normal_host
from edge.http.memo import Memo
from edge.http.message import Fields, Line

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(TOKEN)
_IN_VALUES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])  # the rest are control bytes
# What a line may decide. Sums of up to three of them are told apart (`grammar`), so each is four times the one before.
ORDINARY, HOST, KEEP_ALIVE, CLOSE, COOKIE, OTHER, MALFORMED = 0, 1, 4, 16, 64, 256, 1024

# A request that carries one of these needs the cache's full decision; all others may take the short way to a hit.
CACHE_WORDS = frozenset(
    b"authorization cache-control pragma range if-none-match if-modified-since if-match if-unmodified-since if-range "
    b"content-length transfer-encoding expect upgrade".split()
)
_LOOKED_AT = CACHE_WORDS | HOP_BY_HOP | ASSERTED_AND_TRACE | EARLIER_HOPS | OVERRIDES
_BY_NAME = {b"host": HOST, b"cookie": COOKIE, b"connection": OTHER}
_names: dict[bytes, tuple[bytes, int]] = {}  # as received: lower case, and what such a line may decide
NAMES_REMEMBERED, NAME_LONGEST = 2048, 64  # a longer one is worked out each time
LINES_BYTES, LINE_LONGEST = 4 * 1024 * 1024, 512  # of lines that are remembered


class FieldLine:
    """A line of a head. `wire` is what goes on of it: nothing of Host and Connection, which the gateway writes."""

    __slots__ = ("host", "key", "line", "use", "wire")

    def __init__(self, key: bytes, line: Line, use: int, host: bytes | None = None) -> None:
        self.key = key  # the name in lower case
        self.line = line
        self.use = use
        self.host = host  # the normal form of a Host
        self.wire = b"" if use in (HOST, KEEP_ALIVE, CLOSE) else b"%b: %b\r\n" % line


NO_LINE = FieldLine(b"", (b"", b""), MALFORMED)


def field_line(raw: bytes) -> FieldLine:
    """A line without its CRLF. Names are tokens, with no space before the colon (RFC 9112 5.1)."""
    name, colon, value = raw.partition(b":")
    known = _names.get(name) or _name(name)
    if not colon or known is None or value.translate(None, _IN_VALUES):
        return NO_LINE
    key, use = known
    value = value.strip(b" \t")
    if not use:
        return FieldLine(key, (name, value), ORDINARY)
    host = None
    if use == HOST:
        host = normal_host(value)
        use = OTHER if host is None else HOST
    elif use == COOKIE:
        use = COOKIE if value.count(b";") < MAX_MEMBERS else OTHER
    elif key == b"connection":
        option = value.lower()
        use = KEEP_ALIVE if option == b"keep-alive" else CLOSE if option == b"close" else OTHER
    return FieldLine(key, (name, value), use, host)


def _name(name: bytes) -> tuple[bytes, int] | None:
    """A field name in lower case and what its lines may decide; None when it is no token."""
    if _TOKEN.fullmatch(name) is None:
        return None
    key = name.lower()
    use = _BY_NAME.get(key, OTHER if key in _LOOKED_AT or looks_like(key, OVERRIDES) else ORDINARY)
    if len(name) <= NAME_LONGEST:
        if len(_names) >= NAMES_REMEMBERED:
            _names.clear()
        _names[name] = (key, use)
    return key, use


_lines: Memo[FieldLine] = Memo(field_line, LINES_BYTES, LINE_LONGEST)


def field_lines(block: bytes, line_bytes: int, count: int) -> list[FieldLine] | None:
    """The lines of a block that ends in CRLF (or is empty); None when it does not. Raises TooLarge past a limit."""
    raw = block.split(b"\r\n")
    if raw.pop():
        return None
    if len(raw) > count:
        raise TooLarge("too many fields", 431)
    if len(block) > line_bytes and max(map(len, raw)) > line_bytes:
        raise TooLarge("field line too long", 431)
    get, slow = _lines.get, _lines.slow
    return [get(line) or slow(line) for line in raw]


def fields_of(lines: list[FieldLine]) -> Fields:
    """The same as fields."""
    return Fields([one.line for one in lines], [one.key for one in lines])
