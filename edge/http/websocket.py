"""Where the frames of a WebSocket begin and end (RFC 6455 5.2), and the Close frame of a gateway that goes away.

One rule: nothing is changed or judged; a gateway may only say its own word between two frames.
"""

from __future__ import annotations

GOING_AWAY = b"\x03\xe9"  # 1001
CLOSE_TO_CLIENT = b"\x88\x02" + GOING_AWAY
CLOSE_TO_SERVER = b"\x88\x82\x00\x00\x00\x00" + GOING_AWAY  # a mask of zeros masks nothing, and is one


class Frames:
    """Follows one direction of a connection from its first byte."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""  # of a frame whose length is not known yet
        self._left = 0  # bytes until its end

    @property
    def between(self) -> bool:
        """Whether a frame has ended and none has begun."""
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        """Follow the frames in bytes that are passed on."""
        self._follow(data, stop=False)

    def rest(self, data: bytes) -> int:
        """How many of these bytes belong to the frame that has begun; all of them when it goes on."""
        return self._follow(data, stop=True)

    def _follow(self, data: bytes, stop: bool) -> int:
        at, end = 0, len(data)
        while True:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
            if at == end or (stop and self.between):
                return at
            head = self._head + data[at : at + 14]
            size = _head_size(head)
            if size is None or len(head) < size:
                self._head = head
                return end
            at += size - len(self._head)
            self._head = b""
            self._left = _payload(head)


def _head_size(head: bytes) -> int | None:
    """Bytes of a frame's head, its mask included; None while that cannot be told."""
    if len(head) < 2:
        return None
    mask = 4 if head[1] & 0x80 else 0
    return 2 + mask + {126: 2, 127: 8}.get(head[1] & 0x7F, 0)


def _payload(head: bytes) -> int:
    short = head[1] & 0x7F
    if short < 126:
        return short
    return int.from_bytes(head[2:4] if short == 126 else head[2:10], "big")
