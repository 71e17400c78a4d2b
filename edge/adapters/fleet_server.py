"""The fleet's stream and its machines in a server that speaks Redis' protocol (`control.fleet.host.FleetServer`).

    <namespace>:head       hash: history, position and mark of the stream's last entry; the server's process (run) that
                           has it, the one before, the position at which it changed, and when
    <namespace>:purges     stream: entry N has the id N-0, its mark and its payload
    <namespace>:machines   hash: by machine, the server's time in milliseconds, a bar, and what it told

One rule: what belongs together happens in one script, so that two machines never see half of it, and in one process of
the server: after a failover some connections may still lead to the old one. The three names share a hash tag, so that
they are in one slot of a cluster.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson

from edge.adapters.redis_client import Link
from edge.adapters.redis_scripts import ANSWER_S, Scripts, meaning
from edge.adapters.tls import unreadable
from edge.cache.fleet.machines import Beat, Machine
from edge.cache.fleet.record import key_of
from edge.cache.fleet.stream import Entry, Head, StreamPlace
from edge.errors import ConfigError, FleetAway, HistoryChanged

READ_S = 5.0  # of all that the stream holds
LEAST_SECRET = 16
AT_ONCE = 512  # entries in one answer

_RUN = """
local said = redis.pcall('INFO', 'server')
local run = type(said) == 'string' and string.match(said, 'run_id:(%w+)') or ''
"""
_REACHED = """
redis.call('HSET', KEYS[2], '', '')
redis.call('HDEL', KEYS[2], '')
return 1
"""
_BEAT = (
    _RUN
    + """
local t = redis.call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[1] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', ms) .. '|' .. ARGV[2]) end
local h = redis.call('HMGET', KEYS[1], 'history', 'position', 'mark', 'run', 'begun', 'before', 'certified')
local same = (h[4] == run) and 1 or 0
local machines = redis.call('HGETALL', KEYS[2])
return {t[1], t[2], h[1] or '', h[2] or '0', h[3] or '', same, run, h[5] or t[1], h[6] or '', h[7] or '0', machines}
"""
)
_PUBLISH = (
    _RUN
    + """
local h = redis.call('HMGET', KEYS[1], 'history', 'run')
if h[1] ~= ARGV[1] or h[2] ~= run or run ~= ARGV[5] then return -1 end
local n = redis.call('HINCRBY', KEYS[1], 'position', 1)
redis.call('HSET', KEYS[1], 'mark', ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], string.format('%.0f-0', n), 'mark', ARGV[2], 'purge', ARGV[3])
return n
"""
)
_CERTIFY = (
    _RUN
    + """
local h = redis.call('HMGET', KEYS[1], 'history', 'position', 'mark', 'run')
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] or h[3] ~= ARGV[3] or run ~= ARGV[4] or h[4] == run then return 0 end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'run', run, 'before', h[4] or '', 'certified', ARGV[2], 'begun', t[1])
return 1
"""
)
_BEGIN = (
    _RUN
    + """
local h = redis.call('HGET', KEYS[1], 'history') or ''
if h ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'history', ARGV[2], 'position', 0, 'mark', '', 'run', run, 'begun', t[1])
redis.call('HDEL', KEYS[1], 'before', 'certified')
return 1
"""
)
_READ = (
    _RUN
    + """
