"""`rate_limit` and `concurrency`: how often and how much at once a client, a field's value or a whole route may ask.

    rate_limit    GCRA: one number per client, the time at which it would be owed nothing (TAT)
    concurrency   requests in flight, counted up here and down when an exchange ends

One rule: memory is bounded whatever clients do. The table of a rate limit has a fixed number of slots; when a bucket is
full, who owes least gives way, so a flood of addresses can only make the limit more lenient for others, never stricter.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from edge.cache.key import cookies
from edge.dataplane.rules.running import Alone, Counts, Together
from edge.errors import Denied, NoBackend

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked
    from edge.dataplane.rules.steps import StepExchange

WAYS = 8  # slots in which a key may be
SLOT_BYTES = 16
ALL = "*"  # no client's address
BYTES = "\0"  # what a field's or cookie's value begins with where it is told as text
REMEMBERED = 8192  # IPv6 addresses whose network is remembered
LONGEST_KEY = 64  # bytes of a field's or cookie's value; of a longer one its digest is what is counted


class RateLimited(Denied):
    """429; `lines` have Retry-After and the RateLimit fields."""

    status = 429

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("rate limit")
        self.lines = b"Retry-After: %d\r\n" % max(1, ceil(retry_after_s))


class TooMany(Denied):
    """429: too many requests of one client at once."""

    status = 429
    lines = b"Retry-After: 1\r\n"

    def __init__(self) -> None:
        super().__init__("too many requests at once")


class RateTable:
    """The TAT of each key, in a table of fixed size. Times are any clock's seconds, above zero."""

    __slots__ = ("_buckets", "_every", "_keys", "_times", "burst", "slack")

    def __init__(self, per_s: float, burst: int, slots: int) -> None:
        self.burst = burst
        self._every = 1.0 / per_s
        self.slack = (burst - 1) * self._every
        buckets = 1
        while buckets * WAYS < slots:
            buckets *= 2
        self._buckets = buckets
        self._keys = array("q", bytes(8 * buckets * WAYS))
        self._times = array("d", bytes(8 * buckets * WAYS))

    @property
    def size_bytes(self) -> int:
        """The table's memory in bytes; it does not grow."""
        return SLOT_BYTES * len(self._keys)

    @property
    def every_s(self) -> float:
        """Seconds between two requests at the limit's rate."""
        return self._every

    def take(self, key: str | bytes, now: float) -> float:
        """It came in time and is counted: seconds until the key owes nothing. Too early: less than 0, the seconds until
        it may come."""
        mark = hash(key) or 1  # keyed by the process, so nobody can aim at a bucket; 0 is an empty slot
        first = (mark & (self._buckets - 1)) * WAYS
        times = self._times
        try:
            at = self._keys.index(mark, first, first + WAYS)
            due = times[at]
            if due < now:
                due = now
            elif due - now > self.slack + 1e-9:
                return now + self.slack - due
        except ValueError:
            window = times[first : first + WAYS]
            at, due = first + window.index(min(window)), now
            self._keys[at] = mark
        times[at] = due = due + self._every
        return due - now

    def owe(self, key: str | bytes, now: float, seconds: float) -> None:
        """It owes so much at least, and no more than a whole burst."""
        wanted = max(self.owed(key, now), min(seconds, self.slack + self._every))
        self.take(key, now)  # it has a slot then
        self._put(hash(key) or 1, now + wanted)

    def _put(self, mark: int, due: float) -> None:
        first = (mark & (self._buckets - 1)) * WAYS
        try:
            self._times[self._keys.index(mark, first, first + WAYS)] = due
        except ValueError:
            pass  # it gave way to others

    def owed(self, key: str | bytes, now: float) -> float:
        """Seconds until this key owes nothing."""
        mark = hash(key) or 1
        first = (mark & (self._buckets - 1)) * WAYS
        try:
            return max(0.0, self._times[self._keys.index(mark, first, first + WAYS)] - now)
        except ValueError:
            return 0.0

    def left(self, owed_s: float) -> int:
        """How many requests may come at once when so much is owed."""
        return max(0, int(self.burst - owed_s / self._every + 1e-6))


class Memory(Protocol):
    """Memory that the workers of a machine share."""

    def find(self, sought: bytes, start: int, end: int, /) -> int: ...
    def __setitem__(self, place: slice, value: bytes, /) -> None: ...


