"""One upstream connection against a fake transport: the same calls at any split, and reuse only when exactly clean."""

from __future__ import annotations

from itertools import pairwise

import pytest
from fakes import RecordingSink, Wired
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.adapters.upstream_connection import Phase
from edge.http.grammar import Limits
from edge.ports import Timeouts

EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSES: dict[str, tuple[bytes, bool]] = {  # name: (bytes, whether the connection is clean afterwards)
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", True),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
    "chunked": (
        CHUNKED + b"3\r\nhel\r\n2;e\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
        True,
    ),
    "interim": (EARLY + EARLY + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    "not modified": (b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 99\r\n\r\n', True),
    "closing": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", False),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
    "excess": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", False),
    "excess after chunks": (CHUNKED + b"0\r\n\r\nX", False),
    "excess after 204": (b"HTTP/1.1 204 No Content\r\n\r\nX", False),
    "close-delimited": (b"HTTP/1.1 200 OK\r\n\r\nhello", False),
    "malformed": (b"HTTP/1.1 200 OK\r\nX : v\r\n\r\n", False),
    "bad chunk": (CHUNKED + b"3\r\nhelX", False),
    "cut body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", False),
    "cut chunk": (CHUNKED + b"9\r\nhello", False),
    "cut head": (b"HTTP/1.1 200 OK\r\nContent-Le", False),
    "nothing": (b"", False),
    "101 unasked": (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", False),
    "endless interim": (EARLY * 4, False),
}
CUT = RESPONSES["cut body"][0]


def calls(parts: list[bytes], clean: bool = True, **options: bool) -> tuple[list[object], bool]:
    """The transcript and whether the connection was kept at the end of the response.

    How much of a body was passed on before it turned out to be broken is nobody's business.
    """
    wired = Wired(**options)  # type: ignore[arg-type]
    wired.feed(*parts)
    kept = wired.kept
    wired.end(clean)
    broken = wired.sink.calls[-1][0] == "failed"
    return [call for call in wired.sink.calls if not (broken and call[0] == "body")], kept


@pytest.mark.parametrize("name", RESPONSES)
def test_every_byte_split_gives_the_same_calls(name: str) -> None:
    text, clean = RESPONSES[name]
    whole = calls([text])
    assert whole[1] is clean
    for at in range(1, len(text)):
        found = calls([text[:at], text[at:]])
        assert found[0] == whole[0], at
        if "excess" not in name:  # bytes on an idle connection retire it too, a moment later
            assert found[1] is clean, at
    assert calls([text[i : i + 1] for i in range(len(text))])[0] == whole[0]


@pytest.mark.parametrize("name", [name for name in RESPONSES if name.startswith("excess")])
def test_bytes_after_the_end_retire_the_connection_at_every_split(name: str) -> None:
    text = RESPONSES[name][0]
    for at in range(1, len(text)):
        wired = Wired()
        wired.feed(text[:at], text[at:])
        assert wired.transport.aborted
        assert wired.connection.phase is Phase.GONE


@given(st.sampled_from(sorted(RESPONSES)), st.lists(st.integers(0, 200), max_size=6), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_any_split_any_end(name: str, at: list[int], head_only: bool, clean: bool) -> None:
    text = RESPONSES[name][0]
    edges = [0, *sorted({place % (len(text) + 1) for place in at}), len(text)]
    parts = [text[a:b] for a, b in pairwise(edges)]
    assert calls(parts, clean, head_only=head_only)[0] == calls([text], clean, head_only=head_only)[0]


@given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=3))
@settings(max_examples=200)
def test_any_bytes_end_in_one_way(noise: bytes, at: list[int]) -> None:
    for text in (noise, CHUNKED + b"" + noise):
        edges = [0, *sorted({place % (len(text) + 1) for place in at}), len(text)]
        found, _ = calls([text[a:b] for a, b in pairwise(edges)])
        assert found[-1][0] in ("end", "failed")  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("close-delimited", ("end", [])),
        ("cut body", ("failed", "ResponseIncomplete")),
        ("cut chunk", ("failed", "ResponseIncomplete")),
        ("bad chunk", ("failed", "ResponseIncomplete")),
        ("cut head", ("failed", "ConnectionLost")),
        ("nothing", ("failed", "ConnectionLost")),
        ("malformed", ("failed", "ResponseInvalid")),
        ("101 unasked", ("failed", "ResponseInvalid")),
        ("endless interim", ("failed", "ResponseInvalid")),
        ("chunked", ("end", [(b"X-Sum", b"1")])),
    ],
)
def test_how_a_response_ends(name: str, last: tuple[str, object]) -> None:
    assert calls([RESPONSES[name][0]])[0][-1] == last


def test_a_close_delimited_body_that_ends_in_a_reset_is_not_whole() -> None:
    assert calls([RESPONSES["close-delimited"][0]], clean=False)[0][-1] == ("failed", "ResponseIncomplete")


