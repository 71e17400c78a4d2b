"""What one client connection may ask of us, and the credits that bound what costs us and not its sender.

    resets      what the client cancels, or makes us cancel: a bucket that fills again with time
    control     SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA, …: earned by streams, by DATA that is sent, by time

One rule: who has no credit left is told to calm down, and the connection ends (RFC 9113 10.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge.http2.frames import Code, ConnectionFault


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """Limits of HTTP/2 connections; bytes, counts, and counts a second."""

    streams: int = 100  # at the same time
    requests: int = 10_000  # of one connection, then it is asked to go
    resets: int = 200  # at once, and
    resets_per_second: float = 20.0
    control_frames: int = 200  # at once, and more as they are earned
    continuations: int = 8
    window: int = 64 * 1024  # what one stream may send ahead
    connection_window: int = 1024 * 1024  # and all of them together
    header_table: int = 4096


PER_STREAM, PER_DATA, PER_S = 2, 10, 10.0  # control frames that are earned
MOST_EARNED = 10  # times `control_frames` is what may be saved up


class Resets:
    """How many streams may still be reset."""

    __slots__ = ("_at", "_left", "_limits")

    def __init__(self, limits: Http2Limits, now: float) -> None:
        self._limits = limits
        self._left = float(limits.resets)
        self._at = now

    def spend(self, now: float) -> None:
        """One stream was reset. Raises ConnectionFault."""
        limits = self._limits
        self._left = min(float(limits.resets), self._left + (now - self._at) * limits.resets_per_second) - 1
        self._at = now
        if self._left < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "flood_resets")


class Control:
    """How many control frames may still come. What is earned is worked out when there is nothing left."""

    __slots__ = ("_at", "_clock", "_earned", "_left", "_most", "earned")

    def __init__(self, limits: Http2Limits, clock: Callable[[], float], earned: Callable[[], int]) -> None:
        self._left = limits.control_frames
        self._most = limits.control_frames * MOST_EARNED
        self._clock = clock
        self._at = clock()
        self.earned = earned  # by streams and DATA since the beginning
        self._earned = 0

    def spend(self, what: str) -> None:
        """One such frame came. Raises ConnectionFault."""
        self._left -= 1
        if self._left < 0:
            self._fill(what)

    def _fill(self, what: str) -> None:
        now, earned = self._clock(), self.earned()
        self._left += min(self._most, earned - self._earned + int((now - self._at) * PER_S))
        self._at, self._earned = now, earned
        if self._left < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"flood_{what}")
