"""The strict grammar of heads: what it accepts is unambiguous, what it refuses has a name, and no byte gets past it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kit.heads import split_lines
from kit.slots import values_of

from edge.errors import BadRequest, ClientError, ResponseInvalid, TooLarge
from edge.http import field_line
from edge.http.field_line import CACHE_WORDS, NO_LINE, field_lines
from edge.http.grammar import (
    REQUEST_LINE,
    Framing,
    Limits,
    RequestHeaders,
    ResponseFacts,
    answered_together,
    judged_together,
    request_block,
    response_head,
)
from edge.http.host import absolute_target, normal_host
from edge.http.memo import Memo
from edge.http.offence import request_line_error

LIMITS = Limits()
NAMES = st.sampled_from(
    b"Host Content-Length Transfer-Encoding Connection Upgrade Expect TE Trailer Via X-Forwarded-For Forwarded "
    b"X_Forwarded_For Cookie Range Keep-Alive traceparent X-Request-Id X-Any".split()
)
VALUES = st.one_of(
    st.sampled_from(
        b"a.example 5 0 +5 5,5 chunked gzip,chunked close keep-alive,X-Any 100-continue websocket h2c upgrade".split()
    ),
    st.binary(max_size=12),
)
ODD_LINE = st.one_of(
    st.builds(lambda n, v: n + b": " + v, NAMES, VALUES),
    st.builds(lambda n, v: n + b" :" + v, NAMES, VALUES),
    st.builds(lambda v: b" folded" + v, VALUES),
    st.binary(max_size=20),
)
BLOCKS = st.builds(
    lambda lines, end: b"".join(line + end for line in lines),
    st.lists(ODD_LINE, max_size=6),
    st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r")),
)


def facts_of(block: RequestHeaders) -> dict[str, object]:
    found = {"fields": block.fields} | {name: value for name, value in values_of(block).items() if name[0] != "_"}
    found["error"] = None if block.error is None else (block.error.kind, block.error.status, block.error.detail)
    return found


def block_of(*lines: bytes) -> RequestHeaders:
    return request_block(b"".join(line + b"\r\n" for line in lines), LIMITS)


REQUEST_LINES = (
    b"Host: a.example|host: B.example:80|Host: a..:x|Connection: keep-alive|connection: Close|Cookie: a=1; b=2|"
    b"cookie: c|Connection: keep-alive, X-Any|Connection: accept|"
    b"traceparent: 00-11111111111111111111111111111111-2222222222222222-01|"
    b"X-Original-URL: /|X-Host: b|Content-Length: 5|Transfer-Encoding: chunked|Via: 1.1 x|Expect: 100-continue|"
    b"User-Agent: x|"
    b"Accept:*/*|X-Any:  y |X_Forwarded_For: 1|If-None-Match: *|Range: |Connection: |Authorization: NTLM|"
    b"Upgrade: websocket"
).split(b"|")
USUAL_LINES = st.lists(st.sampled_from(REQUEST_LINES), max_size=6)


@given(USUAL_LINES)
@example([b"Host: a", b"Cookie: " + b"a;" * 300])
@example([b"Host: a", b"Cookie: " + b"a;" * 200, b"Cookie: " + b"a;" * 200])
@example([b"Host: a", *[b"Connection: close"] * 4])
@settings(max_examples=400)
def test_what_few_lines_decide_is_what_all_lines_together_say(lines: list[bytes]) -> None:
    block = b"".join(line + b"\r\n" for line in lines)
    proven = field_lines(block, LIMITS.line_bytes, LIMITS.fields)
    assert proven is not None and NO_LINE not in proven
    assert facts_of(request_block(block, LIMITS)) == facts_of(judged_together(proven, proven))


ANY_LINE = st.one_of(
    st.sampled_from(REQUEST_LINES),
    st.sampled_from(REQUEST_LINES).map(bytes.swapcase),
    st.builds(lambda line, size: line + b"," * size, st.sampled_from(REQUEST_LINES), st.integers(480, 620)),
    ODD_LINE,
)


@given(
    st.lists(
        st.builds(lambda lines: b"".join(line + b"\r\n" for line in lines), st.lists(ANY_LINE, max_size=5)), max_size=5
    ),
    st.sampled_from((6000, 20_000, field_line.LINES_BYTES)),
    st.sampled_from((2, field_line.NAMES_REMEMBERED)),
)
@settings(max_examples=200)
def test_what_lines_came_before_changes_nothing(blocks: list[bytes], memory: int, names: int) -> None:
    """Neither that they are remembered, nor that others pushed them out."""
    limits = Limits(line_bytes=600, fields=6)

    def judged(block: bytes) -> object:
        head = b"HTTP/1.1 200 OK\r\n%b\r\n" % block
        return facts_of(request_block(block, limits)), said(lambda: response_head(head, limits))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(field_line, "_names", {})
        patch.setattr(field_line, "_lines", Memo(field_line.field_line, longest=-1))
        first = [judged(block) for block in blocks]
        patch.setattr(field_line, "NAMES_REMEMBERED", names)
        patch.setattr(field_line, "_names", {})
        patch.setattr(field_line, "_lines", Memo(field_line.field_line, memory, field_line.LINE_LONGEST))
        for _ in range(3):
            assert [judged(block) for block in blocks] == first


USUAL_ANSWER_LINES = st.lists(
    st.sampled_from(
        b"Content-Length: 5|content-length: 07|Content-Length: +5|Transfer-Encoding: chunked|Transfer-Encoding: gzip|"
        b"Connection: keep-alive|connection: Close|Connection: upgrade, X-Any|Keep-Alive: timeout=5|Keep-Alive: max=9|"
        b"Date: Fri, 27 Nov 2026 04:30:00 GMT|date: x|Server:  nginx |X-Any: y|Set-Cookie: a=b|Upgrade: h2c|Host: a|"
        b"WWW-Authenticate: NTLM|TE: x|Cookie: a".split(b"|")
    ),
    max_size=6,
)


def said(answer: Callable[[], ResponseFacts]) -> object:
    """What a head means, or that it is refused."""
    try:
        found = answer()
    except ResponseInvalid as error:
        return str(error)
    return {"fields": found.fields} | {name: value for name, value in values_of(found).items() if name[0] != "_"}


@given(USUAL_ANSWER_LINES, st.sampled_from((100, 101, 200, 204, 205, 206, 304, 404, 999)), st.sampled_from(b"01"))
@example([b"Content-Length: 5"] * 8, 200, 0x31)
@example([b"Date: x"] * 8, 200, 0x31)
@settings(max_examples=600)
def test_what_few_lines_of_a_response_decide_is_what_all_say(lines: list[bytes], status: int, minor: int) -> None:
    block = b"".join(line + b"\r\n" for line in lines)
    proven = field_lines(block, LIMITS.line_bytes, LIMITS.fields)
    assert proven is not None and NO_LINE not in proven

    def together() -> ResponseFacts:
        facts = ResponseFacts(status, b"Any", proven)
        answered_together(facts, minor == 0x31)
        return facts

    head = b"HTTP/1.%c %d Any\r\n%b\r\n" % (minor, status, block)
    assert said(lambda: response_head(head, LIMITS)) == said(together)


# -- any bytes ---------------------------------------------------------------------------------------------------------


@given(BLOCKS)
@example(b"Host: a\r\nX: \xff\x80\r\n")
@settings(max_examples=200)
def test_a_request_block_never_raises_and_what_it_accepts_is_clean(raw: bytes) -> None:
    block = request_block(raw, LIMITS)
    if block.error is not None:
        assert isinstance(block.error.error(), ClientError)
        assert 400 <= block.error.status < 600
        return
    again = split_lines(block.forward, LIMITS)
    assert again is not None, "what goes on must be proven by the same grammar"
    assert set(again) <= set(block.fields.lines), "nothing is made up"
    assert not (block.chunked and block.length is not None)
    names = {name.lower() for name, _ in again}
    assert not names & {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"x-forwarded-for"}
    assert len(block.fields.get_all(b"host")) <= 1


@given(st.one_of(st.binary(max_size=60), BLOCKS), st.sampled_from((b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 304 \r\n")))
@settings(max_examples=200)
def test_a_response_head_raises_only_response_invalid(raw: bytes, start: bytes) -> None:
    try:
        facts = response_head(start + raw.replace(b"\r\n\r\n", b"\r\n") + b"\r\n\r\n", LIMITS)
    except ResponseInvalid:
        return
    head, _, rest = facts.wire.partition(b"\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert split_lines(rest, LIMITS) is not None
    assert b"transfer-encoding" not in rest.lower().replace(b" ", b"").split(b":")


@given(st.binary(max_size=40))
def test_a_refused_first_line_has_a_client_error(line: bytes) -> None:
    assert request_line_error(line, LIMITS).status in (400, 414, 505)


@given(st.binary(max_size=30))
def test_an_absolute_target_is_none_a_pair_or_a_bad_request(target: bytes) -> None:
    try:
        found = absolute_target(b"http://" + target)
    except BadRequest:
        return
    assert found is None or (normal_host(found[0]) == found[0] and found[1].startswith(b"/"))


# -- requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((b"Host: a", b"Host: a"), 400),
        ((b"Host: a b",), 400),
        ((b"Host: ",), 400),
        ((b"Host: a@b",), 400),
        ((b"Host: a:0",), 400),
        ((b"Host: a:65536",), 400),
        ((b"Host: " + b"a." * 128,), 400),
        ((b"Host: :80",), 400),
        ((b"Host: a", b"Content-Length: 5", b"Content-Length: 5"), 400),
        ((b"Host: a", b"Content-Length: 5, 5"), 400),
        ((b"Host: a", b"Content-Length: +5"), 400),
        ((b"Host: a", b"Content-Length: -5"), 400),
        ((b"Host: a", b"Content-Length: 0x5"), 400),
        ((b"Host: a", b"Content-Length: 9999999999999999999"), 400),
        ((b"Host: a", b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
        ((b"Host: a", b"Transfer-Encoding: chunked, chunked"), 400),
        ((b"Host: a", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
        ((b"Host: a", b"Transfer-Encoding: identity"), 400),
        ((b"Host: a", b"Transfer-Encoding: gzip, chunked"), 501),
        ((b"Host: a", b"Transfer-Encoding: \x0bchunked"), 400),
        ((b"Host: a", b"Expect: 200-ok"), 417),
        ((b"Host: a", b"Name : v"), 400),
        ((b"Host: a", b" folded"), 400),
        ((b"Host: a", b"X: a\rb"), 400),
        ((b"Host: a", b"X: a\nb"), 400),
        ((b"Host: a", b"X: a\x00b"), 400),
        ((b"Host: a", b": v"), 400),
        ((b"Host: a", b"X"), 400),
        ((b"Host: a", b"X: " + b"a" * 8190), 431),
        ((b"Host: a", *(b"X: v" for _ in range(100))), 431),
    ],
    ids=lambda value: b"|".join(line[:40] for line in value).decode("latin-1") if isinstance(value, tuple) else value,
)
def test_refused_requests(lines: tuple[bytes, ...], status: int) -> None:
    error = block_of(*lines).error
    assert error is not None
    assert error.status == status


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (b"A.example", b"a.example"),
        (b"a.example:", b"a.example"),
        (b"a.example:80", b"a.example:80"),
        (b"a.example:080", b"a.example:80"),
        (b"[::A]:00443", b"[::a]:443"),
        (b"a.example:00000", None),
        (b"a.example:65536", None),
        (b"a.example:000080", None),
    ],
)
def test_a_host_has_one_form(said: bytes, meant: bytes | None) -> None:
    assert normal_host(said) == meant
    assert block_of(b"Host: " + said).host == meant


def test_facts_of_a_request() -> None:
    block = block_of(
        b"HOST: A.Example:81", b"Connection: Upgrade, X-Gone", b"Upgrade: WebSocket", b"X-Gone: 1", b"X-Kept:  v "
    )
    assert block.error is None
    assert (block.host, block.upgrade, block.plain, block.quick) == (b"a.example:81", b"websocket", False, False)
    assert block.forward == b"X-Kept: v\r\n"
    assert block_of(b"Host: a", b"Connection: Keep-Alive").keep_alive
    assert block_of(b"Host: a", b"Connection: close, keep-alive").close
    assert not block_of(b"Host: a", b"Connection: close, keep-alive").keep_alive
    assert block_of(b"Host: a", b"Content-Length: 0").plain
    assert block_of(b"Host: a", b"Upgrade: h2c").upgrade is None, "not without Connection: upgrade"
    assert block_of(b"Host: a", b"Connection: upgrade", b"Upgrade: h2c, websocket").upgrade is None, "one at a time"


@pytest.mark.parametrize("name", sorted(CACHE_WORDS))
def test_what_a_cache_decision_looks_at_is_never_quick(name: bytes) -> None:
    value = {b"content-length": b"0", b"transfer-encoding": b"chunked", b"expect": b"100-continue"}.get(name, b"x")
    assert block_of(b"Host: a").quick
    assert not block_of(b"Host: a", name.title() + b": " + value).quick


def test_a_traceparent_is_kept_when_valid_and_dropped_with_its_state_when_not() -> None:
    good = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    kept = block_of(b"Host: a", good, b"tracestate: k=v")
    assert kept.trace and good in kept.forward and b"tracestate" in kept.forward
    bad = block_of(b"Host: a", b"traceparent: 00-zz-1-01", b"tracestate: k=v")
    assert not bad.trace and b"trace" not in bad.forward
    named = block_of(b"Host: a", good, b"Connection: traceparent")
    assert not named.trace, "one that does not cross is replaced, not lost"


@pytest.mark.parametrize(
    ("line", "proven"),
    [
        (b"GET / HTTP/1.1", True),
        (b"M-SEARCH * HTTP/1.0", True),
        (b"GET /\"q'<>{}|^` HTTP/1.1", True),
        (b"GET / HTTP/2.0", False),
        (b"GET  / HTTP/1.1", False),
        (b"GET / HTTP/1.1 ", False),
        (b"GET / http/1.1", False),
        (b"GET /\x80 HTTP/1.1", False),
        (b"GET /#f HTTP/1.1", False),
        (b"GET\t/ HTTP/1.1", False),
        (b"GE(T / HTTP/1.1", False),
        (b"GET / HTTP/1.10", False),
        (b"GET /", False),
    ],
)
def test_the_request_line(line: bytes, proven: bool) -> None:
    assert (REQUEST_LINE.fullmatch(line) is not None) is proven


@pytest.mark.parametrize(
    ("line", "status"), [(b"GET / HTTP/2.0", 505), (b"GET / HTTP/1.x", 400), (b"G" * 9000, 414), (b"GET /", 400)]
)
def test_why_a_request_line_was_refused(line: bytes, status: int) -> None:
    assert request_line_error(line, LIMITS).status == status


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (b"http://A.example:8080/p?q", (b"a.example:8080", b"/p?q")),
        (b"HTTP://a", (b"a", b"/")),
        (b"http://a?q", (b"a", b"/?q")),
        (b"http://[::1]:80/", (b"[::1]:80", b"/")),
        (b"/p", None),
        (b"*", None),
        (b"a.example:80", None),
    ],
)
def test_the_absolute_form(target: bytes, found: tuple[bytes, bytes] | None) -> None:
    assert absolute_target(target) == found


@pytest.mark.parametrize("target", [b"http://u@a/", b"https://a/", b"http:///", b"http://a:b/", b"http://a b/"])
def test_an_absolute_form_that_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest):
        absolute_target(target)


# -- responses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "framing", "length", "persistent"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", Framing.LENGTH, 3, True),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n", Framing.CHUNKED, None, True),
        (b"HTTP/1.1 200 OK\r\n", Framing.CLOSE, None, True),
        (b"HTTP/1.1 204 No Content\r\n", Framing.NONE, None, True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n", Framing.NONE, 3, False),
        (b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n", Framing.NONE, 0, True),
        (b"HTTP/1.1 205 Reset\r\nContent-Length: 3\r\n", Framing.NONE, 3, False),
        (b"HTTP/1.1 205 Reset\r\n", Framing.NONE, None, False),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n", Framing.NONE, None, False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n", Framing.NONE, 3, True),
        (b"HTTP/1.1 103 Early Hints\r\n", Framing.NONE, None, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n", Framing.LENGTH, 3, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n", Framing.LENGTH, 3, True),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 3\r\n", Framing.LENGTH, 3, False),
    ],
)
def test_framing_of_responses(head: bytes, framing: Framing, length: int | None, persistent: bool) -> None:
    facts = response_head(head + b"\r\n", LIMITS)
    assert (facts.framing, facts.length, facts.persistent) == (framing, length, persistent)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK\r\n",
        b"HTTP/1.1 99 X\r\n",
        b"HTTP/1.1 2000 X\r\n",
        b"HTTP/1.1  200 X\r\n",
        b"HTTP/1.1 200 a\x00b\r\n",
        b" HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\nX : v\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: v\r\n" * 101,
    ],
    ids=lambda head: head[:50].decode("latin-1"),
)
def test_refused_responses(head: bytes) -> None:
    with pytest.raises(ResponseInvalid):
        response_head(head + b"\r\n", LIMITS)


def test_what_crosses_of_a_response() -> None:
    facts = response_head(
        b"HTTP/1.1 200 Fine\r\nDate: d\r\nConnection: X-Gone, close\r\nX-Gone: 1\r\nKeep-Alive: timeout=5, max=9\r\n"
        b"content-length: 03\r\nX-Kept:\tv\t\r\n\r\n",
        LIMITS,
    )
    assert facts.wire == b"HTTP/1.1 200 Fine\r\nDate: d\r\nX-Kept: v\r\nContent-Length: 3\r\n"
    assert (facts.has_date, facts.idle_hint_s) == (True, 5.0)


@pytest.mark.parametrize("value", [b"timeout", b"timeout=x", b"timeout=-1", b"max=5", b"timeout=99999999999"])
def test_an_idle_hint_that_says_nothing(value: bytes) -> None:
    assert response_head(b"HTTP/1.1 204 N\r\nKeep-Alive: " + value + b"\r\n\r\n", LIMITS).idle_hint_s is None


def test_limits_are_limits_and_not_one_off() -> None:
    limits = Limits(line_bytes=10, fields=2)
    assert split_lines(b"X: 7890123\r\n"[:10] + b"\r\n", limits) is not None
    with pytest.raises(TooLarge):
        split_lines(b"X: 78901234"[:11] + b"\r\n", limits)
    assert split_lines(b"A: 1\r\nB: 2\r\n", limits) is not None
    with pytest.raises(TooLarge):
        split_lines(b"A: 1\r\nB: 2\r\nC: 3\r\n", limits)
