"""What can never become a head is refused by its first offence in the stream, wherever the stream was cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.http.grammar import Limits
from edge.http.offence import offence

LIMITS = Limits(line_bytes=64, fields=5, head_bytes=80, first_line_bytes=30)
PIECES = [b"GET / HTTP/1.1", b"\r\n", b"\n", b"\r", b"Host: a", b"x" * 29, b"\x00", b"GET / HTTP/9", b" ", b"v" * 70]


def verdict(stream: bytes) -> tuple[int, int] | None:
    """(bytes that it took, status) of a client that sends one byte at a time; None: it waits or is a head."""
    for count in range(1, len(stream) + 1):
        if (error := offence(stream[:count], LIMITS)) is not None:
            return count, error.status
        if b"\r\n\r\n" in stream[2:count]:
            return None
    return None


@given(st.lists(st.sampled_from(PIECES), max_size=9))
@example([b"\x00", b"x" * 29, b"x" * 29])
@example([b"GET / HTTP/1.1", b"\n", b"v" * 70])
@example([b"GET / HTTP/1.1", b"\r\n", b"v" * 70, b"\n"])
@example([b"x" * 29, b" ", b"\r\n"])
@settings(max_examples=500)
def test_the_first_offence_does_not_depend_on_what_came_with_it(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    found = verdict(stream)
    end = stream.find(b"\r\n\r\n", 2 if stream.startswith(b"\r\n") else 0)
    if found is None:
        return
    count, status = found
    for more in (b"", b"x", b"\n", b"\r\n\r\n", b"v" * 200):
        if end < 0 or count <= end:
            error = offence(stream[:count] + more, LIMITS)
            assert error is not None
            assert error.status == status, more


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n" + b"x" * 99, 400),
        (b"x" * 31 + b"\n", 414),
        (b"x" * 30 + b"\r", None),
        (b"x" * 30 + b"\rx", 414),
        (b"\x00" + b"x" * 99, 400),
        (b"GET / HTTP/1.1\r\n" + b"v" * 65, 431),
        (b"GET / HTTP/1.1\r\n" + b"v" * 64, None),
        (b"\r\n\r\n", 400),
        (b"\r\n", None),
        (b"GET / HTTP/9\r\n" + b"v" * 99, 505),
    ],
)
def test_what_it_says(data: bytes, status: int | None) -> None:
    error = offence(data, LIMITS)
    assert (None if error is None else error.status) == status
