"""A response that is put together from slices, or cut out of a whole that is fetched for it (`ranges`).

    slice n: asked for, checked ─► what the client wants of it ─► in a later turn, slice n + 1 … the end

Slices are stored under keys of their own below the URL's (`Exchange.apart`), and go the way of any response: look-up,
tiers, coalescing, validation, purge. What the client gets is what a whole stored response would give it.

One rule: bytes of two versions never meet. A slice that does not fit the first one (range, length, strong validator,
coding) cuts the response, and what is stored of the URL is invalidated, for it contradicts itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edge.cache.key import SLICE
from edge.cache.stored import with_date
from edge.dataplane.caching.part import PartExchange, fields_of
from edge.dataplane.core.body_mode import NO_BODY
from edge.dataplane.core.error_response import status_line
from edge.errors import ClientGone, EdgeError, ResponseIncomplete, outcome_of
from edge.http.asking import asking
from edge.http.conditional import (
    CLIENT_OWN,
    Answer,
    AnswerKind,
    answer,
    failed_fields,
    not_modified_fields,
    partial_fields,
    same_version,
    unsatisfiable_fields,
)
from edge.http.message import Fields, Line, RequestHead
from edge.http.ranges import ContentRange, parse_content_range

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.route import Route
    from edge.dataplane.core.store import Store

_NOT_ASKED = CLIENT_OWN | {b"host"}
_ABOUT_PART = frozenset((b"content-length", b"content-range"))
Usual = Callable[["Exchange", "Route"], None]


class Rule(Protocol):
    """How parts are fetched (`ranges.RangeRule`)."""

    size: int  # of a slice; 0: the whole

    @property
    def parts(self) -> Route: ...
    def avoid(self, key: bytes, now: float) -> None: ...


class Assembly:
    """The exchange's follower while its response is put together, and the client of the parts' exchanges."""

    def __init__(self, exchange: Exchange, request: RequestHead, rule: Rule, key: bytes, usual: Usual) -> None:
        assert exchange.worker.store is not None  # else there is nothing to put together
        self._exchange = exchange
        self._store: Store = exchange.worker.store
        self._request = request
        self._rule = rule
        self._key = key
        self._usual = usual
        self._part: PartExchange | None = None
        self._number = 0  # its place among the slices
        self._like: Fields | None = None  # the first slice's lines, which the others have to fit
        self._total = 0  # bytes of the whole
        self._at, self._last = 0, -1  # what the client is still to get
        self._offset, self._stop = 0, 0  # of the part's next byte in the whole, and of the one behind its last
        self._passes = False  # the part is passed on as it came
        self._waits = False  # for the client, before the next slice
        self._over = False
        exchange.follower = self

    def ask(self, number: int) -> None:
        """Fetch a part, from whichever tier has it."""
        exchange, size, worker = self._exchange, self._rule.size, self._exchange.worker
        lines = [line for name, line in exchange.block.fields.keyed() if name not in _NOT_ASKED]
        apart = b""
        if size:
            apart, line = slice_of(size, number)
            lines.append(line)
        part = None
        try:
            block = asking(b"GET", exchange.host or b"", exchange.target, lines, worker.head)
            part = PartExchange(exchange, self, self._rule.parts, block, apart)
            self._part, self._number = part, number
            self._usual(part, self._rule.parts)
        except Exception as error:
            outcome = outcome_of(error, worker.report_bug)
            self._failed(outcome) if part is None else part.fail(outcome)

    # -- the client's side: `Exchange.follower` ----------------------------------------------------------------------

    def resumed(self) -> None:
        """The client accepts more: continue the current part, or fetch the next one."""
        if self._waits:
            self._next()
        elif self._part is not None and not self._part.ended:
            self._part.downstream.paused = False
            self._part.client_resumed()

    def leave(self, error: EdgeError) -> None:
        """The client left, or its exchange failed: stop fetching parts."""
        self._over = True
        _end(self._part)

    # -- the parts' side: `part.Taker` -------------------------------------------------------------------------------

    def part_head(self, part: PartExchange, wire: bytes) -> None:
        """A part's head arrived. The first one begins the response; the others have to fit it."""
        if part is not self._part:
            return
        fields = with_date(fields_of(wire), self._store.clock())
        span = self._span(part.status, fields)
        if self._like is not None:
            if span is None or span.complete != self._total or not _fit(self._like, fields):
                self._contradicted(part)
            else:
                self._offset, self._stop = span.first, span.last + 1
        elif span is not None:
            self._begin(part, fields, span)
        elif self._rule.size and part.status in (200, 206, 416) and not self._is_beyond(part):
            self._not_sliced(part)
        else:
            self._pass_on(part, wire, fields)

    def part_data(self, part: PartExchange, data: bytes | bytearray) -> None:
        """A piece of a part's body: pass on the bytes that the client wants."""
        exchange = self._exchange
        if part is not self._part or self._over:
            return
        if self._passes:
            exchange.body(data)
        elif self._offset + len(data) > self._stop:
            self._contradicted(part)
            return
        else:
            self._cut_out(data)
        part.downstream.paused = exchange.downstream.paused and not self._over

    def _cut_out(self, data: bytes | bytearray) -> None:
        """Send the client the bytes of a piece that it wants."""
        begin, self._offset = self._offset, self._offset + len(data)
        stop = min(self._offset, self._last + 1)
        if begin <= self._at < stop:
            at, self._at = self._at, stop
            self._exchange.body(data if at == begin and stop == self._offset else data[at - begin : stop - begin])
            if self._at > self._last:
                self._finish()

    def part_over(self, part: PartExchange) -> None:
        """A part has ended: go on with the next one, or end the response."""
        if part is not self._part or self._over:
            return
        if part.failure is not None:
            if not self._exchange.begun:
                self._exchange.cache_status, self._exchange.reason = part.cache_status, part.reason
            self._failed(part.failure)
        elif self._passes:
            self._finish()
        elif self._like is None or not self._rule.size:
            self._failed(ResponseIncomplete("a part is shorter than it says"))
        elif self._at // self._rule.size == self._number:
            self._contradicted(part)
        else:  # not from here: slices that are stored would stand on each other
            self._exchange.worker.turns.later(self._next)

    # -- what becomes of it ------------------------------------------------------------------------------------------

    def _span(self, status: int, fields: Fields) -> ContentRange | None:
        """First and last byte that a part holds, if they are those that were requested."""
        size, first = self._rule.size, self._number * self._rule.size
        if not size:
            length = fields.joined(b"content-length") or b""
            count = int(length) if status == 200 and length.isdigit() else 0
            return ContentRange(0, count - 1, count) if count else None
        span = parse_content_range(fields.joined(b"content-range")) if status == 206 else None
        if span is None or span.complete is None:
            return None
        fits = span.first == first and span.last == min(first + size, span.complete) - 1
        told = fields.joined(b"content-length")
        return span if fits and told in (None, b"%d" % len(span)) else None

    def _is_beyond(self, part: PartExchange) -> bool:
        """Whether the origin's 416 for a slice answers the client as well: all that it asked for begins behind the end.
        With conditions it may have to get the whole, or nothing."""
        own = CLIENT_OWN.intersection(self._exchange.block.fields.names())
        return part.status == 416 and self._number > 0 and own == {b"range"}

    def _begin(self, part: PartExchange, fields: Fields, span: ContentRange) -> None:
        """Evaluate the client's own conditions and range as a whole stored response would, then begin."""
        total = span.complete or 0
        whole = fields.without(_ABOUT_PART).plus((b"Content-Length", b"%d" % total))
        if b"accept-ranges" not in whole:
            whole = whole.plus((b"Accept-Ranges", b"bytes"))
        found = answer(self._request, 200, whole, total, 1)
        first, last = found.ranges[0] if found.kind is AnswerKind.PARTIAL else (0, total - 1)
        content = found.kind in (AnswerKind.FULL, AnswerKind.PARTIAL)
        if content and not (span.first <= first and last <= span.last) and not same_version(whole, whole):
            self._not_sliced(part)
            return
        self._like, self._total = fields, total
        self._offset, self._stop = span.first, span.last + 1
        self._take_facts(part)
        if content:
            self._at, self._last = first, last
            self._write(*_shaped(found, whole), last - first + 1, False)
        else:
            self._write(*_shaped(found, whole), 0, found.kind is not AnswerKind.UNSATISFIABLE)
            self._finish()

    def _write(self, status: int, fields: Fields, length: int | None, bodiless: bool) -> None:
        """Write the head to the client, by its route's rules."""
        exchange = self._exchange
        wire, bodies = status_line(status) + fields.encode(), exchange.routed.bodies
        if bodies is not None:
            bodies.start(exchange, status, (wire, fields, True), length, bodiless)
        else:
            exchange.begin(exchange.open(status, wire, length, bodiless), b"", True)

    def _pass_on(self, part: PartExchange, wire: bytes, fields: Fields) -> None:
        """Pass on what a part's origin answered instead of the slice."""
        self._passes = True
        self._take_facts(part)
        length = fields.joined(b"content-length")
        self._write(part.status, fields, int(length) if length else None, part.mode == NO_BODY)

    def _take_facts(self, part: PartExchange) -> None:
        """Take verdict, backend and the like for log and counters from the first part."""
        exchange = self._exchange
        exchange.verdict, exchange.reason, exchange.cache_status = part.verdict, part.reason, part.cache_status
        exchange.served_by, exchange.attempts, exchange.hedge = part.served_by, part.attempts, part.hedge
        exchange.head_at, exchange.from_store = part.head_at, part.from_store

    def _next(self) -> None:
        """Fetch the slice with the next byte, once the client accepts it."""
        self._waits = not self._over and self._exchange.downstream.paused
        if not self._over and not self._waits:
            self.ask(self._at // self._rule.size)

    def _finish(self) -> None:
        """The client has all it wants; the rest of the part is read only for the store."""
        exchange, part = self._exchange, self._part
        self._over, exchange.follower = True, None
        exchange.end()
        if part is not None and not part.ended:
            exchange.worker.turns.later(part.has_all)

    def _failed(self, error: EdgeError) -> None:
        self._over, exchange = True, self._exchange
        exchange.follower = None
        if not exchange.begun:
            exchange.verdict = "error"
        exchange.fail(error)

    def _drop(self, part: PartExchange, then: Callable[[], None]) -> None:
        """Stop a part, in a later turn: its caller is in the middle of writing a head."""
        self._part, part.downstream.paused = None, True
        turns = self._exchange.worker.turns
        turns.later(lambda: _end(part))
        turns.later(then)

    def _not_sliced(self, part: PartExchange) -> None:
        """The origin does not slice this: the usual way, and for a while where it was not asked beyond the end."""
        if part.status != 416 or not self._number:
            self._rule.avoid(self._key, self._store.clock())
        self._drop(part, self._go_usual)

    def _go_usual(self) -> None:
        exchange = self._exchange
        if self._over:
            return
        self._over, exchange.follower = True, None
        try:
            self._usual(exchange, exchange.routed)
        except Exception as error:
            exchange.fail(outcome_of(error, exchange.worker.report_bug))

    def _contradicted(self, part: PartExchange) -> None:
        """A slice is of another version than the first one: cut the response and invalidate what is stored."""
        self._rule.avoid(self._key, self._store.clock())
        self._store.outdate(self._key)
        self._drop(part, lambda: None)
        self._failed(ResponseIncomplete("its slices do not fit each other"))


def slice_of(size: int, number: int) -> tuple[bytes, Line]:
    """What tells a slice apart in the cache key, and the Range line that asks for it."""
    return b"%b%d:%d" % (SLICE, size, number), (b"Range", b"bytes=%d-%d" % (number * size, (number + 1) * size - 1))


def _shaped(found: Answer, whole: Fields) -> tuple[int, Fields]:
    """Status and field lines of a 200, or of the 206 that is cut out of it."""
    if found.kind is AnswerKind.PARTIAL:
        return 206, partial_fields(whole, found.ranges[0], found.complete)
    if found.kind is AnswerKind.NOT_MODIFIED:
        return 304, not_modified_fields(whole)
    if found.kind is AnswerKind.PRECONDITION_FAILED:
        return 412, failed_fields(whole)
    if found.kind is AnswerKind.UNSATISFIABLE:
        return 416, unsatisfiable_fields(whole, found.complete or 0)
    return 200, whole


def _fit(first: Fields, other: Fields) -> bool:
    """Whether two slices are of the same version and coding."""
    name = b"content-encoding"
    return same_version(first, other) and first.joined(name) == other.joined(name)


def _end(part: PartExchange | None) -> None:
    if part is not None and not part.ended:
        part.client_gone(ClientGone("not wanted"))
