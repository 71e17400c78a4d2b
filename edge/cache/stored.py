"""A stored response: everything a look-up or a hit needs, worked out once when it is stored.

One rule: nothing in it changes after `build`; what updates it makes another one that shares the body's chunks. It is
kept lean, as there may be millions: the field lines exist once, encoded in `wire`, and times are two points and the
lengths of windows (numbers that many objects share) rather than a float for each moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge.cache.body import BodyFile
from edge.cache.verdict import Source
from edge.http.dates import format_date
from edge.http.message import Fields, Line, ResponseHead
from edge.http.ranges import ContentRange

Selecting = tuple[tuple[bytes, bytes | None], ...]  # (lower-case name in Vary, comparable value or None), sorted
NOT_IN_WIRE = frozenset((b"age", b"cache-status", b"content-length"))
MAX_VARY = 32  # names in Vary: each is compared with each variant
MAX_SHARED = 1024  # selections, of SHARED_BYTES at most
SHARED_BYTES = 256
AT_ONCE_BYTES: Final = 256 * 1024  # a larger body is sent as its client takes it
CLOCK_STEP_S: Final = 300.0  # so far may a clock be set back, or another machine's be ahead, with nothing in doubt
NO_CONTENT = frozenset((204, 304))  # 205 has none either, but has to say so (RFC 9110 15.3.6)
# Measured: the object, its floats and ints, and the headers of the bytes objects and tuples that every one has.
_OVERHEAD_BYTES = 470
PER_CHUNK_BYTES = 49
_PER_VARY_BYTES = 16  # where the values are shared; else:
_PER_OWN_VARY_BYTES = 144
_PER_TAG_BYTES = 100
_PER_FILE_BYTES = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """A response that may be stored, before its body is known. `fields` are the lines to keep, Date among them."""

    key: bytes
    status: int
    reason: bytes
    fields: Fields
    vary: Selecting
    received_at: float
    born: float  # received_at less the initial age
    lifetime_s: float
    source: Source
    swr_s: float
    sie_s: float
    outage_s: float
    keep_s: float
    must_revalidate: bool
    no_cache: bool
    plain_hits: bool  # the rules keep no request away from the cache
    etag: bytes | None
    tags: frozenset[bytes]
    language: bytes | None = None
    part: ContentRange | None = None
    length: int | None = None  # what Content-Length announced

    def fits(self, length: int) -> bool:
        """Whether a body of this length is the whole response; for a part also what Content-Range told.

        A part that is shorter than its range passes where Content-Length announced just that: the framing is sound
        and only the origin's arithmetic is off. A longer one never does.
        """
        if self.length is not None and length != self.length:
            return False
        if self.part is None:
            return True
        return length == len(self.part) or (self.length is not None and 0 < length < len(self.part))


class Stored:
    """One stored response. Times are epoch seconds; the four windows are lengths that count from `fresh_until`."""

    __slots__ = (
        "born",
        "chunks",
        "etag",
        "file",
        "fresh_until",
        "keep_s",
        "key",
        "language",
        "length",
        "lifetime_s",
        "must_revalidate",
        "no_cache",
        "outage_s",
        "part",
        "received_at",
        "sie_s",
        "simple",
        "size_bytes",
        "source",
        "status",
        "swr_s",
        "tags",
        "vary",
        "wire",
    )

    key: bytes
    status: int
    wire: bytes  # status line and all served lines, each with CRLF; without Age, Connection, Cache-Status
    chunks: tuple[bytes, ...]  # empty where the body is in a file
    file: BodyFile | None
    length: int  # of the stored body
    size_bytes: int  # what it counts against the budget, this object included
    vary: Selecting
    language: bytes | None  # Content-Language, lower case, where Vary is just Accept-Language
    part: ContentRange | None  # of a 206
    etag: bytes | None
    tags: frozenset[bytes]
    received_at: float
    born: float
    lifetime_s: float
    fresh_until: float
    swr_s: float
    sie_s: float
    outage_s: float
    keep_s: float
    must_revalidate: bool  # once stale, never served unvalidated
    no_cache: bool  # validated before each reuse, and never served stale
    simple: bool  # answers any GET without cache-relevant fields as long as it is fresh, in one go
    source: Source

    @property
    def swr_until(self) -> float:
        """Until when it may be served while it is refreshed."""
        return self.fresh_until + self.swr_s

    @property
    def sie_until(self) -> float:
        """Until when it may be served in place of an error."""
        return self.fresh_until + self.sie_s

    @property
    def outage_until(self) -> float:
        """Until when it may be served while its region is unhealthy."""
        return self.fresh_until + self.outage_s

    @property
    def keep_until(self) -> float:
        """Until when it is worth keeping at all: past every window, for a conditional request."""
        return self.fresh_until + max(self.swr_s, self.sie_s, self.outage_s) + self.keep_s

    @property
    def head(self) -> ResponseHead:
        """Status, reason and fields, read back from `wire`."""
        line, _, block = self.wire.partition(b"\r\n")
        lines: list[Line] = []
        for raw in block.split(b"\r\n"):
            name, colon, value = raw.partition(b": ")
            if colon:
                lines.append((name, value))
        return ResponseHead(self.status, line[13:], Fields(lines))

    @property
    def last_modified(self) -> bytes | None:
        """Last-Modified as it came."""
        return self.head.fields.joined(b"last-modified")

    @property
    def keepable(self) -> bool:
        """Whether it may be put in store; what a 304 made unstorable answers one request only."""
        return self.keep_until > self.received_at or self.keep_s > 0

    @property
    def complete(self) -> bool:
        """Whether it is no mere part."""
        return self.part is None

    @property
    def variant(self) -> bytes:
        """Which place of its key it takes: one that is stored later with the same key and variant replaces it."""
        if not self.vary and self.part is None:
            return b""
        chosen = self.choice
        return chosen if self.part is None else b"%b\n#%d-%d" % (chosen, self.part.first, self.part.last)

    @property
    def choice(self) -> bytes:
        """The variant without the range: whole responses and parts of one representation share it."""
        return choice_of(self.vary)

    def age(self, now: float) -> int:
        """Whole seconds since the origin made or validated it; never negative, never less for a later `now`."""
        return max(0, int(max(now, self.received_at) - self.born))

    def ttl(self, now: float) -> float:
        """Seconds of freshness left, negative when stale."""
        return self.fresh_until - now

    def is_fresh(self, now: float) -> bool:
        """Age < lifetime, strictly; and the age is known."""
        return now < self.fresh_until and not self.is_ahead(now)

    def is_ahead(self, now: float) -> bool:
        """Whether it came later than it is now: the clock was set back, so that nobody knows how old it is."""
        return self.received_at - now > CLOCK_STEP_S

    def expired(self, now: float) -> Stored:
        """A copy that is stale from `now` on (soft purge, a HEAD that contradicts); its windows count from there."""
        other = self.copy()
        other.fresh_until = min(self.fresh_until, now)
        return other

    def distrusted(self) -> Stored:
        """A copy that nobody gets before the origin has said that it is good: a purge of it may have been missed."""
        other = self.copy()
        other.no_cache, other.simple = True, False
        return other

    def copy(self) -> Stored:
        """Another one with the same values, to be changed before anybody sees it."""
        other = Stored.__new__(Stored)  # each by its name: a hit from the disk makes one
        other.key, other.status, other.wire, other.chunks = self.key, self.status, self.wire, self.chunks
        other.file, other.length, other.size_bytes, other.part = self.file, self.length, self.size_bytes, self.part
        other.vary, other.language, other.etag, other.tags = self.vary, self.language, self.etag, self.tags
        other.received_at, other.born, other.lifetime_s = self.received_at, self.born, self.lifetime_s
        other.fresh_until, other.swr_s, other.sie_s = self.fresh_until, self.swr_s, self.sie_s
        other.outage_s, other.keep_s, other.source = self.outage_s, self.keep_s, self.source
        other.must_revalidate, other.no_cache, other.simple = self.must_revalidate, self.no_cache, self.simple
        return other

    def with_chunks(self, chunks: tuple[bytes, ...]) -> Stored:
        """A copy with these as its body, which are as long as it says."""
        other = self.copy()
        other.chunks = chunks
        return other

    def __repr__(self) -> str:
        return f"Stored({self.key!r}, {self.status}, {self.length} B, {self.source.value} {self.lifetime_s:g} s)"


def choice_of(vary: Selecting) -> bytes:
    """What tells representations apart that were selected by these values."""
    return b"\n".join([b"%b:%b" % (name, b"-" if value is None else b"+" + value) for name, value in vary])


def build(plan: Plan, chunks: tuple[bytes, ...], file: BodyFile | None = None) -> Stored:
    """The stored response of a plan and its whole body, which is in chunks or in a file.

    Raises ValueError when the body does not fit the plan.
    """
    length = sum(map(len, chunks)) if file is None else file.length
    if not plan.fits(length):
        raise ValueError("the body is not what its head announced")
    made = Stored.__new__(Stored)
    made.key = plan.key
    made.status = plan.status
    made.chunks = chunks
    made.file = file
    made.length = length
    made.vary = plan.vary
    made.language = plan.language
    made.part = plan.part
    made.etag = plan.etag
    made.tags = plan.tags
    made.received_at = plan.received_at
    made.born = plan.born
    made.lifetime_s = plan.lifetime_s
    made.fresh_until = plan.born + plan.lifetime_s
    made.swr_s, made.sie_s, made.outage_s, made.keep_s = plan.swr_s, plan.sie_s, plan.outage_s, plan.keep_s
    made.must_revalidate = plan.must_revalidate
    made.no_cache = plan.no_cache
    made.source = plan.source
    plain = plan.plain_hits and plan.status == 200 and length <= AT_ONCE_BYTES
    made.simple = plain and not (plan.vary or plan.no_cache or plan.part or file)
    made.wire = _wire(plan, length)
    made.size_bytes = charge(made)
    return made


def _wire(plan: Plan, length: int) -> bytes:
    lines = [b"HTTP/1.1 %d %b\r\n" % (plan.status, plan.reason)]
    announced = False
    for name, value in plan.fields.lines:
        lowered = name.lower()
        if lowered == b"content-length":
            if announced or plan.status in NO_CONTENT or value != b"%d" % length:
                continue
            announced = True
        elif lowered in NOT_IN_WIRE:
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    if not announced and plan.status not in NO_CONTENT:
        lines.append(b"Content-Length: %d\r\n" % length)
    return b"".join(lines)


def charge(made: Stored) -> int:
    """What a response counts against a budget of memory."""
    return (
        _OVERHEAD_BYTES
        + len(made.key)
        + len(made.wire)
        + (made.length if made.file is None else len(made.file.sums) + _PER_FILE_BYTES)
        + len(made.etag or b"")
        + PER_CHUNK_BYTES * len(made.chunks)
        + _charge_of(made.vary)
        + sum(_PER_TAG_BYTES + len(tag) for tag in made.tags)
    )


_shared: dict[Selecting, Selecting] = {}


def shared(chosen: Selecting) -> Selecting:
    """One object for equal values: browsers are few, stored responses many. Only the first ones, and no long ones, so
    that the table has an end."""
    known = _shared.get(chosen)
    if known is not None:
        return known
    if len(_shared) < MAX_SHARED and sum(len(name) + len(value or b"") for name, value in chosen) <= SHARED_BYTES:
        _shared[chosen] = chosen
    return chosen


def _charge_of(vary: Selecting) -> int:
    if not vary:
        return 0
    if _shared.get(vary) is vary:
        return sum(_PER_VARY_BYTES + len(value or b"") for _, value in vary)
    return sum(_PER_OWN_VARY_BYTES + len(name) + len(value or b"") for name, value in vary)


def supersedes(new: Stored, old: Stored) -> bool:
    """Whether storing `new` makes `old`, of the same key, useless: the same place, or a part of what is now whole."""
    return new.vary == old.vary and (new.part is None or new.part == old.part)


def with_date(fields: Fields, received_at: float) -> Fields:
    """The lines with a Date, added where the origin sent none (RFC 9110 6.6.1)."""
    if b"date" in fields:
        return fields
    return fields.plus((b"Date", format_date(received_at)))
