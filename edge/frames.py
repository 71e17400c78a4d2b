"""The frames that supervisor and worker send each other: what they are and how they are bytes. No IO here.

A frame is four bytes of length (big-endian), then JSON: `[kind, id, body]`. `id` is 0 for a frame that wants no answer;
an ACK carries the id of what it answers. One rule: a frame is taken whole or not at all, and nothing over
`MAX_FRAME_BYTES` is ever buffered; a peer that breaks either is not talked to any more (`FrameError`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from edge.errors import EdgeError

MAX_FRAME_BYTES = 16 * 1024 * 1024
_LENGTH = 4


class Kind(Enum):
    """Every frame there is. Down: supervisor to worker. Up: worker to supervisor."""

    # down
    CONFIG = "config"  # text, filename, worker: the first frame of a worker's life
    VIEW = "view"  # which regions and backends serve, in what order
    MEMBERS = "members"  # run-time backends and regions, administrative states
    PURGE = "purge"
    ASK = "ask"  # what: explain | connections | pools
    WARM = "warm"  # urls; answered by PROGRESS frames and one ACK
    DRAIN = "drain"  # grace_s
    REOPEN = "reopen"  # the log
    # up
    READY = "ready"  # pid, addresses: every listener accepts
    COUNTS = "counts"  # what was counted since the last one
    REPORT = "report"  # ejections by live traffic
    EVENT = "event"
    RECOVERY = "recovery"  # the sidecar's report
    INVALIDATED = "invalidated"  # by an unsafe request (RFC 9111 4.4): for the other workers
    PROGRESS = "progress"
    ACK = "ack"  # ok, and the answer or an error


class FrameError(EdgeError):
    """The peer sent what is no frame, or more than fits."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `body` holds plain JSON values."""

    kind: Kind
    body: dict[str, Any] = field(default_factory=dict)
    id: int = 0


def ack(question: Frame, answer: dict[str, Any] | None = None, error: str | None = None) -> Frame:
    """The answer to a frame: what it found or did, or one clear line of why not."""
    body: dict[str, Any] = {"ok": error is None, "answer": answer or {}}
    if error is not None:
        body["error"] = error
    return Frame(Kind.ACK, body, question.id)


def encode(frame: Frame) -> bytes:
    """A frame as bytes. Raises FrameError when it is too large; a body that is not JSON is a bug (TypeError)."""
    data = orjson.dumps([frame.kind.value, frame.id, frame.body], option=orjson.OPT_NON_STR_KEYS)
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"frame of {len(data)} bytes")
    return len(data).to_bytes(_LENGTH, "big") + data


class Decoder:
    """Bytes in as they come, whole frames out."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises FrameError; nothing may be fed after that."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        while len(buffer) >= _LENGTH:
            size = int.from_bytes(buffer[:_LENGTH], "big")
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"frame of {size} bytes announced")
            if len(buffer) < _LENGTH + size:
                break
            frames.append(_decoded(bytes(buffer[_LENGTH : _LENGTH + size])))
            del buffer[: _LENGTH + size]
        return frames


def _decoded(data: bytes) -> Frame:
    try:
        kind, number, body = orjson.loads(data)
        if not isinstance(number, int) or not isinstance(body, dict):
            raise ValueError("id or body of another type")
        return Frame(Kind(kind), body, number)
    except ValueError as error:  # orjson.JSONDecodeError, a wrong count, an unknown kind
        raise FrameError(f"not a frame: {error}") from None
