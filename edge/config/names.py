"""Texts that are compared with what a client sends: paths, argument and cookie names, field names, methods.

One rule: what can match nothing is refused where it is written. A pattern where none is meant is an error, and what
clients send percent-encoded is written percent-encoded; the message says how.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

from pydantic import PlainValidator

from edge.config.types import ValueKind, shown

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_ODD_SEGMENT = re.compile(r"/\.{1,2}(?=/|$)|//")


def parse_path(value: object) -> str:
    """A path prefix, matched by whole segments against the path as RFC 3986 6.2.2 normalises it."""
    if not isinstance(value, str) or not value.startswith("/") or re.search(r"[\s?#\x00-\x1f\x7f]", value):
        raise ValueError(f'must be a path such as "/api", got {shown(value)}')
    if "*" in value:
        plain = value.partition("*")[0].rstrip("/") or "/"
        raise ValueError(f'is a prefix by segments and takes no pattern: write "{plain}", got {shown(value)}')
    if _ODD_SEGMENT.search(_ESCAPE.sub(_decoded, value)):
        raise ValueError(f"must have no empty, . or .. segments (no request could match), got {shown(value)}")
    return _as_sent(value)


def parse_probe_target(value: object) -> str:
    """A path with query, as it is asked for."""
    if not isinstance(value, str) or not re.fullmatch(r"/[^\s#\x00-\x1f\x7f]*", value):
        raise ValueError(f'must be a path such as "/healthz", got {shown(value)}')
    if not value.isascii():
        raise ValueError(f"must be percent-encoded: write {_encoded(value)}, got {shown(value)}")
    return value


def parse_numbered_path(value: object) -> str:
    """A path with one `{n}` in it."""
    if not isinstance(value, str) or not re.fullmatch(r"/[^\s{}#\x00-\x1f\x7f]*\{n\}[^\s{}#\x00-\x1f\x7f]*", value):
        raise ValueError(f'must be a path with one "{{n}}" in it, got {shown(value)}')
    if "*" in value:
        raise ValueError(f"takes no pattern but {{n}}, got {shown(value)}")
    return _as_sent(value)


def parse_argument(value: object) -> str:
    """The name of a query argument, or a glob."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s&=#\x00-\x1f\x7f]+", value):
        raise ValueError(f'must be an argument name or a glob such as "utm_*", got {shown(value)}')
    return _as_sent(value, unescape=False)


def parse_one_argument(value: object) -> str:
    """The name of a query argument."""
    found = parse_argument(value)
    if "*" in found:
        raise ValueError(f"is one name and takes no pattern, got {shown(value)}")
    return found


def parse_hash_on(value: object) -> str:
    """What consistent hashing looks at."""
    form = r"path|client|(?:header|cookie):[A-Za-z0-9!#$%&'*+.^_`|~-]+"
    if not isinstance(value, str) or re.fullmatch(form, value) is None:
        raise ValueError(f'must be "path", "client", "header:<name>" or "cookie:<name>", got {shown(value)}')
    if "*" in value:
        raise ValueError(f"is one name and takes no pattern, got {shown(value)}")
    return value


def _as_sent(value: str, unescape: bool = True) -> str:
    """A text in the form in which a normalised request has it; anything else matches nothing."""
    if not value.isascii():
        raise ValueError(f"must be percent-encoded, as clients send it: write {_encoded(value)}, got {shown(value)}")
    if _BAD_ESCAPE.search(value):
        raise ValueError(f"has a % that begins no escape: write %25, got {shown(value)}")
    plain = _ESCAPE.sub(_decoded, value) if unescape else value
    if plain != value:
        raise ValueError(f'must be written as "{plain}": requests are compared in that form, got {shown(value)}')
    return value


def _decoded(match: re.Match[str]) -> str:
    """An escape as RFC 3986 6.2.2 has it: unreserved characters stand for themselves, hex digits are upper case."""
    character = chr(int(match[1], 16))
    return character if _UNRESERVED.fullmatch(character) else match[0].upper()


def _encoded(value: str) -> str:
    return f'"{quote(value, safe=_ASCII)}"'


def _name(what: str, *, lower: bool = False, glob: bool = False, instead: str = "") -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
            raise ValueError(f"must be {what}, got {shown(value)}")
        if "*" in value and not glob:
            raise ValueError(f"must be {what}, which takes no pattern{instead}, got {shown(value)}")
        return value.lower() if lower else value

    return parse


PathPrefix = Annotated[str, PlainValidator(parse_path), ValueKind("path prefix")]
ProbeTarget = Annotated[str, PlainValidator(parse_probe_target), ValueKind("path")]
NumberedPath = Annotated[str, PlainValidator(parse_numbered_path), ValueKind("path pattern")]
Argument = Annotated[str, PlainValidator(parse_argument), ValueKind("name or glob")]
HashOn = Annotated[str, PlainValidator(parse_hash_on), ValueKind("text")]
HeaderName = Annotated[str, PlainValidator(_name("a field name", lower=True)), ValueKind("field name")]
CookieName = Annotated[str, PlainValidator(_name("a cookie name", glob=True)), ValueKind("name or glob")]
OneCookie = Annotated[str, PlainValidator(_name("a cookie name")), ValueKind("cookie name")]
OneArgument = Annotated[str, PlainValidator(parse_one_argument), ValueKind("argument name")]
Method = Annotated[str, PlainValidator(_name("a method such as GET", instead=" (left out = all)")), ValueKind("method")]
