"""Building what the gateway itself answers: status lines, errors, and stored responses under a client's conditions.

One rule: what the gateway sends on its own is small, names its reason in `Proxy-Status` (RFC 9209), and tells nothing
of addresses, paths or versions.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from edge.errors import EdgeError

_NOT_QUOTABLE = re.compile(rb"[^ !#-\[\]-~]")  # in a Structured Fields string, RFC 9651 3.3.3
USUAL_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
REASONS: dict[int, bytes] = {int(s): s.phrase.encode() for s in HTTPStatus}
_LINES: dict[int, bytes] = {code: b"HTTP/1.1 %d %b\r\n" % (code, phrase) for code, phrase in REASONS.items()}


def status_line(status: int) -> bytes:
    """The HTTP/1.1 status line of a response that the gateway makes itself."""
    return _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def error_response(error: EdgeError, date_line: bytes) -> tuple[bytes, bytes]:
    """(field lines without framing, body) of the response to an error."""
    body = b"%d %b\n%b" % (error.status, REASONS.get(error.status, b"Error"), getattr(error, "page", b""))
    detail = _NOT_QUOTABLE.sub(b"?", error.detail.encode("ascii", "replace"))
    extra = getattr(error, "lines", b"")
    if error.status == 503:
        extra = b"Retry-After: 1\r\n"
    elif error.status == 405:
        extra = b"Allow: %b\r\n" % (getattr(error, "allow", b"") or USUAL_METHODS)
    told = b'; details="%b"' % detail if detail else b""
    lines = b"Content-Type: text/plain\r\n%b%bProxy-Status: edge; error=%b%b\r\n" % (
        date_line,
        extra,
        error.proxy_status.encode(),
        told,
    )
    return lines, body
