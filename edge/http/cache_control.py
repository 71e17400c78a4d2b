"""Cache-Control, of requests and responses (RFC 9111 5.2, 5861), as one value.

One rule: in doubt less caching. An invalid number counts as 0, of two different ones the smaller counts, and a
directive that takes no argument counts with any; but a name that is not exactly the directive's is not it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from edge.http.fields import LARGEST_S, delta_seconds, is_long, members
from edge.http.message import Fields

ANY_S = 2 * LARGEST_S  # max-stale without a value: however stale
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_MEMO_LONGEST = 512


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives that mean something here. Seconds are None when absent."""

    no_store: bool = False
    no_cache: bool = False  # unqualified
    private: bool = False  # unqualified
    left_out: frozenset[bytes] = frozenset()  # lower-case names in no-cache="…" and private="…"
    public: bool = False
    must_understand: bool = False
    revalidate: bool = False  # must-revalidate, proxy-revalidate, or s-maxage (RFC 9111 5.2.2.10)
    shared: bool = False  # public, must-revalidate or s-maxage: what permits storing under Authorization (3.5)
    max_age: int | None = None
    s_maxage: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    min_fresh: int | None = None
    max_stale: int | None = None
    only_if_cached: bool = False
    targeted: bool = False  # from a targeted field (RFC 9213), beside which Expires does not count


NONE = CacheControl()
_TOO_MANY = CacheControl(no_store=True)  # what is not read to its end may hold anything
_SECONDS = {
    b"max-age": "max_age",
    b"s-maxage": "s_maxage",
    b"stale-while-revalidate": "stale_while_revalidate",
    b"stale-if-error": "stale_if_error",
    b"min-fresh": "min_fresh",
    b"max-stale": "max_stale",
}
_FLAGS = {
    b"no-store": "no_store",
    b"public": "public",
    b"must-understand": "must_understand",
    b"only-if-cached": "only_if_cached",
}
_REVALIDATE = frozenset((b"must-revalidate", b"proxy-revalidate"))
_QUALIFIED = {b"no-cache": "no_cache", b"private": "private"}


class Collector:
    """Gathers directives, whichever syntax they came in."""

    __slots__ = ("_facts", "_left_out", "_revalidate", "_shared")

    def __init__(self) -> None:
        self._facts: dict[str, int | bool] = {}
        self._left_out: set[bytes] = set()
        self._revalidate = False
        self._shared = False

    def seconds(self, name: bytes, value: int | None) -> None:
        """Take a directive with a number; None is an invalid one."""
        if (attribute := _SECONDS.get(name)) is not None:
            most = ANY_S if name == b"max-stale" else LARGEST_S
            value = 0 if value is None else max(0, min(value, most))
            self._facts[attribute] = min(self._facts.get(attribute, value), value)
            self._revalidate |= name == b"s-maxage"

    def flag(self, name: bytes, names: list[bytes] | None) -> None:
        """Take a directive without a number; `names` are the fields that it is limited to."""
        if (attribute := _FLAGS.get(name)) is not None:
            self._facts[attribute] = True
        elif name in _REVALIDATE:
            self._revalidate = True
            self._shared |= name == b"must-revalidate"
        elif (attribute := _QUALIFIED.get(name)) is not None:
            if names:
                self._left_out.update(names)
            else:
                self._facts[attribute] = True

    def result(self, *, targeted: bool = False) -> CacheControl:
        """The directives that were gathered."""
        facts = self._facts
        shared = self._shared or "public" in facts or "s_maxage" in facts
        return CacheControl(
            **facts,  # type: ignore[arg-type]  # the tables above pair names and types
            left_out=frozenset(self._left_out),
            revalidate=self._revalidate,
            shared=shared,
            targeted=targeted,
        )


def is_seconds(name: bytes) -> bool:
    """Whether the directive takes a number."""
    return name in _SECONDS


def field_names(text: bytes) -> list[bytes]:
    """The lower-case field names in the argument of no-cache or private."""
    return [member.lower() for member in members(text)]


def parse_cache_control(values: tuple[bytes, ...]) -> CacheControl:
    """The lines of Cache-Control as one. Memoised: clients and origins repeat themselves."""
    if sum(map(len, values)) > _MEMO_LONGEST:
        return _TOO_MANY if is_long(b",".join(values)) else _parse.__wrapped__(values)
    return _parse(values)


@lru_cache(maxsize=1024)
def _parse(values: tuple[bytes, ...]) -> CacheControl:
    collector = Collector()
    for value in values:
        for member in members(value):
            name, equals, argument = member.partition(b"=")
            if argument[:1] in (b" ", b"\t"):  # white space beside `=`: another, unknown directive
                continue
            name = name.lower()
            text = _unquoted(argument)
            if not is_seconds(name):
                collector.flag(name, field_names(text) if equals else None)
            elif name == b"max-stale" and not equals:
                collector.seconds(name, ANY_S)
            else:
                collector.seconds(name, delta_seconds(text))
    return collector.result()


def _unquoted(argument: bytes) -> bytes:
    if len(argument) >= 2 and argument.startswith(b'"') and argument.endswith(b'"'):
        return _ESCAPE.sub(rb"\1", argument[1:-1])
    return argument


def request_control(fields: Fields) -> CacheControl:
    """A request's directives; Pragma: no-cache counts only where there is no Cache-Control (RFC 9111 5.4)."""
    values = fields.get_all(b"cache-control")
    if values:
        return parse_cache_control(values)
    if b"pragma" in fields and has_no_cache_pragma(fields):
        return _PRAGMA
    return NONE


_PRAGMA = CacheControl(no_cache=True)


def has_no_cache_pragma(fields: Fields) -> bool:
    """Whether Pragma holds no-cache."""
    return any(member.lower() == b"no-cache" for value in fields.get_all(b"pragma") for member in members(value))
