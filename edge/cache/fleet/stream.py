"""The purge stream as one machine follows it: what it knows, what it missed, and what it may believe therefore.

    never joined ─┐
    cut off ──────┴► head of the stream ─► the same history, nothing missing ─► apply what was missed ─► in step
                                       └─► anything else ─► distrust all that is stored ─► in step, from there
    the server answers again ─► catching up: nothing that is stored is used, until in step
    not in step for `max_blind`, or catching up for `catch_up` ─► blind: distrust all that is stored, and what is stored
    meanwhile, until in step

One rule: where a purge may have been missed, what is stored is distrusted: validated before each use, or not used. The
rules stand in README.md beside this file as a table. Pure: the caller talks to the server and carries purges out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class StreamPlace:
    """How far a machine has applied a stream: everything up to `position`, whose entry has this `mark`."""

    history: str
    position: int = 0
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What the server says of the stream: its last entry. `history` is empty where there is no stream.

    `run` is the server's process; `same_run`: it had the stream before. Another one may have lost the newest entries.
    The run `before` had the same entries up to `certified`, and may have had others after that.
    """

    history: str
    position: int
    mark: str
    same_run: bool = True
    run: str = ""
    before: str = ""
    certified: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One purge in the stream. `mark` is unique, so that a stream that went back and on again is found out."""

    position: int
    mark: str
    payload: bytes


class Todo(Enum):
    """What a machine has to do before it is in step."""

    NOTHING = "nothing"
    READ = "read"  # what came after its position; the first time in a process, all that is there
    BEGIN = "begin"  # there is no stream, or it has gone back: begin a new history in its place
    CERTIFY = "certify"  # say that the server's new process has lost nothing that was acknowledged
    JOIN = "join"  # another history: distrust everything, then follow from its end


class Lost(Exception):
    """Entries are missing, or others than were there: `Follower.join` after distrusting everything."""


class Follower:
    """One machine's standing. `place` is what survived a restart; times are of a monotonic clock."""

    def __init__(self, place: StreamPlace | None, max_blind_s: float, now: float, catch_up_s: float = 1.0) -> None:
        self.place = place
        self.max_blind_s = max_blind_s
        self.catch_up_s = catch_up_s
        self.blind = False
        self.in_step = False
        self.run = ""  # the process of the server in which our place is known to be right
        self.head = Head("", 0, "")  # what the server said last
        self._known_at = now - max_blind_s  # everything that was in the stream then has been applied; nothing yet
        self._verified = False  # that the entry at our position is the one that we applied
        self._asked: tuple[float, int] | None = None  # a head that was asked for then, and its position
        self._there = 0  # the server's position when it was asked last
        self._loaded = False  # all that the stream holds was read once in this process
        self._back_at: float | None = None  # the server answers again since then, and not all of it is applied
        self._missed = False  # it is known that there is more than was applied

    # -- the link ------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """The server cannot be reached. Who knows that something was missed goes on catching up, until it is blind."""
        self._unverify()
        if not self._missed:
            self._back_at = None

    def back(self, now: float) -> None:
        """The server answers again."""
        if self._back_at is None and not self.blind:
            self._back_at = now

    @property
    def catching_up(self) -> bool:
        """Nothing that is stored may be used now: others see this machine again, and count on what it has applied."""
        return self._back_at is not None and not self.blind

    def _unverify(self) -> None:
        self.in_step = self._verified = False
        self._asked = None
        self._there = 0

    def on_head(self, head: Head, sent_at: float) -> Todo:
        """The server's answer to what was sent at `sent_at`, which had registered this machine before."""
        if head.run != self.head.run:
            self._unverify()  # whatever was verified was verified with another process
        place, self._there, self.head = self.place, head.position, head
        if place is not None and place.history == head.history:
            gone_back = head.position < place.position or (head.position == place.position and head.mark != place.mark)
            if gone_back or not (head.same_run or self._is_witness(sent_at)):
                return self._out(Todo.BEGIN)
        elif not head.history or not head.same_run:
            return self._out(Todo.BEGIN)
        else:
            return self._out(Todo.JOIN)
        if head.same_run and (self._asked is None or self._asked[1] <= place.position):
            self._asked = (sent_at, head.position)
        if not self._loaded:
            self._missed = True
            return Todo.READ
        if head.position == place.position:
            self._verified = True
        if head.same_run and self._verified:
            self.run = head.run
        self._settle()
        if head.position != place.position or not self._verified:
            self._missed = True
            return Todo.READ
        return Todo.NOTHING if head.same_run else Todo.CERTIFY

    def _is_witness(self, now: float) -> bool:
        """Whether every purge that was ever acknowledged is applied here: none is without this machine's word as long
        as it is not blind."""
        return not self.blind and now < self.blind_at

    def _out(self, todo: Todo) -> Todo:
        self.in_step = self._verified = False
        self._missed = True
        return todo

    def join(self, head: Head, sent_at: float, retained: Sequence[Entry]) -> tuple[int, list[Entry]]:
        """Everything stored is distrusted now: follow from `head` on.

        Gives from which position on what is `retained` is whole up to there, and those entries.
        """
        self.place = StreamPlace(head.history, head.position, head.mark)
        self._asked = (sent_at, head.position)
        self._verified = self._loaded = True
        known = [entry for entry in retained if entry.position <= head.position]
        whole = _whole_from(known) if known and known[-1].position == head.position else head.position
        self._settle()
        return whole, [entry for entry in known if entry.position > whole]

    def on_load(self, retained: Sequence[Entry]) -> tuple[int, list[Entry], list[Entry]]:
        """All that the stream holds: from which position on it is whole, what was applied before, what is to be now.

        Raises Lost where what was missed is not whole there.
        """
        place = self._placed()
        known = [entry for entry in retained if entry.position <= place.position]
        after = [entry for entry in retained if entry.position > place.position]
        if place.position and (not known or known[-1].position != place.position or known[-1].mark != place.mark):
            raise Lost
        self._follows(after)
        whole = _whole_from(known)
        self._loaded = self._verified = True
        return whole, [entry for entry in known if entry.position > whole], after

    def on_entries(self, found: Sequence[Entry]) -> list[Entry]:
        """What is to be applied of entries that were read: our own position's first, unless it was verified before.

        Raises Lost.
        """
        place = self._placed()
        if not self._verified and place.position:
            if not found or found[0].position != place.position or found[0].mark != place.mark:
                raise Lost
            self._verified = True
        after = [entry for entry in found if entry.position > place.position]
        self._follows(after)
        return after

    @property
    def reads_from(self) -> int:
        """The position to read from, itself included where it has to be verified."""
        place = self._placed()
        return place.position if not self._verified and place.position else place.position + 1

    def applied(self, entries: Iterable[Entry]) -> None:
        """These entries are durable and in force in every worker."""
        place = self._placed()
        for entry in entries:
            self.place = StreamPlace(place.history, entry.position, entry.mark)
        self._verified = True
        self._settle()

    # -- time ----------------------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> bool:
        """Whether it has become blind now: distrust all that is stored, and what is stored from now on."""
        if self.blind or now < self.blind_at:
            return False
        self.in_step = False
        self.blind = True
        return True

    @property
    def blind_at(self) -> float:
        """When it becomes blind if nothing is heard."""
        at = self._known_at + self.max_blind_s
        return at if self._back_at is None else min(at, self._back_at + self.catch_up_s)

    # -- within --------------------------------------------------------------------------------------------------------

    def _placed(self) -> StreamPlace:
        assert self.place is not None  # `on_head` had said JOIN
        return self.place

    def _follows(self, after: Sequence[Entry]) -> None:
        """Each is the next one, and what the server had when it was asked is among them. Raises Lost."""
        position = self._placed().position
        for entry in after:
            position += 1
            if entry.position != position:
                raise Lost
        if not after and self._there > position:
            raise Lost

    def _settle(self) -> None:
        """In step when all is applied that was there when the server was asked last."""
        asked, place = self._asked, self.place
        if asked is None or place is None or not self._verified or not self._loaded or place.position < asked[1]:
            return
        self._known_at = max(self._known_at, asked[0])
        self.in_step = True
        self.blind = self._missed = False
        self._back_at = None


def _whole_from(known: Sequence[Entry]) -> int:
    """The position after which none is missing up to the last of these."""
    if not known:
        return 0
    at = known[-1].position
    for entry in reversed(known):
        if entry.position != at:
            break
        at -= 1
    return at
