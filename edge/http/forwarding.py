"""What crosses the gateway: field lines of requests and responses, and what the gateway itself asserts.

One rule: what the gateway asserts (Host, framing, client address, Via, request id) is never taken from the other side
unless that side is trusted. Hop-by-hop lines and those that `Connection` names end here (RFC 9110 7.6.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from edge.http.credentials import CERTIFICATE_NAMES
from edge.http.fields import MAX_MEMBERS
from edge.http.message import Fields

# Written by the gateway itself on every outbound request, whatever came in. Client-Cert and Client-Cert-Chain are
# removed as RFC 9440 2.4 wants it: a backend that knows them believes whoever stands before it. Proxy means nothing in
# HTTP, and CGI makes of it the variable that programs take for the proxy of their own requests (CVE-2016-5385).
ASSERTED = CERTIFICATE_NAMES | frozenset(
    b"host content-length transfer-encoding via x-forwarded-for x-forwarded-proto x-forwarded-host forwarded "
    b"x-real-ip x-request-id x-forwarded-port x-forwarded-server cdn-loop expect client-cert client-cert-chain "
    b"proxy".split()
)
ASSERTED_AND_TRACE = ASSERTED | {b"traceparent", b"tracestate"}
FORWARDING = frozenset(b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port forwarded".split())
# Fields by which some servers take another URL, method, host or scheme than the request's own. They are in no cache
# key, so behind a route that stores they would let anybody choose what everybody gets.
OVERRIDES = frozenset(
    b"x-original-url x-rewrite-url x-override-url x-original-uri x-forwarded-uri x-forwarded-path x-forwarded-prefix "
    b"x-script-name x-http-method x-http-method-override x-method-override x-host x-original-host x-forwarded-server "
    b"x-http-host-override x-forwarded-scheme x-forwarded-protocol x-forwarded-ssl x-url-scheme front-end-https".split()
)
# A name that some servers read as one of these once all but letters and digits is the same to them (CGI's habit).
_SENSITIVE = ASSERTED | {b"connection", b"upgrade", b"te", b"trailer", b"keep-alive", b"proxy-authorization"}
EARLIER_HOPS = FORWARDING | {b"via", b"cdn-loop"}
_ALIKE = bytes(byte if chr(byte).isalnum() else 0x2D for byte in range(128)) + bytes(range(128, 256))
UNIX = "unix"  # the address of who came through a Unix socket
REMEMBERED = 4096  # addresses whose membership is remembered
DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}
_NONE = Fields()
FRAMING = frozenset((b"content-length", b"transfer-encoding"))


@dataclass(frozen=True, slots=True)
class ForwardedIdentity:
    """What trusted proxies tell of a request (`identity`). `host` and `port` are empty where nobody told them; `lists`
    are X-Forwarded-For and Forwarded as they go on, before this hop's own entries."""

    client: str
    scheme: bytes
    host: bytes
    port: bytes
    lists: tuple[bytes, bytes]


def request_lines(
    fields: Fields, dropped: frozenset[bytes], trace: bool, withheld: frozenset[bytes] = frozenset()
) -> bytes:
    """The encoded end-to-end lines of a request, without those that are `withheld` from its backends."""
    own = own_names(dropped, trace, withheld)
    return b"".join([b"%b: %b\r\n" % line for key, line in fields.keyed() if passes(key, own, withheld)])


def own_names(dropped: frozenset[bytes], trace: bool, withheld: frozenset[bytes]) -> frozenset[bytes]:
    """Names in lower case whose lines in a request do not pass: the gateway writes its own, or nothing."""
    return dropped | (ASSERTED if trace else ASSERTED_AND_TRACE) | withheld


def passes(key: bytes, own: frozenset[bytes], withheld: frozenset[bytes]) -> bool:
    """Whether lines of this name pass."""
    return key not in own and not looks_like(key, withheld)


def looks_like(key: bytes, withheld: frozenset[bytes]) -> bool:
    """Whether some servers read a lower-case name as one that is sensitive or `withheld`."""
    if key.replace(b"-", b"").isalnum():
        return False
    alike = key.translate(_ALIKE)
    return alike in _SENSITIVE or alike in withheld


def has_overrides(fields: Fields) -> bool:
    """Whether some field is one of OVERRIDES, or looks like one."""
    return any(key in OVERRIDES or looks_like(key, OVERRIDES) for key in fields.names())


def tells_of_hops(fields: Fields) -> bool:
    """Whether the request carries forwarding fields of an earlier hop, or what earlier hops left to find loops."""
    return not EARLIER_HOPS.isdisjoint(fields.names())


