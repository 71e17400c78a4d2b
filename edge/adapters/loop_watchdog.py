"""Which application holds up the loop: while one of them runs, nothing else in its worker does.

    the loop notes the time, 50 times a second ─► a thread sees that it has not for a while ─► takes the loop's stack
                                                  the loop goes on ─► tells whose it was, for how long, with the stack

One rule: only what an application's own code stands in is told. A machine that is short of time makes the loop late as
well, and that is nobody's fault.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import FrameType

LIMIT_S = 0.1
BEAT_S = 0.02
LOOK_S = 0.025
CATCH_S = 0.07  # the stack must be taken before the loop goes on
STACK_LINES = 30


@dataclass(frozen=True, slots=True)
class Culprit:
    """Whose code a stack stands in, and the line of it."""

    app: str
    request_id: str
    at: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """One time for which the loop did not turn."""

    culprit: Culprit
    seconds: float
    stack: str


Whose = Callable[[FrameType], Culprit | None]


class LoopWatchdog:
    """Watches the loop that `start` is called on. `whose` is asked on the thread, `told` called on the loop."""

    def __init__(self, whose: Whose, told: Callable[[Blocked], None]) -> None:
        self._whose = whose
        self._told = told
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._turned = 0.0  # when the loop turned last
        self._caught: tuple[float, Culprit, str] | None = None  # the turn before it, who, and the stack

    def start(self) -> None:
        """Start watching the loop."""
        self._loop = asyncio.get_running_loop()
        self._beat()
        self._thread = threading.Thread(target=self._look, args=(threading.get_ident(),), name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._thread is not None:
            self._thread.join(1.0)

    def _beat(self) -> None:
        assert self._loop is not None
        before, self._turned = self._turned, monotonic()
        caught, self._caught = self._caught, None
        self._timer = self._loop.call_later(BEAT_S, self._beat)
        seconds = self._turned - before
        if caught is None or caught[0] != before or seconds < LIMIT_S + BEAT_S / 2:
            return
        _, culprit, stack = caught
        self._told(Blocked(culprit, seconds, stack))

    def _look(self, loop_thread: int) -> None:
        """The thread's loop: note the stack of whoever has held the loop up for longer than CATCH_S."""
        while not self._over.wait(LOOK_S):
            turned = self._turned
            if self._caught is not None or monotonic() - turned < CATCH_S:
                continue
            frame = sys._current_frames().get(loop_thread)
            culprit = None if frame is None else self._whose(frame)
            if culprit is not None and frame is not None:
                stack = "".join(traceback.format_stack(frame, STACK_LINES))
                if self._turned == turned:
                    self._caught = (turned, culprit, stack)
