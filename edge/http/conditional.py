"""Answering a client's conditions and ranges from a stored response, and the heads of such answers.

The order is RFC 9110 13.2.2: If-Match or else If-Unmodified-Since, If-None-Match or else If-Modified-Since, then
Range under If-Range. One rule: of a pair, the one with entity tags decides alone, also where it is malformed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge.http.dates import parse_date
from edge.http.fields import one_tag, strong_match, tag_listed
from edge.http.message import Fields, Line, RequestHead
from edge.http.ranges import ContentRange, Range, coalesce, content_range, parse_range, satisfy, within

CONDITIONS = frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"))
CLIENT_OWN = CONDITIONS | {b"range", b"if-range"}  # what makes an answer differ from the plain stored response
_IN_304 = frozenset((b"etag", b"cache-control", b"content-location", b"date", b"expires", b"vary"))
_ABOUT_ALL = frozenset((b"content-length", b"content-range"))
_REFERENCE = 1_767_225_600.0  # the start of 2026: gives two-digit years 1977 to 2076


class AnswerKind(Enum):
    """How a stored response is given to this client."""

    FULL = "full"
    NOT_MODIFIED = "not modified"  # 304
    PRECONDITION_FAILED = "precondition failed"  # 412
    PARTIAL = "partial"  # 206: one range, or several as multipart/byteranges
    UNSATISFIABLE = "unsatisfiable"  # 416


@dataclass(frozen=True, slots=True)
class Answer:
    """`ranges` are bytes of the representation of `complete` bytes; minus `shift` they index the stored body."""

    kind: AnswerKind
    ranges: tuple[Range, ...] = ()
    complete: int | None = None
    shift: int = 0


FULL = Answer(AnswerKind.FULL)
NOT_MODIFIED = Answer(AnswerKind.NOT_MODIFIED)
PRECONDITION_FAILED = Answer(AnswerKind.PRECONDITION_FAILED)


def answer(
    request: RequestHead,
    stored_status: int,
    stored_fields: Fields,
    length: int,
    max_ranges: int,
    part: ContentRange | None = None,
) -> Answer:
    """What to send from a usable stored response of `length` body bytes. `part` is given for a stored 206.

    Conditions count only where the answer would be 2xx (RFC 9110 13.2.1), Range only for GET of a 200 or a part.
    """
    asked = request.fields
    if CLIENT_OWN.isdisjoint(asked.names()) or not 200 <= stored_status <= 299:
        return FULL
    settled = _condition(asked, stored_fields)
    if settled is not None:
        return settled
    if request.method != b"GET" or stored_status not in (200, 206) or not range_applies(asked, stored_fields):
        return FULL
    specs = parse_range(asked.joined(b"range"))
    if specs is None:
        return FULL
    if part is not None:
        found = within(specs, part, length)
        return FULL if found is None else Answer(AnswerKind.PARTIAL, (found[0],), part.complete, found[1])
    if len(specs) > max_ranges:
        return FULL
    ranges = coalesce(satisfy(specs, length))
    return Answer(AnswerKind.PARTIAL if ranges else AnswerKind.UNSATISFIABLE, ranges, length)


def _condition(asked: Fields, stored: Fields) -> Answer | None:
    tag = one_tag(stored)
    wanted = asked.joined(b"if-match")
    if wanted is not None:
        if not tag_listed(wanted, tag, strong=True):
            return PRECONDITION_FAILED
    elif (since := _date(asked, b"if-unmodified-since")) is not None:
        modified = _date(stored, b"last-modified")
        if modified is not None and modified > since:
            return PRECONDITION_FAILED
    known = asked.joined(b"if-none-match")
    if known is not None:
        return NOT_MODIFIED if tag_listed(known, tag, strong=False) else None
    since = _date(asked, b"if-modified-since")
    if since is None:
        return None
    modified = _date(stored, b"last-modified") if b"last-modified" in stored else _date(stored, b"date")
    return NOT_MODIFIED if modified is not None and modified <= since else None


def _date(fields: Fields, name: bytes) -> float | None:
    value = fields.joined(name)
    if value is None:
        return None
    # Doubt: no clock is at hand here, so two-digit years get their century from a fixed one.
    return parse_date(value, _REFERENCE)


def range_applies(asked: Fields, stored: Fields) -> bool:
    """Whether there is a Range and no If-Range that tells to ignore it (RFC 9110 13.1.5, strong comparison)."""
    if b"range" not in asked:
        return False
    wanted = asked.joined(b"if-range")
    if wanted is None:
        return True
    tag = one_tag(stored)
    if b'"' in wanted:
        return tag is not None and strong_match(wanted, tag)
    modified, date = _date(stored, b"last-modified"), _date(stored, b"date")
    if modified is None or date is None or wanted != stored.joined(b"last-modified"):
        return False
    return date - modified >= 1.0  # RFC 9110 8.8.2.2: else two versions of one second would look the same


def same_version(one: Fields, other: Fields) -> bool:
    """Whether two heads have the same strong validator, so that parts may be combined (RFC 9110 8.8.1)."""
    tag, tag_of_other = one_tag(one), one_tag(other)
    if tag is not None or tag_of_other is not None:
        return tag is not None and tag_of_other is not None and strong_match(tag, tag_of_other)
    modified, written = _date(one, b"last-modified"), one.joined(b"last-modified")
    if modified is None or written != other.joined(b"last-modified"):
        return False
    dates = [_date(fields, b"date") for fields in (one, other)]
    # RFC 9110 8.8.2.2: a time is a strong validator only when the response is clearly younger than it.
    return all(date is not None and date - modified >= 1 for date in dates)


def not_modified_fields(stored: Fields) -> Fields:
    """The lines of a 304 (RFC 9110 15.4.5): its list, all targeted cache controls, Last-Modified without an ETag."""
    also = b"" if b"etag" in stored else b"last-modified"
    return Fields(
        line
        for line in stored.lines
        if (name := line[0].lower()) in _IN_304 or name == also or name.endswith(b"-cache-control")
    )


def partial_fields(stored: Fields, found: Range, complete: int | None) -> Fields:
    """The lines of a 206 with one range: the stored ones, Content-Range and Content-Length."""
    first, last = found
    return stored.without(_ABOUT_ALL).plus(
        (b"Content-Range", content_range(first, last, complete)), (b"Content-Length", b"%d" % (last - first + 1))
    )


def unsatisfiable_fields(stored: Fields, complete: int) -> Fields:
    """The lines of a 416 without content: how long the representation is, and its validators."""
    kept: list[Line] = [line for line in stored.lines if line[0].lower() in (b"etag", b"date", b"vary")]
    return Fields((*kept, (b"Content-Range", b"bytes */%d" % complete), (b"Content-Length", b"0")))


def failed_fields(stored: Fields) -> Fields:
    """The lines of a 412 without content."""
    kept: list[Line] = [line for line in stored.lines if line[0].lower() in (b"etag", b"date", b"vary")]
    return Fields((*kept, (b"Content-Length", b"0")))


@dataclass(frozen=True, slots=True)
class Multipart:
    """A multipart/byteranges answer: `fields`; then for each range its entry of `leads` and its bytes; then `tail`."""

    fields: Fields
    leads: tuple[bytes, ...]
    tail: bytes


def multipart(stored: Fields, ranges: tuple[Range, ...], complete: int, boundary: bytes) -> Multipart:
    """The parts of a multipart/byteranges answer (RFC 9110 14.6).

    `boundary` is 1 to 70 token characters that occur in no part; the caller draws it.
    """
    kind = stored.joined(b"content-type")
    typed = b"Content-Type: %b\r\n" % kind if kind else b""
    leads = tuple(
        b"%b--%b\r\n%bContent-Range: %b\r\n\r\n"
        % (b"\r\n" if at else b"", boundary, typed, content_range(*one, complete))
        for at, one in enumerate(ranges)
    )
    tail = b"\r\n--%b--\r\n" % boundary
    length = sum(map(len, leads)) + len(tail) + sum(last - first + 1 for first, last in ranges)
    fields = stored.without(_ABOUT_ALL | {b"content-type"}).plus(
        (b"Content-Type", b"multipart/byteranges; boundary=" + boundary), (b"Content-Length", b"%d" % length)
    )
    return Multipart(fields, leads, tail)