def test_head_has_no_body_whatever_its_fields_say() -> None:
    for name in ("length", "chunked", "close-delimited"):
        head = RESPONSES[name][0].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        found, kept = calls([head], head_only=True)
        assert found == [("head", 200, 0), ("end", [])]
        assert kept


def test_bytes_on_an_idle_connection_retire_it() -> None:
    wired = Wired()
    wired.feed(RESPONSES["length"][0])
    assert wired.kept
    wired.feed(b"H")
    assert wired.transport.aborted
    assert wired.sink.calls[-1][0] == "end", "and nobody hears of them"


def test_an_answer_before_the_body_was_sent_retires_the_connection() -> None:
    wired = Wired()
    wired.connection.upload_begins()
    wired.connection.upload(b"part")
    wired.feed(RESPONSES["length"][0])
    assert wired.sink.over
    assert not wired.kept


def test_an_answer_that_began_before_the_body_was_sent_retires_it_even_if_the_body_ends_first() -> None:
    wired = Wired()
    wired.connection.upload_begins()
    wired.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
    wired.connection.upload(b"rest")
    wired.connection.upload_ends()
    wired.feed(b"lo")
    assert wired.sink.calls[-1] == ("end", [])
    assert not wired.kept


def test_the_response_is_due_from_the_end_of_the_request() -> None:
    wired = Wired()
    assert not wired.no_deadline
    wired.connection.upload_begins()
    assert wired.no_deadline
    wired.connection.upload(b"part")
    wired.connection.upload_ends()
    assert not wired.no_deadline
    wired.feed(RESPONSES["length"][0])
    assert wired.kept


def test_deadlines_by_phase() -> None:
    wired = Wired()
    first = wired.connection.deadline
    wired.feed(b"HTTP/1.1 ")
    assert wired.connection.deadline - first == pytest.approx(Timeouts().head - Timeouts().first_byte)
    early = Wired()
    early.feed(EARLY)
    assert early.connection.deadline - early.connection._sent_at == pytest.approx(Timeouts().head)
    for text, error in (
        (b"", "ResponseTimeout"),
        (b"HTTP/1.1 2", "ResponseTimeout"),
        (CUT, "ResponseIncomplete"),
    ):
        late = Wired()
        late.feed(text)
        late.connection.expire()
        assert late.sink.calls[-1] == ("failed", error)
        assert late.transport.aborted
    idle = Wired()
    idle.feed(RESPONSES["length"][0])
    idle.connection.expire()
    assert idle.transport.aborted
    assert idle.sink.calls[-1][0] == "end"


def test_a_receiver_that_holds_back_stops_the_reading_and_the_deadline() -> None:
    wired = Wired()
    wired.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel")
    wired.connection.pause()
    assert not wired.transport.reading
    assert wired.no_deadline
    wired.connection.resume()
    assert wired.transport.reading
    assert not wired.no_deadline


def test_an_origin_that_does_not_read_has_a_deadline_and_the_sink_hears_of_it() -> None:
    wired = Wired()
    wired.connection.upload_begins()
    wired.connection.pause_writing()
    assert wired.sink.paused == 1
    assert not wired.no_deadline
    wired.connection.resume_writing()
    assert wired.sink.paused == 0
    assert wired.no_deadline


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_tunnel_has_no_deadline_once_bytes_flow_again() -> None:
    wired = Wired(upgrade=True)
    wired.feed(SWITCH + b"first", b"more")
    assert wired.sink.calls == [("head", 101, None), ("body", b"firstmore")]
    assert wired.no_deadline
    wired.connection.pause_writing()
    assert not wired.no_deadline
    wired.connection.resume_writing()
    assert wired.no_deadline
    wired.end(clean=False)
    assert wired.sink.calls[-1] == ("end", [])


def test_a_closed_tunnel_is_flushed_within_a_deadline_and_hears_nothing() -> None:
    wired = Wired(upgrade=True)
    wired.feed(SWITCH)
    wired.connection.close()
    assert wired.transport.closed
    assert not wired.no_deadline
    wired.end()
    assert wired.sink.calls == [("head", 101, None)]


def test_cancel_says_nothing_and_ends_the_connection() -> None:
    wired = Wired()
    wired.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel")
    wired.connection.cancel()
    wired.end(clean=False)
    assert [call[0] for call in wired.sink.calls] == ["head", "body"]
    assert wired.transport.aborted
    assert not wired.kept


@pytest.mark.parametrize(
    "text", [b"HTTP/1.1 200 OK\r\nX: " + b"v" * 300, b"HTTP/1.1 200 OK\r\n" + b"X: v\r\n" * 60 + b"\r\n"]
)
def test_a_head_past_its_limit_is_refused_at_any_split(text: bytes) -> None:
    for parts in ([text], [text[:7], text[7:]], [text[i : i + 1] for i in range(len(text))]):
        wired = Wired(limits=Limits(head_bytes=256))
        wired.feed(*parts)
        assert wired.sink.calls == [("failed", "ResponseInvalid")]


