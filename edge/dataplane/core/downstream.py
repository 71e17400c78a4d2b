"""What the data path asks of whoever asked it: an HTTP/1.1 connection, or one stream of an HTTP/2 connection.

    Asking       what a fast hit needs: it has no exchange, and may belong to a connection with many requests
    Downstream   what an exchange needs: one request at a time; Http1Downstream where it writes HTTP/1.1

One rule: nothing above these knows the protocol; how a response is written is the exchange's class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from edge.balance.geo import ClientPlace
from edge.dataplane.core.bound import Bound
from edge.dataplane.core.certificate import ClientCertificate
from edge.dataplane.core.context import WorkerContext
from edge.http.grammar import ResponseFacts
from edge.http.proxy_protocol import ClientEnds

WRITE_TOGETHER = 16 * 1024  # up to here one copy is cheaper than a second buffer


class Asking(Protocol):
    """The part of a client connection that a fast hit needs."""

    scheme: bytes
    key_host: bytes | None  # the Host that `key_start` was made for, as an object
    key_start: bytes  # scheme and authority of a cache key

    @property
    def worker(self) -> WorkerContext: ...
    @property
    def peer_bytes(self) -> bytes: ...
    @property
    def trusted(self) -> bool: ...
    @property
    def version(self) -> bytes: ...
    @property
    def logged(self) -> bytes: ...  # the client and its protocols, as the JSON line has them
    @property
    def spoken(self) -> int: ...  # its protocols as a place in `metrics.PROTOCOLS`
    @property
    def shown_names(self) -> frozenset[bytes] | None: ...  # what our certificate covers, where it was asked for by name
    def send_stored(self, wire: bytes, chunks: tuple[bytes, ...], length: int, age: float, ttl: float) -> None: ...


def protocol(version: bytes, is_http11: bool) -> bytes:
    """The HTTP version for the log: that of the connection, unless the request said HTTP/1.0."""
    return version if is_http11 else b"HTTP/1.0"


def logged(client: bytes, version: bytes, tls: bytes) -> bytes:
    """A client with its HTTP and TLS versions, as the access log's JSON line has them from `"client":"` on."""
    return b'%b","protocol":"%b","tls":"%b' % (client, version, tls)


class Output(Protocol):
    """What an HTTP/1.1 response is written to: a transport, or what stands in for one."""

    def write(self, data: bytes | bytearray) -> None: ...
    def writelines(self, pieces: Iterable[bytes]) -> None: ...


class Downstream(Protocol):
    """The client side of one exchange."""

    scheme: bytes
    bound: Bound | None  # a backend connection that carries this client's identity
    paused: bool  # the client does not take what we write
    place: ClientPlace | None  # where the peer is, once somebody asked
    forward_lines: tuple[bytes, bytes]  # (host, the asserted lines for it): see forwarding
    deadline: float

    @property
    def key_host(self) -> bytes | None: ...
    @property
    def key_start(self) -> bytes: ...
    @property
    def worker(self) -> WorkerContext: ...
    @property
    def peer(self) -> str: ...
    @property
    def peer_bytes(self) -> bytes: ...
    @property
    def trusted(self) -> bool: ...
    @property
    def shown_names(self) -> frozenset[bytes] | None: ...  # what our certificate covers, where it was asked for by name
    @property
    def certificate(self) -> ClientCertificate | None: ...  # the client's own, verified
    @property
    def tls(self) -> bytes: ...  # the version of TLS; empty without
    @property
    def logged(self) -> bytes: ...  # the client and its protocols, as the JSON line has them
    @property
    def spoken(self) -> int: ...  # its protocols as a place in `metrics.PROTOCOLS`
    @property
    def asked_by(self) -> tuple[bytes, ...]: ...  # the requests of applications within which this is a subrequest
    @property
    def is_gone(self) -> bool: ...  # the client has left
    def client_ends(self, client: str) -> ClientEnds: ...  # of the connection of that client
    def stop_reading(self, why: int = 1) -> None: ...  # until `start_reading` with the same reason
    def start_reading(self, why: int = 1) -> None: ...
    def turn(self) -> None: ...  # go on with bytes that wait, in a later turn of the loop
    def exchange_ended(self, keep: bool) -> None: ...  # read the next request, or end the connection
    def abort(self, reset: bool = False) -> None: ...  # so that a cut body cannot look whole
    def let_go(self) -> None: ...  # give up a bound backend connection


class Http1Downstream(Downstream, Protocol):
    """A client side that takes HTTP/1.1 bytes. `switch`: a backend has changed the protocol (101)."""

    @property
    def transport(self) -> Output: ...
    def switch(self, exchange: Any, facts: ResponseFacts, first: bytes) -> None: ...
