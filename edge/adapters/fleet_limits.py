"""What clients owe over a whole fleet, in a server that speaks Redis' protocol (`control.fleet.limits.LimitsServer`).

    <namespace>:limit:<name>   until when this key owes something, by the server's clock (GCRA's TAT); gone soon after

One rule: all that a machine counted in one moment is one script.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.adapters.redis_client import Link
from edge.adapters.redis_scripts import Scripts, meaning

_OWE = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local owed = {}
for i = 1, #ARGV, 3 do
  local key = KEYS[1] .. ARGV[i]
  local due = tonumber(redis.call('GET', key) or '0')
  if due < now then due = now end
  due = due + tonumber(ARGV[i + 1]) * tonumber(ARGV[i + 2])
  redis.call('SET', key, string.format('%.6f', due), 'PX', math.ceil((due - now) * 1000) + 1000)
  owed[#owed + 1] = string.format('%.6f', due - now)
end
return owed
"""


class RedisLimitsServer:
    """One machine's link. The names share a hash tag with the one that is given: they are in its slot."""

    def __init__(self, link: Link, namespace: str) -> None:
        self._scripts = Scripts(link, ("{" + namespace + "}:limit:",))

    async def owe(self, counted: Sequence[tuple[str, int, float]]) -> list[float]:
        """As `LimitsServer.owe`."""
        values = [str(value) for row in counted for value in row]
        found = await self._scripts.run(_OWE, *values)
        return meaning(lambda: [float(each) for each in found])

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()
