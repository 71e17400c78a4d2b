"""Whom the bound of unread memory ends, and what is counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from kit.builds import pure_only

from edge.dataplane.client.http2_stream import HIGH, TOGETHER, Stream
from edge.dataplane.worker.unread import Unread
from edge.http2.limits import Http2Limits
from edge.http2.output import STREAM_BYTES, Output, SendingStream


class Held:
    """A connection that holds so many bytes, and fewer where memory is counted once."""

    def __init__(self, bytes_: int, closely: int | None = None) -> None:
        self.bytes, self.closely = bytes_, bytes_ if closely is None else closely

    def held(self, seen: set[int] | None) -> int:
        return self.bytes if seen is None else self.closely


def one_round(unread: Unread[Held], connections: list[Held], most: int) -> list[Held]:
    for each in connections:
        unread.count(each)
    return unread.excess(most)


def test_those_that_hold_most_end_until_the_rest_is_within_the_bound() -> None:
    unread: Unread[Held] = Unread()
    connections = [Held(10), Held(50), Held(30), Held(20)]
    assert one_round(unread, connections, 40) == [], "the first round counts promises, too"
    assert one_round(unread, connections, 40) == [connections[1], connections[2]]
    assert one_round(unread, [connections[0], connections[3]], 40) == []


def test_what_is_held_once_ends_nobody() -> None:
    unread: Unread[Held] = Unread()
    connections = [Held(50, 1), Held(50, 1)]
    assert [one_round(unread, connections, 40) for _ in range(6)] == [[]] * 6


def test_a_round_forgets_the_one_before() -> None:
    unread: Unread[Held] = Unread()
    assert [one_round(unread, [Held(30)], 40) for _ in range(6)] == [[]] * 6


def test_zero_is_no_bound() -> None:
    unread: Unread[Held] = Unread()
    assert [one_round(unread, [Held(30)], 0) for _ in range(3)] == [[]] * 3


def test_a_piece_of_memory_is_counted_once_over_all_streams_and_connections() -> None:
    shared, own = bytes(5000), bytes(300)
    outputs, seen = [Output(), Output()], set[int]()
    streams = [[SendingStream(1, 0), SendingStream(3, 0), SendingStream(5, 0)] for _ in outputs]
    for output, some in zip(outputs, streams, strict=True):
        output.send(some[0], (shared,), True)
        output.send(some[1], (shared,), True)
    outputs[1].send(streams[1][2], (own,), True)
    assert [o.held(s, None) for o, s in zip(outputs, streams, strict=True)] == [
        10_000 + 3 * STREAM_BYTES,
        10_300 + 3 * STREAM_BYTES,
    ]
    assert [o.held(s, seen) for o, s in zip(outputs, streams, strict=True)] == [
        5000 + 2 * STREAM_BYTES,
        300 + 3 * STREAM_BYTES,
    ]


@pure_only
def test_streams_that_hold_much_together_are_held_back_with_little_of_their_own() -> None:
    output, slow = Output(), list[object]()
    connection = SimpleNamespace(
        output=output,
        worker=SimpleNamespace(slow=SimpleNamespace(add=slow.append)),
        scheme=b"http",
        shared=SimpleNamespace(limits=Http2Limits()),
        soon=lambda: None,
    )
    output.set_initial(0, ())
    streams = [Stream(cast(Any, connection), number, False, None) for number in range(1, 201, 2)]
    for stream in streams:
        stream.body((bytes(HIGH // 4),), False)
    together = TOGETHER // (HIGH // 4)
    assert [stream.paused for stream in streams] == [False] * together + [True] * (len(streams) - together)
    output.set_initial(HIGH, streams)
    while output.queued:
        output.pump()
        for stream in output.done:
            cast(Stream, stream).moved()
        output.done.clear()
        output.window = HIGH
    assert not any(stream.paused for stream in streams)
