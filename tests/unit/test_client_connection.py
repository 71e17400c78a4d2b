"""The client's connection against a fake transport: heads at any split, in order, and what can never become one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from math import inf
from typing import Any, cast

import pytest
from fakes import FakeTransport
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kit.builds import pure_only

from edge.adapters.logs import AccessLog
from edge.dataplane.client.connection import ClientConnection, State
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.route import NoRoute
from edge.dataplane.worker.worker import Worker
from edge.http.forwarding import Networks
from edge.http.grammar import Limits, RequestHeaders, request_block
from edge.http.memo import Memo

pytestmark = pure_only

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
        self.worker.router = cast(Any, self.recorder)
        self.turns: list[Any] = []
        self.worker.turns.later = self.turns.append  # type: ignore[method-assign]
        self.downstream, self.transport = self.more()

    def more(self) -> tuple[ClientConnection, FakeTransport]:
        """Another connection of the same address."""
        downstream, transport = ClientConnection(self.worker), FakeTransport()
        downstream.connection_made(cast(Any, transport))
        return downstream, transport

    def feed(self, *parts: bytes) -> None:
        for part in parts:
            if part and not self.transport.is_closing():
                self.downstream.data_received(part)
            while self.turns:
                self.turns.pop(0)()

    @property
    def outcome(self) -> tuple[list[tuple[bytes | None, bytes]], list[bytes], bool]:
        """What was asked, the status lines that came, and whether the connection goes on."""
        lines = [line for line in self.transport.written.split(b"\r\n") if b"HTTP/1.1 " in line]
        statuses = [line[line.index(b"HTTP/1.1 ") + 9 :][:3] for line in lines]
        return self.recorder.seen, statuses, self.downstream.state is State.OPEN and not self.transport.is_closing()


def outcome(*parts: bytes, blocks: Memo[RequestHeaders] | None = None) -> tuple[object, object, bool]:
    client = Client()
    client.worker.blocks = blocks or client.worker.blocks
    client.feed(*parts)
    return client.outcome


def remembering(streams: Iterable[bytes]) -> Memo[RequestHeaders]:
    """A memory of every block in them, also of those that begin at the wrong line."""
    memo = Memo(lambda raw: request_block(raw, HEAD_LIMITS))
    for stream in streams:
        for found in re.finditer(b"(?=\r\n)", stream):
            end = stream.find(b"\r\n\r\n", found.end())
            if end >= 0:
                block = stream[found.end() + 2 : end + 2]
                assert memo.slow(block) is not memo.slow(block) or memo.get(block)
    return memo


@pytest.mark.parametrize("name", STREAMS)
def test_heads_that_came_before_are_the_same_heads(name: str) -> None:
    stream, blocks = STREAMS[name], remembering(STREAMS.values())
    whole = outcome(stream)
    for at in range(len(stream)):
        assert outcome(stream[:at], stream[at:], blocks=blocks) == whole, at
        assert outcome(stream[:at], blocks=blocks) == outcome(stream[:at]), at


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
@example(["bare LF", "bare LF", "1.0"], [15], b"")
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
    assert len(client.downstream._buffer) <= HEAD_LIMITS.head_bytes


def test_memory_is_bounded_while_a_head_does_not_end() -> None:
    client = Client()
    for _ in range(100):
        client.feed(b"GET / HTTP/1.1\r\nX: " if not client.downstream._buffer else b"v" * 50)
    assert client.outcome[1] == [b"431"]
    assert not client.downstream._buffer


def test_the_head_s_deadline_runs_from_its_first_byte_not_from_its_last() -> None:
    client = Client()
    client.feed(A)
    client.downstream.deadline = inf
    client.feed(A[:5])
    begun = client.downstream.deadline
    assert begun < inf
    client.downstream.deadline = begun - 1
    client.feed(A[5:9])
    assert client.downstream.deadline == begun - 1
    client.downstream.expire(begun)
    assert client.outcome[1] == [b"404", b"408"]


def test_an_idle_connection_that_is_late_ends_without_a_word() -> None:
    client = Client()
    client.feed(A)
    written = client.transport.written
    client.downstream.expire(client.downstream.deadline)
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
    assert len(client.worker.downstreams) == 2, "one that was refused was never counted"
    client.downstream.connection_lost(None)
    _, fourth = client.more()
    assert not fourth.aborted


def test_no_limit_for_each_address_when_it_is_zero() -> None:
    client = Client(WorkerLimits(connections=3, connections_per_client=0))
    assert [client.more()[1].aborted for _ in range(3)] == [False, False, True]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_pipelined_heads_are_served_a_few_in_each_turn() -> None:
    client = Client()
    client.downstream.data_received(A * 100)
    turns = 0
    while client.turns:
        assert not client.transport.reading, "what is here comes first"
        before = len(client.recorder.seen)
        client.turns.pop(0)()
        turns += 1
        assert 0 < len(client.recorder.seen) - before <= 16
    assert len(client.recorder.seen) == 100
    assert turns >= 6
    assert client.transport.reading


def test_who_takes_no_answers_gets_no_further_ones_and_nothing_more_is_read() -> None:
    client = Client()
    client.downstream.data_received(A)
    client.downstream.pause_writing()
    assert not client.transport.reading
    written = client.transport.written
    for _ in range(3):
        client.downstream.data_received(A)
        client.feed(b"")
    assert client.transport.written == written
    client.downstream.resume_writing()
    client.feed(b"")
    assert len(client.recorder.seen) == 4
    assert client.transport.reading


class Unsent(FakeTransport):
    """A transport of whose bytes some are still unsent."""

    left = 0

    def get_write_buffer_size(self) -> int:
        return self.left


def unsent(limits: WorkerLimits | None = None) -> tuple[Client, Unsent]:
    client, transport = Client(limits), Unsent()
    client.downstream.transport = cast(Any, transport)
    client.transport = transport
    return client, transport


def test_a_slow_client_has_the_write_timeout_from_its_last_progress_and_is_then_cut_by_a_reset() -> None:
    client, transport = unsent(WorkerLimits(write_timeout=10))
    transport.left = 1000
    client.downstream.pause_writing()
    client.downstream.look(0.0)
    for now in range(9, 90, 9):
        transport.left -= 1
        client.downstream.look(float(now))
        assert not transport.aborted
    client.downstream.look(81.0 + 9.9)
    assert not transport.aborted
    client.downstream.look(81.0 + 10.1)
    assert transport.aborted


@pytest.mark.parametrize("stalled", [False, True])
def test_a_lingering_close_waits_for_what_is_unsent(stalled: bool) -> None:
    client, transport = unsent(WorkerLimits(write_timeout=10))
    transport.left = 1000
    client.feed(b"GET /c HTTP/1.0\r\nHost: c\r\n\r\n")
    assert client.downstream.state is State.LINGER
    start = client.worker.idle_deadline
    now = start
    for _ in range(9):
        now += 9.0
        transport.left -= 0 if stalled else 1
        client.downstream.look(now)
    assert transport.aborted is stalled
    transport.left = 0
    client.downstream.look(now + 1)
    assert transport.aborted is stalled
    client.downstream.look(now + 4)
    assert transport.aborted


def test_a_client_that_was_still_sending_may_go_on_within_bounds() -> None:
    client, transport = unsent()
    client.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
    assert client.downstream.state is State.LINGER
    assert client.downstream.leaving is not None
    now = client.worker.idle_deadline
    client.downstream.look(now)
    for second in range(1, 29):
        client.downstream.leaving.heard(1000, now + second)
        client.downstream.look(now + second)
        assert not transport.aborted
    client.downstream.leaving.heard(1000, now + 31)
    client.downstream.look(now + 31)
    assert transport.aborted, "not for ever"


def test_what_is_read_away_is_bounded_in_bytes() -> None:
    client, transport = unsent()
    client.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n")
    assert client.downstream.leaving is not None
    client.downstream.leaving.heard(64 * 1024 * 1024, 0.0)
    assert transport.reading
    client.downstream.leaving.heard(1, 0.0)
    assert not transport.reading


def test_idle_time_begins_anew_when_a_paused_answer_is_out() -> None:
    client, _ = unsent()
    client.feed(A)
    client.downstream.pause_writing()
    client.downstream.expire(client.downstream.deadline)
    client.downstream.resume_writing()
    assert client.downstream.deadline == client.worker.idle_deadline
    client.downstream.expire(client.downstream.deadline)
    assert client.transport.aborted


def test_a_connection_with_unsent_bytes_is_slow_rather_than_idle() -> None:
    client, transport = unsent()
    client.feed(A)
    transport.left = 500
    client.downstream.expire(client.downstream.deadline)
    assert not transport.aborted
    transport.left = 0
    client.downstream.look(1.0)
    assert client.downstream.deadline == client.worker.idle_deadline
    assert client.downstream not in client.worker.slow


@pytest.mark.parametrize(
    ("peername", "peer"), [(("192.0.2.9", 4711), "192.0.2.9"), ("", "unix"), ("/run/client", "unix"), (None, "")]
)
def test_who_is_at_the_other_end(peername: object, peer: str) -> None:
    """A connection that was reset before it was accepted is nobody's: not one that came by a Unix socket."""
    worker = Worker(WorkerLimits(), HEAD_LIMITS, AccessLog("off"), Networks(["unix"]))
    connection, transport = ClientConnection(worker), FakeTransport()
    transport.get_extra_info = lambda name: peername if name == "peername" else None  # type: ignore[method-assign]
    connection.connection_made(cast(Any, transport))
    assert (connection.peer, transport.aborted) == (peer, peer == "")
    assert connection.trusted is (peer == "unix")
    assert len(worker.downstreams) == (peer != "")
