"""A connection of a TLS listener, until its handshake is done: then it is an HTTP/1.1 or an HTTP/2 connection.

    accepted ─► first record ─► TLS? ─yes─► room? ─yes─► handshake, in turns ─► its certificate ─► protocol (ALPN)
     counted       └─ not whole: │no            └─no: ended
     and timed        not begun  └─► plain HTTP: 400 that says so; else ended

One rule: a handshake is a connection like any other. It counts from accept towards the limits in all and for its
address, has the same deadline as a request head, and ends with it. What is dear (OpenSSL's memory, a signature) is
begun only for a whole first record of a handshake, a bounded number at a time. Who the client is by its certificate is
asked of every connection, for a resumed session is a handshake without one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from time import time
from typing import TYPE_CHECKING

from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.certificate import certificate_of
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.client.http2_connection import Http2Connection
from edge.dataplane.client.leaving import QUIET_S
from edge.dataplane.client.reading import TURN
from edge.dataplane.client.tls_transport import TlsTransport
from edge.dataplane.core.server_tls import ServerTls
from edge.dataplane.serve import refuse
from edge.errors import PlainHttp

if TYPE_CHECKING:
    from edge.dataplane.core.context import WorkerContext
    from edge.dataplane.core.exchange import Exchange

RECORD = b"\x16\x03"  # of a handshake (RFC 8446 5.1): then a byte of the version, and two of the length
LONGEST_RECORD = 16384
_REASONS = {  # OpenSSL's words to ours; what is not here "failed"
    "CALLBACK_FAILED": "unknown_name",
    "CERTIFICATE_VERIFY_FAILED": "certificate_refused",
    "NO_SHARED_CIPHER": "nothing_in_common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "UNSUPPORTED_PROTOCOL": "nothing_in_common",
    "VERSION_TOO_LOW": "nothing_in_common",
}


class Handshake(Accepted):
    """A connection whose TLS handshake is not finished. `h2c`: HTTP/2 may begin without ALPN."""

    __slots__ = ("_begun", "_h2c", "_over", "_secure", "_shakes", "_tls")

    _secure: TlsTransport  # once it is admitted

    def __init__(self, worker: WorkerContext, tls: ServerTls, h2c: bool) -> None:
        super().__init__(worker, b"https")
        self._tls = tls
        self._h2c = h2c
        self._begun = False
        self._shakes = False  # the client's first record is read
        self._over = False  # it counts no more: ended, or never admitted

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._over = not self.was_accepted(transport)
        if not self._over:
            self._secure = TlsTransport(self.transport, self)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._shakes:
            self._go_on(data)
        elif self._begun:
            self._buffer += data
            self.stop_reading(TURN)
        else:
            self._first(self._buffer + data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("client_left")

    # -- the handshake ---------------------------------------------------------------------------------------------

    def _first(self, data: bytes) -> None:
        """Bytes before the handshake: wait for its whole first record; anything else ends the connection."""
        length = int.from_bytes(data[3:5], "big")
        if RECORD.startswith(data[:2]) and (len(data) < 5 or 0 < length <= LONGEST_RECORD):
            self._buffer = data
            if len(data) >= 5 + length:
                self._begin()
        elif data[:1].isalpha():
            self._buffer = b""
            self._secure.set_protocol(None)  # they would keep each other in memory
            self.worker.handshakes.results["plain_http"] += 1
            self.scheme = b"http"
            refuse(ClientConnection.take_over(self), PlainHttp("plain HTTP on a port that speaks HTTPS"))
        else:
            self.end("not_tls")

    def _begin(self) -> None:
        limits = self.worker.limits
        if not self.worker.handshakes.admit(self, limits.handshakes, limits.handshakes_per_client):
            self.end("too_many")
            return
        self._begun = True
        self.worker.turns.soon(self._answer)

    def _answer(self) -> None:
        """Read the first record and answer it: the expensive part, which signs and takes OpenSSL's memory."""
        if self._over or self.transport.is_closing():
            return
        self._shakes = True
        self._secure.open(self._tls.context)
        self._go_on(self.take_buffer())
        if self._holds:
            self.start_reading(TURN)

    def _go_on(self, data: bytes) -> None:
        try:
            done = self._secure.shake(data)
        except ssl.SSLError as error:
            self.end(_word(error))
            return
        if done:
            self._secured()

    def _secured(self) -> None:
        """The handshake succeeded: check the certificate and continue in the agreed protocol."""
        secure, tls = self._secure, self._tls
        engine = secure.engine
        if tls.asks_for_certificates and not self._may_stay(secure.session):
            self.end("no_certificate")
            return
        version = engine.version() or ""
        self.worker.handshakes.done(self, bool(engine.session_reused), version)
        self.transport, self.tls = secure, version.encode()
        self.shown_names = tls.names(engine.context)
        if engine.selected_alpn_protocol() == "h2":
            Http2Connection.take_over(self, b"")
        else:
            ClientConnection.take_over(self, self._h2c)
        secure.begin()

    def _may_stay(self, connection: ssl.SSLObject) -> bool:
        """Whether the client's certificate is acceptable; stores it on the connection."""
        try:
            found = certificate_of(connection)
        except (ValueError, ssl.SSLError):
            return False
        if found is not None and found.ends_at <= time():  # it was good when the session began
            return False
        self.certificate = found
        return found is not None or not self._tls.requires_certificates

    # -- the end -----------------------------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """Close the connection before a protocol was chosen; `why` is counted. An alert is still sent."""
        if not self._over:
            self.worker.handshakes.results[why] += 1
        self._leave()
        self.transport.close()

    def abort(self, reset: bool = False) -> None:
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        self._over = True
        self._buffer = b""
        self.worker.handshakes.forget(self)
        self.worker.forget_connection(self)

    def expire(self, now: float) -> None:
        self.end("timeout" if self._begun else "silent")

    def look(self, now: float) -> None:
        """Nothing to do: no response has been written that could be unsent."""
        self.worker.slow.discard(self)

    @property
    def asking(self) -> Iterable[Exchange]:
        return ()

    def drain(self, now: float) -> None:
        """No request came yet; one may be about to come, so wait for a moment of silence."""
        if self.deadline - self.worker.limits.header_timeout <= now - QUIET_S:
            self.end("drained")


def _word(error: ssl.SSLError) -> str:
    """The label for `edge_tls_handshakes_total` of a handshake that failed."""
    reason = error.reason or ""
    return "refused_by_client" if "ALERT" in reason else _REASONS.get(reason, "failed")
