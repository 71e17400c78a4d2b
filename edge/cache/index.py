"""The memory tier: which response is stored, replaced, refused, evicted, purged; the table (table.py) holds them.

The rules:
1. Stored bytes, metadata and the tables included, never exceed the budget: room is made before anything is put in.
2. What is expired (past `keep_until`) goes before anything that is not; then the policy (eviction.py) chooses.
3. A purged response is never returned: what is not removed at once is checked when it is looked up (one comparison
   when there is nothing new). Of a stamp, a sweep of a few nodes with each put frees the rest; of a url or tag,
   `remove_some` does, a step at a time.
4. A look-up is synchronous, reads no clock and changes a counter.

Work: put and remove are amortised O(1). A put evicts as many as it needs room for, so one large response could evict
thousands of small ones at once: a fill calls `reserve` for each piece as it streams, which spreads that work over its
pieces, and `release` just before it puts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Generic

from edge.cache.eviction import Fingerprints
from edge.cache.purge import STAMPED, Purge, PurgeKind, PurgeLog, PurgeOutcome, PurgeState
from edge.cache.queues import Node
from edge.cache.removal import STEP, Removal, Removals
from edge.cache.table import NODE_BYTES, CacheTable, E, Entry, Group, RemovalReason, Stats, cost_of, mark_of

__all__ = ["Entry", "Group", "Index", "Node", "PutResult", "RemovalReason", "Stats", "supersedes"]

SWEEP_STEPS = 4  # nodes looked at with each put while a stamp is being carried out


class PutResult(Enum):
    """What the index did with a response that it was offered."""

    STORED = "stored"
    REPLACED = "replaced"
    SIZE = "size"  # larger than the budget
    MIN_USES = "min-uses"
    VARY_LIMIT = "vary-limit"
    PURGED = "purged"  # a purge of it came after its fill had started
    GONE = "evicted"  # what was to be replaced went meanwhile; a whole response may still be put
    NO_ROOM = "no-room"  # fills in progress hold the rest of the budget

    @property
    def ok(self) -> bool:
        """Whether the response is in the index."""
        return self is PutResult.STORED or self is PutResult.REPLACED


def supersedes(new: Entry, old: Entry) -> bool:
    """Whether `new` replaces `old` of the same key: it is the same variant, and the same part or the whole of it."""
    return new.vary == old.vary and (new.part is None or new.part == old.part)


class Index(Generic[E]):
    """The memory tier of one worker. `now` is epoch seconds, `seq` is `purge_log.now_seq()` from a fill's start."""

    def __init__(
        self,
        budget_bytes: int,
        eviction: str = "s3-fifo",
        variant_limit: int = 64,
        min_uses: int = 1,
        purge_log: PurgeLog | None = None,
        step: int = STEP,
    ) -> None:
        self.step = step  # of a purge by url or tag
        self.variant_limit = variant_limit
        self.min_uses = min_uses
        self.purge_log = purge_log or PurgeLog()
        self._table: CacheTable[E] = CacheTable(budget_bytes, eviction)
        self._found = self._table.found
        self._touch, self._cap, self._moves = self._table.policy.touch, self._table.policy.cap, self._table.policy.moves
        self._removals: Removals[E] = Removals()
        self._uses = Fingerprints(min(65536, budget_bytes // 16384))
        self._table.fixed += self._uses.memory_bytes
        self._table.bytes += self._uses.memory_bytes

    # Looking up

    def get(self, key: bytes) -> Node[E] | Group[E] | None:
        """The node or group of a key, with the hit counted. Of a group, report the variant that served by `used`."""
        found = self._found.get(key)
        if found is None:
            return None
        if found.seq < self.purge_log.last_stamp:
            found = self.peek(key)
            if found is None:
                return None
        if found.freq < self._cap:
            found.freq += 1
        elif self._moves and type(found) is Node:
            self._touch(found)
        return found

    def peek(self, key: bytes) -> Node[E] | Group[E] | None:
        """As `get`, for `explain`: counts no hit, and returns only responses that every purge was applied to."""
        for node in self._table.nodes(key):
            if node.seq < self.purge_log.last_stamp:
                self._check(node)
        found = self._found.get(key)
        if isinstance(found, Group):
            found.seq = min(node.seq for node in found.nodes)
        return found

    def is_hot(self, key: bytes) -> bool:
        """Whether a key is stored and was hit. Changes nothing, so another thread may ask."""
        found = self._found.get(key)
        return found is not None and found.freq > 0

    def used(self, found: Node[E] | Group[E], stored: E) -> None:
        """Count a hit on the variant of a group that served. Does nothing for a node, whose hit `get` has counted."""
        if isinstance(found, Node):
            return
        for node in found.nodes:
            if node.sole is stored and node.queue is not None:
                if node.freq < self._cap:
                    node.freq += 1
                elif self._moves:
                    self._touch(node)

    def absence(self, key: bytes) -> RemovalReason:
        """Why a key is missing, as far as that is remembered; COLD otherwise."""
        return self._table.absence(key)

    def _check(self, node: Node[E]) -> bool:
        """Carry purges out on one node; False when it is gone."""
        fate = self.purge_log.stamped(node.seq, node.sole.key)
        if fate.verdict is PurgeState.GONE:
            self._table.drop(node, RemovalReason.PURGED)
            return False
        if self._removals and not self._survives(node):
            return False
        left = fate.left_of(node.sole)
        if left is not None and left is not node.sole:
            self._table.swap(node, left)
        node.seq = self.purge_log.seq
        return True

    def _survives(self, node: Node[E]) -> bool:
        """Carry out what is still to be done of purges by url and tag on one node; False when it is gone."""
        for removal in self._removals.naming(node.sole.key, node.sole.tags, node.seq):
            if node.sole.keep_until <= removal.at:
                self._table.drop(node, RemovalReason.EXPIRED)
                return False
            removal.counts(node.sole)
            if not removal.purge.soft:
                self._table.drop(node, RemovalReason.PURGED)
                return False
            self._stale(node, removal.at)
        return True

    def _stale(self, node: Node[E], at: float) -> None:
        self._table.swap(node, node.sole.expired(at))

    # Storing

    def put(self, stored: E, now: float, seq: int, min_uses: int | None = None) -> PutResult:
        """Store a whole response whose fill started at `seq`; what it supersedes is replaced in any case."""
        fate = self.purge_log.admit(seq, stored.key, stored.tags)
        if fate.verdict is PurgeState.GONE:
            return PutResult.PURGED
        if self._table.sweeping:
            self.sweep(SWEEP_STEPS, now)
        nodes = self._table.nodes(stored.key)
        old = None
        for node in nodes:
            if supersedes(stored, node.sole):
                if old is not None:
                    self._table.drop(old, RemovalReason.REPLACED)
                old = node
        if old is not None and fate.verdict is PurgeState.STALE and old.seq > seq:
            return PutResult.PURGED  # softly: what is there is newer than the purge, or is stale by it as well
        if old is None:
            refused = self._refused(stored, nodes, now, self.min_uses if min_uses is None else min_uses)
            if refused is not None:
                return refused
        return self._place(stored, old, fate, now)

    def replace(self, old: E, new: E, now: float, seq: int) -> PutResult:
        """Store `new`, a validated head with the same body, in the place of `old`. The validation started at `seq`."""
        fate = self.purge_log.admit(seq, new.key, new.tags)
        if fate.verdict is PurgeState.GONE:
            return PutResult.PURGED
        node = self._table.node_of(old)
        if node is None or not self._check(node):
            return PutResult.GONE
        for other in self._table.nodes(new.key):
            if other is not node and supersedes(new, other.sole):
                self._table.drop(other, RemovalReason.REPLACED)
        return self._place(new, node, fate, now)

    def enough_uses(self, key: bytes, min_uses: int) -> bool:
        """Count one use of a key that is not stored. Returns whether it was used often enough to be.

        A fill may ask before it buffers anything, and then put with `min_uses=1`.
        """
        if min_uses <= 1:
            return True
        mark = mark_of(key)
        uses = (self._uses.get(mark) or 0) + 1
        if uses >= min_uses:
            self._uses.forget(mark)
            return True
        self._uses.put(mark, uses)
        return False

    def fits(self, stored: E) -> bool:
        """Whether an empty index would have room for it."""
        return cost_of(stored) + NODE_BYTES <= self._table.budget - self._table.fixed

    def could_hold(self, count: int) -> bool:
        """Whether an empty index would take a body of so many bytes as it comes (`reserve`)."""
        return count <= min(self._table.budget // 2, self._table.budget - self._table.fixed - NODE_BYTES)

    def _refused(self, stored: E, nodes: tuple[Node[E], ...], now: float, min_uses: int) -> PutResult | None:
        if len(nodes) >= self.variant_limit:
            for node in nodes:
                if node.sole.keep_until <= now:
                    self._table.drop(node, RemovalReason.EXPIRED)
                elif node.seq < self.purge_log.last_stamp:
                    self._check(node)
            if len(self._table.nodes(stored.key)) >= self.variant_limit:
                return PutResult.VARY_LIMIT
        if not self.fits(stored):
            return PutResult.SIZE
        return None if self.enough_uses(stored.key, min_uses) else PutResult.MIN_USES

    def _place(self, stored: E, old: Node[E] | None, fate: PurgeOutcome, now: float) -> PutResult:
        """Make room and link a new node in, with its predecessor's hits and place in the order."""
        table = self._table
        node = Node(stored, cost_of(stored), self.purge_log.seq)
        into = None
        if old is not None:  # what it replaces is outdated, whether the new one fits or not
            into, node.freq = old.queue, old.freq
            table.drop(old, RemovalReason.REPLACED, stored)
        refused = None
        if old is not None and not self.fits(stored):
            refused = PutResult.SIZE
        elif not table.make_room(node.cost + NODE_BYTES, now):
            refused = PutResult.NO_ROOM
        if refused is not None:
            table.lost(stored)
            return refused
        node.sole = fate.left_of(stored) or stored  # a purged one does not come here
        table.link(node, into)
        return PutResult.REPLACED if old is not None else PutResult.STORED

    def reserve(self, count: int, now: float) -> bool:
        """Reserve bytes for a running fill, evicting for them. False when fills would hold over half of the budget."""
        table = self._table
        if 2 * (table.reserved + count) > table.budget or not table.make_room(count, now):
            return False
        table.reserved += count
        return True

    def hold(self, count: int, now: float) -> None:
        """Reserve bytes again that were released a moment ago and are still needed."""
        self._table.reserved += count
        self._table.make_room(0, now)

    def sends(self, stored: E, now: float) -> None:
        """A body is being sent: it counts against the budget until `sent`, even when it is no longer stored."""
        self._table.sends(stored)
        self._table.make_room(0, now)

    def sent(self, stored: E) -> None:
        """A body was sent, or its client has gone."""
        self._table.sent(stored)

    def release(self, count: int) -> None:
        """Give reserved bytes back: the fill has ended, or its response is put next."""
        self._table.reserved -= count

    # Removing

    def purge(
        self,
        purge: Purge,
        now: float,
        number: int | None = None,
        touched: Callable[[E], None] = lambda stored: None,
    ) -> Removal[E] | None:
        """Put a purge in force before returning; None for the kinds that are stamps.

        For url and tag, what comes back counts how many responses it touched, and `touched` hears of each. A small one
        is over at once; of a large one, `remove_some` frees the rest. The value of a url purge is the URL's key without
        additions. `number` is the journal's. What an unsafe method invalidates is a url purge as well (without a
        number): a fill in progress must not bring it back either.
        """
        seq = self.purge_log.record(purge, now, number)
        if purge.kind in STAMPED:
            self._table.start_sweep()
            return None
        table = self._table
        nodes: set[Node[E]] = set()
        keys: set[bytes] = set()
        if purge.kind is PurgeKind.TAG:
            nodes = table.take_tagged(purge.value)
        else:
            keys = table.take_keys(purge.value)
        removal = Removal(purge, now, seq, nodes, keys, touched)
        self._removals.add(removal)
        if purge.kind is PurgeKind.URL:  # the key that is the URL itself is in no table of its own
            for node in table.nodes(purge.value):
                self._check(node)
        self._go_on(removal, self.step)
        if removal.left:
            self.purge_log.last_stamp = seq
        return removal

    @property
    def removing(self) -> bool:
        """Whether purges by URL or tag still have responses to free."""
        return bool(self._removals)

    def remove_some(self) -> None:
        """Free some of the responses that purges named; one step of the work."""
        if self._removals:
            self._go_on(self._removals.first(), self.step)

    def _go_on(self, removal: Removal[E], steps: int) -> None:
        table, nodes, keys = self._table, removal.nodes, removal.keys
        while steps > 0 and nodes:
            node = nodes.pop()
            steps -= 1
            if node.seq >= removal.seq or self._check(node):
                table.retag(removal.purge.value, node)
        while steps > 0 and keys:
            key = keys.pop()
            for node in table.nodes(key):
                steps -= 1
                if node.seq < removal.seq:
                    self._check(node)
            table.relist(removal.purge.value, key)
        if not removal.left:
            self._removals.end(removal)
            if removal.purge.kind is PurgeKind.TAG:
                table.let_go_tagged(removal.purge.value, nodes)
            else:
                table.let_go_keys(removal.purge.value, keys)
            removal.over()

    def remove(self, key: bytes) -> int:
        """Drop every variant of a key; returns how many. Not a purge: a running fill may store it again."""
        nodes = self._table.nodes(key)
        for node in nodes:
            self._table.drop(node, RemovalReason.REMOVED)
        return len(nodes)

    def discard(self, stored: E) -> bool:
        """Drop this stored response, if it is still the one in the index."""
        node = self._table.node_of(stored)
        if node is not None:
            self._table.drop(node, RemovalReason.REMOVED)
        return node is not None

    def resize(self, budget_bytes: int, steps: int, now: float) -> bool:
        """Move towards another budget, with at most `steps` evictions. Returns whether it is reached; a later call
        goes on.
        """
        return self._table.resize(budget_bytes, steps, now)

    def sweep(self, steps: int, now: float) -> int:
        """Look at up to `steps` nodes and free those that expired or were purged; returns how many."""
        freed = 0
        for _ in range(steps):
            node = self._table.expired(now)
            if node is not None:
                self._table.drop(node, RemovalReason.EXPIRED)
                freed += 1
                continue
            node = self._table.next_unswept()
            if node is None:
                break
            if node.seq < self.purge_log.last_stamp and not self._check(node):
                freed += 1
        return freed

    @property
    def bytes(self) -> int:
        """Bytes charged to the budget now: tables included, reserved bytes not."""
        return self._table.bytes

    def __len__(self) -> int:
        """Stored responses, variants counted."""
        return self._table.objects

    def __iter__(self) -> Iterator[E]:
        """Every stored response, purged ones that are not yet swept included; the index must not change meanwhile."""
        for found in self._found.values():
            yield from found.variants

    def stats(self) -> Stats:
        """The current counts and sizes."""
        return self._table.stats()

    def __repr__(self) -> str:
        return f"<Index {self._table.objects} objects, {self.bytes} of {self._table.budget} bytes>"
