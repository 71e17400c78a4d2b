"""The chunked coding: what was framed comes back at any split, and anything else is refused at any split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.http.chunked import FORBIDDEN_TRAILERS, ChunkedReader, chunk, last_chunk

PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
TRAILERS = st.lists(
    st.tuples(st.sampled_from((b"X-Sum", b"Server-Timing")), st.sampled_from((b"", b"v", b"a b", b"\xff"))), max_size=3
)
ODD = st.lists(
    st.one_of(
        st.sampled_from(
            b"5|\r\n|hello|0|\n|\r|;e=1|;\x00| ;q|X: v\r\n|X : v\r\n|0\r\n\r\n|fffffffffffffffff|-1|0x5|+5| 5".split(
                b"|"
            )
        ),
        st.binary(max_size=4),
    ),
    max_size=10,
).map(b"".join)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


def read(parts: list[bytes], **limits: int) -> tuple[bytes, list[tuple[bytes, bytes]], bytes] | str:
    """(payload, trailers, rest), or `refused`, or `unfinished`."""
    reader, payload, rest = ChunkedReader(**limits), b"", b""
    for part in parts:
        if reader.done:
            rest += part
            continue
        try:
            pieces, rest = reader.feed(part)
        except ValueError:
            return "refused"
        assert reader.done or not rest
        assert all(pieces), "a piece is never empty: it would end a chunked message"
        payload += b"".join(pieces)
    return (payload, reader.trailers, rest) if reader.done else "unfinished"


@given(PIECES, TRAILERS, st.binary(max_size=20), st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=200)
def test_what_was_framed_comes_back_at_any_split(
    pieces: list[bytes], trailers: list[tuple[bytes, bytes]], rest: bytes, at: list[int]
) -> None:
    wire = b"".join(map(chunk, pieces)) + last_chunk(trailers)
    assert read(cut(wire + rest, at)) == (b"".join(pieces), trailers, rest)


def test_every_single_split() -> None:
    wire = b'a;n="v"\r\n0123456789\r\n003 \r\nabc\r\n0\r\nX-Sum: 1\r\n\r\nGET'.replace(b"003 ", b"003")
    whole = read([wire])
    assert whole == (b"0123456789abc", [(b"X-Sum", b"1")], b"GET")
    for at in range(1, len(wire)):
        assert read([wire[:at], wire[at:]]) == whole
    assert read([wire[i : i + 1] for i in range(len(wire))]) == whole


@given(ODD, st.lists(st.integers(0, 60), max_size=5))
@example(b"5\r\nhello\r", [])
@settings(max_examples=200)
def test_any_bytes_give_the_same_verdict_at_any_split(wire: bytes, at: list[int]) -> None:
    assert read(cut(wire, at)) == read([wire])


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n", b"5\nhello", b"5\r\nhelloX", b"5\r\nhello\n", b"5\r\nhello\rX", b"g\r\n", b"-1\r\n", b"0x5\r\n",
        b" 5\r\n",
        b"5 \r\n", b"5_0\r\n", b"12345678901234567\r\n", b"5;\x00\r\n", b"5\r;e\r\n", b"0\r\nX : v\r\n",
        b"0\r\n X: v\r\n",
        b"0\r\nX\r\n", b"0\r\nX: a\x00\r\n", b"0\r\nX: v\n",
    ],
)  # fmt: skip
def test_refused(wire: bytes) -> None:
    assert read([wire]) == "refused"
    assert read([wire[i : i + 1] for i in range(len(wire))]) == "refused"


def test_limits_count_what_was_not_ended_too() -> None:
    assert read([b"5;" + b"e" * 30], line_limit=16) == "refused"
    assert read([b"5;", b"e" * 10, b"e" * 10], line_limit=16) == "refused"
    line = b"X: " + b"v" * 7 + b"\r\n"
    assert read([b"0\r\n" + line + b"\r\n"], trailer_limit=14) != "refused"
    assert read([b"0\r\n" + line + line], trailer_limit=20) == "refused"
    assert read([b"0\r\n" + line, b"X: " + b"v" * 30], trailer_limit=20) == "refused"


def test_a_huge_size_is_announced_and_nothing_is_allocated() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"ffffffffffffffff\r\nab") == ([b"ab"], b"")
    assert reader.announced == 2**64 - 1 - 2


@pytest.mark.parametrize("name", sorted(FORBIDDEN_TRAILERS))
def test_trailers_that_could_change_the_message_are_left_out(name: bytes) -> None:
    wire = b"0\r\n" + name.title() + b": x\r\nX-Sum: 1\r\n\r\n"
    assert read([wire]) == (b"", [(b"X-Sum", b"1")], b"")
