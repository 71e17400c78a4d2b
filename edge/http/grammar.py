"""The one strict grammar of heads, for requests and responses alike (RFC 9112 2-6).

What it does: proves that a head is well-formed and unambiguous, and turns it into facts. One rule: what is not proven
is refused with a named error; nothing is repaired. There is one grammar and no lenient second reader, so that the
gateway can never understand a message in another way than it forwards it.

The header block (all lines but the first) is a pure function from bytes to facts, so they can be remembered (`memo`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from itertools import product
from typing import Any

from edge.errors import BadRequest, ClientError, Refusal, ResponseInvalid, TooLarge
from edge.http.credentials import CHALLENGES, CREDENTIALS, binds
from edge.http.field_line import (
    CACHE_WORDS,
    CHUNKED,
    CLOSE,
    COOKIE,
    DATE,
    HINT,
    HOST,
    KEEP_ALIVE,
    LENGTH,
    NO_LINE,
    TOKEN,
    FieldLine,
    Lines,
    field_lines,
    fields_of,
    hint_of,
    length_of,
)
from edge.http.fields import tokens, too_many_cookies
from edge.http.forwarding import OVERRIDES, has_overrides, own_names, passes, response_lines, tells_of_hops
from edge.http.hopbyhop import HOP_BY_HOP, dropped_names
from edge.http.host import normal_host
from edge.http.message import Fields

VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!\"$-~]+) HTTP/1\.([0-9])")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + VALUE + rb"))?")
REQUEST_ID = re.compile(rb"[0-9A-Za-z._\-]{8,128}")
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")

# What decides in most requests: one Host, and beside it at most Connection and Cookie; as sums of FieldLine.in_request.
USUAL = frozenset(HOST + option + cookie for option in (0, KEEP_ALIVE, CLOSE) for cookie in (0, COOKIE))
# In most responses one framing, Connection, Keep-Alive and Date; as sums of FieldLine.in_response.
USUAL_ANSWERS = frozenset(map(sum, product((0, LENGTH, CHUNKED), (0, KEEP_ALIVE, CLOSE), (0, HINT), (0, DATE))))
MOST_USUAL, MOST_ANSWERS = 3, 4
NO_CONTENT = frozenset((204, 205, 304))


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes a head may have; the defaults are safe on the open internet."""

    line_bytes: int = 8 * 1024  # one field line
    fields: int = 100
    head_bytes: int = 32 * 1024
    first_line_bytes: int = 8 * 1024
    utf8_targets: bool = False  # raw UTF-8 in a target is taken for its percent-encoding


REQUEST_FACTS = (
    "binds",
    "chunked",
    "close",
    "error",
    "expect",
    "forward",
    "forwarding",
    "guarded",
    "host",
    "keep_alive",
    "length",
    "plain",
    "quick",
    "request_id",
    "trace",
    "upgrade",
)


class RequestHeaders(Lines):
    """Facts of a request's header block. `error` refuses the request; `forward` goes upstream as it is."""

    __slots__ = (*REQUEST_FACTS, "known")

    def __init__(self, lines: list[FieldLine]) -> None:
        super().__init__(lines)
        self.known: Any = None  # what a route's `auth` found it to be worth (`rules.authentication.Verdicts`)
        self.error: Refusal | None = None
        self.host: bytes | None = None  # lower case, port kept
        self.length: int | None = None
        self.binds = False  # credentials that belong to a connection
        self.chunked = False
        self.close = False  # Connection: close
        self.keep_alive = False  # Connection: keep-alive (matters to HTTP/1.0)
        self.expect = False
        self.upgrade: bytes | None = None  # the single protocol asked for, lower case
        self.request_id: bytes | None = None
        self.trace = False  # a valid traceparent came along
        self.forward = b""
        self.guarded = b""  # the same without OVERRIDES, for the backends of routes that store
        self.forwarding = False  # carries what earlier hops tell: only a trusted peer may; or may be a loop
        self.plain = False  # no body, no upgrade, no expectation
        self.quick = False  # plain, and no field that a cache decision looks at

    def alike(self) -> RequestHeaders:
        """A copy, to be changed."""
        other = RequestHeaders(self._lines)
        for name in REQUEST_FACTS:
            setattr(other, name, getattr(self, name))
        return other


