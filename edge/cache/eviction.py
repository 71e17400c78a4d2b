"""Which stored response goes when space is needed: `s3-fifo` (default), `lru`, `lfu`, `fifo`.

One rule: a hit only counts (`node.freq += 1` up to the policy's `cap`, done in the index itself); all ordering work is
done when something is evicted. Only LRU must move a node at a hit, and says so by `moves`.

S3-FIFO is after Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), sizes in bytes:

    put ── not in ghost ──▶ small (10 %) ── freq > 1 ──▶ main (90 %) ── freq > 0 ──▶ tail of main, freq − 1
     └──── in ghost ───────────────────────────────▶      │
                              └── freq ≤ 1 ──▶ evicted,    └── freq = 0 ──▶ evicted
                                   its key into ghost

Most objects are asked for once: they leave through small without touching main, which is why a scan pushes out nothing.
The ghost keeps no objects: fingerprints with the time of eviction, time being bytes evicted into it; it forgets what
is older than main is large. `freq` has 2 bits.

Work: each step of a search for a victim either evicts, uses up a hit counted before, or promotes once, so that eviction
is amortised O(1). A search that met SCAN_LIMIT hot nodes in a row takes the next one as it is: no eviction takes longer
than that, whatever the objects' number.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Protocol

from edge.cache.queues import EvictionQueue, Node

SCAN_LIMIT = 256
_WAYS = 4
_MASK32 = 0xFFFFFFFF


class Fingerprints:
    """A fixed table from 64-bit marks to 32-bit numbers, 8 bytes a slot; it forgets instead of growing.

    Four slots to a bucket; in a full bucket the smallest number gives way, in turn among equals. Two marks that agree
    in the 32 bits kept are taken for one: harmless for what it is used for (a wrong admission or a wrong word, never a
    wrong response).
    """

    __slots__ = ("_buckets", "_marks", "_numbers", "_turn", "_used")

    def __init__(self, slots: int) -> None:
        """At least `slots` slots, rounded up to a power of two, 16 at least."""
        size = 1 << max(4, (slots - 1).bit_length())
        self._buckets = size // _WAYS - 1  # a bit mask
        self._turn = 0
        self._used = 0
        self._marks = array("I", bytes(4 * size))
        self._numbers = array("I", bytes(4 * size))

    @property
    def memory_bytes(self) -> int:
        """The size of the table, which never changes."""
        return 8 * len(self._marks)

    def _find(self, mark: int) -> int:
        base = ((mark >> 32) & self._buckets) * _WAYS
        wanted = mark & _MASK32 or 1
        marks = self._marks
        for slot in range(base, base + _WAYS):
            if marks[slot] == wanted:
                return slot
        return -1

    def get(self, mark: int) -> int | None:
        """The number last put for a mark; None when unknown or forgotten."""
        slot = self._find(mark)
        return None if slot < 0 else self._numbers[slot]

    def put(self, mark: int, number: int) -> None:
        """Remember a number (0 to 2^32 - 1)."""
        slot = self._find(mark)
        if slot < 0:
            base = ((mark >> 32) & self._buckets) * _WAYS
            marks, numbers = self._marks, self._numbers
            self._turn = slot = (self._turn + 1) % _WAYS
            slot += base
            if marks[slot]:
                for way in range(base, base + _WAYS):
                    if not marks[way]:
                        slot = way
                        break
                    if numbers[way] < numbers[slot]:
                        slot = way
            self._used += not marks[slot]
            marks[slot] = mark & _MASK32 or 1
        self._numbers[slot] = number

    def forget(self, mark: int) -> None:
        """Free a mark's slot."""
        slot = self._find(mark)
        if slot >= 0:
            self._marks[slot] = self._numbers[slot] = 0
            self._used -= 1

    def __len__(self) -> int:
        return self._used


