"""The place of a worker: who holds it now, and where its life stands.

One rule: `index` tells workers apart that live at one time, `place` is which of the sockets is its own; a worker that
takes over from another has that one's place and an index of its own.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from edge.control.link import Link
from edge.frames import Frame


class State(Enum):
    """The state of a worker's process."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Child(Protocol):
    """A started worker: a process, or an object inside this one in tests."""

    pid: int
    link: Link

    async def wait(self) -> int:
        """Wait for its end; the exit code."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. Does nothing when it has ended."""

    def hand(self, sockets: Sequence[socket.socket]) -> None:
        """Pass listening sockets, which the next frame names. Raises OSError when it has ended."""


@dataclass(slots=True)
class Hooks:
    """Calls into the supervisor. `first` gives a new worker's first frame and the sockets that it names."""

    first: Callable[[Slot], tuple[Frame, Sequence[socket.socket]]]
    frame: Callable[[int, Frame], None]
    event: Callable[[str, dict[str, Any]], None]
    gone: Callable[[int], None] = lambda index: None


@dataclass(slots=True)
class Slot:
    """One of the N places, and who holds it now."""

    index: int
    place: int
    child: Child | None = None
    state: State = State.GONE
    started_at: float = 0.0
    restarts: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)  # of the child that holds it now
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    code: str = ""  # which code of applications it runs (`applications`)
    trial: bool = False  # it takes over only if it starts at once
    joining: bool = False  # others serve meanwhile
    retired: bool = False  # it drains, and nobody follows
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # it is ready, or has ended
    last_words: str = ""  # why it could not start
