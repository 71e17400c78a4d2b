"""The frames that supervisor and worker send each other: what they are and how they are bytes. No IO here.

A frame is JSON, `[kind, id, body]`, in one part or several: each is four bytes of length (big-endian, the top bit set
where another part follows), then that much of it. `id` is 0 for a frame that wants no answer; an ACK carries the id of
what it answers. One rule: a frame is taken whole or not at all, and nothing over `MAX_FRAME_BYTES` is ever buffered; a
peer that breaks either is not talked to any more (`FrameError`).
"""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from edge.errors import EdgeError

PART_BYTES = 4 * 1024 * 1024
MAX_FRAME_BYTES = 256 * 1024 * 1024  # the first frame of a worker's life carries the whole purge log
_MORE = 1 << 31
_LENGTH = 4


class FrameKind(Enum):
    """Every frame there is. Down: supervisor to worker. Up: worker to supervisor."""

    # down
    CONFIG = "config"  # text, filename, worker: the first frame of a worker's life
    VIEW = "view"  # which regions and backends serve, in what order
    MEMBERS = "members"  # run-time backends and regions, administrative states
    PURGE = "purge"
    FLEET = "fleet"  # where the machine stands in its fleet; load: what the purge stream holds
    ASK = "ask"  # what: explain | connections | pools
    WARM = "warm"  # urls; answered by PROGRESS frames and one ACK
    DRAIN = "drain"  # grace_s; answered when nobody is let in any more
    REOPEN = "reopen"  # the log
    PREPARE = "prepare"  # number, config, listeners: build the next graph aside
    COMMIT = "commit"  # number, members, view: serve by it; answered when the listeners are as it says
    ABANDON = "abandon"  # what was prepared
    CHALLENGES = "challenges"  # tokens: what is answered to a server of certificates that asks (ACME)
    RENEWED = "renewed"  # certificates: read the listeners' files again
    # up
    READY = "ready"  # pid, addresses: every listener accepts
    COUNTS = "counts"  # what was counted since the last one
    REPORT = "report"  # ejections by live traffic
    LIMITS = "limits"  # what rate limits counted, where they are the whole fleet's
    EVENT = "event"
    RECOVERY = "recovery"  # the sidecar's report
    CERTIFICATES = "certificates"  # rows: how the names stand that the issuer sees to
    INVALIDATED = "invalidated"  # for the other workers; where it is answered, they have done it
    PROGRESS = "progress"
    ACK = "ack"  # ok, and the answer or an error


class FrameError(EdgeError):
    """The peer sent what is no frame, or more than fits."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `body` holds plain JSON values."""

    kind: FrameKind
    body: dict[str, Any] = field(default_factory=dict)
    id: int = 0


def ack(question: Frame, answer: dict[str, Any] | None = None, error: str | None = None) -> Frame:
    """The answer to a frame: what it found or did, or one clear line of why not."""
    body: dict[str, Any] = {"ok": error is None, "answer": answer or {}}
    if error is not None:
        body["error"] = error
    return Frame(FrameKind.ACK, body, question.id)


def packed(numbers: array[int]) -> str:
    """Very many numbers of 64 bits as one value of a frame, which is then quickly written."""
    return b64encode(numbers).decode()


def unpacked(text: str) -> array[int]:
    """The inverse of `packed`."""
    return array("q", b64decode(text))


def encode(frame: Frame) -> bytes:
    """A frame as bytes. Raises FrameError when it is too large; a body that is not JSON is a bug (TypeError)."""
    data = orjson.dumps([frame.kind.value, frame.id, frame.body], option=orjson.OPT_NON_STR_KEYS)
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"frame of {len(data)} bytes")
    if len(data) <= PART_BYTES:
        return len(data).to_bytes(_LENGTH, "big") + data
    parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
    last = len(parts) - 1
    return b"".join(
        (len(part) | (_MORE if at < last else 0)).to_bytes(_LENGTH, "big") + part for at, part in enumerate(parts)
    )


class Decoder:
    """Bytes in as they come, whole frames out."""

    __slots__ = ("_buffer", "_parts")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._parts = bytearray()  # of a frame that is not whole

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises FrameError; nothing may be fed after that."""
        buffer, parts = self._buffer, self._parts
        buffer += data
        frames: list[Frame] = []
        while len(buffer) >= _LENGTH:
            size = int.from_bytes(buffer[:_LENGTH], "big")
            more, size = bool(size & _MORE), size & ~_MORE
            if size > PART_BYTES or len(parts) + size > MAX_FRAME_BYTES:
                raise FrameError(f"frame of {len(parts) + size} bytes announced")
            if len(buffer) < _LENGTH + size:
                break
            parts += buffer[_LENGTH : _LENGTH + size]
            del buffer[: _LENGTH + size]
            if not more:
                frames.append(_decoded(bytes(parts)))
                parts.clear()
        return frames


def _decoded(data: bytes) -> Frame:
    try:
        kind, number, body = orjson.loads(data)
        if not isinstance(number, int) or not isinstance(body, dict):
            raise ValueError("id or body of another type")
        return Frame(FrameKind(kind), body, number)
    except ValueError as error:  # orjson.JSONDecodeError, a wrong count, an unknown kind
        raise FrameError(f"not a frame: {error}") from None
