"""What all HTTP/2 connections of a worker share: the memories of blocks and heads, limits, and counters by reason.

One rule: reasons are words of ours, so that there are few of them whatever clients send.
"""

from __future__ import annotations

from collections import Counter

from edge.http.grammar import Limits
from edge.http.utf8 import percent_encoded
from edge.http2.frames import DEFAULT_WINDOW as THEIR_WINDOW
from edge.http2.frames import FRAME_BYTES, Setting, settings, window_update
from edge.http2.hpack import ListLimits
from edge.http2.limits import Http2Limits
from edge.http2.requests import RequestReader
from edge.http2.response_fields import HeadCoder


class Http2:
    """The limits, memories and counters that the HTTP/2 connections of one worker share."""

    __slots__ = (
        "coder",
        "connection_errors",
        "connections",
        "greeting",
        "limits",
        "reader",
        "refused",
        "stream_errors",
        "streams",
    )

    def __init__(self, limits: Http2Limits, head: Limits) -> None:
        self.limits = limits
        lists = ListLimits(head.fields, head.head_bytes, limits.header_table)
        self.reader = RequestReader(lists, mend=percent_encoded if head.utf8_targets else None)
        self.coder = HeadCoder()
        self.connections = 0  # accepted since the start
        self.streams = 0  # requests since the start
        self.refused = 0  # streams beyond the limit
        self.connection_errors: Counter[str] = Counter()
        self.stream_errors: Counter[str] = Counter()
        self.greeting = settings(
            {
                Setting.HEADER_TABLE_SIZE: limits.header_table,
                Setting.MAX_CONCURRENT_STREAMS: limits.streams,
                Setting.INITIAL_WINDOW_SIZE: limits.window,
                Setting.MAX_FRAME_SIZE: FRAME_BYTES,
                Setting.MAX_HEADER_LIST_SIZE: head.head_bytes,
                Setting.ENABLE_CONNECT_PROTOCOL: 1,
                Setting.NO_RFC7540_PRIORITIES: 1,
            }
        )
        if limits.connection_window > THEIR_WINDOW:
            self.greeting += window_update(0, limits.connection_window - THEIR_WINDOW)

    def again(self, limits: Http2Limits, head: Limits) -> Http2:
        """What connections to come share under other limits; those that there are go on with theirs."""
        found = Http2(limits, head)
        found.coder = self.coder
        found.connections, found.streams, found.refused = self.connections, self.streams, self.refused
        found.connection_errors, found.stream_errors = self.connection_errors, self.stream_errors
        return found
