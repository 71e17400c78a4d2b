"""The shared tier: what machines store for one another in a server that speaks Redis' protocol.

    look ─► queue ─► one MGET for all that wait ─► seal, key, purges (`cache.fleet`) ─► a response, or a miss
                                                   a miss that another machine fetches ─► again (`shared_leases`)
    put ─► queue ─► one pipeline of SETs, each with the life that is left; refused once a purge names it

One rule: nobody waits for the server longer than `timeout`, and for another machine's fetch longer than `lease`; nobody
waits at all once the server does not answer (the breaker). Whatever goes wrong is a miss or a response that is not
kept. A hit in memory never comes here.

aiocache's RedisCache is the key-value adapter: namespace, serializer and timeout are its own. Its `multi_set` gives all
values one life and makes a transaction of them, so writing takes a plain pipeline of its client. `clear` is never
called: it would empty the whole database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from time import monotonic
from typing import Any, NamedTuple

from aiocache import RedisCache
from aiocache.serializers import BaseSerializer
from redis.exceptions import OutOfMemoryError, ResponseError

from edge.adapters.fleet_server import seal_key
from edge.adapters.redis_client import ERRORS, Link, why_of
from edge.adapters.shared_leases import AGAIN_S, Leases
from edge.cache.fleet.breaker import Breaker
from edge.cache.fleet.record import Garbled, SharedEntry, SharedFormat, left_s
from edge.cache.fleet.view import FleetView
from edge.cache.purge import PurgeLog, PurgeState
from edge.cache.stored import Stored
from edge.config.loader import Config, fleet_of
from edge.config.redis_url import Topology

MOST_ASKED = 1024  # look-ups that wait; beyond, they are misses at once
ASKING = 2  # questions on their way; what comes meanwhile goes together in the next one
MOST_WAITING_BYTES = 16 * 1024 * 1024  # of responses to be written
BATCH, BATCH_BYTES = 64, 256 * 1024  # written together; making values takes the loop's time
WRITE_S = 1.0
FULL_FOR_S = 5.0  # nothing is written so long after the server said that its memory is full
LONGEST_S = 30 * 86400
TELL_EVERY_S = 1.0

Then = Callable[[SharedEntry | None], None]


class _Serializer(BaseSerializer):  # type: ignore[misc]  # aiocache has no types
    """Our format for aiocache."""

    DEFAULT_ENCODING = None

    def __init__(self, form: SharedFormat) -> None:
        super().__init__(encoding=None)
        self.dumps, self.loads = form.dumps, form.loads


class _SpreadCache(RedisCache):  # type: ignore[misc]  # aiocache has no types
    """aiocache for a cluster: names of one question are in several slots, where MGET is not allowed."""

    async def _multi_get(self, keys: list[str], encoding: str | None = None, _conn: Any = None) -> Any:
        return await self.client.mget_nonatomic(keys)


class _Asked(NamedTuple):
    """One look-up that waits."""

    key: bytes
    name: str
    then: Then
    deadline: float
    until: float  # for so long it may wait for another machine's fetch
    has_waited: bool = False


class SharedTier:
    """One worker's (`ports.SharedTier`). All methods belong to the loop."""

    def __init__(
        self,
        link: Link,
        namespace: str,
        timeout_s: float,
        max_object: int,
        view: FleetView,
        key: bytes = b"",
        lease_s: float = 0.0,
    ) -> None:
        self.view = view
        self.purges: Callable[[], PurgeLog] = PurgeLog
        self.clock: Callable[[], float] = lambda: 0.0
        self.max_object = max_object
        self.breaker = Breaker("shared")
        self.misses = self.garbled = self.errors = self.written = self.dropped = 0
        self._timeout_s = timeout_s
        form = SharedFormat(key)
        self._dumps = form.dumps
        cache = _SpreadCache if link.address.topology is Topology.CLUSTER else RedisCache
        self._cache = cache(serializer=_Serializer(form), namespace=namespace, timeout=timeout_s)
        self._cache.client = link.spread_client()
        self._namespace = namespace
        self._leases = Leases(self._cache.client, namespace, lease_s)
        self.waited = self.spared = 0
        self._later: list[_Asked] = []  # others are fetching it
        self._asked: deque[_Asked] = deque()
        self._asking = 0
        self._waiting: deque[tuple[Stored, int]] = deque()
        self._waiting_bytes = 0
        self._writing = False
        self._full_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: list[dict[str, Any]] = []
        self._told_at: dict[str, float] = {}

    @property
    def usable(self) -> bool:
        """Whether asking is worth the time: in step, and the server answers."""
        return self.view.in_step and self.breaker.closed

    # -- looking up ----------------------------------------------------------------------------------------------------

    def look(self, key: bytes, variant: bytes, then: Then) -> bool:
        """Ask for a key; `then` is called with what it has, which may be nothing. False: not asked, nothing comes."""
        if not self.usable or len(self._asked) >= MOST_ASKED or self.view.is_own(key, monotonic()):
            return False
        deadline = monotonic() + self._timeout_s
        self._asked.append(_Asked(key, name_of(key, variant), then, deadline, deadline + self._leases.lease_s))
        if len(self._asked) == 1:
            asyncio.get_running_loop().call_soon(self._ask)
        return True

    def _ask(self) -> None:
        """Send what waits, all of it in one question."""
        if self._asked and self._asking < ASKING:
            batch, self._asked = list(self._asked), deque()
            self._asking += 1
            self._run(self._answer(batch))

    async def _answer(self, batch: list[_Asked]) -> None:
        names = list(dict.fromkeys(asked.name for asked in batch))
        left_s = batch[0].deadline - monotonic()
        found: dict[str, Any] = {}
        try:
            if left_s > 0 and self.breaker.closed:
                found = dict(zip(names, await self._cache.multi_get(names, timeout=left_s), strict=True))
                self.breaker.succeeded()
                batch = await self._without_leased(batch, found)
        except ERRORS as error:
            self._failed(error)
        finally:
            self._asking -= 1
            self._ask()
        for asked in batch:
            entry = self._own(asked.key, found.get(asked.name))
            self.spared += asked.has_waited and entry is not None
            asked.then(entry)

    async def _without_leased(self, batch: list[_Asked], found: dict[str, Any]) -> list[_Asked]:
        """Those who need not wait for another machine's fetch; the others ask again a little later."""
        missing = list(dict.fromkeys(asked.name for asked in batch if found.get(asked.name) is None))
        if not missing or not self._leases.lease_s:
            return batch
        held = await self._leases.held_by_others(missing, self._timeout_s)
        now, left = monotonic(), []
        for asked in batch:
            if asked.name not in held or now >= asked.until or len(self._later) >= MOST_ASKED:
                left.append(asked)
                continue
            self.waited += not asked.has_waited
            if not self._later:
                asyncio.get_running_loop().call_later(AGAIN_S, self._again)
            self._later.append(asked._replace(has_waited=True))
        return left

    def _again(self) -> None:
        """Ask for what another machine was fetching."""
        later, self._later = self._later, []
        deadline = monotonic() + self._timeout_s
        self._asked.extend(asked._replace(deadline=deadline) for asked in later)
        self._ask()

    def _own(self, key: bytes, found: SharedEntry | Garbled | None) -> SharedEntry | None:
        if isinstance(found, SharedEntry) and found.key != key:
            found = Garbled("another key's value")
        if isinstance(found, Garbled):
            self.garbled += 1
            self._tell("shared.garbled", evidence=found.why, key=key[:200].decode("latin-1"))
            return None
        if found is None:
            self.misses += 1
        return found

    def left_of(self, entry: SharedEntry) -> Stored | None:
        """The response of an entry, if it may be used; its times by this machine's clock. To be asked once."""
        stored = self.view.left_of(entry, monotonic())
        if stored is None:
            self.misses += 1
        return stored

    # -- storing -------------------------------------------------------------------------------------------------------

    def put(self, stored: Stored, seq: int) -> bool:
        """Keep a response that was asked for at `seq` of this worker's sequence; written soon, or dropped."""
        if not self.usable or stored.file is not None or stored.part is not None or stored.length > self.max_object:
            return False
        if monotonic() < self._full_until or self._waiting_bytes + stored.size_bytes > MOST_WAITING_BYTES:
            self.dropped += 1
            return False
        self._waiting.append((stored, seq))
        self._waiting_bytes += stored.size_bytes
        if not self._writing:
            self._writing = True
            self._run(self._write())
        return True

    async def _write(self) -> None:
        try:
            while self._waiting:
                pairs = self._batch()
                if pairs and self.usable:
                    await self._send(pairs)
                else:
                    self.dropped += len(pairs)
        except ERRORS as error:
            self._failed(error)
            self._drop_all()
        finally:
            self._writing = False

    def _batch(self) -> list[tuple[str, bytes, int]]:
        """Names, values and lives in milliseconds of the next responses that no purge has named meanwhile."""
        pairs: list[tuple[str, bytes, int]] = []
        now, size = self.clock(), 0
        while self._waiting and len(pairs) < BATCH and size < BATCH_BYTES:
            stored, seq = self._waiting.popleft()
            self._waiting_bytes -= stored.size_bytes
            life_s = min(LONGEST_S, left_s(stored, now))
            if life_s <= 0 or self.purges().admit(seq, stored.key, stored.tags).verdict is not PurgeState.KEPT:
                continue
            value = self._dumps(self._entry(stored, stored))
            size += len(value)
            pairs.append((name_of(stored.key, stored.variant), value, int(life_s * 1000) + 1))
            if stored.vary:
                names = self._dumps(self._entry(stored, None))
                pairs.append((name_of(stored.key, b""), names, int(life_s * 1000) + 1))
        return pairs

    def _entry(self, stored: Stored, what: Stored | None) -> SharedEntry:
        view = self.view
        names = () if what is not None else tuple(name for name, _ in stored.vary)
        return SharedEntry(stored.key, view.line, view.position, view.offset_s, what, names)

    async def _send(self, pairs: list[tuple[str, bytes, int]]) -> None:
        pipeline = self._cache.client.pipeline(transaction=False)
        for name, value, life_ms in pairs:
            pipeline.set(f"{self._namespace}:{name}", value, px=life_ms)
        async with asyncio.timeout(WRITE_S):
            answers = await pipeline.execute(raise_on_error=False)
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        self.written += len(answers) - len(refused)
        self.dropped += len(refused)
        if refused:
            self._refused(refused[0])
        else:
            self.breaker.succeeded()

    def _refused(self, error: Exception) -> None:
        """The server answers and does not take it: it may be asked still."""
        self.errors += 1
        if isinstance(error, OutOfMemoryError | ResponseError):
            self._full_until = monotonic() + FULL_FOR_S
            self._drop_all()
        kind = "shared.full" if isinstance(error, OutOfMemoryError) else "shared.refused"
        self._tell(kind, evidence=why_of(error), again_in_s=FULL_FOR_S)

    def _drop_all(self) -> None:
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        self.errors += 1
        self.breaker.failed(monotonic(), why_of(error))

    def _tell(self, kind: str, **facts: Any) -> None:
        """For the operator, each kind once a second at most."""
        now = monotonic()
        if now - self._told_at.get(kind, -TELL_EVERY_S) >= TELL_EVERY_S:
            self._told_at[kind] = now
            self._told.append({"kind": kind, **facts})

    def _run(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tick(self) -> None:
        """Four times a second: see whether a server that was given up answers again."""
        if self.breaker.wants_trial(monotonic()):
            self._run(self._try())

    async def _try(self) -> None:
        try:
            await self._cache.get("trial")
        except ERRORS as error:
            self._failed(error)
        else:
            self.breaker.succeeded()

    def events(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        told, self._told = self._told, []
        return [*self.breaker.events(), *told]

    def stats(self) -> dict[str, float]:
        """This worker's counters."""
        return {
            "misses": self.misses,
            "garbled": self.garbled,
            "errors": self.errors,
            "written": self.written,
            "dropped": self.dropped,
            "opened": self.breaker.opened,
            "waiting_bytes": self._waiting_bytes,
            "waited": self.waited,
            "spared": self.spared,
            "usable": int(self.usable),
        }

    async def close(self) -> None:
        """Close the connections; what waits is not written."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cache.client.aclose()


def name_of(key: bytes, variant: bytes) -> str:
    """The name of a value: keys are clients' bytes of any length."""
    return "o:" + blake2b(b"%b\n%b" % (key, variant), digest_size=16).hexdigest()


def shared_tier(config: Config) -> SharedTier:
    """What `cache.shared` names, which is there; used as soon as the control plane says that the machine is in step
    with its fleet. Raises ConfigError."""
    values, fleet = config.cache.shared, fleet_of(config)
    assert values is not None and fleet is not None
    key = seal_key(fleet.key_file)
    link = Link.of("cache.shared", values, values.timeout)
    return SharedTier(link, values.namespace, values.timeout, values.max_object, FleetView(), key, values.lease)