class Framing(IntEnum):
    """How the end of a response's body is found (RFC 9112 6.3)."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3


BY_LENGTH, BY_CHUNKS, BY_CLOSE = (
    Framing.LENGTH,
    Framing.CHUNKED,
    Framing.CLOSE,
)  # a member through its class costs 50 ns in CPython 3.11, and each request asks


RESPONSE_FACTS = (
    "binds",
    "forward",
    "framing",
    "has_date",
    "idle_hint_s",
    "judged",
    "length",
    "misframed",
    "persistent",
    "reason",
    "status",
    "upgrade",
    "wire",
)


class ResponseFacts(Lines):
    """Facts of a response head: status, framing, persistence and the bytes that cross the gateway."""

    __slots__ = RESPONSE_FACTS

    def __init__(self, status: int, reason: bytes, lines: list[FieldLine]) -> None:
        super().__init__(lines)
        self.status = status
        self.reason = reason
        self.length: int | None = None  # the body's size in bytes, when the head tells it
        self.framing = BY_CLOSE  # for a request that was not HEAD
        self.persistent = False
        self.binds = False  # asks for credentials that belong to a connection
        self.misframed = False  # has content, or its framing, that its status forbids: passed on without, never stored
        self.upgrade: bytes | None = None
        self.idle_hint_s: float | None = None  # Keep-Alive: timeout
        self.forward = b""  # end-to-end lines without framing
        self.wire = b""  # status line, end-to-end lines and Content-Length: a head that only wants our own lines
        self.has_date = False
        self.judged: Any = None  # what the cache makes of it (`cache.judged`)

    def with_content(self) -> ResponseFacts:
        """The same head, where content came although the status has none."""
        other = ResponseFacts(self.status, self.reason, self._lines)
        for name in RESPONSE_FACTS:
            setattr(other, name, getattr(self, name))
        other.misframed = True
        other.judged = None
        return other


def content_length(fields: Fields) -> int | None:
    """The one Content-Length, None when absent. Raises ValueError: several lines, a list, a sign, too large."""
    values = fields.get_all(b"content-length")
    if not values:
        return None
    length = length_of(values[0]) if len(values) == 1 else None
    if length is None:
        raise ValueError("invalid Content-Length")
    return length


def request_block(block: bytes, limits: Limits) -> RequestHeaders:
    """Facts of a request's header block; an illegal one comes back with `error` set, never as an exception."""
    try:
        lines = field_lines(block, limits.line_bytes, limits.fields)
        deciding = None if lines is None else [one for one in lines if one.in_request]
        if lines is None or deciding is None or NO_LINE in deciding:
            raise BadRequest("malformed field line")
    except ClientError as error:
        facts = RequestHeaders([])
        facts.error = Refusal.of(error)
        return facts
    if len(deciding) <= MOST_USUAL and sum([one.in_request for one in deciding]) in USUAL:
        return _usual(lines, deciding)
    return judged_together(lines, deciding)


def _usual(lines: list[FieldLine], deciding: list[FieldLine]) -> RequestHeaders:
    """Facts where one Host, and at most Connection and Cookie beside it, decide all there is to decide."""
    facts = RequestHeaders(lines)
    for one in deciding:
        if one.in_request == HOST:
            facts.host = one.told
        elif one.in_request == KEEP_ALIVE:
            facts.keep_alive = True
        elif one.in_request == CLOSE:
            facts.close = True
    facts.forward = facts.guarded = b"".join([one.wire for one in lines])
    facts.plain = facts.quick = True
    return facts


