"""States that a fleet's machines share, in a server that speaks Redis' protocol (`control.fleet.states.StatesServer`).

    <namespace>:states   hash: by field its number, a bar, its value; the last number, and the collection's name

One rule: a number is given with the write that it is of, in one script, so that there is one order for all machines.
"""

from __future__ import annotations

from secrets import token_hex

from edge.adapters.redis_client import Link
from edge.adapters.redis_scripts import Scripts, meaning

MOST_FIELDS = 10_000
_NUMBER, _NAME = b"#number", b"#name"

_SET = """
local old = redis.call('HGET', KEYS[1], ARGV[1])
local number = old and tonumber(string.match(old, '^(%d+)|')) or 0
if ARGV[3] ~= '' and number >= tonumber(ARGV[3]) then return 0 end
redis.call('HSETNX', KEYS[1], '#name', ARGV[4])
if ARGV[5] ~= '' then redis.call('HDEL', KEYS[1], ARGV[5]) end
local n = redis.call('HINCRBY', KEYS[1], '#number', 1)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', n) .. '|' .. ARGV[2])
return n
"""
_ALL = """
return redis.call('HGETALL', KEYS[1])
"""


class RedisStatesServer:
    """The states of a fleet, as one machine reads and writes them."""

    def __init__(self, link: Link, namespace: str) -> None:
        self._scripts = Scripts(link, ("{" + namespace + "}:states",))

    async def states(self) -> tuple[str, dict[str, tuple[int, bytes]]]:
        """As `StatesServer.states`."""
        flat = await self._scripts.run(_ALL)
        found = meaning(lambda: dict(zip(flat[::2], flat[1::2], strict=True)))
        name = found.pop(_NAME, b"").decode("latin-1")[:64]
        found.pop(_NUMBER, None)
        return name, meaning(
            lambda: {field.decode(): _numbered(raw) for field, raw in list(found.items())[:MOST_FIELDS]}
        )

    async def set_state(self, field: str, value: bytes, newer_than: int | None, instead_of: str = "") -> int:
        """As `StatesServer.set_state`."""
        bound = "" if newer_than is None else str(newer_than)
        return int(await self._scripts.run(_SET, field, value, bound, token_hex(8), instead_of))

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()


def _numbered(raw: bytes) -> tuple[int, bytes]:
    number, _, value = raw.partition(b"|")
    return int(number), value
