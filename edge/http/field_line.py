"""One field line: proven, sorted by what it may decide, and remembered, for most lines of a head came before.

    0           goes on as it is and decides nothing: User-Agent, Content-Type, most names
    HOST, LENGTH, CLOSE …    decides one thing, known from the line alone
    OTHER       may decide more, or only together with other lines
    MALFORMED   is no field line

One rule: everything here follows from the bytes of the one line. What several lines mean together is `grammar`'s.
"""

from __future__ import annotations

import re
from typing import Any

from edge.errors import TooLarge
from edge.http.credentials import CHALLENGES
from edge.http.fields import MAX_MEMBERS
from edge.http.forwarding import ASSERTED_AND_TRACE, EARLIER_HOPS, OVERRIDES, looks_like
from edge.http.hopbyhop import HOP_BY_HOP
from edge.http.host import normal_host
from edge.http.memo import Memo
from edge.http.message import Fields, Line

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(TOKEN)
_IN_VALUES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])  # the rest are control bytes
# What a line decides. Sums of up to seven of them are told apart, so each is eight times the one before.
HOST, KEEP_ALIVE, CLOSE, COOKIE, LENGTH = 0o1, 0o10, 0o100, 0o1000, 0o10000
CHUNKED, DATE, HINT, OTHER, MALFORMED = 0o100000, 0o1000000, 0o10000000, 0o100000000, 0o1000000000
_NOT_PASSED_ON = (HOST, KEEP_ALIVE, CLOSE, LENGTH, CHUNKED, HINT)  # the gateway writes its own

# A request that carries one of these needs the cache's full decision; all others may take the short way to a hit.
CACHE_WORDS = frozenset(
    b"authorization cache-control pragma range if-none-match if-modified-since if-match if-unmodified-since if-range "
    b"content-length transfer-encoding expect upgrade".split()
)
_IN_REQUESTS = CACHE_WORDS | HOP_BY_HOP | ASSERTED_AND_TRACE | EARLIER_HOPS | OVERRIDES
_IN_RESPONSES = HOP_BY_HOP | frozenset((*CHALLENGES, b"content-length", b"date", b"host"))
_names: dict[bytes, tuple[bytes, int, int]] = {}  # as received: lower case, what lines may decide there and there
NAMES_REMEMBERED, NAME_LONGEST = 2048, 64  # a longer one is worked out each time
LINES_BYTES, LINE_LONGEST = 4 * 1024 * 1024, 512  # of lines that are remembered


class FieldLine:
    """A line of a head. `wire` is what goes on of it: nothing of Host, Connection and framing, where they are alone."""

    __slots__ = ("in_request", "in_response", "key", "line", "told", "wire")

    def __init__(self, key: bytes, line: Line, in_request: int = 0, in_response: int = 0, told: Any = None) -> None:
        self.key = key  # the name in lower case
        self.line = line
        self.in_request = in_request  # what it decides
        self.in_response = in_response
        self.told = told  # the normal form of a Host, the bytes of a length, the seconds of a hint
        mine = in_request in _NOT_PASSED_ON or in_response in _NOT_PASSED_ON
        self.wire = b"" if mine else b"%b: %b\r\n" % line


NO_LINE = FieldLine(b"", (b"", b""), MALFORMED, MALFORMED)


def field_line(raw: bytes) -> FieldLine:
    """A line without its CRLF. Names are tokens, with no space before the colon (RFC 9112 5.1)."""
    name, colon, value = raw.partition(b":")
    known = _names.get(name) or _name(name)
    if not colon or known is None or value.translate(None, _IN_VALUES):
        return NO_LINE
    key, in_request, in_response = known
    line = (name, value.strip(b" \t"))
    if in_request or in_response:
        return _deciding(key, line, in_request, in_response)
    return FieldLine(key, line)


def _deciding(key: bytes, line: Line, in_request: int, in_response: int) -> FieldLine:
    """A line whose name may decide something: what its value makes of that."""
    value = line[1]
    told: Any = None
    if key == b"host":
        told = normal_host(value)
        in_request = OTHER if told is None else HOST
    elif key == b"cookie":
        in_request = COOKIE if value.count(b";") < MAX_MEMBERS else OTHER
    elif key == b"date":
        in_response = DATE
    elif key == b"connection":
        option = value.lower()
        in_request = in_response = KEEP_ALIVE if option == b"keep-alive" else CLOSE if option == b"close" else OTHER
    elif key == b"content-length":
        told = length_of(value)
        in_response = OTHER if told is None else LENGTH
    elif key == b"transfer-encoding":
        in_response = CHUNKED if value.lower() == b"chunked" else OTHER
    elif key == b"keep-alive":
        told = hint_of([value.lower()])
        in_response = OTHER if told is None else HINT
    return FieldLine(key, line, in_request, in_response, told)


def length_of(value: bytes) -> int | None:
    """A Content-Length in bytes; None for a sign, a list, or what is too large."""
    return int(value) if value.isdigit() and len(value) <= 18 else None


def hint_of(members: list[bytes]) -> float | None:
    """Seconds of `Keep-Alive: timeout=N`, members in lower case; None when they say nothing usable."""
    for member in members:
        name, _, value = member.partition(b"=")
        if name.strip() == b"timeout" and value.strip().isdigit() and len(value) < 8:
            return float(value)
    return None


def _name(name: bytes) -> tuple[bytes, int, int] | None:
    """A field name in lower case and what its lines may decide in requests and responses; None when it is no token."""
    if _TOKEN.fullmatch(name) is None:
        return None
    key = name.lower()
    special = key == b"cookie" or key in _IN_REQUESTS or looks_like(key, OVERRIDES)
    found = (key, OTHER if special else 0, OTHER if key in _IN_RESPONSES else 0)
    if len(name) <= NAME_LONGEST:
        if len(_names) >= NAMES_REMEMBERED:
            _names.clear()
        _names[name] = found
    return found


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


class Lines:
    """The lines of a head, and the same as fields, made when somebody asks: most heads are passed on without."""

    __slots__ = ("_fields", "_lines")

    def __init__(self, lines: list[FieldLine]) -> None:
        self._lines = lines
        self._fields: Fields | None = None

    @property
    def fields(self) -> Fields:
        """Field lines in order."""
        found = self._fields
        if found is None:
            found = self._fields = fields_of(self._lines)
        return found


def fields_of(lines: list[FieldLine]) -> Fields:
    """Proven lines as fields."""
    return Fields([one.line for one in lines], [one.key for one in lines])
