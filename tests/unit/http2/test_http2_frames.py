"""Frames against `hyperframe` and RFC 9113 4 and 6: what each reads, and the fault that each breach is.

One rule: each breach has the code that the RFC gives it, and ends what the RFC says it ends.
"""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from edge.http2 import frames as f
from edge.http2.frames import Code, ConnectionFault, Setting, StreamFault


def parsed(data: bytes) -> list[Frame]:
    """As the referee reads it."""
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


def test_what_we_write_is_read_by_the_referee() -> None:
    (frame,) = parsed(f.settings({Setting.MAX_CONCURRENT_STREAMS: 100, Setting.INITIAL_WINDOW_SIZE: 65535}))
    assert isinstance(frame, SettingsFrame)
    assert frame.settings == {3: 100, 4: 65535}
    (frame,) = parsed(f.goaway(7, Code.ENHANCE_YOUR_CALM, b"why"))
    assert isinstance(frame, GoAwayFrame)
    assert (frame.last_stream_id, frame.error_code, frame.additional_data) == (7, 11, b"why")
    (frame,) = parsed(f.reset(5, Code.CANCEL))
    assert isinstance(frame, RstStreamFrame)
    assert (frame.stream_id, frame.error_code) == (5, 8)
    (frame,) = parsed(f.window_update(0, 1000))
    assert isinstance(frame, WindowUpdateFrame)
    assert frame.window_increment == 1000
    (frame,) = parsed(f.SETTINGS_ACK)
    assert "ACK" in frame.flags


@given(st.binary(max_size=70_000), st.booleans())
def test_long_field_blocks_go_on_in_continuation(block: bytes, ends: bool) -> None:
    first, *rest = parsed(f.field_frames(3, block, ends))
    assert isinstance(first, HeadersFrame)
    assert ("END_STREAM" in first.flags) == ends
    assert all(isinstance(each, ContinuationFrame) for each in rest)
    assert b"".join([first.data, *(each.data for each in rest)]) == block
    assert ["END_HEADERS" in each.flags for each in (first, *rest)] == [False] * len(rest) + [True]


@given(st.binary(max_size=50), st.integers(0, 255), st.booleans())
def test_padding_and_priority(block: bytes, padding: int, priority: bool) -> None:
    frame = HeadersFrame(
        1,
        block,
        flags=["PADDED", "END_HEADERS", *(["PRIORITY"] if priority else [])],
        pad_length=padding,
        depends_on=3,
        stream_weight=5,
    )
    data = frame.serialize()
    assert f.field_block(data[4], 1, data[9:]) == block


