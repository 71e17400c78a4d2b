"""Purges: who is touched by one (`PurgeLog`). Nothing is removed here; what may be asked for is `purge_request`'s.

Every purge gets a number from one ascending sequence. A response carries the number that was current when its *fill
started*; whatever purge of it has a higher number reached the operator's desk while the origin's answer may already
have been on its way, so that response is gone (hard) or stale (soft). Numbers, not clocks: two things in one
millisecond still have an order.

    kind     what is touched                              how it is found
    url      every variant of one key                     index: removed at once, counted; log, for fills in progress
    tag      every response that carries the tag          index: removed at once, counted; log, for fills in progress
    prefix   paths by whole segments: /a is /a and /a/b,  stamp, checked when a response is looked up, stored or swept
             not /ab; on one host or on all
    host     everything of one authority                  stamp
    all      everything                                   stamp

The rule: forgetting is only ever towards *more* purged. A log entry that has to go raises the floor, and a fill that
started below the floor is refused; a stamp that has to go is folded into the stamp for `all`.

The check on a hit is one comparison, `response.seq < purge_log.last_stamp`; it is false unless a stamp was set since
the response was last checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from edge.http.paths import normal_path

MAX_LOG = 8192
MAX_LOG_BYTES = 4 * 1024 * 1024  # a client's unsafe requests are logged too, each with its URL
_ENTRY_BYTES = 250  # of the log, its value excepted
MAX_STAMPS = 1024
# scheme://authority/path of a cache key; what rules add to a key comes after a space (key.py).
_KEY = re.compile(rb"(https?)://([^/? ]*)([^? ]*)")


class PurgeKind(Enum):
    """What a purge names its responses by."""

    URL = "url"
    TAG = "tag"
    PREFIX = "prefix"
    HOST = "host"
    ALL = "all"


STAMPED = frozenset({PurgeKind.PREFIX, PurgeKind.HOST, PurgeKind.ALL})


@dataclass(frozen=True, slots=True)
class Purge:
    """One purge. `value` by kind: URL, or its key without additions; tag; authority (or nothing) + path; authority."""

    kind: PurgeKind
    value: bytes = b""
    soft: bool = False
    distrust: bool = False  # a soft one after which nothing is served before the origin has said that it is good

    def to_dict(self) -> dict[str, Any]:
        """For the journal and the workers; `from_dict` is its inverse."""
        found = {"kind": self.kind.value, "value": self.value.decode("latin-1"), "soft": self.soft}
        return {**found, "distrust": True} if self.distrust else found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Purge:
        """From what `to_dict` gave; operators' input goes through `parse_purge`."""
        distrust = bool(found.get("distrust"))
        return cls(
            PurgeKind(found["kind"]), found["value"].encode("latin-1"), bool(found["soft"]) or distrust, distrust
        )


class Numbered(NamedTuple):
    """An operator's purge as a tier that all workers read carries it out: under every key that it has there."""

    number: int  # in the journal
    purges: Sequence[Purge]


class PurgeState(Enum):
    """The state in which purges leave a response."""

    KEPT = "kept"
    STALE = "stale"
    GONE = "purged"


class Purgeable(Protocol):
    """A response that a purge may mark as stale or to be validated."""

    def expired(self, now: float) -> Self:
        """A copy that is stale from `now` on."""

    def distrusted(self) -> Self:
        """A copy that is validated before each use."""


R = TypeVar("R", bound=Purgeable)


class PurgeOutcome(NamedTuple):
    """The state in which purges leave a response; `at` (epoch seconds) is when a STALE one stopped being fresh."""

    verdict: PurgeState
    at: float = 0.0
    distrust: bool = False

    def left_of(self, response: R) -> R | None:
        """The response in that state: itself, a marked copy, or None."""
        if self.verdict is PurgeState.KEPT:
            return response
        if self.verdict is PurgeState.GONE:
            return None
        stale = response.expired(self.at)
        return stale.distrusted() if self.distrust else stale


KEPT, GONE = PurgeOutcome(PurgeState.KEPT), PurgeOutcome(PurgeState.GONE)


