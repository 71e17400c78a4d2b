"""The client's connection against a fake transport: heads at any split, in order, and what can never become one."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any, cast

import pytest
from fakes import FakeTransport
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.adapters.logs import AccessLog
from edge.dataplane.front import Front, State
from edge.dataplane.router import NoRoute
from edge.dataplane.worker import Worker, WorkerLimits
from edge.http.forwarding import Networks
from edge.http.grammar import Limits

A = b"GET /a HTTP/1.1\r\nHost: a.example\r\nX: 1\r\n\r\n"
B = b"HEAD /b?q HTTP/1.1\r\nHost: b.example\r\n\r\n"
LAST = b"GET /c HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n"
HEAD_LIMITS = Limits(line_bytes=64, fields=5, head_bytes=200, first_line_bytes=60)
STREAMS = {
    "one": A,
    "three": A + B + LAST,
    "empty line first": b"\r\n" + A,
    "after the last": LAST + A,
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "good then bad": A + b"GET / HTTP/9\r\n\r\n" + A,
    "space before the colon": A + b"GET / HTTP/1.1\r\nHost : a\r\n\r\n" + A,
    "no host": b"GET / HTTP/1.1\r\n\r\n" + A,
    "long line": b"GET /" + b"x" * 80 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "long head": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1234567890\r\n" * 20 + b"\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n" + A,
    "1.0": b"GET / HTTP/1.0\r\n\r\n" + A,
    "1.0 kept": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + A,
    "control byte": b"\x00" + A,
    "empty lines only": b"\r\n\r\n" + A,
}


class Recorder:
    """Instead of routes: every admitted request, answered with 404."""

    routes: tuple[()] = ()

    def __init__(self) -> None:
        self.seen: list[tuple[bytes | None, bytes]] = []

    def get(self, host: bytes | None, target: bytes) -> None:
        """None: it is looked at more closely then."""

    def find(self, host: bytes | None, target: bytes) -> Any:
        self.seen.append((host, target))
        raise NoRoute("none")


class Client:
    """One connection to a worker that has no backends."""

    def __init__(self, limits: WorkerLimits | None = None) -> None:
        self.worker = Worker(limits or WorkerLimits(), HEAD_LIMITS, AccessLog("off"), Networks())
        self.worker.date_line = b""
        self.recorder = Recorder()
        self.worker.use(cast(Any, self.recorder), {})
        self.turns: list[Any] = []
        self.worker.turns.later = self.turns.append  # type: ignore[method-assign]
        self.front, self.transport = self.more()

    def more(self) -> tuple[Front, FakeTransport]:
        """Another connection of the same address."""
        front, transport = Front(self.worker), FakeTransport()
        front.connection_made(cast(Any, transport))
        return front, transport

    def feed(self, *parts: bytes) -> None:
        for part in parts:
            if part and not self.transport.is_closing():
                self.front.data_received(part)
            while self.turns:
                self.turns.pop(0)()

    @property
    def outcome(self) -> tuple[list[tuple[bytes | None, bytes]], list[bytes], bool]:
        """What was asked, the status lines that came, and whether the connection goes on."""
        lines = [line for line in self.transport.written.split(b"\r\n") if b"HTTP/1.1 " in line]
        statuses = [line[line.index(b"HTTP/1.1 ") + 9 :][:3] for line in lines]
        return self.recorder.seen, statuses, self.front.state is State.OPEN and not self.transport.is_closing()


def outcome(*parts: bytes) -> tuple[object, object, bool]:
    client = Client()
    client.feed(*parts)
    return client.outcome


@pytest.mark.parametrize("name", STREAMS)
def test_every_byte_split_gives_the_same_answers(name: str) -> None:
    stream = STREAMS[name]
    whole = outcome(stream)
    for at in range(1, len(stream)):
        assert outcome(stream[:at], stream[at:]) == whole, at
    assert outcome(*(stream[i : i + 1] for i in range(len(stream)))) == whole


@given(
    st.lists(st.sampled_from(sorted(STREAMS)), max_size=4),
    st.lists(st.integers(0, 500), max_size=8),
    st.binary(max_size=9),
)
@settings(max_examples=200)
def test_any_split_of_any_mix(names: list[str], at: list[int], noise: bytes) -> None:
    stream = b"".join(STREAMS[name] for name in names) + noise
    edges = [0, *sorted({place % (len(stream) + 1) for place in at}), len(stream)]
    parts = [stream[a:b] for a, b in pairwise(edges)]
    assert outcome(*parts) == outcome(stream)


@pytest.mark.parametrize(
    ("name", "asked", "statuses", "kept"),
    [
        ("three", [b"/a", b"/b?q", b"/c"], [b"404"] * 3, False),
        ("empty line first", [b"/a"], [b"404"], True),
        ("after the last", [b"/c"], [b"404"], False),
        ("not HTTP", [], [b"400"], False),
        ("bare LF", [], [b"400"], False),
        ("good then bad", [b"/a"], [b"404", b"505"], False),
        ("space before the colon", [b"/a"], [b"404", b"400"], False),
        ("no host", [], [b"400"], False),
        ("long line", [], [b"414"], False),
        ("long head", [], [b"431"], False),
        ("trace", [b"/a"], [b"405", b"404"], True),
        ("1.0", [b"/"], [b"404"], False),
        ("1.0 kept", [b"/", b"/a"], [b"404"] * 2, True),
        ("control byte", [], [b"400"], False),
        ("empty lines only", [], [b"400"], False),
    ],
)
def test_what_comes_of_it(name: str, asked: list[bytes], statuses: list[bytes], kept: bool) -> None:
    seen, got, open_ = outcome(STREAMS[name])
    assert ([target for _, target in cast(Any, seen)], got, open_) == (asked, statuses, kept)


@given(st.binary(max_size=100))
@settings(max_examples=200)
def test_any_bytes_are_a_request_a_refusal_or_a_wait(noise: bytes) -> None:
    client = Client()
    client.feed(noise)
    assert client.worker.bugs == 0
    assert len(client.front._buffer) <= HEAD_LIMITS.head_bytes


def test_memory_is_bounded_while_a_head_does_not_end() -> None:
    client = Client()
    for _ in range(100):
        client.feed(b"GET / HTTP/1.1\r\nX: " if not client.front._buffer else b"v" * 50)
    assert client.outcome[1] == [b"431"]
    assert not client.front._buffer


def test_the_head_s_deadline_runs_from_its_first_byte_not_from_its_last() -> None:
    client = Client()
    client.feed(A)
    client.front.deadline = inf
    client.feed(A[:5])
    begun = client.front.deadline
    assert begun < inf
    client.front.deadline = begun - 1
    client.feed(A[5:9])
    assert client.front.deadline == begun - 1
    client.front.expire(begun)
    assert client.outcome[1] == [b"404", b"408"]


def test_an_idle_connection_that_is_late_ends_without_a_word() -> None:
    client = Client()
    client.feed(A)
    written = client.transport.written
    client.front.expire(client.front.deadline)
    assert client.transport.written == written
    assert client.transport.aborted


def test_connections_are_counted_in_all_and_for_each_address() -> None:
    client = Client(WorkerLimits(connections=3, connections_per_client=2))
    _, second = client.more()
    third_front, third = client.more()
    assert not second.aborted
    assert third.aborted
    assert client.worker.refused_connections == 1
    third_front.connection_lost(None)
    assert len(client.worker.fronts) == 2, "one that was refused was never counted"
    client.front.connection_lost(None)
    _, fourth = client.more()
    assert not fourth.aborted


def test_no_limit_for_each_address_when_it_is_zero() -> None:
    client = Client(WorkerLimits(connections=3, connections_per_client=0))
    assert [client.more()[1].aborted for _ in range(3)] == [False, False, True]
