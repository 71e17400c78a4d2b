"""All connections to one backend: kept ones (newest first), new ones, none older than its lifetime or than its address.

One rule: a request that finds a kept connection starts no task; only making a new connection does. An address that
does not resolve or answer is an error of that attempt, never of the start (`names`).
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from math import inf
from time import monotonic
from typing import Any

from edge.adapters.dialing import is_path, within
from edge.adapters.names import Names, race
from edge.adapters.upstream_connection import Phase, UpstreamConnection
from edge.cache.judged import cost_beside
from edge.errors import ConnectFailed, ConnectTimeout, UpstreamError
from edge.http.grammar import Limits, ResponseFacts, response_head
from edge.http.memo import Memo
from edge.metrics import Meter
from edge.ports import Connector, ResponseSink, Timeouts

JITTER = 0.1  # part of a lifetime by which connections differ
IDLE_MARGIN_S = 1.0  # how much earlier than the origin's own hint an idle connection is given up


def _is_idle(connection: UpstreamConnection) -> bool:
    """Whether it could carry a request."""
    return connection.phase is Phase.IDLE and connection.sink is None and not connection.transport.is_closing()


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _soon(go: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(go)


class CertificateInvalid(ConnectFailed):
    """The backend's certificate did not verify, or the handshake failed."""

    proxy_status = "tls_certificate_error"
    passing = False


