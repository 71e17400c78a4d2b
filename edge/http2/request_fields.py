"""From a list of HTTP/2 fields to the header block of the same request in HTTP/1.1 (RFC 9113 8).

HTTP/2's own rules are proven here: pseudo-fields first and once, names in lower case, nothing that belongs to a
connection, values that cannot break a line. What remains is the text of a header block, and HTTP/1.1's grammar is the
one judge of it: there is no second one that could see it differently.

One rule: a list that breaks a rule of RFC 9113 8 is malformed and never becomes a request; nothing is repaired.
"""

from __future__ import annotations

import re
from typing import Any, Final

from edge.http2.hpack import Field
from edge.http2.priority import DEFAULT_URGENCY, urgency_of

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # a token without upper case
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
TARGET = re.compile(rb"/[!\"$-~]*")  # as HTTP/1.1's request line has it: visible, and no fragment
_AUTHORITY = re.compile(rb"[!-~]*")
_NAMES: set[bytes] = set()  # names that were proven: few, and the same ones always
_NAMES_KEPT, _NAME_LONGEST = 2048, 64
OF_CONNECTIONS: Final = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
OPAQUE_BODY: Final = b"transfer-encoding: chunked\r\n"  # a body whose length nobody told: HTTP/1.1's word for it


class RequestFields:
    """What a request's fields say. `malformed` is the reason why they are none, as counters have it."""

    __slots__ = (
        "authority",
        "length",
        "malformed",
        "method",
        "path",
        "protocol",
        "quick",
        "raw",
        "read",
        "room",
        "scheme",
        "size",
        "urgency",
    )

    def __init__(self) -> None:
        self.malformed = ""
        self.method = b""
        self.scheme = b""
        self.authority = b""
        self.path: bytes | None = None  # None where it was cut out of the block, and comes beside
        self.quick = False  # a GET that is sound and has no body
        self.protocol: bytes | None = None  # of an extended CONNECT (RFC 8441)
        self.raw = b""  # the lines of an HTTP/1.1 header block
        self.length: int | None = None  # what content-length says, where it is a number
        self.size = 0  # of the decoded list
        self.room = -1  # for a `:path` that comes beside, within the limits; -1 where it is malformed
        self.urgency = DEFAULT_URGENCY
        self.read: dict[bool, Any] = {}  # the grammar's facts, by whether a body follows; whoever reads keeps them here


def request_fields(fields: list[Field], path_apart: bool = False) -> RequestFields:
    """The request that a list of fields makes. `path_apart`: its `:path` is known, and not in the list."""
    facts = RequestFields()
    try:
        rest = _pseudo(fields, facts, path_apart)
        facts.raw = _regular(fields[rest:], facts)
        facts.quick = facts.method == b"GET" and not facts.length
    except _Malformed as error:
        facts.malformed = error.args[0]
    return facts


class _Malformed(Exception):
    pass


def _pseudo(fields: list[Field], facts: RequestFields, path_apart: bool) -> int:
    """Read the pseudo-fields; returns how many there are."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] != b":":
            break
        if name in found or name not in PSEUDO:
            raise _Malformed("pseudo_field")
        found[name] = value
    facts.method = found.get(b":method", b"")
    facts.scheme = found.get(b":scheme", b"")
    facts.authority = found.get(b":authority", b"")
    facts.protocol = found.get(b":protocol")
    facts.path = found.get(b":path")
    if _METHOD.fullmatch(facts.method) is None or _AUTHORITY.fullmatch(facts.authority) is None:
        raise _Malformed("pseudo_value")
    if facts.path is not None and path_apart:
        raise _Malformed("pseudo_field")
    _needed(facts, path_apart)
    return len(found)


def _needed(facts: RequestFields, path_apart: bool) -> None:
    """Which pseudo-fields a method wants (RFC 9113 8.3.1, 8.5; RFC 8441 4)."""
    connects = facts.method == b"CONNECT"
    if facts.protocol is not None and (not connects or _METHOD.fullmatch(facts.protocol) is None):
        raise _Malformed("pseudo_field")
    if connects and facts.protocol is None:
        if facts.scheme or facts.path is not None or path_apart or not facts.authority:
            raise _Malformed("connect")
        facts.path = facts.authority
        return
    if facts.scheme not in (b"http", b"https"):
        raise _Malformed("scheme")
    if not path_apart and (facts.path is None or not good_path(facts.path, facts.method)):
        raise _Malformed("path")


def good_path(path: bytes, method: bytes) -> bool:
    """Whether `:path` can be one: origin form, or the asterisk of OPTIONS."""
    return TARGET.fullmatch(path) is not None or (path == b"*" and method == b"OPTIONS")


def _regular(fields: list[Field], facts: RequestFields) -> bytes:
    """The lines of the other fields, Host first."""
    lines, crumbs = [b""], []
    host = facts.authority
    for name, value in fields:
        if name not in _NAMES:
            _prove_name(name)
        if value != value.strip(b" \t"):
            raise _Malformed("value")
        if name == b"cookie":
            crumbs.append(value)
        elif name == b"host":
            if host and host.lower() != value.lower():
                raise _Malformed("host")
            if lines[0]:
                raise _Malformed("host")
            host = host or value
            lines[0] = b"host: %b\r\n" % host
        else:
            if name == b"te" and value.lower() != b"trailers":
                raise _Malformed("te")
            if name == b"content-length" and value.isdigit() and len(value) <= 18:
                facts.length = int(value)
            elif name == b"priority":
                facts.urgency = urgency_of(value)
            lines.append(b"%b: %b\r\n" % (name, value))
    if host and not lines[0]:
        lines[0] = b"host: %b\r\n" % host
    if crumbs:
        lines.append(b"cookie: %b\r\n" % b"; ".join(crumbs))
    raw = b"".join(lines)
    count = len(lines) - (not lines[0])
    if raw.count(b"\n") != count or raw.count(b"\r") != count or b"\0" in raw:
        raise _Malformed("value")
    return raw


def _prove_name(name: bytes) -> None:
    if _NAME.fullmatch(name) is None:
        raise _Malformed("pseudo_late" if name[:1] == b":" else "name")
    if name in OF_CONNECTIONS:
        raise _Malformed("connection_field")
    if len(name) <= _NAME_LONGEST:
        if len(_NAMES) >= _NAMES_KEPT:
            _NAMES.clear()
        _NAMES.add(name)


def trailer_lines(fields: list[Field]) -> list[Field] | None:
    """The trailer fields of a request; None when they are malformed (RFC 9113 8.1)."""
    try:
        for name, value in fields:
            if name not in _NAMES:
                _prove_name(name)
            if value != value.strip(b" \t") or value.translate(None, b"\r\n\0") != value:
                return None
    except _Malformed:
        return None
    return fields