def judged_together(lines: list[FieldLine], deciding: list[FieldLine]) -> RequestHeaders:
    """Facts of lines that are proven, whatever they are; those that decide nothing need not be looked at."""
    facts, fields = RequestHeaders(lines), fields_of(deciding)
    try:
        _frame_request(facts, fields)
        _connection(facts, fields, lines)
    except ClientError as error:
        facts.error = Refusal.of(error)
    except ValueError as error:
        facts.error = Refusal(BadRequest, str(error), 400)
    return facts


def _frame_request(facts: RequestHeaders, fields: Fields) -> None:
    """Host and framing (RFC 9112 3.2, 6.1-6.3): exactly one reading, or an error."""
    hosts = fields.get_all(b"host")
    if len(hosts) > 1:
        raise BadRequest("several Host fields")
    if hosts:
        facts.host = normal_host(hosts[0])
        if facts.host is None:
            raise BadRequest("invalid Host")
    facts.length = content_length(fields)
    codings = fields.get_all(b"transfer-encoding")
    if codings:
        if facts.length is not None:
            raise BadRequest("Content-Length with Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            known = all(word in (b"chunked", b"identity", b"") for word in tokens(fields, b"transfer-encoding"))
            raise BadRequest("invalid Transfer-Encoding", 400 if known else 501)
        facts.chunked = True


def _connection(facts: RequestHeaders, fields: Fields, lines: list[FieldLine]) -> None:
    """Connection options, expectation, upgrade, and the lines that go upstream."""
    options = tokens(fields, b"connection")
    facts.close = b"close" in options
    facts.keep_alive = b"keep-alive" in options and not facts.close
    if b"expect" in fields:
        if fields.joined(b"expect") is None or fields.joined(b"expect").lower() != b"100-continue":  # type: ignore[union-attr]
            raise BadRequest("unknown expectation", 417)
        facts.expect = True
    asked = tokens(fields, b"upgrade")
    if b"upgrade" in options and len(asked) == 1:
        facts.upgrade = asked[0]
    identifier = fields.get_all(b"x-request-id")
    if len(identifier) == 1 and REQUEST_ID.fullmatch(identifier[0]):
        facts.request_id = identifier[0]
    parents = fields.get_all(b"traceparent")
    dropped = dropped_names(fields)
    facts.trace = len(parents) == 1 and TRACEPARENT.fullmatch(parents[0]) is not None and b"traceparent" not in dropped
    facts.forward = _passed_on(lines, dropped, facts.trace, frozenset())
    facts.guarded = facts.forward
    if has_overrides(fields):
        facts.guarded = _passed_on(lines, dropped, facts.trace, OVERRIDES)
    facts.forwarding = tells_of_hops(fields)
    facts.binds = binds(fields, CREDENTIALS)
    facts.plain = not (facts.length or facts.chunked or facts.expect or facts.upgrade)
    facts.quick = facts.plain and CACHE_WORDS.isdisjoint(fields.names()) and not too_many_cookies(fields)


def _passed_on(lines: list[FieldLine], dropped: frozenset[bytes], trace: bool, withheld: frozenset[bytes]) -> bytes:
    """`request_lines` of proven lines. What decides nothing passes, unless Connection names it."""
    own, named = own_names(dropped, trace, withheld), dropped is not HOP_BY_HOP
    return b"".join([one.wire for one in lines if not (one.in_request or named) or passes(one.key, own, withheld)])


def response_head(head: bytes, limits: Limits, left_out: frozenset[bytes] = frozenset()) -> ResponseFacts:
    """Facts of a whole response head, the empty line included. Raises ResponseInvalid on bad syntax or framing."""
    line_end = head.find(b"\r\n")
    match = STATUS_LINE.fullmatch(head, 0, line_end)
    if match is None:
        raise ResponseInvalid("malformed status line")
    try:
        lines = field_lines(head[line_end + 2 : -2], limits.line_bytes, limits.fields)
    except TooLarge as error:
        raise ResponseInvalid(error.detail) from None
    deciding = None if lines is None else [one for one in lines if one.in_response]
    if lines is None or deciding is None or NO_LINE in deciding:
        raise ResponseInvalid("malformed field line")
    if left_out:
        lines = [one for one in lines if one.key not in left_out]
        deciding = [one for one in lines if one.in_response]
    facts, minor_one = ResponseFacts(int(match[2]), match[3] or b"", lines), match[1] == b"1"
    usual = len(deciding) <= MOST_ANSWERS and sum([one.in_response for one in deciding]) in USUAL_ANSWERS
    if usual and minor_one and facts.status >= 200 and facts.status not in NO_CONTENT:
        _usual_answer(facts, lines, deciding)
    else:
        answered_together(facts, minor_one)
    return facts


def _usual_answer(facts: ResponseFacts, lines: list[FieldLine], deciding: list[FieldLine]) -> None:
    """Facts where one framing, and at most Connection, Keep-Alive and Date beside it, decide all there is to decide."""
    facts.persistent = True
    for one in deciding:
        use = one.in_response
        if use == LENGTH:
            facts.length, facts.framing = one.told, BY_LENGTH
        elif use == DATE:
            facts.has_date = True
        elif use == CLOSE:
            facts.persistent = False
        elif use == CHUNKED:
            facts.framing = BY_CHUNKS
        elif use == HINT:
            facts.idle_hint_s = one.told
    facts.forward = b"".join([one.wire for one in lines])
    _write(facts)


def answered_together(facts: ResponseFacts, minor_one: bool) -> None:
    """Facts of lines that are proven, whatever they are. Raises ResponseInvalid."""
    fields = facts.fields
    try:
        _frame_response(facts, minor_one)
        asked = tokens(fields, b"upgrade")
        options = tokens(fields, b"connection")
        facts.idle_hint_s = hint_of(tokens(fields, b"keep-alive"))
    except ValueError as error:
        raise ResponseInvalid(str(error)) from None
    facts.persistent = b"close" not in options if minor_one else b"keep-alive" in options and b"close" not in options
    if facts.misframed or (facts.framing is Framing.NONE and b"transfer-encoding" in fields):
        facts.persistent = False  # what may follow is nobody's answer
    if facts.status == 205 and facts.length is None:
        facts.persistent = False  # its content would end with the connection
    facts.upgrade = asked[0] if len(asked) == 1 and b"upgrade" in options else None
    facts.has_date = b"date" in fields
    facts.binds = binds(fields, CHALLENGES)
    facts.forward = response_lines(fields, dropped_names(fields))
    _write(facts)


def _write(facts: ResponseFacts) -> None:
    sized = b""
    if facts.status == 205:  # RFC 9110 15.3.6
        sized = b"Content-Length: 0\r\n"
    elif facts.length is not None and facts.status >= 200 and facts.status != 204:  # RFC 9110 8.6
        sized = b"Content-Length: %d\r\n" % facts.length
    facts.wire = b"HTTP/1.1 %d %b\r\n%b%b" % (facts.status, facts.reason, facts.forward, sized)


def _frame_response(facts: ResponseFacts, minor_one: bool) -> None:
    """One framing, or ResponseInvalid or ValueError."""
    fields = facts.fields
    facts.length = content_length(fields)
    codings = fields.get_all(b"transfer-encoding")
    if codings:
        if facts.length is not None:
            raise ResponseInvalid("Content-Length with Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != b"chunked" or not minor_one:
            raise ResponseInvalid("unknown Transfer-Encoding")
        facts.framing = Framing.CHUNKED
    elif facts.length is not None:
        facts.framing = Framing.LENGTH
    if facts.status < 200 or facts.status in NO_CONTENT:
        framed, facts.framing = facts.framing, Framing.NONE
        if facts.status in (204, 205):
            facts.misframed = framed is Framing.CHUNKED or (facts.length or 0) > 0