@dataclass(frozen=True, slots=True)
class Peer:
    """A backend's address and how to connect to it (TLS, PROXY header)."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    resolve_s: float = 30.0  # how old what is known of its addresses may be
    lifetime_s: float = 0.0  # of a connection; 0 = no limit
    proxy_protocol: str = ""  # the version of the header that tells it whose a connection is (`announcing_link`)


class BackendLink:
    """The connections to one backend of one worker."""

    __slots__ = (
        "_connecting",
        "_name",
        "_retired",
        "_version",
        "chunk_line_bytes",
        "connections",
        "idle",
        "interim_max",
        "label",
        "later",
        "limits",
        "memo",
        "meter",
        "peer",
        "timeouts",
        "trailer_bytes",
    )

    def __init__(
        self,
        peer: Peer,
        timeouts: Timeouts,
        limits: Limits,
        memo: Memo[ResponseFacts],
        names: Names | None = None,
    ) -> None:
        self.peer = peer
        self.meter = Meter()
        self.label = b""  # the backend's id and region as the log writes them
        self.timeouts = timeouts
        self.limits = limits
        self.memo = memo
        self.interim_max = 16
        self.chunk_line_bytes = 4096
        self.trailer_bytes = 8192
        self.later: Callable[[Callable[[], None]], object] = _soon  # in a later turn of the loop
        self.idle: list[UpstreamConnection] = []
        self.connections: set[UpstreamConnection] = set()
        self._connecting: dict[asyncio.Task[None], Connector] = {}  # and who waits for the connection
        self._name = None if is_path(peer.host) or _is_literal(peer.host) else (names or Names()).get(peer.host)
        self._version = 0  # of the name's addresses, as the connections were looked through last
        self._retired = False

    def renew(self, other: BackendLink) -> bool:
        """Take the settings of another link to the same backend; False when connections must be made in another way."""
        own, peer = self.peer, other.peer
        if replace(own, resolve_s=peer.resolve_s, lifetime_s=peer.lifetime_s) != peer:
            return False
        self.peer, self.timeouts, self.limits, self.memo = peer, other.timeouts, other.limits, other.memo
        self.label, self.later, self.interim_max = other.label, other.later, other.interim_max
        self.chunk_line_bytes, self.trailer_bytes = other.chunk_line_bytes, other.trailer_bytes
        self.meter.count_by(other.meter.latency.bounds)
        return True

    def take(self, waiter: Connector | None = None) -> UpstreamConnection | None:
        """The newest idle connection that is still good, or None."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.transport.is_closing():
                connection.reused = True  # as `reuse`, which would be one more call for each request
                connection.deadline = inf
                return connection
        return None

    @staticmethod
    def reuse(connection: UpstreamConnection) -> UpstreamConnection:
        """Mark it as in use: it is not idle any more."""
        connection.reused = True
        connection.deadline = inf
        return connection

    def keep(self, connection: UpstreamConnection) -> None:
        """Add it to the idle connections."""
        self.idle.append(connection)

    def unkeep(self, connection: UpstreamConnection) -> None:
        """Remove it from the idle connections."""
        self.idle.remove(connection)

    def connect(self, waiter: Connector, timeout: float) -> None:
        """Make a new connection; the waiter is called with it, or with the failure, later on the loop."""
        self._retired = False  # who asks for one means to use the backend (again)
        task = asyncio.get_running_loop().create_task(self._connect(waiter, timeout), name=f"connect {self.peer.host}")
        self._connecting[task] = waiter
        task.add_done_callback(lambda done: self._connecting.pop(done, None))

    def give_back(self, connection: UpstreamConnection) -> None:
        """Return a connection after a complete exchange. It is kept until its idle deadline, unless the backend has
        left.
        """
        now = monotonic()
        deadline = now + connection.idle_s
        if deadline > connection.retire_at:
            deadline = connection.retire_at
        if self._retired or deadline < now:
            connection.cancel()
            return
        connection.deadline = deadline
        if not connection.bound:
            self.keep(connection)

    def bind(self, connection: UpstreamConnection) -> None:
        """Reserve it for the one client whose request it carries, or carried last; it never becomes idle again."""
        connection.bound = True
        if connection in self.idle:
            self.unkeep(connection)

    def take_bound(self, connection: UpstreamConnection) -> bool:
        """Whether that client's next request may use it."""
        if not _is_idle(connection) or monotonic() >= connection.retire_at:
            return False
        self.reuse(connection)
        return True

    def let_go(self, connection: UpstreamConnection) -> None:
        """The client of a bound connection left: close it when its request is over."""
        connection.retire_at = -inf
        if _is_idle(connection):
            connection.cancel()

    def hint(self, connection: UpstreamConnection, seconds: float) -> None:
        """The origin said for how many seconds it keeps an idle connection."""
        connection.idle_s = min(self.timeouts.idle, max(seconds - IDLE_MARGIN_S, 0.0))

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection was closed."""
        self.connections.discard(connection)
        if connection in self.idle:
            self.unkeep(connection)

    def tick(self, now: float) -> None:
        """Close what has passed its deadline, and keep the addresses of a name in use up to date."""
        for connection in [c for c in self.connections if c.deadline <= now]:
            connection.expire()
        name = self._name
        if name is not None and self.connections:
            name.refresh(self.peer.resolve_s, now)
            if name.version != self._version:
                self._version = name.version
                self._leave_old({address for _, address in name.addresses})

    def _leave_old(self, addresses: set[str]) -> None:
        """Let go of connections to addresses that the name has no more: idle ones now, the others when they end."""
        for connection in [c for c in self.connections if c.address not in addresses]:
            connection.retire_at = -inf
            if connection in self.idle or (connection.bound and _is_idle(connection)):
                connection.cancel()

    def silent(self, before: float) -> list[ResponseSink]:
        """The requests that were sent whole before this time and have had no byte of an answer."""
        return [c.sink for c in self.connections if c.sink is not None and c.waits_since <= before]

    def open(self) -> list[ResponseSink | Connector]:
        """The requests that are at the backend, or wait for a connection to it."""
        waiters = [waiter for task, waiter in self._connecting.items() if not task.done()]
        return [*(c.sink for c in self.connections if c.sink is not None), *waiters]

    def close_idle(self) -> None:
        """Close idle connections, now and later, because the backend leaves or the gateway stops. Running exchanges
        go on.
        """
        self._retired = True
        for connection in [c for c in self.connections if c in self.idle or (c.bound and _is_idle(c))]:
            connection.cancel()

    async def close(self) -> None:
        """Close all connections."""
        if self._name is not None:
            self._name.close()
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in list(self.connections):
            connection.cancel()

    async def _connect(self, waiter: Connector, timeout: float) -> None:
        try:
            connection = await within(timeout, lambda: self._open(waiter))
        except TimeoutError:
            waiter.on_failed(ConnectTimeout("connect deadline passed"))
        except UpstreamError as error:
            waiter.on_failed(error)
        except Exception:  # a bug; but whoever waits must hear, or its backend is never given back
            waiter.on_failed(ConnectFailed("connect failed"))
            raise
        else:
            try:
                waiter.on_connected(connection)
            except Exception as error:
                connection.cancel()
                waiter.on_bug(error)

    async def _open(self, waiter: Connector) -> UpstreamConnection:
        """A new connection, to whichever address answers."""
        name = self._name
        if name is None:
            return await self._reach(self.peer.host, waiter)
        order = await name.candidates(self.peer.resolve_s)
        while True:
            winner: str | None = None
            try:
                if len(order) == 1:
                    winner = order[0][1]
                    return await self._reach(winner, waiter)
                sock, winner = await race(order, self.peer.port)
                name.learn(order, winner)
                return await self._reach(winner, waiter, sock)
            except (OSError, ConnectFailed) as failed:
                if winner is None or len(order) == 1:
                    name.learn(order, None)
                    raise self.failure(failed) from None
                order = [each for each in order if each[1] != winner]  # it accepts, but its handshake fails

    async def _reach(self, address: str, waiter: Connector, sock: socket.socket | None = None) -> UpstreamConnection:
        return await self._begin(UpstreamConnection(self), address, sock)

    async def _begin(self, made: UpstreamConnection, address: str, sock: socket.socket | None) -> UpstreamConnection:
        """Join a connection to an address, or to a socket that is connected to it; TLS included."""
        peer = self.peer
        server_name = (peer.server_name or peer.host) if peer.tls else None
        loop = asyncio.get_running_loop()
        protocol: Any = made  # by its methods
        try:
            if is_path(address) and sock is None:
                await loop.create_unix_connection(lambda: protocol, address)
            elif is_path(address):
                await loop.create_unix_connection(lambda: protocol, sock=sock)
            elif sock is not None:
                await loop.create_connection(lambda: protocol, sock=sock, ssl=peer.tls, server_hostname=server_name)
            else:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                await loop.create_connection(
                    lambda: protocol, address, peer.port, family=family, ssl=peer.tls, server_hostname=server_name
                )
        except OSError as failed:
            raise self.failure(failed) from None
        made.address = address
        if peer.lifetime_s:  # not all of one moment end at one moment
            made.retire_at = monotonic() + peer.lifetime_s * (1.0 - JITTER * random.random())
        self.connections.add(made)
        return made

    @staticmethod
    def failure(failed: Exception) -> ConnectFailed:
        """The error of a failed connection attempt, for the request that waits for it."""
        if isinstance(failed, ConnectFailed):
            return failed
        if isinstance(failed, ssl.SSLError):
            return CertificateInvalid(getattr(failed, "reason", None) or "TLS handshake failed")
        return ConnectFailed(getattr(failed, "strerror", None) or "connect failed")


def response_memo(limits: Limits, left_out: frozenset[bytes] = frozenset()) -> Memo[ResponseFacts]:
    """A memo of response heads under these limits, shared by the links of one worker. `left_out`: fields to remove
    from all.
    """
    return Memo(lambda head: response_head(head, limits, left_out), beside=cost_beside)
