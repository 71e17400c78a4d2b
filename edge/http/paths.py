"""The one path that everything matches on: routes, bypass rules, cache rules, prefixes of purges.

One rule: what is compared is what the strictest origin would understand (RFC 3986 6.2.2): percent-encoding decoded
once, dot segments removed, empty segments joined, and encoded `/`, `\\` and NUL taken for the separator that some
origin takes them for. It is for comparing only: what is forwarded and what keys the cache stay the client's bytes.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_AS_SLASH = bytes.maketrans(b"\\\x00", b"//")
_SEPARATOR = re.compile(rb"%(?:2[fF]|5[cC]|00)")


def normal_path(target: bytes) -> bytes:
    """The path of a target or of a pattern in the form that is compared; most are in it already."""
    path = target.partition(b"?")[0] if b"?" in target else target
    if b"%" not in path and b"//" not in path and b"/." not in path and b"\\" not in path:
        return path
    return _without_dots(unquote_to_bytes(path).translate(_AS_SLASH))


def hides_separator(target: bytes) -> bool:
    """Whether the path has an encoded `/`, `\\` or NUL, of which servers understand different things."""
    return b"%" in target and _SEPARATOR.search(target.partition(b"?")[0]) is not None


def literal_path(target: bytes) -> bytes:
    """The other reading of such a path: its encoded separators are no separators."""
    path = target.partition(b"?")[0]
    return normal_path(_SEPARATOR.sub(b"%25", path))


def below(path: bytes, prefix: bytes) -> bool:
    """Whether a normal path is the prefix or lies below it, by segments: /api covers /api and /api/x, not /apix."""
    return path.startswith(prefix) and (len(path) == len(prefix) or prefix[-1:] == b"/" or path[len(prefix)] == 0x2F)


def _without_dots(path: bytes) -> bytes:
    """Without dot segments (RFC 3986 5.2.4) and empty ones; a final slash stays."""
    out: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments[1:]:
        if segment == b"..":
            del out[-1:]
        elif segment not in (b".", b""):
            out.append(segment)
    tail = b"/" if out and segments[-1] in (b"", b".", b"..") else b""
    return b"/" + b"/".join(out) + tail
