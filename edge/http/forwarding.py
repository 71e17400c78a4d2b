"""What crosses the gateway: field lines of requests and responses, and what the gateway itself asserts.

One rule: what the gateway asserts (Host, framing, client address, Via, request id) is never taken from the other side
unless that side is trusted. Hop-by-hop lines and those that `Connection` names end here (RFC 9110 7.6.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address

from edge.http.message import Fields

# Written by the gateway itself on every outbound request, whatever came in.
ASSERTED = frozenset(
    b"host content-length transfer-encoding via x-forwarded-for x-forwarded-proto x-forwarded-host forwarded "
    b"x-real-ip x-request-id x-forwarded-port x-forwarded-server expect".split()
)
ASSERTED_AND_TRACE = ASSERTED | {b"traceparent", b"tracestate"}
FORWARDING = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"))
# A name that some servers read as one of these once `_` and `-` are the same to them (CGI's habit).
_SENSITIVE = ASSERTED | {b"connection", b"upgrade", b"te", b"trailer", b"keep-alive", b"proxy-authorization"}
_EARLIER_HOPS = FORWARDING | {b"via"}
REMEMBERED = 4096  # addresses whose membership is remembered
FRAMING = frozenset((b"content-length", b"transfer-encoding"))


def request_lines(fields: Fields, dropped: frozenset[bytes], trace: bool) -> tuple[bytes, bool]:
    """The encoded end-to-end lines of a request, and whether it carries forwarding fields of an earlier hop."""
    own = dropped | (ASSERTED if trace else ASSERTED_AND_TRACE)
    kept = [
        line
        for key, line in fields.keyed()
        if key not in own and not (b"_" in key and key.replace(b"_", b"-") in _SENSITIVE)
    ]
    forwarding = not _EARLIER_HOPS.isdisjoint(fields.names())
    return b"".join([b"%b: %b\r\n" % line for line in kept]), forwarding


def response_lines(fields: Fields, dropped: frozenset[bytes]) -> bytes:
    """The encoded end-to-end lines of a response; framing is left out, for the writer decides it."""
    own = dropped | FRAMING
    return b"".join([b"%b: %b\r\n" % line for key, line in fields.keyed() if key not in own])


def asserted_lines(client: str, scheme: bytes, host: bytes, via: bytes | None = None) -> bytes:
    """The forwarding fields for a client that is not a trusted proxy: whatever it sent is replaced (RFC 7239).

    Its Via is kept: that list is there to find loops, asserts nothing, and only grows (RFC 9110 7.6.3).
    """
    node = f'"[{client}]"' if ":" in client else client
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nForwarded: %b\r\nVia: %b\r\n" % (
        client.encode(),
        scheme,
        host,
        _element(node.encode(), scheme, host),
        via + b", 1.1 edge" if via else b"1.1 edge",
    )


def appended_lines(fields: Fields, client: str, scheme: bytes, host: bytes) -> bytes:
    """The forwarding fields when a trusted proxy sent the request: its own lists are kept, ours come last."""
    node = (f'"[{client}]"' if ":" in client else client).encode()
    before = fields.joined(b"x-forwarded-for")
    elements = fields.joined(b"forwarded")
    via = fields.joined(b"via")
    own = _element(node, scheme, host)
    parts = [
        (b"X-Forwarded-For", before + b", " + client.encode() if before else client.encode()),
        (b"X-Forwarded-Proto", fields.joined(b"x-forwarded-proto") or scheme),
        (b"X-Forwarded-Host", fields.joined(b"x-forwarded-host") or host),
        (b"Forwarded", elements + b", " + own if elements else own),
        (b"Via", via + b", 1.1 edge" if via else b"1.1 edge"),
    ]
    return b"".join([b"%b: %b\r\n" % part for part in parts])


def _element(node: bytes, scheme: bytes, host: bytes) -> bytes:
    quoted = b'"%b"' % host if b":" in host or b"[" in host else host
    return b"for=%b;host=%b;proto=%b" % (node, quoted or b'""', scheme)


class Networks:
    """A set of networks that answers `address in networks` for addresses as text; remembers a bounded number."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network] = ()) -> None:
        self._networks = tuple(networks)
        self._known: dict[str, bool] = {}

    def __contains__(self, address: object) -> bool:
        if not self._networks or not isinstance(address, str):
            return False
        known = self._known.get(address)
        if known is None:
            try:
                parsed = ip_address(address)
            except ValueError:
                return False
            known = any(parsed in network for network in self._networks)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[address] = known
        return known


def client_address(fields: Fields, peer: str, trusted: Networks) -> str:
    """The client's address behind trusted proxies: the right-most X-Forwarded-For member that is not one of them.

    A member that is no address ends the walk: the last good one counts.
    """
    address = peer
    if peer not in trusted:
        return peer
    for value in reversed(fields.get_all(b"x-forwarded-for")):
        for raw in reversed(value.split(b",")):
            member = raw.strip(b" \t").decode("ascii", "replace").strip("[]")
            if not is_address(member):
                return address
            address = member
            if address not in trusted:
                return address
    return address


def is_address(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address in its usual form (no port, no zone)."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text