def response_lines(fields: Fields, dropped: frozenset[bytes]) -> bytes:
    """The encoded end-to-end lines of a response; framing is left out, for the writer decides it."""
    own = dropped | FRAMING
    return b"".join([b"%b: %b\r\n" % line for key, line in fields.keyed() if key not in own])


def asserted_lines(
    client: str, scheme: bytes, host: bytes, loop: bytes, fields: Fields = _NONE, received: bytes = b"1.1"
) -> bytes:
    """The forwarding fields for a client that is not a trusted proxy: whatever it sent is replaced (RFC 7239).

    Its Via and CDN-Loop are kept: those lists are there to find loops, assert nothing, and only grow (RFC 9110 7.6.3,
    8586 2). An empty `client` is nobody: the gateway asks on its own. Who comes by a Unix socket has no address either.
    """
    client = "" if client == UNIX else client
    node = b"[%b]" % client.encode() if ":" in client else client.encode() or b"unknown"
    known = b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\n" % (client.encode(), client.encode()) if client else b""
    rest = _rest(scheme, host, b"", loop, fields, received)
    return known + b"Forwarded: %b\r\n" % element_of(node, host, scheme) + rest


def appended_lines(
    fields: Fields, peer: str, told: ForwardedIdentity, host: bytes, loop: bytes, received: bytes = b"1.1"
) -> bytes:
    """The forwarding fields when a trusted proxy sent the request: its lists are kept, ours come last; all agree."""
    before, elements = told.lists
    name, known = (b"unknown", b"") if peer == UNIX else (peer.encode(), peer.encode())
    own = element_of(b"[%b]" % name if ":" in peer else name, told.host or host, told.scheme)
    chain = b", ".join([each for each in (before, known) if each])
    return b"%bForwarded: %b\r\n%b" % (
        b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\n" % (chain, told.client.encode()) if chain else b"",
        elements + b", " + own if elements else own,
        _rest(told.scheme, told.host or host, told.port, loop, fields, received),
    )


def _rest(scheme: bytes, host: bytes, port: bytes, loop: bytes, fields: Fields, received: bytes) -> bytes:
    own = received + b" edge"  # by which version of HTTP the request came (RFC 9110 7.6.3)
    via, loops = fields.joined(b"via"), fields.joined(b"cdn-loop")
    return (b"X-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Port: %b\r\nVia: %b\r\nCDN-Loop: %b\r\n") % (
        scheme,
        host,
        port or port_of(host) or DEFAULT_PORTS[scheme],
        via + b", " + own if via else own,
        loops + b", " + loop if loops else loop,
    )


def port_of(host: bytes) -> bytes:
    """The port in a Host; empty when it has none."""
    name, _, port = host.rpartition(b":")
    return port if name and port.isdigit() else b""


def element_of(node: bytes, host: bytes = b"", scheme: bytes = b"") -> bytes:
    """One element of Forwarded."""
    parts = [b"for=" + _quoted(node)]
    if host:
        parts.append(b"host=" + _quoted(host))
    if scheme:
        parts.append(b"proto=" + scheme)
    return b";".join(parts)


def _quoted(text: bytes) -> bytes:
    return b'"%b"' % text if b":" in text or b"[" in text else text


def is_loop(fields: Fields, own: bytes) -> bool:
    """Whether CDN-Loop names this gateway (RFC 8586 2), or so many others that something goes round."""
    value = fields.joined(b"cdn-loop")
    if value is None:
        return False
    found = value.lower().split(b",")
    return len(found) > MAX_MEMBERS or own in [member.partition(b";")[0].strip(b" \t") for member in found]


class Networks:
    """A set of networks that answers `address in networks` for addresses as text; remembers a bounded number.

    `UNIX` in it is whoever came through a Unix socket.
    """

    __slots__ = ("_known", "_networks", "_trusts_unix")

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network | str] = ()) -> None:
        found = tuple(networks)
        self._trusts_unix = UNIX in found
        self._networks = tuple(each for each in found if not isinstance(each, str))
        self._known: dict[str, bool] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and (other._networks, other._trusts_unix) == (
            self._networks,
            self._trusts_unix,
        )

    def __hash__(self) -> int:
        return hash((self._networks, self._trusts_unix))

    def __contains__(self, address: object) -> bool:
        if address == UNIX:
            return self._trusts_unix
        if not self._networks or not isinstance(address, str) or len(address) > 64:  # a zone may be of any length
            return False
        known = self._known.get(address)
        if known is None:
            try:
                parsed = ip_address(address)
            except ValueError:
                return False
            if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
                parsed = parsed.ipv4_mapped  # the same client, seen through an IPv6 socket
            known = any(parsed in network for network in self._networks)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[address] = known
        return known
