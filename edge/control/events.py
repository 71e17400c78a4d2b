"""What happened lately, for people and for `GET /v1/events`: a ring of events and whoever listens to new ones.

One rule: an event never waits for a listener. A listener that is too slow loses its oldest events and is told how many.
Events are for people; what must not be lost stands in the journal.
Ids go up over restarts too (they begin with the milliseconds of the start), so that a listener that comes back after
one is told what it has missed and not kept waiting for numbers that were given before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

KEPT = 1000
LISTENERS_MAX = 64
LONGEST = 2000  # characters of one fact


class Events:
    """The ring of recent events, and its listeners. `clock` gives epoch seconds."""

    def __init__(self, clock: Callable[[], float], echo: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.recent: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._clock = clock
        self._echo = echo
        self._count = self._first = int(clock() * 1000)
        self.counts: dict[str, int] = {}  # by kind, which the code bounds
        self._listeners: set[Listener] = set()
        self.closed = False

    def add(self, kind: str, facts: dict[str, Any] | None = None) -> None:
        """Add an event and pass it to the listeners."""
        self._count += 1
        self.counts[kind] = self.counts.get(kind, 0) + 1
        event = {**_clipped(facts or {}), "id": self._count, "time": self._clock(), "kind": kind}
        self.recent.append(event)
        if self._echo is not None:
            self._echo(event)
        for listener in self._listeners:
            listener.offer(event)

    @property
    def full(self) -> bool:
        """Whether no more listeners are accepted."""
        return len(self._listeners) >= LISTENERS_MAX

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def listen(self, after: int = 0) -> Listener:
        """The kept events after an id, then new ones as they come. The caller must `leave`."""
        listener = Listener(self)
        if after > self._count:
            after = 0  # of a clock that was set back: all there is, rather than silence
        elif after and self.recent and after < self.recent[0]["id"] - 1:
            listener.missed(self.recent[0]["id"] - after - 1 if after > self._first else None)
        for event in self.recent:
            if event["id"] > after:
                listener.offer(event)
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Stop a listener."""
        self._listeners.discard(listener)

    def close(self) -> None:
        """The gateway stops: end all listeners."""
        self.closed = True
        for listener in self._listeners:
            listener.wake()


class Listener:
    """One listener's queue of events."""

    def __init__(self, events: Events) -> None:
        self._all = events
        self._events: deque[dict[str, Any]] = deque()
        self._lost: int | None = 0  # None: some, nobody knows how many
        self._news = asyncio.Event()

    def missed(self, count: int | None) -> None:
        """Note that events before the first one are no longer kept."""
        self._lost = count

    def offer(self, event: dict[str, Any]) -> None:
        """Queue a new event; when the queue is full the oldest unread one is dropped."""
        if len(self._events) >= KEPT:
            self._events.popleft()
            self._lost = None if self._lost is None else self._lost + 1
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Let `next` look at the queue again."""
        self._news.set()

    async def next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next event; None when none came in time or the gateway stops."""
        if not self._events and not self._all.closed:
            self._news.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return None
        if not self._events:
            return None
        event = self._events.popleft()
        if self._lost != 0:
            event, self._lost = {**event, "lost": self._lost}, 0
        return event

    def leave(self) -> None:
        """Stop listening."""
        self._all.leave(self)


def _clipped(facts: dict[str, Any]) -> dict[str, Any]:
    """The same with no text longer than LONGEST: what is kept stays bounded, whoever a text came from."""
    return {
        name: f"{value[:LONGEST]}…" if isinstance(value, str) and len(value) > LONGEST else value
        for name, value in facts.items()
    }
