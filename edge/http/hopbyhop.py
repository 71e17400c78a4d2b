"""Which field lines end at this hop (RFC 9110 7.6.1): neither forwarded nor stored.

One rule: `Connection` may name any field, sent or not, but never the ones that frame a message or name its target:
a peer cannot talk the gateway out of Content-Length or Host.
"""

from __future__ import annotations

from edge.http.message import Fields

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te transfer-encoding upgrade trailer proxy-authenticate "
    b"proxy-authentication-info proxy-authorization".split()
)
_NEVER_NAMED = frozenset((b"content-length", b"host", b"close", b"keep-alive"))


def dropped_names(fields: Fields) -> frozenset[bytes]:
    """Lower-case names of the lines that must not cross: the fixed ones and those that Connection names."""
    values = fields.get_all(b"connection")
    if not values:
        return HOP_BY_HOP
    named = {member.strip(b" \t").lower() for value in values for member in value.split(b",")} - _NEVER_NAMED
    named.discard(b"")
    return HOP_BY_HOP | named if named else HOP_BY_HOP


def storable(fields: Fields) -> Fields:
    """The lines of a response that a cache may keep (RFC 9111 3.1)."""
    dropped = dropped_names(fields)
    return fields if dropped.isdisjoint(fields.names()) else fields.without(dropped)
