"""Who asked for what, as trusted proxies tell it: address, scheme, host and port of the client's own request.

One rule: the lists are read from the right, the nearest hop first. What a trusted hop wrote counts; the walk ends at
the first address that is not a trusted hop's, for everything left of it is only what that client says. X-Forwarded-*
come first, for that is what most proxies write; `Forwarded` (RFC 7239) counts where they are silent and agree.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from edge.errors import BadRequest
from edge.http.fields import is_long, members
from edge.http.forwarding import ForwardedIdentity, Networks, element_of
from edge.http.host import normal_host
from edge.http.message import Fields

_PAIR = re.compile(rb'([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\]|\\.)*+)"|([^"\s;,]*))')
_ESCAPED = re.compile(rb"\\(.)")
_SCHEMES = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}
_NODE = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9A-Za-z._\-]{1,32})?|([0-9.]{7,15})(?::[0-9A-Za-z._\-]{1,32})?")
Element = dict[bytes, bytes]


def told_by(fields: Fields, peer: str, scheme: bytes, trusted: Networks) -> ForwardedIdentity:
    """The facts of a request that the trusted `peer` sent over `scheme`. Raises BadRequest past MAX_MEMBERS."""
    chain = _list(fields, b"x-forwarded-for")
    elements = _elements(fields)
    nodes = [each.get(b"for", b"") for each in elements]
    client, at = _walk(chain, peer, trusted)
    other, other_at = _walk(nodes, peer, trusted)
    agree = bool(elements) and (not chain or client == other)
    if not chain and agree:
        client = other
    proto = _SCHEMES.get(_beside(fields, b"x-forwarded-proto", at, len(chain)).lower(), b"")
    host = normal_host(_beside(fields, b"x-forwarded-host", at, len(chain))) or b""
    port = _port(_beside(fields, b"x-forwarded-port", at, len(chain)))
    if agree:
        proto_there, host_there = _nearest_client(elements[other_at:])
        agree = proto_there in (proto or proto_there, b"") and host_there in (host or host_there, b"")
        if agree:
            proto, host = proto or proto_there, host or host_there
    before = b", ".join(chain) or b", ".join([_plain(node) for node in nodes])
    forwarded = fields.joined(b"forwarded") or b"" if agree else b", ".join([element_of(_node(one)) for one in chain])
    return ForwardedIdentity(client, proto or scheme, host, port, (before, forwarded))


def node_address(node: str) -> str | None:
    """The address in a node: plain, with a port, in brackets; None for `unknown`, `_hidden` and what is no address."""
    match = _NODE.fullmatch(node)
    text = (match[1] or match[2]) if match is not None else node
    if len(text) > 45 or "%" in text:
        return None
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _walk(chain: list[bytes], peer: str, trusted: Networks) -> tuple[str, int]:
    """The client's address, and the place in the chain of the entry that told it (or of the last one that was read)."""
    address, at = peer, len(chain)
    while at and address in trusted:
        at -= 1
        found = node_address(chain[at].decode("ascii", "replace"))
        if found is None:
            break
        address = found
    return address, at


def _list(fields: Fields, name: bytes) -> list[bytes]:
    value = fields.joined(name)
    if value is None:
        return []
    if is_long(value):
        raise BadRequest("too many forwarding entries")
    return [part for raw in value.split(b",") if (part := raw.strip(b" \t"))]


def _elements(fields: Fields) -> list[Element]:
    """The elements of Forwarded by lower-case parameter; one that breaks the grammar is empty, so nothing is told."""
    value = fields.joined(b"forwarded")
    if value is None:
        return []
    if is_long(value):
        raise BadRequest("too many forwarding entries")
    return [_element(raw) for raw in members(value)]


def _element(raw: bytes) -> Element:
    pairs: Element = {}
    at = 0
    while at < len(raw):
        match = _PAIR.match(raw, at)
        if match is None or match[1].lower() in pairs:
            return {}
        pairs[match[1].lower()] = _ESCAPED.sub(rb"\1", match[2]) if match[2] is not None else match[3]
        at = match.end()
        if raw[at : at + 1] not in (b";", b""):
            return {}
        at += 1
    return pairs


def _beside(fields: Fields, name: bytes, at: int, count: int) -> bytes:
    """The entry of a list that belongs to the client: at its place if the lists are of one length, else the first."""
    found = _list(fields, name)
    return (found[at] if len(found) == count > at else found[0]) if found else b""


def _nearest_client(elements: list[Element]) -> tuple[bytes, bytes]:
    """Scheme and host, each as the entry nearest to the client tells it."""
    proto = host = b""
    for each in elements:
        proto = proto or _SCHEMES.get(each.get(b"proto", b"").lower(), b"")
        host = host or normal_host(each.get(b"host", b"")) or b""
    return proto, host


def _port(text: bytes) -> bytes:
    return b"%d" % int(text) if text.isdigit() and len(text) < 6 and 0 < int(text) < 65536 else b""


def _plain(node: bytes) -> bytes:
    """A node of Forwarded as X-Forwarded-For has it."""
    address = node_address(node.decode("ascii", "replace"))
    return address.encode() if address is not None else b"unknown"


def _node(entry: bytes) -> bytes:
    """An entry of X-Forwarded-For as a node of Forwarded."""
    text = entry.decode("ascii", "replace")
    address = node_address(text)
    if address is None:
        return b"unknown"
    if ":" in address:
        return b"[%b]" % address.encode()
    return entry if _NODE.fullmatch(text) else address.encode()