class Ghost:
    """Keys lately evicted from small, within a window of evicted bytes."""

    __slots__ = ("_passed", "_table", "_unit", "_window")

    def __init__(self, window_bytes: int) -> None:
        # One slot per KiB of window: what is stored with its metadata is hardly ever smaller.
        self._table = Fingerprints(window_bytes // 1024)
        self._unit = max(1, window_bytes >> 16)  # so that 32 bits of time last for 65,536 windows
        self._window = window_bytes
        self._passed = 0  # bytes evicted into the ghost, ever

    @property
    def memory_bytes(self) -> int:
        """The size of its table."""
        return self._table.memory_bytes

    def __contains__(self, mark: int) -> bool:
        then = self._table.get(mark)
        return then is not None and ((self._passed // self._unit - then) & _MASK32) * self._unit <= self._window

    def __len__(self) -> int:
        return len(self._table)

    def add(self, mark: int, cost: int) -> None:
        """Remember a key that was evicted from small."""
        self._passed += cost
        self._table.put(mark, (self._passed // self._unit) & _MASK32)

    def forget(self, mark: int) -> None:
        """Forget a key that was stored again."""
        self._table.forget(mark)


class Policy(Protocol):
    """Eviction order over nodes. `cap`: hits counted in `freq`; `moves`: a hit at the cap must call `touch`.

    `mark` is a 64-bit hash of the key. Every node that was added is in one of `queues` until the index unlinks it.
    """

    cap: int
    moves: bool
    queues: Sequence[EvictionQueue]
    fixed_bytes: int  # the policy's own memory, charged to the budget

    def add(self, node: Node[Any], mark: int, into: EvictionQueue | None) -> None:
        """Take a new node. When it replaces another one, `into` is the queue that the old one was in."""

    def touch(self, node: Node[Any]) -> None:
        """Take note of a hit on a node whose `freq` is at the cap already."""

    def victim(self) -> Node[Any] | None:
        """The node to evict next, still linked; None when there is none."""

    def evicted(self, node: Node[Any], mark: int) -> None:
        """Take note that a victim is about to be unlinked to make room."""

    def resize(self, budget_bytes: int) -> None:
        """Use another budget from now on."""

    def ghosts(self) -> int:
        """How many keys are remembered of responses that were evicted."""


class Fifo:
    """Oldest stored first; hits do not count."""

    cap = 0
    moves = False
    fixed_bytes = 0

    def __init__(self, budget_bytes: int) -> None:
        self._queue = EvictionQueue()
        self.queues: Sequence[EvictionQueue] = (self._queue,)

    def add(self, node: Node[Any], mark: int, into: EvictionQueue | None) -> None:
        """Append to the tail."""
        self._queue.append(node)

    def touch(self, node: Node[Any]) -> None:
        """Nothing to do: hits do not matter."""

    def victim(self) -> Node[Any] | None:
        """The oldest node."""
        return self._queue.first

    def evicted(self, node: Node[Any], mark: int) -> None:
        """Nothing to remember."""

    def resize(self, budget_bytes: int) -> None:
        """Nothing to do."""

    def ghosts(self) -> int:
        """Always 0: nothing is remembered."""
        return 0


class Lru(Fifo):
    """Least recently used first: the one policy that moves a node at a hit."""

    moves = True

    def touch(self, node: Node[Any]) -> None:
        """Move to the tail."""
        if node.queue is not None:
            node.queue.to_tail(node)


class Lfu:
    """Least frequently used first, the oldest of those; hits are counted up to `cap`.

    A node stands on the level of the hits it had when it was last looked at; a search that finds one with more moves it
    up, which its hits since have earned.
    """

    cap = 63
    moves = False
    fixed_bytes = 19_200  # 64 queues of 300 bytes

    def __init__(self, budget_bytes: int) -> None:
        self.queues: Sequence[EvictionQueue] = tuple(EvictionQueue(level) for level in range(self.cap + 1))
        self._lowest = 0

    def add(self, node: Node[Any], mark: int, into: EvictionQueue | None) -> None:
        """On the level of its hits (its predecessor's, when it replaces one)."""
        self.queues[node.freq].append(node)
        self._lowest = min(self._lowest, node.freq)

    def touch(self, node: Node[Any]) -> None:
        """Counted up to the cap only."""

    def victim(self) -> Node[Any] | None:
        """The oldest of the lowest level."""
        for scanned in range(SCAN_LIMIT + len(self.queues)):
            queue = self.queues[self._lowest]
            node = queue.first
            if node is None:
                if self._lowest == self.cap:
                    return None
                self._lowest += 1
            elif node.freq > queue.level and scanned < SCAN_LIMIT:
                queue.unlink(node)
                self.queues[node.freq].append(node)
            else:
                return node
        return None

    def evicted(self, node: Node[Any], mark: int) -> None:
        """Nothing to remember."""

    def resize(self, budget_bytes: int) -> None:
        """Nothing depends on it."""

    def ghosts(self) -> int:
        """None."""
        return 0


class S3Fifo:
    """S3-FIFO: once-used responses leave by the small queue, those that are used again live in main."""

    cap = 3
    moves = False

    def __init__(self, budget_bytes: int) -> None:
        self.small, self.main = EvictionQueue(), EvictionQueue()
        self.queues: Sequence[EvictionQueue] = (self.small, self.main)
        self._small_bytes = budget_bytes // 10
        self._ghost = Ghost(budget_bytes - self._small_bytes)
        self.fixed_bytes = self._ghost.memory_bytes

    def add(self, node: Node[Any], mark: int, into: EvictionQueue | None) -> None:
        """Into main if its key was evicted lately, else into small; a replacement stays where its predecessor was."""
        if into is None:
            if mark in self._ghost:
                self._ghost.forget(mark)
                into = self.main
            else:
                into = self.small
        into.append(node)

    def touch(self, node: Node[Any]) -> None:
        """Counted up to the cap only."""

    def victim(self) -> Node[Any] | None:
        """From small while that is over its share, else from main."""
        small, main = self.small, self.main
        for _ in range(SCAN_LIMIT):
            node = small.first
            if node is not None and (small.bytes > self._small_bytes or main.first is None):
                if node.freq <= 1:
                    return node
                small.unlink(node)
                node.freq = 0
                main.append(node)
                continue
            node = main.first
            if node is None or node.freq == 0:
                return node
            node.freq -= 1
            main.to_tail(node)
        return main.first or small.first

    def evicted(self, node: Node[Any], mark: int) -> None:
        """Remember a key that leaves small; one that leaves main is forgotten."""
        if node.queue is self.small:
            self._ghost.add(mark, node.cost)

    def resize(self, budget_bytes: int) -> None:
        """Small keeps its share of the budget; the table of evicted keys keeps its size."""
        self._small_bytes = budget_bytes // 10

    def ghosts(self) -> int:
        """How many evicted keys are remembered."""
        return len(self._ghost)


POLICIES: dict[str, type[S3Fifo] | type[Lru] | type[Lfu] | type[Fifo]] = {
    "s3-fifo": S3Fifo,
    "lru": Lru,
    "lfu": Lfu,
    "fifo": Fifo,
}
