"""TLS of one client connection: a transport for the HTTP protocol, and itself the protocol of the socket's transport.

    socket ─► bytes ─► OpenSSL (memory BIO) ─► HTTP protocol          handshake, data both ways, close_notify both ways

The event loop's own TLS layer needs two tasks, a timer and several loop iterations for each connection; this one none.

One rule: nothing is buffered here. Bytes are decrypted and passed on in the same call, and everything that is written
during that call leaves in one write at its end. Only the socket's transport has a buffer, so it alone counts what is
unsent, and pausing reading or writing pauses the socket.

New keys (KeyUpdate, RFC 8446 4.6.3) cost us a derivation for 27 bytes of the client, and an answer where it wants one,
whether it reads or not. So what carries no data is bounded: what OpenSSL answers by itself, and bytes in a row.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any

RECORD_BYTES = 16384  # the longest plaintext of a record (RFC 8446 5.1); reading less could leave a rest inside OpenSSL
GATHERED_BYTES = 65536  # written at most together: a memory BIO never shrinks
READ_BYTES = 5 + RECORD_BYTES + 256  # decrypted at most together: the longest record, so that a flood is seen in time
ANSWERS_BYTES = 16384  # that OpenSSL may say by itself in the life of a connection: 600 new keys
EMPTY_BYTES = 2 * READ_BYTES  # in a row without data: a record of padding, and most of the next one

Bytes = bytes | bytearray | memoryview


class TlsTransport(asyncio.Transport):
    """The server side. `session` is OpenSSL's view of the connection; `engine` has the same calls in C: CPython wraps
    each in a Python function."""

    __slots__ = (
        "_answers",
        "_closing",
        "_decrypts",
        "_empty",
        "_gathers",
        "_incoming",
        "_open",
        "_outgoing",
        "_parts",
        "_protocol",
        "_raw",
        "_seal",
        "engine",
        "session",
    )

    session: ssl.SSLObject
    engine: Any
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _open: Callable[[int], bytes]
    _seal: Callable[[Bytes], int]

    def __init__(self, raw: asyncio.Transport, protocol: Any) -> None:
        """`protocol` (an asyncio.Protocol by its methods) gets the socket's bytes as they are until `begin`. Make it
        before the socket is read: uvloop stops and starts reading for another protocol, which costs system calls."""
        self._raw = raw  # asyncio's __init__ would make a dictionary for `get_extra_info`, which is the raw one's here
        self._protocol = protocol
        self._decrypts = False
        self._closing = self._parts = False
        self._gathers = True  # writes wait for the end of the read, or of the handshake
        self._answers = self._empty = 0  # bytes: see the module
        raw.set_protocol(self)  # type: ignore[arg-type]  # a protocol by its methods

    # -- the handshake ---------------------------------------------------------------------------------------------

    def open(self, context: ssl.SSLContext) -> None:
        """Take OpenSSL's memory, for a handshake under this context."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.engine = engine = getattr(session, "_sslobj", session)
        self._open, self._seal = engine.read, engine.write

    def shake(self, data: bytes) -> bool:
        """Feed the handshake; returns whether it is finished. On ssl.SSLError the alert has been sent."""
        self._incoming.write(data)
        try:
            self.engine.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            self._flush()
            raise
        return True

    def begin(self) -> None:
        """Start passing data, after the handshake and once the protocol is set."""
        self._decrypts = True
        self._answers = -self._outgoing.pending  # the end of the handshake, and what the protocol said first
        self._take()

    # -- what the transport below says -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of the client: decrypt them, after the handshake."""
        count = len(data)
        if not self._decrypts:
            self._protocol.data_received(data)
        elif count <= READ_BYTES:
            self._incoming.write(data)
            self._take(count)
        else:
            for at in range(0, count, READ_BYTES):
                if not self._raw.is_closing():
                    self.data_received(data[at : at + READ_BYTES])

    def _take(self, count: int = 0) -> None:
        """Pass on everything that can be decrypted now, after `count` bytes came."""
        read, incoming, outgoing = self._open, self._incoming, self._outgoing
        found: list[bytes] = []
        ended, self._gathers = False, True
        try:
            while incoming.pending:
                piece = read(RECORD_BYTES)
                if not piece:
                    ended = True
                    break
                found.append(piece)
        except ssl.SSLWantReadError:  # a partial record, or one without application data
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError:
            self.abort()
            return
        if (outgoing.pending or self._empty or not found) and self._floods(0 if found else count):
            self.abort()
            return
        if found and not self._closing:
            self._protocol.data_received(found[0] if len(found) == 1 else b"".join(found))
        if ended:
            self._peer_ended()
        self._gathers = False
        if outgoing.pending:
            self._flush()
        if ended or self._parts:
            self._raw.close()

    def _floods(self, empty: int) -> bool:
        """Whether the client makes us work for nothing: count what OpenSSL has just said by itself, and the `empty`
        bytes that came, which are 0 where there was data among them."""
        self._answers += self._outgoing.pending
        self._empty = self._empty + empty if empty else 0
        return self._answers > ANSWERS_BYTES or self._empty > EMPTY_BYTES

    def _peer_ended(self) -> None:
        """The client sent close_notify: answer it."""
        if not self._closing:
            self._protocol.eof_received()
            self.close()

    def eof_received(self) -> bool:
        """The client closed without close_notify: send what is written, then close."""
        self._closing = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket's connection ended."""
        self._closing = True
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The socket's buffer has room again."""
        self._protocol.resume_writing()

    # -- what the protocol above asks ------------------------------------------------------------------------------

    def write(self, data: Bytes) -> None:
        if self._closing or not data:
            return
        if len(data) <= RECORD_BYTES:
            self._seal(data)
        else:
            self._seal_large(data)
        if not self._gathers or self._outgoing.pending >= GATHERED_BYTES:
            self._flush()

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        for data in list_of_data:
            self.write(data)

    def _seal_large(self, data: Bytes) -> None:
        view, at = memoryview(data), 0
        while at < len(view):
            at += self._seal(view[at : at + GATHERED_BYTES])
            if self._outgoing.pending >= GATHERED_BYTES:
                self._flush()

    def _flush(self) -> None:
        """Write what OpenSSL has encrypted."""
        data = self._outgoing.read()
        if data and not self._raw.is_closing():
            self._raw.write(data)

    def close(self) -> None:
        """Send close_notify after what is written; the connection closes when the client has sent its own."""
        if self._closing:
            return
        self._closing = True
        try:
            self.session.unwrap()
        except ssl.SSLWantReadError:  # the client's own close_notify is still to come
            pass
        except ssl.SSLError:
            self.abort()
            return
        if not self._gathers:
            self._flush()
        self._raw.resume_reading()

    def part(self) -> None:
        """Close, and await no close_notify of the client (RFC 8446 6.1)."""
        self.close()
        self._parts = True
        if not self._gathers:
            self._raw.close()

    def abort(self) -> None:
        self._closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._closing or self._raw.is_closing()

    def can_write_eof(self) -> bool:
        """No: TLS ends both directions together."""
        return False

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.session if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size() + self._outgoing.pending

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)
