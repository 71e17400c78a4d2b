"""The request head that goes to a backend: built afresh, with one framing field and one Host.

One rule: the target goes on byte for byte (SECURITY 2); what the gateway asserts comes from the connection, never from
the client, unless the client is a trusted proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.balance.backend import Backend
from edge.http.forwarding import appended_lines, asserted_lines, client_address

if TYPE_CHECKING:
    from edge.dataplane.exchange import Exchange


def request_head(exchange: Exchange, backend: Backend, lines: bytes, framing: bytes) -> bytes:
    """The whole head as bytes; `lines` are the client's end-to-end fields, `framing` the one framing field or empty."""
    route = exchange.route
    assert route is not None
    host = exchange.host if route.preserve_host and exchange.host else backend.authority
    block = exchange.block
    if not framing and block.length == 0:  # a body that is there and empty: POST without a length is refused by many
        framing = b"Content-Length: 0\r\n"
    if block.upgrade is not None and exchange.wants_upgrade:
        framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % block.upgrade
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b%b\r\n" % (
        exchange.method,
        exchange.target,
        host,
        lines,
        forwarding_lines(exchange),
        exchange.identify(),
        framing,
    )


def forwarding_lines(exchange: Exchange) -> bytes:
    """X-Forwarded-*, Forwarded and Via for this client and host."""
    front = exchange.front
    host = exchange.host or b""
    if exchange.block.forwarding:
        fields = exchange.block.fields
        if front.trusted:
            exchange.client = client_address(fields, front.peer, exchange.worker.trusted)
            return appended_lines(fields, front.peer, front.scheme, host)
        if (via := fields.joined(b"via")) is not None:
            return asserted_lines(front.peer, front.scheme, host, via)
    kept_host, lines = front.forward_lines
    if kept_host != host or not lines:
        lines = asserted_lines(front.peer, front.scheme, host)
        front.forward_lines = (host, lines)
    return lines