class SharedTable(RateTable):
    """The same in memory of all workers, marks first: they hash alike. Two that write one slot at once may forget one
    request, no more; a time that nobody can owe is what such a moment, or an earlier boot, left."""

    __slots__ = ("_full", "_memory", "_places")

    def __init__(self, per_s: float, burst: int, slots: int, memory: Callable[[int], Memory | None]) -> None:
        """Raises OSError where there is no such memory."""
        super().__init__(per_s, burst, WAYS)
        buckets = 1
        while buckets * WAYS < slots:
            buckets *= 2
        found = memory(SLOT_BYTES * buckets * WAYS)
        if found is None:
            raise OSError("no memory to share")
        self._buckets, self._memory = buckets, found
        self._places = memoryview(found)[8 * buckets * WAYS :].cast("d")  # type: ignore[arg-type]
        self._full = burst * self._every + 1e-6

    @property
    def size_bytes(self) -> int:
        """The table's memory in bytes; it does not grow."""
        return SLOT_BYTES * len(self._places)

    def take(self, key: str | bytes, now: float) -> float:
        """As `RateTable.take`."""
        mark = hash(key) or 1
        raw, first, times = mark.to_bytes(8, "little", signed=True), (mark & (self._buckets - 1)) * WAYS, self._places
        at = self._find(raw, first)
        if at >= 0:
            due = times[at]
            if due < now or due - now > self._full:
                due = now
            elif due - now > self.slack + 1e-9:
                return now + self.slack - due
        else:
            window = times[first : first + WAYS].tolist()
            at, due = first + window.index(min(window)), now
            self._memory[8 * at : 8 * at + 8] = raw
        times[at] = due = due + self._every
        return due - now

    def _put(self, mark: int, due: float) -> None:
        at = self._find(mark.to_bytes(8, "little", signed=True), (mark & (self._buckets - 1)) * WAYS)
        if at >= 0:
            self._places[at] = due

    def _find(self, raw: bytes, first: int) -> int:
        """The slot of a mark in its bucket; -1: none."""
        find, end = self._memory.find, 8 * (first + WAYS)
        at = find(raw, 8 * first, end)
        while at >= 0 and at & 7:  # bytes of two marks
            at = find(raw, at + 1, end)
        return at >> 3

    def go_on_from(self, alone: RateTable) -> None:
        """What the only worker so far knows, in a table of as many slots."""
        places = 8 * len(self._places)
        self._memory[:places] = alone._keys.tobytes()
        self._memory[places : 2 * places] = alone._times.tobytes()

    def owed(self, key: str | bytes, now: float) -> float:
        """As `RateTable.owed`."""
        mark = hash(key) or 1
        at = self._find(mark.to_bytes(8, "little", signed=True), (mark & (self._buckets - 1)) * WAYS)
        return max(0.0, self._places[at] - now) if at >= 0 else 0.0


Share = Callable[[str, int], Memory | None]  # a name, a size


def table_of(per_s: float, burst: int, slots: int, name: str, share: Share) -> RateTable:
    """A table that all workers see, or one of this worker's own where that cannot be."""
    try:
        return SharedTable(per_s, burst, slots, lambda size: share(name, size))
    except OSError:
        return RateTable(per_s, burst, slots)


Key = Callable[["Asked"], str | bytes]


def key_by(by: str) -> Key:
    """What is counted: `client`, `route`, `header:<name>`, `cookie:<name>`. Who has no such value is its address."""
    kind, _, name = by.partition(":")
    if kind == "route":
        return lambda asked: ""
    if kind == "header":
        field = name.lower().encode()
        return lambda asked: _short(asked.block.fields.joined(field)) or client_key(asked.client_text())
    if kind == "cookie":
        cookie = name.encode()
        return lambda asked: _short(cookies(asked.block.fields).get(cookie)) or client_key(asked.client_text())
    return lambda asked: client_key(asked.client_text())


def _short(value: bytes | None) -> bytes | None:
    """A value that tables can hold by the thousand: clients choose how long theirs is."""
    return value if value is None or len(value) <= LONGEST_KEY else blake2b(value, digest_size=16).digest()


_networks: dict[str, str] = {}


def client_key(address: str) -> str:
    """The address of an IPv4 client, the /64 of an IPv6 client."""
    if ":" not in address:
        return address
    found = _networks.get(address)
    if found is None:
        if len(_networks) >= REMEMBERED:
            _networks.clear()
        _networks[address] = found = _network(address)
    return found


