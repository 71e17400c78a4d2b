"""Targets with raw UTF-8, which some clients and pages write though a URI has none (RFC 3986 2, RFC 3987 3.1).

One rule: where a setting lets them in, they are percent-encoded before anybody looks: route, rules, key, log and
backend see one spelling, the one that a browser sends for the same link. What is no UTF-8 is refused as ever.
"""

from __future__ import annotations

import re

from edge.http.grammar import REQUEST_LINE, Limits

_RAW = re.compile(rb"[\x80-\xff]")


def utf8_request_line(line: bytes, limits: Limits) -> re.Match[bytes] | None:
    """A request line whose target is proven once its raw UTF-8 is percent-encoded, where that is wanted."""
    if not limits.utf8_targets or line.isascii() or len(line) > limits.first_line_bytes:
        return None
    method, _, rest = line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    encoded = percent_encoded(target)
    return REQUEST_LINE.fullmatch(b"%b %b %b" % (method, encoded, version)) if encoded is not None else None


def percent_encoded(target: bytes) -> bytes | None:
    """A target with its raw UTF-8 percent-encoded (RFC 3987 3.1); None where it is no UTF-8."""
    try:
        target.decode()
    except UnicodeDecodeError:
        return None
    return _RAW.sub(lambda found: b"%%%02X" % found[0][0], target)
