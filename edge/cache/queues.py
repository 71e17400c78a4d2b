"""Nodes of the index and the two orders they stand in: eviction order (`EvictionQueue`) and expiry order (`Wheel`).

A node is one stored variant with the policy's state in its slots. It is linked into exactly one queue and one bucket
of the wheel, and both unlink it in O(1): a removed node leaves nothing behind, so nothing has to be compacted and no
order holds memory that the budget does not count. One rule: `unlink` clears the links, so that a removed node (and its
body) is freed by reference counting at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

E = TypeVar("E")

GRAIN_S = 4  # an expired response is found at most this much later; one bucket for each grain in use
_FAR = 1 << 40  # epoch seconds; a later expiry (inf included) never comes


class Node(Generic[E]):
    """One stored variant. `sole` is the stored response; a node stands for its key when it is the only variant."""

    __slots__ = ("cost", "due", "due_next", "due_prev", "freq", "next", "prev", "queue", "seq", "sole")

    def __init__(self, stored: E, cost: int, seq: int) -> None:
        self.sole = stored
        self.cost = cost  # bytes charged to the budget, this node itself excepted
        self.seq = seq  # every purge up to this number has been checked
        self.freq = 0  # hits, up to the policy's cap
        self.queue: EvictionQueue | None = None
        self.prev: Any = None
        self.next: Any = None
        self.due: Any = None  # the bucket's sentinel
        self.due_prev: Any = None
        self.due_next: Any = None

    @property
    def variants(self) -> tuple[E, ...]:
        """The stored responses of the key, the newest first."""
        return (self.sole,)


def _sentinel() -> Node[Any]:
    edge: Node[Any] = Node(None, 0, 0)
    edge.prev = edge.next = edge.due_prev = edge.due_next = edge
    return edge


class EvictionQueue:
    """A doubly linked queue of nodes: new ones at the tail, victims from the head."""

    __slots__ = ("bytes", "edge", "level")

    def __init__(self, level: int = 0) -> None:
        self.edge = _sentinel()
        self.bytes = 0
        self.level = level

    @property
    def first(self) -> Node[Any] | None:
        """The head; None when empty."""
        node = self.edge.next
        return None if node is self.edge else node

    def append(self, node: Node[Any]) -> None:
        """Link an unlinked node in at the tail."""
        edge = self.edge
        last = edge.prev
        node.prev, node.next, node.queue = last, edge, self
        last.next = edge.prev = node
        self.bytes += node.cost

    def unlink(self, node: Node[Any]) -> None:
        """Remove a node of this queue."""
        node.prev.next, node.next.prev = node.next, node.prev
        node.prev = node.next = node.queue = None
        self.bytes -= node.cost

    def to_tail(self, node: Node[Any]) -> None:
        """Move a node of this queue to its tail."""
        edge = self.edge
        if node.next is edge:
            return
        node.prev.next, node.next.prev = node.next, node.prev
        last = edge.prev
        node.prev, node.next = last, edge
        last.next = edge.prev = node

    def __iter__(self) -> Iterator[Node[Any]]:
        """From the head on; the queue must not change meanwhile."""
        node = self.edge.next
        while node is not self.edge:
            yield node
            node = node.next


class Wheel:
    """Nodes by the time from which they are of no use, in buckets of GRAIN_S seconds; O(1) in and out.

    A bucket comes due when all of it has expired, so nothing usable is ever taken.
    """

    __slots__ = ("_buckets", "_heap")

    def __init__(self) -> None:
        self._buckets: dict[int, Node[Any]] = {}
        self._heap: list[int] = []  # numbers of buckets; may name emptied ones, never misses one

    def add(self, node: Node[Any], keep_until: float) -> None:
        """Link an unlinked node in by its last useful second (epoch)."""
        number = int(min(max(keep_until, 0.0), _FAR)) // GRAIN_S + 1
        edge = self._buckets.get(number)
        if edge is None:
            edge = self._buckets[number] = _sentinel()
            edge.seq = number
            heappush(self._heap, number)
        last = edge.due_prev
        node.due_prev, node.due_next, node.due = last, edge, edge
        last.due_next = edge.due_prev = node

    def remove(self, node: Node[Any]) -> None:
        """Take a node out; its bucket goes with the last one."""
        edge = node.due
        node.due_prev.due_next, node.due_next.due_prev = node.due_next, node.due_prev
        node.due_prev = node.due_next = node.due = None
        if edge.due_next is edge:
            del self._buckets[edge.seq]
            edge.prev = edge.next = edge.due_prev = edge.due_next = None
            if len(self._heap) > 2 * len(self._buckets) + 64:  # paid for by the removals since the last time
                self._heap = list(self._buckets)
                heapify(self._heap)

    def due(self, now: float) -> Node[Any] | None:
        """A node that has expired, still linked; None when there is none (or it expired within the last grain)."""
        heap = self._heap
        while heap and heap[0] * GRAIN_S <= now:
            edge = self._buckets.get(heap[0])
            if edge is not None:
                return edge.due_next  # type: ignore[no-any-return]
            heappop(heap)
        return None