class Stamp(NamedTuple):
    """The latest hard and soft purge of one target, as sequence numbers, and when the soft one was."""

    hard: int = 0
    soft: int = 0
    soft_at: float = 0.0
    distrust: int = 0

    def join(self, other: Stamp) -> Stamp:
        """The later ones of both stamps."""
        return Stamp(
            max(self.hard, other.hard),
            max(self.soft, other.soft),
            max(self.soft_at, other.soft_at),
            max(self.distrust, other.distrust),
        )


Target = tuple[PurgeKind, bytes]


class PurgeLog:
    """The purge sequence of one worker, and its recent purges; `to_dict` is what must survive a restart."""

    __slots__ = ("_all", "_depth", "_log", "_log_bytes", "_stamps", "floor", "last_stamp", "seq")

    def __init__(self) -> None:
        self.seq = 1  # the number of the last purge
        self.last_stamp = 0  # the number of the last prefix, host or all
        self.floor = 0  # fills that started before this number are refused
        self._all = Stamp()
        self._stamps: dict[Target, Stamp] = {}  # the most recent one last
        self._log: dict[Target, Stamp] = {}
        self._log_bytes = 0
        self._depth = 0  # segments in the longest prefix stamped

    def now_seq(self) -> int:
        """The current sequence number. To be taken when a fill starts, before its request is sent."""
        return self.seq

    def record(self, purge: Purge, now: float, number: int | None = None) -> int:
        """Give a purge the next place in the sequence.

        `number` is the journal's, ascending over all workers; local purges (by unsafe methods) go between two of those.
        """
        self.seq = max(self.seq + 1, (number or 0) << 32)
        self._set(purge, now)
        return self.seq

    def record_at(self, purges: Iterable[Purge], now: float, number: int) -> None:
        """As `record`, for one purge with several names here: all get the same number."""
        self.seq = max(self.seq + 1, number << 32)
        for purge in purges:
            self._set(purge, now)

    def _set(self, purge: Purge, now: float) -> None:
        if purge.soft:
            stamp = Stamp(soft=self.seq, soft_at=now, distrust=self.seq if purge.distrust else 0)
        else:
            stamp = Stamp(hard=self.seq)
        if purge.kind is PurgeKind.ALL:
            self._all = self._all.join(stamp)
            if not purge.soft:  # nothing that an older entry speaks of is left
                self._stamps.clear()
                self._log.clear()
                self._log_bytes = 0
        elif purge.kind in STAMPED:
            self._depth = max(self._depth, purge.value.count(b"/"))
            evicted = _remember(self._stamps, (purge.kind, purge.value), stamp, MAX_STAMPS)
            self._all = self._all.join(evicted)
        else:
            self._note((purge.kind, purge.value), stamp)
        if purge.kind in STAMPED:
            self.last_stamp = self.seq

    def _note(self, target: Target, stamp: Stamp) -> None:
        """Log a purge; the oldest entries give way where the log is too long or too large."""
        log = self._log
        if target not in log:
            self._log_bytes += _ENTRY_BYTES + len(target[1])
        log[target] = log.pop(target, _NONE).join(stamp)
        while len(log) > MAX_LOG or self._log_bytes > MAX_LOG_BYTES:
            oldest = next(iter(log))
            evicted = log.pop(oldest)
            self._log_bytes -= _ENTRY_BYTES + len(oldest[1])
            self.floor = max(self.floor, evicted.hard, evicted.soft)

    def admit(self, seq: int, key: bytes, tags: Iterable[bytes]) -> PurgeOutcome:
        """What purges leave of a response whose fill started at `seq` and which was in no index since."""
        if seq >= self.seq:
            return KEPT
        if seq < self.floor:
            return GONE
        log = self._log
        found = log.get((PurgeKind.URL, base_of(key)), _NONE)
        for tag in tags:
            found = found.join(log.get((PurgeKind.TAG, tag), _NONE))
        return _fate(found.join(self._stamp_of(key)), seq)

    def stamped(self, seq: int, key: bytes) -> PurgeOutcome:
        """What purges by prefix, host or all since `seq` leave of a response that is in the index."""
        return KEPT if seq >= self.last_stamp else _fate(self._stamp_of(key), seq)

    def settled(self, number: int, key: bytes, tags: Iterable[bytes]) -> PurgeOutcome:
        """What numbered purges left of a response that was fetched when the journal's last number was `number`.

        For tiers that every worker reads: local numbers mean nothing to another worker, so only the journal's part of
        a stamp is compared; what has none (unsafe methods) has to be removed from the tier itself.
        """
        if number >= self.seq >> 32:
            return KEPT
        found = self._log.get((PurgeKind.URL, base_of(key)), _NONE)
        for tag in tags:
            found = found.join(self._log.get((PurgeKind.TAG, tag), _NONE))
        found = found.join(self._stamp_of(key))
        return _fate(Stamp(found.hard >> 32, found.soft >> 32, found.soft_at, found.distrust >> 32), number)

    def logged(self, after: int) -> Iterator[tuple[Purge, float]]:
        """The purges by URL and tag with a higher number, and their times: what a tier may not have seen yet."""
        for (kind, value), stamp in self._log.items():
            if stamp.soft >> 32 > after:
                yield Purge(kind, value, soft=True), stamp.soft_at
            if stamp.hard >> 32 > after:
                yield Purge(kind, value), stamp.soft_at

    @property
    def number(self) -> int:
        """The journal's number of the last purge."""
        return self.seq >> 32

    def _stamp_of(self, key: bytes) -> Stamp:
        stamps, found = self._stamps, self._all
        if not stamps:
            return found
        host, path = host_and_path(key)
        path = normal_path(path)  # whatever spelling is stored: it is the same place
        found = found.join(stamps.get((PurgeKind.HOST, host), _NONE))
        end = 0
        for _ in range(self._depth + 1):
            end = path.find(b"/", end)
            prefix = path if end < 0 else path[:end]
            for value in (prefix, host + prefix):
                found = found.join(stamps.get((PurgeKind.PREFIX, value), _NONE))
            if end < 0:
                break
            end += 1
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "seq": self.seq,
            "last_stamp": self.last_stamp,
            "floor": self.floor,
            "all": list(self._all),
            "stamps": [[kind.value, value.decode("latin-1"), *stamp] for (kind, value), stamp in self._stamps.items()],
            "log": [[kind.value, value.decode("latin-1"), *stamp] for (kind, value), stamp in self._log.items()],
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> PurgeLog:
        """The inverse of `to_dict`."""
        purge_log = cls()
        purge_log.seq, purge_log.last_stamp, purge_log.floor = found["seq"], found["last_stamp"], found["floor"]
        purge_log._all = Stamp(*found["all"])
        for kind, value, *stamp in found["stamps"]:
            purge_log._stamps[PurgeKind(kind), value.encode("latin-1")] = Stamp(*stamp)
            purge_log._depth = max(purge_log._depth, value.count("/"))
        for kind, value, *stamp in found["log"]:
            purge_log._note((PurgeKind(kind), value.encode("latin-1")), Stamp(*stamp))
        return purge_log


_NONE = Stamp()


def _remember(kept: dict[Target, Stamp], target: Target, stamp: Stamp, limit: int) -> Stamp:
    """Join a stamp into `kept`, as its most recent; what has to give way for it, if anything."""
    kept[target] = kept.pop(target, _NONE).join(stamp)
    return kept.pop(next(iter(kept))) if len(kept) > limit else _NONE


def _fate(stamp: Stamp, seq: int) -> PurgeOutcome:
    if stamp.hard > seq:
        return GONE
    if stamp.soft > seq:
        return PurgeOutcome(PurgeState.STALE, stamp.soft_at, stamp.distrust > seq)
    return KEPT


def host_and_path(key: bytes) -> tuple[bytes, bytes]:
    """Authority (without the scheme's default port) and path of a cache key; empty when it is not a URL."""
    found = _KEY.match(key)
    if found is None:
        return b"", b""
    return without_default_port(found[1], found[2]), found[3]


def base_of(key: bytes) -> bytes:
    """A cache key without what rules added to it (header and cookie values)."""
    return key.partition(b" ")[0]


def without_default_port(scheme: bytes, authority: bytes) -> bytes:
    return authority.removesuffix(b":80" if scheme == b"http" else b":443")
