"""Conditions of a route besides host and path: method, fields, arguments, cookies, client, scheme, a pattern.

One rule: all of them hold or the route is not the request's. Where a condition looks at what is not in the URI, what is
stored for the route is kept apart (`apart`), so that no other request of the same URI is answered from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge.cache.key import cookies
from edge.config.rule_values import compile_pattern
from edge.config.rules import Match as MatchConfig
from edge.dataplane.rules.template import query_value
from edge.http.forwarding import Networks
from edge.http.paths import normal_path

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked

ANY, NONE = b"*", b""
Condition = Callable[["Asked"], bool]


class Match:
    """The conditions of a route's `match`."""

    __slots__ = ("_conditions", "apart", "count")

    def __init__(self, values: MatchConfig | None, pattern: str | None) -> None:
        found: list[Condition] = [] if pattern is None else [_path(compile_pattern(pattern))]
        self.apart = False
        if values is not None:
            found += _conditions(values)
            self.apart = bool(values.headers or values.cookies or values.clients)
        self._conditions = tuple(found)
        self.count = len(found)  # the more, the earlier it is looked at among routes of one path

    def fits(self, asked: Asked) -> bool:
        """Whether a request meets all conditions."""
        return all(condition(asked) for condition in self._conditions)


def compiled(values: MatchConfig | None, pattern: str | None) -> Match | None:
    """The compiled conditions of a route; None where there are none."""
    found = Match(values, pattern)
    return found if found.count else None


def _conditions(values: MatchConfig) -> list[Condition]:
    found: list[Condition] = []
    if values.methods:
        found.append(_method(frozenset(method.encode() for method in values.methods)))
    if values.scheme is not None:
        found.append(_scheme(values.scheme.encode()))
    if values.clients:
        found.append(_client(Networks(values.clients)))
    found += [_header(name.lower().encode(), _sought(value)) for name, value in values.headers.items()]
    found += [_argument(name.encode(), _sought(value)) for name, value in values.query.items()]
    found += [_cookie(name.encode(), _sought(value)) for name, value in values.cookies.items()]
    return found


def _sought(value: str) -> bytes:
    return value.encode()


def _fits(found: bytes | None, value: bytes) -> bool:
    """Whether a value meets a condition; `*`: any value, empty: absent."""
    if value == ANY:
        return found is not None
    return found is None if value == NONE else found == value


def _path(pattern: Any) -> Condition:
    return lambda asked: pattern.search(normal_path(asked.target)) is not None


def _method(methods: frozenset[bytes]) -> Condition:
    return lambda asked: asked.method in methods


def _scheme(scheme: bytes) -> Condition:
    return lambda asked: asked.scheme == scheme


def _client(networks: Networks) -> Condition:
    return lambda asked: asked.client_text() in networks


def _header(name: bytes, value: bytes) -> Condition:
    return lambda asked: _fits(asked.block.fields.joined(name), value)


def _argument(name: bytes, value: bytes) -> Condition:
    return lambda asked: _fits(_given(asked.target, name), value)


def _given(target: bytes, name: bytes) -> bytes | None:
    """The value of a query argument; None when it is absent."""
    query = b"&" + target.partition(b"?")[2]
    if b"&" + name not in query:
        return None
    there = any(pair.partition(b"=")[0] == name for pair in query.split(b"&"))
    return query_value(target, name) if there else None


def _cookie(name: bytes, value: bytes) -> Condition:
    return lambda asked: _fits(cookies(asked.block.fields).get(name), value)
