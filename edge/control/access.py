"""Who may ask the admin API for what: tokens with roles, and where a browser may ask from.

    read     whatever only shows, and rehearsals
    purge    read, and purge and warm
    admin    all

One rule: what is not allowed by name is refused (the dashboard's own files are open: they show nothing by themselves).
A token is compared in constant time with every known one. `Host` must be an address, localhost or a name that the
operator gave, so that a foreign page cannot reach the API under a name of its own (DNS rebinding); and a browser's
request must come from the API's own pages.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from edge.config.types import split_authority
from edge.errors import Denied


class Role(Enum):
    """What a token's bearer may do."""

    READ = "read"
    PURGE = "purge"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `name` stands in the audit for its bearer."""

    secret: str
    role: Role = Role.ADMIN
    name: str = ""


class Unauthenticated(Denied):
    """The request has no token, or an unknown one."""

    status = 401


class Misdirected(Denied):
    """The request's Host is not one of the admin listener's names."""

    status = 421


_FINAL_DOT = re.compile(r"\.(?=(?::[0-9]*)?\Z)")
_READS = ("GET", "HEAD")
_READ = {("POST", "/v1/simulate")}
_SECRET = ("/v1/config/history/", "/v1/config/diff")  # the file as it was written, passwords and all
_PURGE = {("POST", "/v1/purge"), ("POST", "/v1/warm")}


class Access:
    """The tokens and host names of one admin API."""

    def __init__(self, tokens: Iterable[Token], hosts: Iterable[str] = (), opened: Iterable[str] = ()) -> None:
        self._tokens = tuple(tokens)
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._opened = frozenset(opened)

    def renew(self, other: Access) -> None:
        """Use the tokens and names of another one from now on, at a reload."""
        self._tokens, self._hosts, self._opened = other._tokens, other._hosts, other._opened

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> Token | None:
        """The token of a request that may go on, or None where none is needed. Raises Denied."""
        if path in ("/healthz", "/readyz"):
            return None  # probes ask by any name, and learn one word
        self._check_host(headers.get("Host"))
        if method in _READS and (path == "/" or path.startswith("/dashboard/")):
            return None  # files without secrets; a link to them may stand anywhere
        _check_origin(headers)
        if path in self._opened:
            return None
        token = self._known(headers.get("Authorization", ""))
        if token is None:
            raise Unauthenticated("a bearer token is needed")
        if not permits(token.role, method, path):
            raise Denied(f"the token's role is {token.role.value}, which does not allow {method} {path}")
        return token

    def _known(self, authorization: str) -> Token | None:
        """Every token is compared, so that the time tells nothing (RFC 6750 2.1)."""
        scheme, _, given = authorization.partition(" ")
        secret = given.strip().encode("utf-8", "surrogateescape")
        found = [token for token in self._tokens if hmac.compare_digest(secret, token.secret.encode())]
        return found[0] if found and scheme.lower() == "bearer" else None

    def _check_host(self, host: str | None) -> None:
        parts = split_authority(_FINAL_DOT.sub("", host or ""), 0)
        if parts is None or not parts[0]:
            raise Misdirected("a Host is needed: an address or a name")
        name = parts[0]
        if not is_address(name) and name not in self._hosts:
            raise Misdirected(f"not known by the name {name[:60]}: admin.hosts lists the names")


def _check_origin(headers: Mapping[str, str]) -> None:
    """A browser tells where the page is from that asks; scheme apart, since TLS may end before the gateway."""
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("Host", "").lower():
        raise Denied("cross-site requests are refused")
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Denied("cross-site requests are refused")


def permits(role: Role, method: str, path: str) -> bool:
    """Whether a role may use an endpoint."""
    if role is not Role.ADMIN and path.startswith(_SECRET):
        return False
    if role is Role.ADMIN or method in _READS or (method, path) in _READ:
        return True
    return role is Role.PURGE and (method, path) in _PURGE


def is_address(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
