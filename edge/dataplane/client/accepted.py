"""What every client connection is, whatever it speaks: who is at the other end, what the worker counts and times.

One rule: only what both protocols have stands here; what bytes mean is for those who speak one.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from edge.dataplane.client.leaving import Leaving, Progress, unsent
from edge.dataplane.client.reading import Reading
from edge.dataplane.core.downstream import logged
from edge.http.forwarding import UNIX
from edge.http.identity import node_address
from edge.http.proxy_protocol import Addresses, ClientEnds
from edge.metrics import PLACES

if TYPE_CHECKING:
    from edge.balance.geo import ClientPlace
    from edge.dataplane.core.certificate import ClientCertificate
    from edge.dataplane.core.context import WorkerContext
    from edge.dataplane.core.exchange import Exchange


class Accepted(Reading, ABC):
    """A client connection, from accept to its end."""

    version = b"HTTP/1.1"
    many_clients = False  # it is not known whose it is, so no client's limit counts
    __slots__ = (
        "_progress",
        "addresses",
        "certificate",
        "deadline",
        "forward_lines",
        "key_host",
        "key_start",
        "leaving",
        "logged",
        "paused",
        "peer",
        "peer_bytes",
        "place",
        "scheme",
        "shown_names",
        "spoken",
        "tls",
        "trusted",
        "worker",
    )

    def __init__(self, worker: WorkerContext, scheme: bytes) -> None:
        super().__init__()
        self.worker = worker
        self.scheme = scheme
        self.addresses: Addresses | None = None  # as a PROXY header told them
        self.peer = ""
        self.peer_bytes = b""
        self.tls = self.logged = b""  # see `Downstream`
        self.spoken = PLACES[self.version, b""]
        self.trusted = False
        self.deadline = inf  # for what is awaited from the client; what it has to take is looked at by `look`
        self.paused = False  # the client does not take what we write
        self.leaving: Leaving | None = None  # after the last answer
        self.certificate: ClientCertificate | None = None  # verified, and not yet over when the connection was made
        self.shown_names: frozenset[bytes] | None = None  # what ours covers, where it was asked for by name (SNI)
        self.place: ClientPlace | None = None  # where the peer is, once somebody asked
        self.forward_lines: tuple[bytes, bytes] = (b"", b"")  # (host, the asserted lines for it): see forwarding
        self.key_host: bytes | None = None  # the Host that `key_start` was made for, as an object
        self.key_start = b""  # scheme and authority of a cache key
        self._progress: Progress | None = None

    def name_peer(self, transport: asyncio.BaseTransport) -> None:
        """Note the peer's address from the transport, or from a PROXY header that came before."""
        self.transport = transport  # type: ignore[assignment]
        if self.addresses is not None:
            self.peer = self.addresses.client
        else:
            there = transport.get_extra_info("peername")  # None: it was reset before it was accepted
            self.peer = there[0] if isinstance(there, tuple) else "" if there is None else UNIX
        self.peer_bytes = self.peer.encode()

    def was_accepted(self, transport: asyncio.BaseTransport) -> bool:
        """Admit a new connection and set its deadline; False when it was refused and aborted."""
        self.name_peer(transport)
        if not self.peer or not self.worker.admit_connection(self):
            self.transport.abort()  # early: a full gateway spends nothing on it
            return False
        if self.deadline == inf:
            self.deadline = monotonic() + self.worker.limits.header_timeout
        return True

    def follow(self, before: Accepted) -> None:
        """Take over the transport, identity and deadline of `before`, for the protocol that was agreed on."""
        self.peer, self.peer_bytes, self.trusted = before.peer, before.peer_bytes, before.trusted
        self.transport, self.certificate = before.transport, before.certificate
        self.addresses, self.deadline, self.shown_names = before.addresses, before.deadline, before.shown_names
        self.tls = before.tls
        self.spoken = PLACES[self.version, self.tls]
        self.logged = logged(self.peer_bytes, self.version, self.tls)
        self.worker.hand_over(before, self)
        self.transport.set_protocol(self)  # type: ignore[arg-type]  # a protocol by its methods

    def client_ends(self, client: str) -> ClientEnds:
        """Both ends of the connection of `client` (the peer, or an address that a trusted proxy stated)."""
        found, transport = self.addresses, self.transport
        if found is None and not transport.is_closing():
            here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
            if isinstance(there, tuple):  # a Unix socket has no address
                found = Addresses(there[0], there[1], here[0], here[1])
        if client != self.peer or found is None:
            if node_address(client) is None:
                return ClientEnds(None)
            server = "::" if ":" in client else "0.0.0.0"
            found = Addresses(client, 0, *((server, 0) if found is None else (found.server, found.server_port)))
        return ClientEnds(found, transport)

    def unsent(self) -> int:
        """How many bytes the client's host has not acknowledged yet."""
        return unsent(self.transport)

    def held(self, seen: set[int] | None) -> int:
        """How many bytes of answers are in memory because the client has not taken them (`worker.unread`). With `seen`,
        what is in it already is not counted again."""
        return self.transport.get_write_buffer_size()

    def end_unread(self) -> None:
        """End the connection for what it holds; what was cut must not look whole."""
        self.abort(reset=True)

    # -- a tunnel's bytes ----------------------------------------------------------------------------------------------

    def send_raw(self, data: bytes) -> None:
        """Write bytes of a tunnel to the client, without framing."""
        self.transport.write(data)

    def end_raw(self) -> None:
        """Close after the tunnel's last bytes; what is unsent keeps a deadline."""
        self.deadline = inf
        self.worker.slow.add(self)  # what is unsent has its deadline
        self.transport.close()

    # -- what the worker asks ------------------------------------------------------------------------------------------

    @abstractmethod
    def expire(self, now: float) -> None:
        """Called by the worker's tick when `deadline` (monotonic seconds) has passed."""

    @abstractmethod
    def look(self, now: float) -> None:
        """Called on each tick while the connection is in `worker.slow`: the client is slow or leaving."""

    @property
    @abstractmethod
    def asking(self) -> Iterable[Exchange]:
        """The exchanges that run on this connection."""

    @abstractmethod
    def drain(self, now: float) -> None:
        """Finish what runs, then close. Called on each tick until the connection has ended."""

    @abstractmethod
    def abort(self, reset: bool = False) -> None:
        """Close at once, dropping what is unsent; `reset` sends RST instead of FIN."""

    # -- asyncio -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio for a new transport, but not after `follow`."""

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """Called by asyncio with bytes of the client."""

    def eof_received(self) -> bool:
        """The client half-closed. The transport closes unless this returns True."""
        return False

    @abstractmethod
    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio when the connection has ended, for whatever reason."""

    def pause_writing(self) -> None:
        """Called by asyncio: the client reads more slowly than we write."""

    def resume_writing(self) -> None:
        """Called by asyncio: the write buffer is low again."""
