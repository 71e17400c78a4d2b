"""What a Host names, and a target that names one itself (RFC 9110 7.2, RFC 9112 3.2.2).

One rule: one form for each name, lower case, without an empty port or zeros before it, so that two spellings are never
two hosts.
"""

from __future__ import annotations

import re

from edge.errors import BadRequest

HOST = re.compile(rb"([0-9A-Za-z._\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
HOST_LONGEST = 255  # RFC 1035 2.3.4
ABSOLUTE = re.compile(rb"(https?)://([^/?]*)(/[^?]*)?(\?.*)?", re.IGNORECASE)


def normal_host(value: bytes) -> bytes | None:
    """A Host (RFC 9110 7.2) in its one form; None when it is none.

    That is a registered name, IPv4 or bracketed IPv6 address, and a port that exists.
    """
    match = HOST.fullmatch(value) if len(value) <= HOST_LONGEST + 6 else None
    if match is None or len(match[1]) > HOST_LONGEST:
        return None
    name, port = match[1].lower(), match[2]
    if not port:
        return name
    if port.startswith(b"0"):  # the same port in other words (RFC 3986 6.2.3)
        port = port.lstrip(b"0")
    return b"%b:%b" % (name, port) if port and int(port) < 65536 else None


def absolute_target(target: bytes) -> tuple[bytes, bytes] | None:
    """An absolute-form target as (authority, origin-form target), RFC 9112 3.2.2; None when it is not one.

    Raises BadRequest on user information, another scheme or an invalid authority.
    """
    match = ABSOLUTE.fullmatch(target)
    if match is None:
        return None
    host = normal_host(match[2])
    if match[1].lower() != b"http" or host is None or match[2].endswith(b":"):
        raise BadRequest("invalid request target")
    return host, (match[3] or b"/") + (match[4] or b"")
