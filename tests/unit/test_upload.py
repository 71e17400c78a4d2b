"""A request body on its way: whole at any split, held only so far, and stopped whenever the backend is slower."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.route import Route
from edge.dataplane.core.upload import Upload
from edge.errors import BadRequest, ClientError, TooLarge
from edge.http.chunked import ChunkedReader

WIRE = b"3;e\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n"


class FakeExchange:
    """What an upload asks of its exchange and of the client's connection."""

    def __init__(self, **limits: Any) -> None:
        self.worker = SimpleNamespace(limits=WorkerLimits(**limits))
        self.downstream = self
        self.routed = Route("r", b"*", b"/", cast(Any, None))
        self.deadline = inf
        self.reading = True
        self.failed: ClientError | None = None
        self.late = 0

    def fail(self, error: ClientError) -> None:
        self.failed = error

    def upload_late(self, now: float) -> None:
        self.late += 1

    ended = False

    def turn(self) -> None:
        self.turns += 1

    turns = 0

    def stop_reading(self) -> None:
        self.reading = False

    def start_reading(self) -> None:
        self.reading = True


class FakeConnection:
    """A backend's end; a full one stops the upload while it is being written to, as a transport does."""

    def __init__(self, upload: Upload, full_after: int = 1 << 30) -> None:
        self.sent = b""
        self.ended = False
        self._upload = upload
        self._full_after = full_after

    def upload_begins(self) -> None:
        assert not self.sent

    def upload(self, data: bytes) -> None:
        assert data
        assert not self.ended
        self.sent += data
        if len(self.sent) > self._full_after:
            self._upload.stop()

    def upload_ends(self) -> None:
        self.ended = True


def begun(length: int | None, **limits: Any) -> tuple[FakeExchange, Upload]:
    exchange = FakeExchange(**limits)
    upload = Upload(cast(Any, exchange), length)
    upload.limit = 1000
    return exchange, upload


def attach(upload: Upload, full_after: int = 1 << 30) -> FakeConnection:
    connection = FakeConnection(upload, full_after)
    upload.attach(cast(Any, connection))
    return connection


def unchunked(wire: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    reader = ChunkedReader()
    pieces, rest = reader.feed(wire)
    assert reader.done and not rest
    return b"".join(pieces), reader.trailers


@given(st.booleans(), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 7), st.integers(0, 7))
@settings(max_examples=200)
def test_the_body_is_whole_whenever_a_backend_comes_and_goes(
    chunked: bool, at: list[int], first: int, second: int
) -> None:
    exchange, upload = begun(None if chunked else 7)
    data = (WIRE if chunked else b"abcdefg") + b"NEXT"
    edges = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    parts = [data[a:b] for a, b in pairwise(edges) if a < b]
    connection, rest = None, b""
    for number, part in enumerate(parts):
        if number in (first, second):
            if connection is not None:
                upload.detach()  # that attempt failed; what came is sent again
            connection = attach(upload)
        rest = rest + part if upload.done else upload.feed(part)
    if connection is None:
        connection = attach(upload)
    assert exchange.failed is None
    assert (upload.done, upload.received, connection.ended, rest) == (True, 7, True, b"NEXT")
    assert upload.framing == (b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: 7\r\n")
    if chunked:
        assert unchunked(connection.sent) == (b"abcdefg", [(b"X-Sum", b"1")])
    else:
        assert connection.sent == b"abcdefg"


@pytest.mark.parametrize(
    ("length", "data", "error", "status"),
    [
        (None, b"zz\r\n", BadRequest, 400),
        (None, b"3\r\nabcX", BadRequest, 400),
        (None, b"ffffffff\r\nab", TooLarge, 413),
        (None, b"3e9\r\n", TooLarge, 413),
    ],
)
def test_a_body_that_is_refused(length: int | None, data: bytes, error: type[ClientError], status: int) -> None:
    exchange, upload = begun(length)
    connection = attach(upload)
    assert upload.feed(data) == b""
    assert type(exchange.failed) is error
    assert exchange.failed is not None and exchange.failed.status == status
    assert not connection.ended


def test_what_is_held_is_bounded_and_past_it_nothing_is_repeatable() -> None:
    exchange, upload = begun(400, hold_bytes=100)
    upload.feed(b"x" * 90)
    assert exchange.reading
    upload.feed(b"x" * 90)
    assert not exchange.reading, "nobody takes it yet"
    assert exchange.deadline == inf, "which is not the client's fault"
    connection = attach(upload)
    assert exchange.reading
    assert exchange.deadline < inf
    assert (connection.sent, upload.replayable) == (b"x" * 180, True)
    upload.feed(b"x" * 10)
    assert (len(connection.sent), upload.replayable, upload._kept) == (190, False, bytearray())


def test_a_backend_that_is_full_at_once_keeps_the_client_stopped() -> None:
    exchange, upload = begun(400, hold_bytes=100)
    upload.feed(b"x" * 150)
    attach(upload, full_after=100)
    assert not exchange.reading
    assert exchange.deadline == inf
    upload.go()
    assert exchange.reading


def test_a_backend_that_is_full_stops_the_clock_of_the_client_too() -> None:
    exchange, upload = begun(400)
    connection = attach(upload, full_after=10)
    upload.feed(b"x" * 20)
    assert not exchange.reading
    assert exchange.deadline == inf
    upload.go()
    assert exchange.deadline < inf
    upload.feed(b"x" * 380)
    assert (exchange.deadline, connection.ended) == (inf, True)


def test_a_body_that_trickles_is_late() -> None:
    exchange, upload = begun(400, body_grace=0.0, body_rate=1e12)
    upload.feed(b"x")
    assert exchange.late == 1
    quick, other = begun(400, body_grace=60.0, body_rate=1e12)
    other.feed(b"x")
    assert quick.late == 0
