"""What consistent hashing looks at: `path`, `client`, `header:<name>` or `cookie:<name>`.

One rule: a request that does not carry the field has no home. It goes to any backend, another one each time; to hash
the missing value would send everybody without it to one and the same.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from zlib import crc32

from edge.http.fields import MAX_MEMBERS
from edge.http.message import Fields

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange


class HashOn:
    """The `hash.on` of one pool."""

    __slots__ = ("_kind", "_name", "on")

    def __init__(self, on: str) -> None:
        self.on = on
        kind, _, name = on.partition(":")
        self._kind = kind
        self._name = name.lower().encode() if kind == "header" else name.encode()

    def value(self, target: bytes, client: str, fields: Fields) -> bytes:
        """The bytes to hash of this request; empty when it does not carry the field."""
        if self._kind == "client":
            return client.encode()
        if self._kind == "header":
            return fields.joined(self._name) or b""
        if self._kind == "cookie":
            return cookie(fields.joined(b"cookie") or b"", self._name)
        return target

    def hint(self, exchange: Exchange) -> int:
        """The request's place on the ring; random when there is nothing to hash."""
        found = self.value(exchange.target, exchange.client_text(), exchange.block.fields)
        return crc32(found) if found else random.getrandbits(32)


def cookie(header: bytes, name: bytes) -> bytes:
    """The value of a cookie; empty when absent, or beyond MAX_MEMBERS."""
    for part in header.split(b";", MAX_MEMBERS)[:MAX_MEMBERS]:
        key, _, value = part.strip().partition(b"=")
        if key == name:
            return value
    return b""
