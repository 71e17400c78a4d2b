"""What one worker knows of the fleet's stream, and what of a shared value that leaves.

One rule: a value is used only while the machine is in step with the stream, only if it is of the same line, and only
if no purge after its position names it. A line is a history as one process of the server has it: after a failover
values of the process before count up to the position that both had. What this machine invalidated itself is not asked
of others until the stream has it for certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.cache.fleet.record import SharedEntry, line_of, shifted
from edge.cache.purge import Purge, PurgeKind, PurgeLog, base_of
from edge.cache.stored import Stored

OWN_S = 5.0  # by then an invalidation of our own is in the stream, or the machine is not in step
MAX_OWN = 8192


@dataclass(frozen=True, slots=True)
class StreamPurge:
    """A purge of the stream under every key that it has here."""

    position: int
    purges: Sequence[Purge]
    at: float


class FleetView:
    """The stream as one worker knows it. `now` is monotonic: a clock that jumps would forget what was made invalid."""

    __slots__ = ("_log", "_own", "_own_all_until", "before", "certified", "in_step", "line", "offset_s", "position")

    def __init__(self) -> None:
        self.in_step = False
        self.line = self.before = b""
        self.certified = 0
        self.position = 0
        self.offset_s = 0.0  # the server's clock less ours
        self._log = PurgeLog()
        self._own: dict[tuple[PurgeKind, bytes], float] = {}
        self._own_all_until = 0.0

    def stands(self, in_step: bool, history: str, run: str, before: str, certified: int) -> None:
        """Where the machine stands: in step or not; the server's process, the one before, and what both had."""
        self.in_step = in_step
        self.line, self.before, self.certified = line_of(history, run), line_of(history, before), certified

    def load(self, whole: int, position: int, purges: Iterable[StreamPurge]) -> None:
        """Begin with what the stream holds: all purges after `whole`, up to `position`."""
        self.position = position
        self._log = PurgeLog()
        self._log.floor = whole << 32
        for each in purges:
            self._log.record_at(each.purges, each.at, each.position)
        self._log.seq = max(self._log.seq, position << 32)

    def record(self, each: StreamPurge) -> None:
        """The next purge of the stream was carried out here."""
        if each.position > self.position:
            self.position = each.position
            self._log.record_at(each.purges, each.at, each.position)

    def invalidated(self, purge: Purge, now: float) -> None:
        """This machine made something invalid that the stream does not have yet."""
        if len(self._own) >= MAX_OWN:
            self._own = {target: until for target, until in self._own.items() if until > now}
        if purge.kind not in (PurgeKind.URL, PurgeKind.TAG) or len(self._own) >= MAX_OWN:
            self._own_all_until = now + OWN_S
            return
        self._own[(purge.kind, purge.value)] = now + OWN_S

    def is_own(self, key: bytes, now: float) -> bool:
        """Whether this machine has just invalidated a key: nobody else is asked for it."""
        if now < self._own_all_until:
            return True
        return bool(self._own) and self._own.get((PurgeKind.URL, base_of(key)), 0.0) > now

    def believes(self, line: bytes, position: int) -> bool:
        """Whether what was told of this line at this position holds in ours."""
        return bool(line) and (line == self.line or (line == self.before and position <= self.certified))

    def left_of(self, entry: SharedEntry, now: float) -> Stored | None:
        """What purges left of a value, its times told by this machine's clock; None: it is not to be used."""
        stored = entry.stored
        if stored is None or not self.in_step or not self.believes(entry.line, entry.position):
            return None
        if self.is_own(entry.key, now):
            return None
        if self._own and any(self._own.get((PurgeKind.TAG, tag), 0.0) > now for tag in stored.tags):
            return None
        left = self._log.admit(entry.position << 32, entry.key, stored.tags).left_of(stored)
        return None if left is None else shifted(left, entry.offset_s - self.offset_s)
