"""All connections to one backend: kept ones (newest first), new ones, names resolved anew by interval.

One rule: a request that finds a kept connection starts no task; only making a new connection does. An address that
does not resolve or answer is an error of that attempt, never of the start.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from math import inf
from time import monotonic

from edge.adapters.upstream import UpstreamConnection
from edge.errors import ConnectFailed, ConnectTimeout, UpstreamError
from edge.http.grammar import Limits, ResponseFacts, response_head
from edge.http.memo import Memo
from edge.metrics import Meter
from edge.ports import Connector, ResponseSink, Timeouts

IDLE_MARGIN_S = 1.0  # how much earlier than the origin's own hint an idle connection is given up


def _soon(go: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(go)


class NameUnresolved(ConnectFailed):
    """The backend's name did not resolve."""

    proxy_status = "dns_error"
    passing = False


class CertificateInvalid(ConnectFailed):
    """The backend's certificate did not verify, or the handshake failed."""

    proxy_status = "tls_certificate_error"
    passing = False


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a backend listens and how it is spoken to."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    resolve_s: float = 30.0


class BackendLink:
    """The connections to one backend of one worker."""

    __slots__ = (
        "_addresses",
        "_connecting",
        "_resolved_at",
        "_retired",
        "_turn",
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

    def __init__(self, peer: Peer, timeouts: Timeouts, limits: Limits, memo: Memo[ResponseFacts]) -> None:
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
        self._addresses: list[tuple[int, str]] = []
        self._resolved_at = -inf
        self._turn = 0
        self._retired = False

    def take(self) -> UpstreamConnection | None:
        """The newest kept connection, if one is still good."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.transport.is_closing():
                connection.reused = True
                connection.deadline = inf
                return connection
        return None

    def connect(self, waiter: Connector, timeout: float) -> None:
        """Make a new connection; the waiter hears of it, or of the failure, later on the loop."""
        self._retired = False  # who asks for one means to use the backend (again)
        task = asyncio.get_running_loop().create_task(self._connect(waiter, timeout), name=f"connect {self.peer.host}")
        self._connecting[task] = waiter
        task.add_done_callback(lambda done: self._connecting.pop(done, None))

    def give_back(self, connection: UpstreamConnection) -> None:
        """A clean connection returns; it is kept until its idle deadline, unless the backend has left."""
        if self._retired:
            connection.cancel()
            return
        connection.deadline = monotonic() + min(self.timeouts.idle, connection.idle_until)
        self.idle.append(connection)

    def hint(self, connection: UpstreamConnection, seconds: float) -> None:
        """The origin said how long it keeps an idle connection."""
        connection.idle_until = max(seconds - IDLE_MARGIN_S, 0.0)

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is gone."""
        self.connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def tick(self, now: float) -> None:
        """Expire what missed its deadline."""
        for connection in [c for c in self.connections if c.deadline <= now]:
            connection.expire()

    def silent(self, before: float) -> list[ResponseSink]:
        """Who sent a whole request before then and has had not a byte of its answer."""
        return [c.sink for c in self.connections if c.sink is not None and c.waits_since <= before]

    def open(self) -> list[ResponseSink | Connector]:
        """Whose request is at the backend, or waits for a connection to it; one for each."""
        waiters = [waiter for task, waiter in self._connecting.items() if not task.done()]
        return [*(c.sink for c in self.connections if c.sink is not None), *waiters]

    def close_idle(self) -> None:
        """Keep none any more (the backend leaves, or the gateway stops); running exchanges go on."""
        self._retired = True
        for connection in list(self.idle):
            connection.cancel()

    async def close(self) -> None:
        """End everything."""
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in list(self.connections):
            connection.cancel()

    async def _connect(self, waiter: Connector, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                connection = await self._open()
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

    async def _open(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        peer = self.peer
        name = (peer.server_name or peer.host) if peer.tls else None
        error: Exception = ConnectFailed("no address")
        for family, address in await self._resolve():
            try:
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self),
                    address,
                    peer.port,
                    family=family,
                    ssl=peer.tls,
                    server_hostname=name,
                )
            except ssl.SSLError as failed:
                error = CertificateInvalid(getattr(failed, "reason", None) or "TLS handshake failed")
            except OSError as failed:
                error = ConnectFailed(failed.strerror or "connect failed")
            else:
                self.connections.add(connection)
                return connection
        raise error

    async def _resolve(self) -> list[tuple[int, str]]:
        """The backend's addresses, asked anew after `resolve_s`; the last good answer serves when a name fails."""
        peer = self.peer
        try:
            literal = ip_address(peer.host)
        except ValueError:
            pass
        else:
            return [(socket.AF_INET6 if literal.version == 6 else socket.AF_INET, peer.host)]
        now = monotonic()
        if now - self._resolved_at >= peer.resolve_s:
            loop = asyncio.get_running_loop()
            try:
                found = await loop.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as failed:  # a label that IDNA refuses is no name either
                if not self._addresses:
                    raise NameUnresolved(getattr(failed, "strerror", None) or "name not resolved") from None
            else:
                self._addresses = [(int(entry[0]), str(entry[4][0])) for entry in found]
                self._resolved_at = now
        self._turn += 1
        turn = self._turn % max(len(self._addresses), 1)
        return self._addresses[turn:] + self._addresses[:turn]


def response_memo(limits: Limits, left_out: frozenset[bytes] = frozenset()) -> Memo[ResponseFacts]:
    """A memo of response heads under these limits, shared by the links of one worker; fields may be left out of all."""
    return Memo(lambda head: response_head(head, limits, left_out))