CONNECTION, STREAM = ConnectionFault, StreamFault
BREACHES = [
    ("6.1 padding as long as the payload", lambda: f.without_padding(f.PADDED, b"\x02ab"[:2]), CONNECTION, 1),
    ("6.1 padding longer than the payload", lambda: f.without_padding(f.PADDED, b"\x09ab"), CONNECTION, 1),
    ("6.1 padding without a length", lambda: f.without_padding(f.PADDED, b""), CONNECTION, 1),
    ("6.2 priority cut", lambda: f.field_block(f.HAS_PRIORITY, 1, b"\0\0\0"), CONNECTION, 6),
    ("6.2 stream that depends on itself", lambda: f.field_block(f.HAS_PRIORITY, 1, b"\0\0\0\1\0ab"), STREAM, 1),
    ("6.3 priority of no stream", lambda: f.check_priority(0, b"\0" * 5), CONNECTION, 1),
    ("6.3 priority of four bytes", lambda: f.check_priority(1, b"\0" * 4), STREAM, 6),
    ("6.3 priority of six bytes", lambda: f.check_priority(1, b"\0" * 6), STREAM, 6),
    ("6.3 priority on itself", lambda: f.check_priority(3, b"\0\0\0\3\0"), STREAM, 1),
    ("6.4 reset of no stream", lambda: f.check_reset(0, b"\0" * 4), CONNECTION, 1),
    ("6.4 reset of three bytes", lambda: f.check_reset(1, b"\0" * 3), CONNECTION, 6),
    ("6.4 reset of five bytes", lambda: f.check_reset(1, b"\0" * 5), CONNECTION, 6),
    ("6.5 settings of a stream", lambda: f.read_settings(0, 1, b""), CONNECTION, 1),
    ("6.5 settings of five bytes", lambda: f.read_settings(0, 0, b"\0" * 5), CONNECTION, 6),
    ("6.5 acknowledgement with content", lambda: f.read_settings(f.ACK, 0, b"\0" * 6), CONNECTION, 6),
    ("6.5.2 push neither on nor off", lambda: f.read_settings(0, 0, b"\0\2\0\0\0\2"), CONNECTION, 1),
    ("6.5.2 window too large", lambda: f.read_settings(0, 0, b"\0\4\x80\0\0\0"), CONNECTION, 3),
    ("6.5.2 frames too small", lambda: f.read_settings(0, 0, b"\0\5\0\0\x3f\xff"), CONNECTION, 1),
    ("6.5.2 frames too large", lambda: f.read_settings(0, 0, b"\0\5\1\0\0\0"), CONNECTION, 1),
    ("8441 3 neither on nor off", lambda: f.read_settings(0, 0, b"\0\x08\0\0\0\2"), CONNECTION, 1),
    ("9218 2.1 neither on nor off", lambda: f.read_settings(0, 0, b"\0\x09\0\0\0\2"), CONNECTION, 1),
    ("6.7 ping of a stream", lambda: f.check_ping(1, b"\0" * 8), CONNECTION, 1),
    ("6.7 ping of seven bytes", lambda: f.check_ping(0, b"\0" * 7), CONNECTION, 6),
    ("6.7 ping of nine bytes", lambda: f.check_ping(0, b"\0" * 9), CONNECTION, 6),
    ("6.8 goaway of a stream", lambda: f.check_goaway(1, b"\0" * 8), CONNECTION, 1),
    ("6.8 goaway of seven bytes", lambda: f.check_goaway(0, b"\0" * 7), CONNECTION, 6),
    ("6.9 credit of nothing for the connection", lambda: f.read_window_update(0, b"\0" * 4), CONNECTION, 1),
    ("6.9 credit of nothing for a stream", lambda: f.read_window_update(1, b"\x80\0\0\0"), STREAM, 1),
    ("6.9 credit of three bytes", lambda: f.read_window_update(0, b"\0" * 3), CONNECTION, 6),
    ("6.9 credit of five bytes", lambda: f.read_window_update(1, b"\0" * 5), CONNECTION, 6),
    ("9218 7.1 of a stream", lambda: f.read_priority_update(1, b"\0\0\0\1u=1"), CONNECTION, 1),
    ("9218 7.1 for no stream", lambda: f.read_priority_update(0, b"\0\0\0\0u=1"), CONNECTION, 1),
    ("9218 7.1 cut", lambda: f.read_priority_update(0, b"\0\0\0"), CONNECTION, 6),
]


@pytest.mark.parametrize(("breach", "ends", "code"), [row[1:] for row in BREACHES], ids=[row[0] for row in BREACHES])
def test_breaches(breach, ends, code) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(f.Fault) as caught:
        breach()
    assert (type(caught.value), caught.value.code) == (ends, code)
    assert caught.value.reason


def test_sound_payloads() -> None:
    assert f.read_settings(0, 0, b"\0\4\0\0\xff\xff\0\x63\1\2\3\4") == [(4, 65535), (0x63, 0x01020304)]
    assert f.read_settings(f.ACK, 0, b"") == []
    assert f.read_window_update(1, b"\x80\0\0\1") == 1
    assert f.read_priority_update(0, b"\0\0\0\5u=2, i") == (5, b"u=2, i")
    assert f.without_padding(0, b"\x05abc") == b"\x05abc"
