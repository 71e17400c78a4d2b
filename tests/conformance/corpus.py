"""The words of both framing corpora: what a case is, and what may be expected of a gateway that gets it.

One rule: an expectation is about what other parties can see. For a request that is the client's answer and what
reached the origin; for a response, what reached the client and whether the origin's connection was used again.
Where RFC 9112 leaves a choice and the house rule does not settle it, both outcomes are named, never more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from kit.message import Framing
from kit.origin import Action

HOST = b"Host: a.example\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """One whole request as the origin must get it. `present` and `absent` are lower-case pieces of its raw head."""

    target: bytes = b"/x"
    method: bytes = b"GET"
    body: bytes = b""
    framing: Framing | None = None  # None: any one that is valid
    present: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()
    trailers: tuple[tuple[bytes, bytes], ...] | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """One of `statuses`, then the connection is closed. `before`: what was served ahead of it on the connection.

    `partial`: a head may already have gone to the origin, but never a whole request. `silent`: closing without an
    answer is right too (the client had already gone, or sends no HTTP at all).
    """

    statuses: frozenset[int]
    before: tuple[Seen, ...] = ()
    partial: bool = False
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """The origin sees exactly these, and the client gets 200 for each. `or_refuse`: statuses that are as right, at any
    of them, and then the connection is closed. `closes` None: the connection may be kept or closed.
    """

    seen: tuple[Seen, ...]
    closes: bool | None = False
    or_refuse: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """The gateway itself answers with one of `statuses`; the origin sees nothing; the connection may be kept."""

    statuses: frozenset[int]


@dataclass(frozen=True, slots=True)
class RequestCase:
    """Raw bytes of a client, in the pieces in which they are sent; with `half_close` a FIN follows them."""

    name: str
    section: str
    raw: tuple[bytes, ...]
    expect: Refuse | Pass | Answer
    half_close: bool = False

    @property
    def data(self) -> bytes:
        return b"".join(self.raw)


class Reuse(Enum):
    """What must become of the origin's connection."""

    YES = "used again"
    NO = "retired"
    ANY = "either"


@dataclass(frozen=True, slots=True)
class GatewayError:
    """A whole answer of the gateway's own; the origin's connection is retired."""

    statuses: frozenset[int] = frozenset((502,))


@dataclass(frozen=True, slots=True)
class Abort:
    """The origin's head may have gone out, but the client never sees a clean end. 502 if it had not gone out yet."""

    statuses: frozenset[int] = frozenset((502, 504))


@dataclass(frozen=True, slots=True)
class Deliver:
    """The client gets this, whole. `present` and `absent` are lower-case pieces of the raw head."""

    status: int = 200
    body: bytes = b""
    reuse: Reuse = Reuse.YES
    present: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()
    interim: tuple[int, ...] = ()
    trailers: tuple[tuple[bytes, bytes], ...] | None = None
    or_error: bool = False  # 502 is as right


@dataclass(frozen=True, slots=True)
class ResponseCase:
    """An origin's script for one request. `Pause("head")` lasts until the client has a head, `Pause("done")` a body."""

    name: str
    section: str
    script: tuple[Action, ...]
    expect: GatewayError | Abort | Deliver
    method: bytes = b"GET"


def get(*lines: bytes, target: bytes = b"/x", method: bytes = b"GET") -> bytes:
    """A request without a body: Host and the given field lines, each with its CRLF added."""
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/x") -> bytes:
    """A POST whose body follows the head as it is: framing is the caller's."""
    return get(*lines, target=target, method=b"POST") + body


def refused(section: str, statuses: Iterable[int], raw: dict[str, bytes], **how: bool) -> list[RequestCase]:
    """One case for each named message, all with the same refusal."""
    expect = Refuse(frozenset(statuses), partial=how.get("partial", False), silent=how.get("silent", False))
    half_close = how.get("half_close", False)
    return [RequestCase(name, section, (data,), expect, half_close) for name, data in raw.items()]


def passed(section: str, raw: dict[str, tuple[bytes, Seen]], or_refuse: Iterable[int] = ()) -> list[RequestCase]:
    """One case for each named message that reaches the origin as said."""
    also = frozenset(or_refuse)
    return [RequestCase(name, section, (data,), Pass((seen,), or_refuse=also)) for name, (data, seen) in raw.items()]


AnyCase = TypeVar("AnyCase", RequestCase, ResponseCase)


def unique(cases: list[AnyCase]) -> tuple[AnyCase, ...]:
    """The table, once its names are known to be distinct."""
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"case names used twice: {twice}"
    return tuple(cases)
