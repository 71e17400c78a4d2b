"""How often one address may ask the admin API (GCRA: a bucket that is one number), and how often with a wrong token.

One rule: a flood costs the gateway one look into a table for each request. Addresses of IPv6 count by /64, so that one
host is one; the table is bounded, and what is forgotten has only its allowance back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from time import monotonic

MOST = 4096  # addresses


class KeyedRateLimit:
    """A rate limit for each key: so many requests a second, and so many at once."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._gap = 1.0 / per_s
        self._room = self._gap * burst
        self._clock = clock
        self._due: OrderedDict[str, float] = OrderedDict()  # when the bucket is empty again

    def __len__(self) -> int:
        return len(self._due)

    def wait(self, key: str) -> float:
        """Count a request. Returns 0 when it may go on, otherwise the seconds to wait, and then it is not counted."""
        now = self._clock()
        due = max(now, self._due.get(key, now)) + self._gap
        if due - now > self._room + 1e-9:
            return due - now - self._room
        self._due[key] = due
        self._due.move_to_end(key)
        if len(self._due) > MOST:
            self._due.popitem(last=False)
        return 0.0

    def spent(self, key: str) -> float:
        """As `wait`, without counting."""
        now = self._clock()
        return max(0.0, max(now, self._due.get(key, now)) + self._gap - now - self._room)


def address_key(remote: str | None) -> str:
    """What counts as one asker: an IPv4 address, a /64, or everyone on a Unix socket."""
    try:
        address = ip_address((remote or "").partition("%")[0])
    except ValueError:
        return remote or ""
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped is not None else f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
