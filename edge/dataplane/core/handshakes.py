"""The TLS handshakes of a worker: how many may run, for whom, and how they ended.

One rule: a bound holds before a handshake is paid for, and never shuts everybody out: one address has a share, and
when all places are taken, whoever has held one longest goes.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol


class RunningHandshake(Protocol):
    """What is counted of a handshake."""

    trusted: bool

    @property
    def peer(self) -> str: ...
    def end(self, why: str) -> None: ...


class Handshakes:
    """`results` and `versions` are words of ours, so that there are few of them whatever clients send."""

    __slots__ = ("_clients", "_running", "results", "versions")

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self._running: dict[RunningHandshake, None] = {}  # the oldest first
        self._clients: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._running)

    def admit(self, one: RunningHandshake, most: int, of_a_client: int) -> bool:
        """Whether a handshake may begin. `most` in all, `of_a_client` for one address (0: no limit of its own; trusted
        proxies are exempt).
        """
        if not one.trusted and 0 < of_a_client <= self._clients.get(one.peer, 0):
            return False
        if len(self._running) >= most:
            next(iter(self._running)).end("displaced")
        self._running[one] = None
        self._clients[one.peer] = self._clients.get(one.peer, 0) + 1  # who made room may have been of this client
        return True

    def done(self, one: RunningHandshake, resumed: bool, version: str) -> None:
        """The handshake succeeded."""
        self.forget(one)
        self.results["resumed" if resumed else "full"] += 1
        self.versions[version] += 1

    def forget(self, one: RunningHandshake) -> None:
        """The handshake is over, in whatever way."""
        if one in self._running:
            del self._running[one]
            left = self._clients[one.peer] - 1
            if left:
                self._clients[one.peer] = left
            else:
                del self._clients[one.peer]
