"""Frames of HTTP/2 (RFC 9113 4 and 6): their heads, their fixed payloads, and what is wrong with them.

One rule: a frame that breaks the protocol raises, and the exception says whether its connection ends with it
(`ConnectionFault`) or only its stream (`StreamFault`), with the code and a word that counters go by.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16384  # the largest payload that we announce; no peer may announce less (RFC 9113 4.2)
LARGEST_FRAME = (1 << 24) - 1
LARGEST_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = 65535
LAST_STREAM = (1 << 31) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10  # RFC 9218 7.1
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

_HEAD = Struct(">IBI")
head = _HEAD.pack  # (length << 8 | type, flags, stream)
read_head = _HEAD.unpack_from


class Code(IntEnum):
    """Why a stream or a connection ends (RFC 9113 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """The settings that are known (RFC 9113 6.5.2, 8441 3, 9218 2.1)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    NO_RFC7540_PRIORITIES = 9


class Fault(Exception):
    """The other side broke the protocol, or asks too much. `reason` is a short word, the same for the same fault."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ConnectionFault(Fault):
    """The connection ends with a GOAWAY."""


class StreamFault(Fault):
    """Only the stream ends, with an RST_STREAM."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A complete frame: header and payload."""
    return head(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(
        SETTINGS, 0, 0, b"".join([b"%b%b" % (k.to_bytes(2, "big"), v.to_bytes(4, "big")) for k, v in values.items()])
    )


SETTINGS_ACK = frame(SETTINGS, ACK, 0, b"")


def goaway(last: int, code: int, why: bytes = b"") -> bytes:
    """A GOAWAY frame: no stream above `last` was or will be served."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + why)


def reset(stream: int, code: int) -> bytes:
    """An RST_STREAM frame."""
    return head(4 << 8 | RST_STREAM, 0, stream) + code.to_bytes(4, "big")


def window_update(stream: int, credit: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return head(4 << 8 | WINDOW_UPDATE, 0, stream) + credit.to_bytes(4, "big")


def field_frames(stream: int, block: bytes, ends_stream: bool, most: int = FRAME_BYTES) -> bytes:
    """A field block as one HEADERS frame, and CONTINUATION frames where it is longer than a frame may be."""
    flags = END_STREAM if ends_stream else 0
    if len(block) <= most:
        return head(len(block) << 8 | HEADERS, flags | END_HEADERS, stream) + block
    out = [frame(HEADERS, flags, stream, block[:most])]
    for at in range(most, len(block), most):
        last = END_HEADERS if at + most >= len(block) else 0
        out.append(frame(CONTINUATION, last, stream, block[at : at + most]))
    return b"".join(out)


# -- payloads that come --------------------------------------------------------------------------------------------


def without_padding(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding (RFC 9113 6.1)."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "padding")
    return payload[1 : len(payload) - payload[0]]


def field_block(flags: int, stream: int, payload: bytes) -> bytes:
    """The fragment of a field block in a HEADERS frame, without padding and the priority that nobody heeds."""
    block = without_padding(flags, payload)
    if flags & HAS_PRIORITY:
        if len(block) < 5:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "headers_size")
        depends_on_itself(stream, block)
        block = block[5:]
    return block


def depends_on_itself(stream: int, payload: bytes) -> None:
    """A stream cannot depend on itself (RFC 7540 5.3.1; deprecated, and still an error)."""
    if int.from_bytes(payload[:4], "big") & LAST_STREAM == stream:
        raise StreamFault(Code.PROTOCOL_ERROR, "priority_self")


def read_settings(flags: int, stream: int, payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) pairs of a SETTINGS frame, values of known ones checked (RFC 9113 6.5)."""
    if stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "settings_stream")
    if len(payload) % 6 or (flags & ACK and payload):
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "settings_size")
    pairs = []
    for at in range(0, len(payload), 6):
        key, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
        if key in (Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL, Setting.NO_RFC7540_PRIORITIES) and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "settings_value")
        if key == Setting.INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "settings_value")
        if key == Setting.MAX_FRAME_SIZE and not FRAME_BYTES <= value <= LARGEST_FRAME:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "settings_value")
        pairs.append((key, value))
    return pairs


def read_window_update(stream: int, payload: bytes) -> int:
    """The credit in a WINDOW_UPDATE frame (RFC 9113 6.9)."""
    if len(payload) != 4:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "window_size")
    credit = int.from_bytes(payload, "big") & LARGEST_WINDOW
    if not credit:
        raise (StreamFault if stream else ConnectionFault)(Code.PROTOCOL_ERROR, "window_zero")
    return credit


def check_ping(stream: int, payload: bytes) -> None:
    """A PING has 8 bytes and belongs to the connection (RFC 9113 6.7)."""
    if stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "ping_stream")
    if len(payload) != 8:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "ping_size")


def check_goaway(stream: int, payload: bytes) -> None:
    """A GOAWAY has 8 bytes at least and belongs to the connection (RFC 9113 6.8)."""
    if stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "goaway_stream")
    if len(payload) < 8:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "goaway_size")


def check_reset(stream: int, payload: bytes) -> None:
    """An RST_STREAM has 4 bytes and belongs to a stream (RFC 9113 6.4)."""
    if not stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "reset_stream")
    if len(payload) != 4:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "reset_size")


def check_priority(stream: int, payload: bytes) -> None:
    """A PRIORITY has 5 bytes and belongs to a stream (RFC 9113 6.3)."""
    if not stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "priority_stream")
    if len(payload) != 5:
        raise StreamFault(Code.FRAME_SIZE_ERROR, "priority_size")
    depends_on_itself(stream, payload)


def read_priority_update(stream: int, payload: bytes) -> tuple[int, bytes]:
    """(the stream, its priority field) of a PRIORITY_UPDATE frame (RFC 9218 7.1)."""
    if stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "priority_update_stream")
    if len(payload) < 4:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "priority_update_size")
    about = int.from_bytes(payload[:4], "big") & LAST_STREAM
    if not about:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "priority_update_stream")
    return about, payload[4:]
