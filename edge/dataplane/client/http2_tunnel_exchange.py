"""The exchange of an extended CONNECT (RFC 8441), whose stream becomes a tunnel; the rule is in `http2_tunnel`."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import Any, Protocol

from edge.dataplane.client.http2_exchange import StreamExchange, StreamOutput
from edge.dataplane.client.tunnel import Tunnel, TunnelEnd
from edge.dataplane.core.body_mode import CHUNKED
from edge.errors import ResponseInvalid
from edge.http.grammar import ResponseFacts

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


class TunnelOutput(StreamOutput, TunnelEnd, Protocol):
    """What the exchange needs of its stream."""

    @property
    def key(self) -> bytes: ...  # that the backend was sent


class TunnelExchange(StreamExchange):
    """The exchange of an extended CONNECT."""

    must_switch = True

    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The backend's answer to the upgrade: 101 becomes 200 and a tunnel, others are passed on."""
        if facts.status == 101:
            self._switched(facts, body)
        elif facts.status < 300:
            self.fail(ResponseInvalid("did not switch to the protocol that was asked for"))
        else:
            super().head(facts, length, body, done)

    def _switched(self, facts: ResponseFacts, first: bytes) -> None:
        downstream: Any = self.downstream
        stream: TunnelOutput = downstream
        wanted = b64encode(sha1(stream.key + _GUID, usedforsecurity=False).digest())
        if facts.upgrade != self.block.upgrade or facts.fields.get_all(b"sec-websocket-accept") != (wanted,):
            self.fail(ResponseInvalid("switched to a protocol that nobody asked for"))
            return
        fetch, coder = self.fetch, self.worker.http2.coder
        assert fetch is not None
        self.status = 101  # in the log, as of any tunnel
        self.mode = CHUNKED
        lines = b"".join(
            [b"%b: %b\r\n" % line for line in facts.fields if line[0].lower() == b"sec-websocket-protocol"]
        )
        stream.head(coder.head(b"HTTP/1.1 200 OK\r\n") + coder.lines(lines + self.own_lines(False)), False)
        self.bytes_out = len(first)
        if first:
            stream.body((first,), False)
        Tunnel(self, stream, fetch, first)