@pytest.mark.parametrize(
    "text",
    [b"HTTP/1.1 200 OK\nX: v\n\n", b"HTTP/1.1 200 OK\r\nX: v\nY: w", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/2 200", b"\r\n"],
)
def test_what_can_never_become_a_head_is_refused_before_its_end(text: bytes) -> None:
    for parts in ([text], [text[:7], text[7:]], [text[i : i + 1] for i in range(len(text))]):
        wired = Wired()
        wired.feed(*parts)
        assert wired.sink.calls == [("failed", "ResponseInvalid")]
        assert wired.transport.aborted


def test_the_idle_hint_is_passed_on() -> None:
    wired = Wired()
    wired.feed(b"HTTP/1.1 204 N\r\nKeep-Alive: timeout=7\r\n\r\n")
    assert wired.link.hinted == 7.0


def test_a_second_request_on_a_kept_connection_starts_clean() -> None:
    wired = Wired()
    wired.feed(EARLY * 3 + RESPONSES["length"][0])
    assert wired.kept
    second = RecordingSink()
    wired.connection.send(b"GET /2 HTTP/1.1\r\n\r\n", second, Timeouts(), False, False)
    wired.link.given_back = 0
    wired.feed(EARLY * 3 + RESPONSES["chunked"][0])
    assert [call[0] for call in second.calls] == ["interim"] * 3 + ["head", "body", "end"]
    assert wired.kept


class SlowSink(RecordingSink):
    """Its client takes nothing: it holds the connection back at every piece, as `fetch.pause` does."""

    def __init__(self, wired: Wired) -> None:
        super().__init__()
        self._wired = wired

    def _body(self, data: bytes) -> None:
        super()._body(data)
        assert self._wired.link.given_back == 0 or self.over_with_this_call, "kept before its bytes were delivered"
        self._wired.connection.pause()

    over_with_this_call = False

    def on_head(self, facts: object, length: int | None, body: bytes, done: bool) -> None:
        self.over_with_this_call = done
        super().on_head(facts, length, body, done)  # type: ignore[arg-type]


BODIES = [name for name, (_, clean) in RESPONSES.items() if clean]


@pytest.mark.parametrize("name", BODIES)
def test_a_receiver_that_pauses_at_the_last_piece_leaves_a_connection_that_reads(name: str) -> None:
    """Deliver, then finish: whatever the receiver does with the last bytes, the kept connection is not paused."""
    text = RESPONSES[name][0]
    for at in range(1, len(text)):
        wired = Wired()
        wired.connection.sink = wired.sink = SlowSink(wired)
        wired.feed(text[:at], text[at:])
        assert wired.sink.over, at
        assert wired.kept, at
        assert wired.transport.reading, at
        wired.connection.pause()
        assert wired.transport.reading, "pause means nothing outside a response"
        second = RecordingSink()
        wired.connection.send(b"GET /2 HTTP/1.1\r\n\r\n", second, Timeouts(), False, False)
        wired.feed(RESPONSES["length"][0])
        assert second.calls[-1] == ("end", [])


def test_a_receiver_that_wants_no_more_at_the_last_piece_hears_nothing_and_keeps_nothing() -> None:
    for name in ("length", "chunked"):
        text = RESPONSES[name][0]
        wired = Wired()
        at = text.rindex(b"lo")
        wired.feed(text[:at])
        wired.sink._body = lambda data, wired=wired: wired.connection.cancel()  # type: ignore[method-assign,misc]
        wired.feed(text[at:])
        assert not wired.sink.over
        assert not wired.kept


def test_a_bug_in_the_last_call_leaves_the_kept_connection_alone() -> None:
    wired = Wired()
    heard: list[Exception] = []

    def bug(*given: object) -> None:
        raise RuntimeError("bug")

    wired.sink.on_head = bug  # type: ignore[method-assign]
    wired.sink.on_bug = heard.append  # type: ignore[method-assign,assignment]
    wired.feed(RESPONSES["length"][0])
    assert len(heard) == 1
    assert wired.kept


def test_one_byte_chunks_are_read_a_bounded_number_at_a_time() -> None:
    wired = Wired()
    later: list[object] = []
    wired.link.later = later.append
    count = 5_000
    wired.feed(CHUNKED, b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    turns = 0
    while later:
        assert not wired.sink.over
        assert not wired.transport.reading, "what is here comes first"
        later.pop()()  # type: ignore[operator]
        turns += 1
    assert wired.sink.calls[1:] == [("body", b"x" * count), ("end", [])]
    assert turns >= count // 512
    assert wired.kept
    assert wired.transport.reading


def test_a_receiver_that_holds_back_between_two_turns_is_given_nothing_until_it_takes_more() -> None:
    wired = Wired()
    later: list[object] = []
    wired.link.later = later.append
    wired.feed(CHUNKED, b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
    wired.connection.pause()
    had = wired.sink.calls[-1]
    while later:
        later.pop()()  # type: ignore[operator]
    assert wired.sink.calls[-1] == had
    wired.connection.resume()
    while later:
        later.pop()()  # type: ignore[operator]
    assert wired.sink.calls[-1] == ("end", [])
    assert wired.transport.reading
