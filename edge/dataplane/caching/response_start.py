"""The head of a response that a fill gives to its followers, in the form in which it is written.

One rule: who asked gets the origin's lines; who shares the fetch gets the lines that are stored, and the full age.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.cache.stored import Plan
from edge.http.fields import age_value
from edge.http.grammar import Framing, ResponseFacts
from edge.http.message import Fields

_NOT_COPIED = frozenset((b"content-length", b"cache-status", b"age"))


@dataclass(frozen=True, slots=True)
class ResponseStart:
    """`wire` is the status line and the lines, with Content-Length where `length` is known."""

    status: int
    wire: bytes
    fields: Fields
    length: int | None
    bodiless: bool = False
    dated: bool = True


def passed_on(facts: ResponseFacts, length: int | None, delay_s: float) -> ResponseStart:
    """As the origin sent it, Age apart."""
    return ResponseStart(
        facts.status, _aged(facts, int(delay_s)), facts.fields, length, facts.framing is Framing.NONE, facts.has_date
    )


def _aged(facts: ResponseFacts, delay_s: int) -> bytes:
    """The time that the answer took is added to its Age where that is a second or more."""
    if delay_s < 1:
        return facts.wire
    told = age_value(facts.fields) or 0
    first, _, lines = facts.wire.partition(b"\r\n")
    kept = [raw for raw in lines.split(b"\r\n") if raw and raw[:4].lower() != b"age:"]
    return b"\r\n".join((first, *kept, b"Age: %d\r\n" % (told + delay_s)))


def shared(plan: Plan, now: float, bodiless: bool = False) -> ResponseStart:
    """The lines that are stored: no Connection's, and no other client's Set-Cookie where that is refused."""
    sized = b"" if plan.length is None or bodiless else b"Content-Length: %d\r\n" % plan.length
    if plan.status == 205:
        sized = b"Content-Length: 0\r\n"
    wire = b"HTTP/1.1 %d %b\r\n%bAge: %d\r\n%b" % (
        plan.status,
        plan.reason,
        plan.fields.without(_NOT_COPIED).encode(),
        max(0, int(now - plan.born)),
        sized,
    )
    return ResponseStart(plan.status, wire, plan.fields, plan.length, bodiless)