def _network(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    return str(ip_network((int(parsed) >> 64 << 64, 64))) if parsed.version == 6 else address


class RateLimit:
    """`rate_limit` of a route."""

    name = "rate_limit"

    def __init__(
        self, text: str, per_s: float, burst: int, by: str, slots: int, share: Share = lambda name, size: None
    ) -> None:
        self.text = f"{text}, burst {burst}, by {by}"
        self._others: dict[str | bytes, int] | None = None  # counted since the fleet was told; None: it is not
        self._key = key_by(by)
        slots = slots if by != "route" else WAYS
        self._table = table_of(per_s, burst, slots, f"{self.text}, {slots} slots", share)
        self._slots = slots
        self._per_s = per_s
        self._policy = b'RateLimit-Policy: "default";q=%d;w=%d\r\n' % (burst, max(1, ceil(burst / per_s)))

    def apply(self, exchange: StepExchange) -> None:
        """Count the request. Raises RateLimited."""
        now, key, table = monotonic(), self._key(exchange), self._table
        found = table.take(key, now)
        owed = found if found > 0 else table.slack - found
        left = table.burst - owed * self._per_s + 1e-6  # as `RateTable.left`, and %d rounds down
        exchange.told_lines = b'RateLimit: "default";r=%d;t=%d\r\n%b' % (left, ceil(owed), self._policy)
        if found <= 0:
            exchange.reason = "rate-limit"
            raise RateLimited(-found)
        if self._others is not None:
            self._others[key] = self._others.get(key, 0) + 1

    def take_over(self, lived: RateLimit) -> None:
        """Keep the counts after a reload."""
        if (self.text, self._slots) != (lived.text, lived._slots):
            return
        self._others = lived._others
        if isinstance(self._table, SharedTable) and not isinstance(lived._table, SharedTable):
            self._table.go_on_from(lived._table)  # other workers come
        else:
            self._table = lived._table

    def count_for_others(self) -> None:
        """The limit is the whole fleet's: `taken` is asked for often from now on."""
        if self._others is None:
            self._others = {}

    def taken(self) -> list[tuple[str, int]]:
        """How many requests of each key passed since the last call."""
        if not self._others:
            return []
        found, self._others = self._others, {}
        return [(key if isinstance(key, str) else BYTES + key.decode("latin-1"), count) for key, count in found.items()]

    @property
    def every_s(self) -> float:
        """Seconds between two requests at the limit's rate."""
        return self._table.every_s

    def owe(self, key: str, seconds: float, now: float) -> None:
        """The fleet says that a key owes `seconds`."""
        is_bytes = key.startswith(BYTES)
        self._table.owe(key.removeprefix(BYTES).encode("latin-1") if is_bytes else key, now, seconds)

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`."""
        left = self._table.left(self._table.owed(self._key(asked), monotonic()))
        return f"{self.text}: {left} left"


class Concurrency:
    """`concurrency` of a route."""

    name = "concurrency"

    def __init__(self, per_client: int, total: int, counts: Counts | None = None) -> None:
        self._per_client = per_client
        self._most = total
        self._counts = counts or Alone()  # by client, and all of them under ALL

    def apply(self, exchange: StepExchange) -> None:
        """Count the request until it ends. Raises TooMany, NoBackend."""
        client, counts = client_key(exchange.client_text()), self._counts
        mine = self._begin(client, self._per_client)
        if mine is None:
            exchange.reason = "concurrency"
            raise TooMany
        whole = self._begin(ALL, self._most)
        if whole is None:
            counts.end(mine)
            exchange.reason = "concurrency"
            raise NoBackend("too many requests at once on this route")

        def ended() -> None:
            counts.end(mine)
            counts.end(whole)

        exchange.at_end(ended)

    def _begin(self, key: str, most: int) -> int | str | None:
        counts = self._counts
        found = counts.begin(key, most)
        return counts.begin(key, most) if found is None and counts.without_dead(monotonic()) else found

    def take_over(self, lived: Concurrency) -> None:
        """What runs is counted on; where other workers come, what began before is not theirs to know."""
        if isinstance(lived._counts, Together) or isinstance(self._counts, Alone):
            self._counts = lived._counts

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`."""
        where = "" if isinstance(self._counts, Together) else " in the worker that was asked"
        mine = self._counts.of(client_key(asked.client_text()))
        return f"{self._counts.of(ALL)} run{where}, {mine} of this client"
