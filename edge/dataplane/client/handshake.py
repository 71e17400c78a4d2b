"""A connection of a TLS listener, until its handshake is done: then it is an HTTP/1.1 or an HTTP/2 connection.

    accepted ─► first record ─► TLS? ─yes─► room? ─yes─► handshake, in turns ─► its certificate ─► protocol (ALPN)
     counted       └─ not whole: │no            └─no: ended
     and timed        not begun  └─► plain HTTP: 400 that says so; else ended

One rule: a handshake is a connection like any other. It counts from accept towards the limits in all and for its
address, has the same deadline as a request head, and ends with it; what it needs of the loop ends with it too. What is
dear (OpenSSL's memory, a signature) is begun only for a whole first record of a handshake, a bounded number at a time.
Who the client is by its certificate is asked of every connection, for a resumed session is a handshake without one.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING, Any, cast

from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.certificate import certificate_of
from edge.dataplane.client.connection import QUIET_S, ClientConnection
from edge.dataplane.client.http2_connection import Http2Connection
from edge.dataplane.core.server_tls import ServerTls
from edge.dataplane.serve import refuse
from edge.errors import PlainHttp

if TYPE_CHECKING:
    from edge.dataplane.core.context import WorkerContext
    from edge.dataplane.core.exchange import Exchange

DAY_S = 86400.0  # in effect none: what is unsent at the end has its own deadline (`leaving`)
LATER_S = 1.0  # after our own deadline, the loop's for a handshake
RECORD = b"\x16\x03"  # of a handshake (RFC 8446 5.1): then a byte of the version, and two of the length
LONGEST_RECORD = 16384
UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"  # the alert; the loop's own ends the connection without a word
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

    __slots__ = ("_accepted_at", "_h2c", "_over", "_task", "_tls")

    def __init__(self, worker: WorkerContext, tls: ServerTls, h2c: bool) -> None:
        super().__init__(worker, b"https")
        self._tls = tls
        self._h2c = h2c
        self._accepted_at = monotonic()
        self._task: asyncio.Task[None] | None = None
        self._over = False  # it counts no more: ended, or never admitted

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._over = not self.was_accepted(transport)

    def data_received(self, data: bytes) -> None:
        if self._task is not None:
            self._buffer += data
            return
        data = self._buffer + data
        length = int.from_bytes(data[3:5], "big")
        if RECORD.startswith(data[:2]) and (len(data) < 5 or 0 < length <= LONGEST_RECORD):
            self._buffer = data
            if len(data) >= 5 + length:
                self._begin()
        elif data[:1].isalpha():
            self._buffer = b""
            self.worker.handshakes.results["plain_http"] += 1
            self.scheme = b"http"
            refuse(ClientConnection.take_over(self), PlainHttp("plain HTTP on a port that speaks HTTPS"))
        else:
            self.end("not_tls")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("client_left")

    # -- the handshake ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        limits = self.worker.limits
        if not self.worker.handshakes.admit(self, limits.handshakes, limits.handshakes_per_client):
            self.end("too_many")
            return
        self._task = asyncio.get_running_loop().create_task(self._shake(), name=f"handshake {self.peer}")

    async def _shake(self) -> None:
        loop, raw = asyncio.get_running_loop(), self.transport
        if raw.is_closing():
            return
        limit_s = self.worker.limits.header_timeout
        started = loop.create_task(
            loop.start_tls(
                raw,
                self,  # type: ignore[arg-type]  # a protocol by its methods
                self._tls.context,
                server_side=True,
                ssl_handshake_timeout=limit_s + LATER_S,
                ssl_shutdown_timeout=DAY_S,
            )
        )
        try:
            await self._pass_on(raw)
            secured = await started
        except (OSError, EOFError) as error:  # refused, or gone
            self.end(_word(error))
        except asyncio.CancelledError:  # too late, or gone
            started.cancel()
            raw.abort()
            raise
        else:
            if secured is None or secured.is_closing():
                self.end("client_left")
            else:
                self._secured(secured)

    async def _pass_on(self, raw: asyncio.Transport) -> None:
        """Give the TLS protocol what came before it was there; its answer, which is dear, waits for its turn.

        The loop begins to read when `connection_made` returns, whatever it says, and `start_tls` takes over in a later
        turn: after one turn it has replaced the protocol, after the second one the new protocol knows its transport.
        """
        await asyncio.sleep(0)
        early = self.take_buffer()
        await asyncio.sleep(0)
        protocol = cast(Any, raw.get_protocol())  # uvloop's is one, without the name
        if protocol is self or raw.is_closing():
            return
        raw.pause_reading()  # nothing overtakes
        done = asyncio.get_running_loop().create_future()
        self.worker.turns.later(partial(self._feed, protocol, raw, early, done))
        await done

    def _feed(self, protocol: Any, raw: asyncio.Transport, early: bytes, done: asyncio.Future[None]) -> None:
        self._tls.on_refused = self._refused_name
        try:
            while early and not raw.is_closing():
                room = protocol.get_buffer(len(early))
                count = min(len(room), len(early))
                room[:count] = early[:count]
                protocol.buffer_updated(count)
                early = early[count:]
            if not raw.is_closing():
                raw.resume_reading()
        finally:
            self._tls.on_refused = _nothing
            if not done.done():
                done.set_result(None)

    def _refused_name(self) -> None:
        """Send the `unrecognized_name` alert ourselves: the loop closes before OpenSSL would send it."""
        with suppress(OSError):
            os.write(self.transport.get_extra_info("socket").fileno(), UNRECOGNIZED_NAME)

    def _secured(self, secured: asyncio.Transport) -> None:
        """The handshake succeeded: check the certificate and continue in the agreed protocol."""
        connection: ssl.SSLObject = secured.get_extra_info("ssl_object")
        if not self._may_stay(connection):
            self.end("no_certificate")
            return
        self.worker.handshakes.done(self, bool(connection.session_reused), connection.version() or "")
        limits = self.worker.limits
        self.raw, self.transport = self.transport, secured
        self.shown_names = self._tls.names(connection.context)
        secured.set_write_buffer_limits(limits.buffer_high, limits.buffer_low)
        if connection.selected_alpn_protocol() == "h2":
            Http2Connection.take_over(self, self.take_buffer())
        else:
            ClientConnection.take_over(self, self._h2c)

    def _may_stay(self, connection: ssl.SSLObject) -> bool:
        """Whether the client's certificate is acceptable; stores it on the connection."""
        if not self._tls.asks_for_certificates:
            return True
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
        """Close the connection before a protocol was chosen; `why` is counted."""
        if not self._over:
            self.worker.handshakes.results[why] += 1
        self.abort()

    def abort(self, reset: bool = False) -> None:
        self._over = True
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        (self.raw or self.transport).abort()
        self.worker.handshakes.forget(self)
        self.worker.forget_connection(self)

    def expire(self, now: float) -> None:
        self.end("timeout" if self._task is not None else "silent")

    def look(self, now: float) -> None:
        """Nothing to do: no response has been written that could be unsent."""
        self.worker.slow.discard(self)

    @property
    def asking(self) -> Iterable[Exchange]:
        return ()

    def drain(self, now: float) -> None:
        """No request came yet; one may be about to come, so wait for a moment of silence."""
        if self._accepted_at <= now - QUIET_S:
            self.end("drained")


def _nothing() -> None:
    """Stands for the abort function while no handshake is being read."""


def _word(error: Exception) -> str:
    """The label for `edge_tls_handshakes_total` of a handshake that failed."""
    if not isinstance(error, ssl.SSLError):
        return "client_left"
    reason = error.reason or ""
    return "refused_by_client" if "ALERT" in reason else _REASONS.get(reason, "failed")
