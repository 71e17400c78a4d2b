"""Where a route maps a prefix or a host, what its origin says of its own places is mapped back.

    Location, Content-Location    /login          → /api/login            (strip_prefix = "/api")
                                  http://backend/ → https://www.example.com/    (another Host was sent)
    Set-Cookie                    Path=/app       → Path=/api/app; a Domain that is the mapped host is left out

One rule: only what names the origin's own places is touched, and nothing twice: a path that has the prefix keeps it.
"""

from __future__ import annotations

import re
from typing import Any

from edge.dataplane.rules.template import Template, path_of
from edge.http.paths import below

REMEMBERED = 512
_FIELDS = (b"\r\nlocation:", b"\r\ncontent-location:", b"\r\nset-cookie:")
_PLACE = re.compile(rb"(\r\n(?:Content-)?Location: *)([^\r\n]*)", re.IGNORECASE)
_COOKIE = re.compile(rb"\r\nSet-Cookie:[^\r\n]*", re.IGNORECASE)
_PATH = re.compile(rb"(;[ \t]*path=)(/[^;\r\n]*)", re.IGNORECASE)
_DOMAIN = re.compile(rb";[ \t]*domain=\.?([^;\r\n]*)", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"(https?)://([^/?#\r\n]*)([^\r\n]*)", re.IGNORECASE)


class Locations:
    """Maps Location and cookies of one route's responses."""

    __slots__ = ("_host", "_mapped", "_plain", "_prefix")

    def __init__(self, prefix: str | None, host: str | None, keeps_host: bool) -> None:
        self._prefix = b"" if prefix is None else prefix.encode().rstrip(b"/")
        self._host = None if host is None else Template(host)
        self._plain: set[int] = set()  # hashes of heads that came before and name no place
        self._mapped = host is not None or not keeps_host

    def head(self, exchange: Any, wire: bytes) -> bytes:
        """An origin's head with its places as the client knows them."""
        if hash(wire) in self._plain:
            return wire
        low = wire.lower()
        if not any(field in low for field in _FIELDS):
            if len(self._plain) >= REMEMBERED:
                self._plain.clear()
            self._plain.add(hash(wire))
            return wire
        hosts = self._hosts(exchange)
        wire = _PLACE.sub(lambda found: found[1] + self._place(exchange, found[2].strip(b" \t"), hosts), wire)
        return _COOKIE.sub(lambda found: self._cookie(found[0], hosts), wire)

    def _hosts(self, exchange: Any) -> frozenset[bytes]:
        """The host names under which the origin may refer to itself."""
        if not self._mapped:
            return frozenset()
        if self._host is not None:
            return frozenset((self._host.fill(exchange).lower(),))
        return frozenset(backend.authority.lower() for backend in exchange.routed.pool.pool.backends)

    def _place(self, exchange: Any, value: bytes, hosts: frozenset[bytes]) -> bytes:
        found = _ABSOLUTE.fullmatch(value)
        if found is None:
            return self._path(value)
        authority = found[2].lower()
        if authority in hosts:
            return b"%b://%b%b" % (exchange.scheme, exchange.authority, self._path(found[3] or b"/"))
        if authority == exchange.authority:
            return b"%b://%b%b" % (found[1], found[2], self._path(found[3] or b"/"))
        return value

    def _path(self, value: bytes) -> bytes:
        """The client's path for a path of the origin."""
        if not self._prefix or not value.startswith(b"/") or value.startswith((b"//", b"/\\")):
            return value
        return value if below(path_of(value), self._prefix) else self._prefix + value

    def _cookie(self, line: bytes, hosts: frozenset[bytes]) -> bytes:
        line = _PATH.sub(lambda found: found[1] + self._path(found[2]), line)
        names = {host.rpartition(b":")[0] or host for host in hosts} | hosts
        return _DOMAIN.sub(lambda found: b"" if found[1].strip().lower() in names else found[0], line)