if run ~= ARGV[1] then return -1 end
return redis.call('XRANGE', KEYS[3], string.format('%.0f-0', ARGV[2]), '+', 'COUNT', ARGV[3])
"""
)


class RedisFleetServer:
    """One machine's link to the server: two connections, one of which waits for purges."""

    def __init__(self, link: Link, namespace: str, keep: int) -> None:
        tagged = "{" + namespace + "}"
        self._scripts = Scripts(link, (f"{tagged}:head", f"{tagged}:machines", f"{tagged}:purges"))
        self._keep = keep

    async def reached(self) -> None:
        """Whether the server answers, accepts writes and is the primary. Other machines do not see this."""
        await self._scripts.run(_REACHED)
        await self._scripts.confirmed()

    async def beat(self, identity: str, told: dict[str, Any]) -> Beat:
        """Register or renew this machine (nothing is written without an identity); what the server says, which was
        the primary still when it had said it."""
        found = await self._scripts.run(_BEAT, identity, orjson.dumps(told))
        if identity:
            await self._scripts.confirmed()
        return meaning(lambda: _beat_of(found))

    async def confirmed(self) -> None:
        """The server that was heard is the primary still."""
        await self._scripts.confirmed()

    async def publish(self, history: str, run: str, mark: str, payload: bytes) -> int:
        """The position of a purge in the stream, as that process of the server has it. Raises HistoryChanged."""
        position = await self._scripts.run(_PUBLISH, history, mark, payload, self._keep, run)
        if int(position) < 0:
            raise HistoryChanged("the stream has another history")
        return int(position)

    async def begin(self, instead_of: str, history: str) -> None:
        """An empty stream with a history of its own, unless another machine was faster."""
        await self._scripts.run(_BEGIN, instead_of, history)

    async def certify(self, place: StreamPlace, run: str) -> None:
        """The server's new process goes on with the stream, whose last entry this is; unless it is another by now."""
        await self._scripts.run(_CERTIFY, place.history, place.position, place.mark, run)

    async def arrived(self, position: int, wait_s: float) -> bool:
        """Wait for entries from a position on; whether there are any. `read` has them."""
        after = f"{position - 1}-0"
        asked = self._scripts.client.xread({self._scripts.names[2]: after}, count=1, block=int(wait_s * 1000))
        return bool(await self._scripts.within(asked, wait_s + ANSWER_S))

    async def read(self, run: str, position: int) -> list[Entry]:
        """The entries from a position on, some at a time, as that process of the server has them."""
        rows = await self._scripts.run(_READ, run, position, AT_ONCE)
        if not isinstance(rows, list):
            raise FleetAway("another process of the server answers")
        return meaning(lambda: [_entry_of(row) for row in rows])

    async def read_all(self, run: str) -> list[Entry]:
        """All that the stream holds."""
        found: list[Entry] = []
        async with asyncio.timeout(READ_S):
            while True:
                some = await self.read(run, found[-1].position + 1 if found else 0)
                found += some
                if len(some) < AT_ONCE:
                    return found

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()


def _beat_of(found: list[Any]) -> Beat:
    seconds, micros, history, position, mark, same_run, run, begun, before, certified, flat = found
    machines = []
    for identity, value in zip(flat[::2], flat[1::2], strict=True):
        at, _, told = value.partition(b"|")
        try:
            machines.append(Machine.of(identity.decode()[:200], int(at) / 1000, orjson.loads(told)))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # not a machine's own words
    head = Head(
        history.decode("latin-1")[:64],
        int(position),
        mark.decode("latin-1")[:64],
        bool(same_run),
        run.decode("latin-1")[:64],
        before.decode("latin-1")[:64],
        int(certified),
    )
    return Beat(head, int(seconds) + int(micros) / 1e6, max(0.0, int(seconds) - float(begun)), machines)


def _entry_of(row: Any) -> Entry:
    identity, flat = row
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    milliseconds, _, _ = identity.partition(b"-")
    return Entry(int(milliseconds), fields[b"mark"].decode("latin-1")[:64], fields[b"purge"])


def seal_key(path: str | None) -> bytes:
    """The key that seals the fleet's entries, from `fleet.key_file`. Raises ConfigError."""
    if path is None:
        return b""
    if (why := unreadable(path)) is not None:
        raise ConfigError([f"fleet.key_file: {path}: {why}"])
    secret = Path(path).read_bytes().strip()
    if len(secret) < LEAST_SECRET:
        raise ConfigError([f"fleet.key_file: {path}: a secret has {LEAST_SECRET} bytes at least"])
    return key_of(secret)
