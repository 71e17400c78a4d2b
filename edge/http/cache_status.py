"""The member that this cache adds to Cache-Status (RFC 9211).

One rule: the words are those of the log and the counters; what is no token is written as a string, never raw.
"""

from __future__ import annotations

import re
from enum import Enum

_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
CACHE = b"edge"


class Forward(Enum):
    """Why a request went to the next hop (RFC 9211 2.2)."""

    BYPASS = b"bypass"
    METHOD = b"method"
    URI_MISS = b"uri-miss"
    VARY_MISS = b"vary-miss"
    MISS = b"miss"
    REQUEST = b"request"
    STALE = b"stale"
    PARTIAL = b"partial"


def hit(ttl_s: float, detail: str = "") -> bytes:
    """A member for an answer from store; `ttl_s` is the freshness left, negative when stale."""
    return b"%b; hit; ttl=%d%b" % (CACHE, int(ttl_s // 1), _detail(detail))


def forwarded(
    why: Forward,
    *,
    status: int = 0,
    stored: bool = False,
    collapsed: bool = False,
    ttl_s: float | None = None,
    detail: str = "",
) -> bytes:
    """A member for an answer of the next hop. `status`: that of the forwarded request where the answer's is another."""
    parts = [b"%b; fwd=%b" % (CACHE, why.value)]
    if status:
        parts.append(b"fwd-status=%d" % status)
    if ttl_s is not None:
        parts.append(b"ttl=%d" % int(ttl_s // 1))
    if stored:
        parts.append(b"stored")
    if collapsed:
        parts.append(b"collapsed")
    return b"; ".join(parts) + _detail(detail)


def unanswered(detail: str) -> bytes:
    """A member for what the gateway answers by itself: nothing from store, nothing asked (such as only-if-cached)."""
    return CACHE + _detail(detail)


def line(value: bytes) -> bytes:
    """The field line with this value."""
    return b"Cache-Status: %b\r\n" % value


def _detail(detail: str) -> bytes:
    if not detail:
        return b""
    if _TOKEN.fullmatch(detail):
        return b"; detail=" + detail.encode("ascii")
    safe = "".join(c if " " <= c <= "~" else "?" for c in detail).replace("\\", "\\\\").replace('"', '\\"')
    return b'; detail="%b"' % safe.encode("ascii")
