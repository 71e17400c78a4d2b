"""The request head that goes to a backend: built afresh, with one framing field and one Host.

One rule: the target goes on byte for byte; what the gateway asserts comes from the connection, never from
the client, unless the client is a trusted proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.balance.backend import Backend
from edge.dataplane.core.downstream import protocol
from edge.errors import LoopDetected
from edge.http.forwarding import OVERRIDES, appended_lines, asserted_lines, is_loop, request_lines
from edge.http.hopbyhop import dropped_names
from edge.http.identity import told_by
from edge.http.message import Fields

if TYPE_CHECKING:
    from edge.dataplane.core.downstream import Downstream
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.traced import Attempt


def request_head(
    exchange: Exchange, backend: Backend, lines: bytes, framing: bytes, traced: Attempt | None = None
) -> bytes:
    """The complete request head. `lines`: the client's end-to-end fields; `framing`: one framing field or empty."""
    route = exchange.route
    assert route is not None
    host = exchange.host if route.preserve_host and exchange.host else backend.authority
    block = exchange.block
    if not framing and block.length == 0:  # a body that is there and empty: POST without a length is refused by many
        framing = b"Content-Length: 0\r\n"
    if block.upgrade is not None and exchange.wants_upgrade:
        framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % block.upgrade
    target, own = exchange.target, forwarding_lines(exchange)
    if route.outbound is not None:
        region = backend.region.encode()
        target, host, lines, own = route.outbound.sent(exchange, host, lines, own, region)
    ids = (
        exchange.identify() if traced is None else b"X-Request-Id: %b\r\n%b" % (exchange.own_id(), traced.sent(target))
    )
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b%b\r\n" % (
        exchange.fetched_as or exchange.method,
        target,
        host,
        lines,
        own,
        ids,
        framing,
    )


def client_lines(exchange: Exchange, fields: Fields | None = None) -> bytes:
    """The client's end-to-end lines as the backends of its route may see them; `fields` are given where ours are among
    them. A route that stores withholds what would change the answer without being in the key."""
    block, route = exchange.block, exchange.route
    assert route is not None  # `routed` would be a call for each request
    rules = route.rules
    if fields is None:
        if rules is None:
            return block.forward
        if rules.withheld is OVERRIDES:
            return block.guarded
    withheld = rules.withheld if rules is not None else frozenset()
    return request_lines(block.fields if fields is None else fields, dropped_names(block.fields), block.trace, withheld)


def identify(exchange: Exchange) -> None:
    """Who asks for what, where an earlier hop tells it: known before the route is. Raises ClientError."""
    fields, downstream, worker = exchange.block.fields, exchange.downstream, exchange.worker
    if is_loop(fields, worker.cdn_id):
        raise LoopDetected("the request was here before")
    if downstream.trusted:
        exchange.told = told = told_by(fields, downstream.peer, downstream.scheme, worker.trusted)
        exchange.client, exchange.scheme = told.client, told.scheme


def forwarding_lines(exchange: Exchange) -> bytes:
    """X-Forwarded-*, X-Real-IP, Forwarded, Via, CDN-Loop and X-Client-Cert-* for this client and host."""
    downstream, loop = exchange.downstream, exchange.worker.cdn_id
    host = exchange.host or b""
    if exchange.block.forwarding or not exchange.is_http11:
        fields, own, received = exchange.block.fields, _certificate_lines(downstream), _received(exchange)
        if exchange.told is not None:
            return appended_lines(fields, downstream.peer, exchange.told, host, loop, received) + own
        client = downstream.peer if exchange.counted else ""
        return asserted_lines(client, exchange.scheme, host, loop, fields, received) + own
    kept_host, lines = downstream.forward_lines
    if kept_host != host or not lines:
        client = downstream.peer if exchange.counted else ""
        lines = asserted_lines(client, exchange.scheme, host, loop, received=_received(exchange))
        lines += _certificate_lines(downstream)
        downstream.forward_lines = (host, lines)
    return lines


def _received(exchange: Exchange) -> bytes:
    """The HTTP version of the request, for Via."""
    return protocol(exchange.version, exchange.is_http11).removeprefix(b"HTTP/")


def _certificate_lines(downstream: Downstream) -> bytes:
    """The X-Client-Cert-* fields for a client that has shown a certificate."""
    certificate = downstream.certificate
    return b"" if certificate is None else b"".join([b"%b: %b\r\n" % line for line in certificate.lines])
