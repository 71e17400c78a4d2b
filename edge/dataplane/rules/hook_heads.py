"""What hooks see of a request and of a response, and what they change, as bytes.

One rule: a head stays a head. Names, values and targets are proved before they go anywhere; framing is the gateway's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from edge.cache.key import cookies
from edge.dataplane.rules.headers import Removal, without
from edge.http.memo import Memo
from edge.sdk import Changes

KNOWN_BYTES = 256 * 1024  # what one object that a hook returns again and again remembers
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"/[\x21-\x7e]*")


class RequestView:
    """A request as hooks see it (`sdk.RequestHead`)."""

    __slots__ = ("_asked",)

    def __init__(self, asked: Any) -> None:
        self._asked = asked

    @property
    def method(self) -> str:
        """The method, as the client wrote it."""
        return str(self._asked.method, "latin-1")

    @property
    def target(self) -> str:
        """The target, as the client wrote it."""
        return str(self._asked.target, "latin-1")

    @property
    def host(self) -> str:
        """The Host; empty where an HTTP/1.0 request has none."""
        return str(self._asked.host or b"", "latin-1")

    @property
    def scheme(self) -> str:
        """`http` or `https`: how the client asked."""
        return str(self._asked.scheme, "latin-1")

    @property
    def client(self) -> str:
        """The client's address."""
        return str(self._asked.client_text())

    @property
    def country(self) -> str:
        """ISO code of the client's country; empty if unknown."""
        return str(self._asked.country())

    @property
    def request_id(self) -> str:
        """The request's id."""
        return str(self._asked.own_id(), "latin-1")

    @property
    def route(self) -> str:
        """The route's name."""
        return str(self._asked.routed.name)

    @property
    def fields(self) -> Sequence[tuple[str, str]]:
        """All field lines as (name, value)."""
        return [(str(name, "latin-1"), str(value, "latin-1")) for name, value in self._asked.block.fields.lines]

    def get(self, name: str, default: str = "") -> str:
        """A field's value; `default` if it is absent."""
        found = self._asked.block.fields.joined(name.lower().encode("latin-1", "replace"))
        return default if found is None else str(found, "latin-1")

    def cookie(self, name: str, default: str = "") -> str:
        """A cookie's value; `default` if it is absent."""
        found = cookies(self._asked.block.fields).get(name.encode("latin-1", "replace"))
        return default if found is None else str(found, "latin-1")


class ResponseView:
    """A response head as hooks see it (`sdk.ResponseHead`); `wire`: its status line and field lines."""

    __slots__ = ("_asked", "_wire")

    def __init__(self, asked: Any, wire: bytes) -> None:
        self._asked = asked
        self._wire = wire

    @property
    def request(self) -> RequestView:
        """The request that it answers."""
        return RequestView(self._asked)

    @property
    def status(self) -> int:
        """The status code."""
        return int(self._asked.status)

    @property
    def from_cache(self) -> bool:
        """Whether the response was stored."""
        return bool(self._asked.from_store)

    @property
    def fields(self) -> Sequence[tuple[str, str]]:
        """All field lines as (name, value)."""
        lines = [line.partition(":") for line in str(self._wire, "latin-1").split("\r\n")[1:] if line]
        return [(name, value.strip(" \t")) for name, _, value in lines]

    def get(self, name: str, default: str = "") -> str:
        """A field's value; `default` if it is absent."""
        sought = name.lower()
        found = [value for each, value in self.fields if each.lower() == sought]
        return ", ".join(found) if found else default


class Edit(Removal):
    """A hook's `Changes`, as bytes."""

    __slots__ = ("_ending", "apart", "lines", "once", "target")

    def __init__(self, changes: Changes, forbidden: frozenset[str]) -> None:
        """Raises ValueError or TypeError for changes that cannot be made."""
        super().__init__({_known(name, forbidden) for name in (*changes.set, *changes.remove)}, KNOWN_BYTES)
        self.once = True  # so far: most that are made for a request are no other's, and remember nothing
        self.lines = b"".join([field_line(name, value, forbidden) for name, value in changes.set.items()])
        self.target = None if changes.target is None else _target(changes.target)
        said = b"%b\n%b\n%b" % (self.lines, b",".join(self.gone), self.target or b"")
        self.apart = kept_apart(said)
        self._ending: Memo[bytes] | None = None  # the gateway's own lines as they are sent, by what they were

    @classmethod
    def of(cls, changes: Changes, direction: str, forbidden: frozenset[str]) -> Edit:
        """Made once for each object: a hook may always return the same one."""
        found: Edit | None = changes.prepared.get(direction)
        if found is None:
            found = changes.prepared[direction] = cls(changes, forbidden)
        return found

    def kept(self, lines: bytes) -> bytes:
        if self.once:
            self.once = False
            return without(lines, self.gone)
        return Removal.kept(self, lines)

    def applied(self, lines: bytes, own: bytes) -> tuple[bytes, bytes]:
        """A request's lines, the client's and the gateway's own, without those that go; with those that are set."""
        if self.once:
            self.once = False
            return without(lines, self.gone), self._ended(own)
        ending = self._ending
        if ending is None:
            ending = self._ending = Memo(self._ended, KNOWN_BYTES)
        ended = ending.get(own)
        return Removal.kept(self, lines) if self.gone else lines, ending.slow(own) if ended is None else ended

    def _ended(self, own: bytes) -> bytes:
        return without(own, self.gone) + self.lines


@lru_cache(maxsize=1024)
def field_line(name: str, value: str, forbidden: frozenset[str]) -> bytes:
    _known(name, forbidden)
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"the value of {name} is not one line of text")
    return f"{name}: {value.strip(' ' + chr(9))}\r\n".encode("latin-1")


@lru_cache(maxsize=1024)
def _known(name: str, forbidden: frozenset[str]) -> bytes:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name[:40]!r} is no name of a field")
    if name.lower() in forbidden:
        raise ValueError(f"{name} is the gateway's to say")
    return name.lower().encode()


def _target(text: str) -> bytes:
    if _TARGET.fullmatch(text) is None or "#" in text:
        raise ValueError("a target is a path with its query, percent-encoded")
    return text.encode()


def kept_apart(said: bytes) -> bytes:
    if len(said) > 64:
        said = blake2b(said, digest_size=16).hexdigest().encode()
    return b" k:%d:%b" % (len(said), said)
