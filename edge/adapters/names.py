"""Names to addresses, and a connection to one of several addresses.

    name ─► one lookup at a time, whoever asks ─► addresses for `resolve` ─► raced, those that were dead lately last
                └─ fails ─► the last good answer serves on; without one the failure stands for a while

One rule: nobody waits for a lookup longer than for his own connection, and a lookup that is under way is never ended by
the one who asked: others wait for it too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from weakref import WeakValueDictionary

from aiohappyeyeballs import AddrInfoType, start_connection

from edge.errors import ConnectFailed

FAILED_S = 5.0  # a name that was not found is not asked for again before, or before `resolve` if that is shorter
DEAD_S = 30.0  # an address that did not answer comes last for so long
NEXT_S = 0.25  # how long one address may be silent before the next is tried beside it (RFC 8305 5)
NEVER = float("-inf")

Address = tuple[int, str]  # family, text
Lookup = Callable[[str], Awaitable[list[Address]]]


class NameUnresolved(ConnectFailed):
    """The backend's name did not resolve."""

    proxy_status = "dns_error"
    passing = False


async def system_lookup(host: str) -> list[Address]:
    """All addresses of a name, as the system finds them; raises OSError or UnicodeError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(entry[0]), str(entry[4][0])) for entry in found))


class Name:
    """One name: its addresses, and what is known of them."""

    def __init__(self, host: str, lookup: Lookup) -> None:
        self.host = host
        self.addresses: list[Address] = []
        self.version = 0  # another one when the addresses are others
        self._lookup = lookup
        self._found_at = self._failed_at = NEVER
        self._why = ""
        self._task: asyncio.Task[None] | None = None
        self._turn = 0
        self._dead: dict[str, float] = {}  # until when

    def refresh(self, resolve_s: float, now: float) -> asyncio.Task[None] | None:
        """Ask, unless what is known is new enough; the lookup that is under way."""
        if self._task is not None:
            return self._task
        if now - self._found_at < resolve_s or now - self._failed_at < min(FAILED_S, resolve_s):
            return None
        self._task = asyncio.get_running_loop().create_task(self._ask(), name=f"look up {self.host}")
        return self._task

    async def _ask(self) -> None:
        try:
            found = await self._lookup(self.host)
        except (OSError, UnicodeError) as failed:  # a label that IDNA refuses is no name either
            self._failed_at, self._why = monotonic(), getattr(failed, "strerror", None) or "name not resolved"
        else:
            self._found_at = monotonic()
            if set(found) != set(self.addresses):
                self.addresses = found
                self.version += 1
        finally:
            self._task = None

    async def candidates(self, resolve_s: float) -> list[Address]:
        """The addresses in the order to try: another one first each time, dead ones last. Raises NameUnresolved."""
        asked = self.refresh(resolve_s, monotonic())
        if asked is not None:
            await asyncio.shield(asked)
        if not self.addresses:
            raise NameUnresolved(self._why or "no address")
        self._turn += 1
        turn = self._turn % len(self.addresses)
        now = monotonic()
        return sorted(
            self.addresses[turn:] + self.addresses[:turn], key=lambda each: self._dead.get(each[1], NEVER) > now
        )

    def learn(self, order: list[Address], winner: str | None) -> None:
        """Who stood before the one that answered did not, or not in time; None: nobody did."""
        now = monotonic()
        for _, address in order:
            if address == winner:
                self._dead.pop(address, None)
                break
            self._dead[address] = now + DEAD_S
        known = {address for _, address in self.addresses}
        self._dead = {address: until for address, until in self._dead.items() if address in known}

    def close(self) -> None:
        """Stop resolving."""
        if self._task is not None:
            self._task.cancel()


class Names:
    """The names of one worker: backends of one name, in whatever pools, share its lookups."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup
        self._known: WeakValueDictionary[str, Name] = WeakValueDictionary()

    def get(self, host: str) -> Name:
        """A name; it is remembered as long as somebody holds it."""
        found = self._known.get(host)
        if found is None:
            found = self._known[host] = Name(host, self._lookup)
        return found


async def race(order: list[Address], port: int) -> tuple[socket.socket, str]:
    """A socket that is connected to the first of them that answers, and which that is. Raises OSError."""
    infos: list[AddrInfoType] = [
        (family, socket.SOCK_STREAM, 0, "", (address, port) if family == socket.AF_INET else (address, port, 0, 0))
        for family, address in order
    ]
    made = await start_connection(infos, happy_eyeballs_delay=NEXT_S)
    return made, str(made.getpeername()[0])
