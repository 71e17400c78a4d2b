"""Where the stored responses stand: by key, in the eviction order, in the expiry order, and by tag, with their bytes.

    key ──▶ Node (one variant: `.sole`)             the usual case; no tuple, no list on the way
        └─▶ Group (several: `.variants`, newest first; `.sole` is None)

    each Node is in one EvictionQueue of the policy (eviction.py), in one bucket of the Wheel (by `keep_until`), and in
    MultiMap of its tags; `link` is the only way into all of them and `drop` the only way out.

The rule: `bytes` = fixed tables + for each node NODE_BYTES and its cost, which is the entry's own `size_bytes` and what
its tags take here; `bytes` + `reserved` never exceeds `budget`, at any instant. Nothing here decides: see `index.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, Self, TypeVar

from edge.cache.eviction import POLICIES, Fingerprints, Policy
from edge.cache.purge import base_of
from edge.cache.queues import EvictionQueue, Node, Wheel
from edge.cache.sending import SentBodies
from edge.cache.tags import MultiMap

NODE_BYTES = 208  # a node and its share of the tables (bench/lookup.py measures it)
TAG_BYTES = 128
ADDITION_BYTES = 256  # a key with additions is listed under its URL as well
_MASK64 = 0xFFFFFFFFFFFFFFFF


class Entry(Protocol):
    """What the index needs of a stored response; none of it ever changes."""

    @property
    def key(self) -> bytes: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def keep_until(self) -> float: ...
    @property
    def tags(self) -> frozenset[bytes]: ...
    @property
    def vary(self) -> object: ...
    @property
    def part(self) -> object: ...
    @property
    def chunks(self) -> tuple[bytes, ...]: ...
    def expired(self, now: float) -> Self:
        """A copy that is stale from `now` on, of the same size."""

    def distrusted(self) -> Self:
        """A copy that is validated before each use, of the same size."""


E = TypeVar("E", bound=Entry)


class RemovalReason(Enum):
    """Why a response left the index; also why a key is missing (`COLD`: nothing is known of it)."""

    SPACE = "evicted"
    EXPIRED = "expired"
    PURGED = "purged"
    REPLACED = "replaced"
    REMOVED = "removed"
    COLD = "cold"


_GONE = tuple(RemovalReason)


class Group(Generic[E]):
    """Several variants of one key, the newest first."""

    __slots__ = ("freq", "nodes", "seq", "sole", "variants")

    def __init__(self, nodes: tuple[Node[E], ...]) -> None:
        self.nodes = nodes
        self.sole: E | None = None  # what a node has that stands for its key
        self.variants = tuple(node.sole for node in nodes)
        self.seq = min(node.seq for node in nodes)
        self.freq = 1 << 30  # hits are counted on the variant that is used (`Index.used`)


@dataclass(frozen=True, slots=True)
class Stats:
    """The index in numbers; `gone` counts by reason since the start."""

    objects: int
    keys: int
    bytes: int
    reserved_bytes: int
    budget_bytes: int
    ghosts: int
    tags: int
    gone: dict[str, int]


def cost_of(stored: Entry) -> int:
    """Bytes charged for an entry, NODE_BYTES excepted: mostly the very int that the entry has, and so none of ours."""
    if not stored.tags and b" " not in stored.key:
        return stored.size_bytes
    cost = stored.size_bytes + TAG_BYTES * len(stored.tags)
    return cost + ADDITION_BYTES if b" " in stored.key else cost


def mark_of(key: bytes) -> int:
    """64 bits that stand for a key in tables that may forget."""
    return hash(key) & _MASK64


class CacheTable(Generic[E]):
    """The stored responses in all their orders, and their bytes. `now` is epoch seconds."""

    def __init__(self, budget_bytes: int, eviction: str) -> None:
        self.budget = budget_bytes
        self.reserved = 0  # bytes of fills in progress, and of bodies that are sent and not stored any more
        self.policy: Policy = POLICIES[eviction](budget_bytes)
        self.found: dict[bytes, Node[E] | Group[E]] = {}
        self.objects = 0
        self.gone = dict.fromkeys(_GONE, 0)
        self._wheel = Wheel()
        self._tags: MultiMap[Node[E]] = MultiMap()
        self._additions: MultiMap[bytes] = MultiMap()
        self._missing = Fingerprints(min(65536, budget_bytes // 16384))
        self.fixed = self.policy.fixed_bytes + self._missing.memory_bytes
        self.bytes = self.fixed
        self._unswept: list[EvictionQueue] = []  # the last one is being swept
        self._cursor: Node[E] | None = None
        self._sending = SentBodies()

    # Finding

    def nodes(self, key: bytes) -> tuple[Node[E], ...]:
        """The variants of a key, the newest first."""
        found = self.found.get(key)
        if found is None:
            return ()
        return found.nodes if isinstance(found, Group) else (found,)

    def node_of(self, stored: E) -> Node[E] | None:
        """The node of exactly this stored response."""
        return next((node for node in self.nodes(stored.key) if node.sole is stored), None)

    def tagged(self, tag: bytes) -> tuple[Node[E], ...]:
        """The nodes that carry a tag, those that were taken excepted."""
        return self._tags.of(tag)

    # Purges by tag and URL take what they name out of the table at once, and put back what stays

    def take_tagged(self, tag: bytes) -> set[Node[E]]:
        """The nodes that carry a tag; `drop` takes them out of this set too."""
        return self._tags.take(tag)

    def take_keys(self, base: bytes) -> set[bytes]:
        """The keys that have additions to a URL's key; as `take_tagged`."""
        return self._additions.take(base)

    def retag(self, tag: bytes, node: Node[E]) -> None:
        """A node that was taken stays."""
        self._tags.add(tag, node)

    def relist(self, base: bytes, key: bytes) -> None:
        """A key that was taken stays, if anything is stored for it."""
        if key in self.found:
            self._additions.add(base, key)

    def let_go_tagged(self, tag: bytes, nodes: set[Node[E]]) -> None:
        """The end of one `take_tagged`."""
        self._tags.let_go(tag, nodes)

    def let_go_keys(self, base: bytes, keys: set[bytes]) -> None:
        """The end of one `take_keys`."""
        self._additions.let_go(base, keys)

    def absence(self, key: bytes) -> RemovalReason:
        """Why a key is missing, as far as is remembered."""
        return _GONE[(self._missing.get(mark_of(key)) or 0) - 1]

    # In and out

    def link(self, node: Node[E], into: EvictionQueue | None) -> None:
        """Put a new node in, for which there must be room; `into` is where its predecessor stood."""
        stored = node.sole
        key = stored.key
        mark = mark_of(key)
        if self._sending:
            self.reserved += self._sending.stored(stored.chunks)
        others = self.nodes(key)
        self.found[key] = Group((node, *others)) if others else node
        self.policy.add(node, mark, into)
        self._wheel.add(node, stored.keep_until)
        for tag in stored.tags:
            self._tags.add(tag, node)
        base = base_of(key)
        if base != key:
            self._additions.add(base, key)
        self._missing.forget(mark)
        self.bytes += node.cost + NODE_BYTES
        self.objects += 1

    def drop(self, node: Node[E], why: RemovalReason, heir: E | None = None) -> None:
        """Take a node out of everything; `heir` takes its place next, or is given to `lost`."""
        stored, key = node.sole, node.sole.key
        if self._sending and (heir is None or heir.chunks is not stored.chunks):
            self.reserved += self._sending.dropped(stored.chunks)
        queue = node.queue
        if queue is not None:
            if node is self._cursor:
                self._cursor = None if node.next is queue.edge else node.next
            queue.unlink(node)
        self._wheel.remove(node)
        for tag in stored.tags:
            self._tags.remove(tag, node)
        others = tuple(one for one in self.nodes(key) if one is not node)
        if others:
            self._group(key, others)
        else:
            del self.found[key]
            base = base_of(key)
            if base != key:
                self._additions.remove(base, key)
            self._missing.put(mark_of(key), _GONE.index(why) + 1)
        self.bytes -= node.cost + NODE_BYTES
        self.objects -= 1
        self.gone[why] += 1

    def lost(self, heir: E) -> None:
        """The heir of what was dropped did not take its place."""
        self.reserved += self._sending.dropped(heir.chunks)

    def sends(self, stored: E) -> None:
        """Somebody is sent its body; `sent` follows."""
        kept = any(node.sole.chunks is stored.chunks for node in self.nodes(stored.key))
        self.reserved += self._sending.begin(stored.chunks, kept)

    def sent(self, stored: E) -> None:
        """The end of one `sends`."""
        self.reserved += self._sending.end(stored.chunks)

    def swap(self, node: Node[E], stored: E) -> None:
        """Let a copy with the same key, size and tags take a node's place."""
        node.sole = stored
        self._wheel.remove(node)
        self._wheel.add(node, stored.keep_until)
        self._group(stored.key, self.nodes(stored.key))

    def _group(self, key: bytes, nodes: tuple[Node[E], ...]) -> None:
        self.found[key] = nodes[0] if len(nodes) == 1 else Group(nodes)

    # Room

    def make_room(self, count: int, now: float) -> bool:
        """Evict until `count` more bytes fit: the expired first, then whom the policy names. False when they cannot."""
        while self.budget - self.reserved - count >= self.fixed:
            if self.bytes <= self.budget - self.reserved - count:
                return True
            if not self._evict(now):
                return False
        return False

    def _evict(self, now: float) -> bool:
        """Let one node go; False when there is none."""
        node = self._wheel.due(now)
        if node is not None:
            self.drop(node, RemovalReason.EXPIRED)
            return True
        node = self.policy.victim()
        if node is None:
            return False
        self.policy.evicted(node, mark_of(node.sole.key))
        self.drop(node, RemovalReason.SPACE)
        return True

    def resize(self, budget_bytes: int, steps: int, now: float) -> bool:
        """Towards another budget, with so many evictions at most; whether it is reached. A later call goes on."""
        while steps and self.bytes + self.reserved > budget_bytes and self._evict(now):
            steps -= 1
        self.budget = max(budget_bytes, min(self.budget, self.bytes + self.reserved))
        self.policy.resize(self.budget)
        return self.budget == budget_bytes

    # Sweeping: one walk over all nodes, a few steps at a time, while the queues change under it

    def start_sweep(self) -> None:
        """Begin a walk over every node that is here now."""
        # The first queue first: policies move nodes to later ones, where the walk meets them again.
        self._unswept, self._cursor = list(reversed(self.policy.queues)), None

    @property
    def sweeping(self) -> bool:
        """A walk is not yet at its end."""
        return bool(self._unswept)

    def expired(self, now: float) -> Node[E] | None:
        """A node that has expired."""
        return self._wheel.due(now)

    def next_unswept(self) -> Node[E] | None:
        """The node under the cursor, which moves on. A node that the policy moved meanwhile starts its queue anew."""
        while self._unswept:
            queue, node = self._unswept[-1], self._cursor
            if node is None or node.queue is not queue:
                node = queue.first
            if node is not None:
                self._advance(node, queue)
                return node
            self._unswept.pop()
        return None

    def _advance(self, node: Node[E], queue: EvictionQueue) -> None:
        self._cursor = None if node.next is queue.edge else node.next
        if self._cursor is None and self._unswept:
            self._unswept.pop()

    def stats(self) -> Stats:
        """The table's counts and sizes at this moment."""
        gone = {why.value: count for why, count in self.gone.items() if why is not RemovalReason.COLD}
        ghosts, tags = self.policy.ghosts(), len(self._tags)
        return Stats(self.objects, len(self.found), self.bytes, self.reserved, self.budget, ghosts, tags, gone)
