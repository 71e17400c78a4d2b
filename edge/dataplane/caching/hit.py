"""Serving a stored response under a client's conditions and ranges (`fast_hit` has the short way for a plain GET).

One rule: a hit waits for nobody but its client. The body's chunks are written as they are stored, without copying them
for the request; a large body as the client takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.cache.stored import Stored
from edge.cache.verdict import Verdict
from edge.dataplane.caching.body_sender import BodySender
from edge.dataplane.caching.file_sender import FileSender, Head, Part
from edge.dataplane.core.body_mode import LENGTH, NOT_STARTED
from edge.dataplane.core.error_response import status_line
from edge.errors import EdgeError
from edge.http.cache_status import hit, line
from edge.http.conditional import (
    CLIENT_OWN,
    Answer,
    AnswerKind,
    answer,
    failed_fields,
    multipart,
    not_modified_fields,
    partial_fields,
    unsatisfiable_fields,
)
from edge.http.message import Fields, RequestHead

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange

_EMPTY: tuple[bytes, ...] = ()


def serve(
    exchange: Exchange,
    request: RequestHead,
    stored: Stored,
    verdict: Verdict,
    now: float,
    lost: Callable[[], None] | None = None,
) -> None:
    """Answer from store under the client's own conditions; `exchange.cache_status` is set by who forwarded.

    `lost` is called instead when the body is in a file which turns out to be gone or damaged.
    """
    exchange.verdict = verdict.value
    exchange.from_store = True
    if verdict in (Verdict.HIT, Verdict.STALE):
        detail = "" if verdict is Verdict.HIT else exchange.reason
        exchange.cache_status = line(hit(stored.ttl(now), detail))
    route = exchange.routed
    coded, page = route.coded, None if route.bodies is None else route.bodies.page(stored.status)
    if page is not None:
        told, exchange.follower = exchange.cache_status, None
        exchange.reply(stored.status, b"Content-Type: %b\r\n%b" % (page.content_type, told), page.body)
        return
    if coded is None:
        _send_stored(exchange, request, stored, now, lost)
        return
    form = coded.represent(exchange, stored, lambda form: _send_stored(exchange, request, form, now, lost))
    if form is not None:
        _send_stored(exchange, request, form, now, lost)


def _send_stored(
    exchange: Exchange, request: RequestHead, stored: Stored, now: float, lost: Callable[[], None] | None
) -> None:
    """Answer with the whole body, a part, or no body, as the client's conditions require."""
    if CLIENT_OWN.isdisjoint(request.fields.names()):
        head = (stored.wire, b"Age: %d\r\n" % stored.age(now))
        exchange.status = stored.status
        if stored.file is None:
            write(exchange, stored, head, stored.chunks, stored.length)
        else:
            send(exchange, stored, head, ((0, stored.length),), stored.length, lost)
        return
    fields = stored.head.fields
    limit = exchange.worker.limits.max_ranges
    found = answer(request, stored.status, fields, stored.length, limit, stored.part)
    status, fields, chunks = _shaped(exchange, stored, fields, found)
    length = sum(len(each) if isinstance(each, bytes) else each[1] - each[0] for each in chunks)
    exchange.status = status
    age = b"Age: %d\r\n" % stored.age(now)
    head = (stored.wire, age) if found.kind is AnswerKind.FULL else (status_line(status) + fields.encode(), age)
    if stored.file is None or not chunks:
        write(exchange, stored, head, chunks, length)  # type: ignore[arg-type]  # without a file all of them are bytes
    else:
        send(exchange, stored, head, chunks, length, lost)


def _shaped(exchange: Exchange, stored: Stored, fields: Fields, found: Answer) -> tuple[int, Fields, tuple[Part, ...]]:
    """Status, fields and body pieces of the answer."""
    kind = found.kind
    if kind is AnswerKind.FULL:
        return stored.status, fields, stored.chunks if stored.file is None else ((0, stored.length),)
    if kind is AnswerKind.NOT_MODIFIED:
        return 304, not_modified_fields(fields), _EMPTY
    if kind is AnswerKind.PRECONDITION_FAILED:
        return 412, failed_fields(fields), _EMPTY
    if kind is AnswerKind.UNSATISFIABLE:
        return 416, unsatisfiable_fields(fields, found.complete or 0), _EMPTY
    if len(found.ranges) == 1:
        first, last = found.ranges[0]
        piece = taken(stored, first - found.shift, last - found.shift + 1)
        # A stored part is 206 already; its own lines give way to those of the range that is sent.
        return 206, partial_fields(fields, (first, last), found.complete), piece
    boundary = exchange.worker.next_id()
    shaped = multipart(fields, found.ranges, found.complete or stored.length, boundary)
    pieces: list[Part] = []
    for lead, (first, last) in zip(shaped.leads, found.ranges, strict=True):
        pieces.append(lead)
        pieces.extend(taken(stored, first, last + 1))
    return 206, shaped.fields, (*pieces, shaped.tail)


def taken(stored: Stored, start: int, stop: int) -> tuple[Part, ...]:
    """Bytes `start` to `stop` of a body, wherever it is."""
    return cut(stored.chunks, start, stop) if stored.file is None else ((start, stop),)


def cut(chunks: tuple[bytes, ...], start: int, stop: int) -> tuple[bytes, ...]:
    """Bytes `start` to `stop` of a body; whole chunks are not copied."""
    out: list[bytes] = []
    at = 0
    for chunk in chunks:
        end = at + len(chunk)
        if end > start and at < stop:
            out.append(chunk[max(start - at, 0) : stop - at] if at < start or end > stop else chunk)
        at = end
    return tuple(out)


def send(
    exchange: Exchange,
    stored: Stored,
    head: Head,
    parts: tuple[Part, ...],
    length: int,
    lost: Callable[[], None] | None,
) -> None:
    """As `write`, for a body in a file, as fast as the client accepts it."""
    if exchange.method == b"HEAD" or not length:
        write(exchange, stored, head, (), 0)
        return

    def gone() -> None:
        exchange.mode, exchange.expected = NOT_STARTED, None
        if lost is not None:
            lost()
        else:
            exchange.fail(EdgeError("the stored body is gone"))

    exchange.mode, exchange.expected = LENGTH, length
    FileSender(exchange, stored, head, parts, gone).start()


def write(exchange: Exchange, stored: Stored, head: Head, chunks: tuple[bytes, ...], length: int) -> None:
    """The head and, unless it is for HEAD, the pieces; then the end."""
    exchange.mode = LENGTH
    exchange.from_store = True
    if chunks and exchange.method != b"HEAD":
        if length > exchange.at_once:
            exchange.expected = length
            BodySender(exchange, stored, chunks).start(head)
            return
        exchange.bytes_out = length
    exchange.respond(*head, chunks, length)
    exchange.finish()
