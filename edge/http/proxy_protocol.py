"""The PROXY protocol, versions 1 and 2: what stands before all else on a connection and says whose it is.

    PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\\r\\n             version 1: a line of 107 bytes at most
    signature │ version, command │ family │ length │ addresses │ TLVs     version 2: binary

One rule: what is not exactly such a header is refused as soon as that can be seen, and nobody waits for more than
`BINARY_BYTES`. What it tells counts only from senders that the operator listed; that is for the caller to see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, NamedTuple

Version = Literal["v1", "v2"]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TEXT_BYTES = 107  # the longest line, its end included
BINARY_BYTES = 4096  # the longest header that is taken, TLVs included; HAProxy's with a client certificate is shorter
_TEXT_START = b"PROXY "
_HEAD_BYTES = 16  # up to the addresses
_LOCAL, _PROXY = 0x20, 0x21  # version and command
# Family and transport: how many bytes of one address, and of both with their ports.
_FAMILIES = {0x00: (0, 0), 0x11: (4, 12), 0x12: (4, 12), 0x21: (16, 36), 0x22: (16, 36), 0x31: (0, 216), 0x32: (0, 216)}
_NUMBER = rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [\x20-\x7e]*)?|TCP(?:4 ([0-9.]+) ([0-9.]+)|6 ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)) "
    + _NUMBER
    + b" "
    + _NUMBER
    + rb")"
)


class HeaderInvalid(ValueError):
    """It is no PROXY header, or one that breaks the rules; the word says how."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True)
class Addresses:
    """The two ends of a client's connection. IPv4 within IPv6 is written as what it is."""

    client: str
    client_port: int
    server: str
    server_port: int


class ClientEnds(NamedTuple):
    """A client's connection, for backends that are told of it; without addresses where there are none to tell."""

    addresses: Addresses | None
    transport: Any = None


OWN = ClientEnds(None)  # what the gateway asks for itself


class Header(NamedTuple):
    """`size` bytes of header. `addresses` is None where the sender speaks for itself, or names no internet address."""

    size: int
    addresses: Addresses | None


def read_header(data: bytes) -> Header | None:
    """The header at the start of `data`; None while it is not whole. Raises HeaderInvalid."""
    if _TEXT_START.startswith(data[: len(_TEXT_START)]):
        return _read_text(data)
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return _read_binary(data)
    raise HeaderInvalid("no_header")


def _read_text(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, TEXT_BYTES)
    if end < 0:
        if len(data) >= TEXT_BYTES:
            raise HeaderInvalid("too_long")
        return None
    match = _LINE.fullmatch(data, 0, end)
    if match is None:
        raise HeaderInvalid("malformed")
    if match[5] is None:  # UNKNOWN
        return Header(end + 2, None)
    kind = IPv4Address if match[1] is not None else IPv6Address
    try:
        ends = [_text(kind(each.decode())) for each in match.groups()[:4] if each is not None]
    except ValueError:
        raise HeaderInvalid("malformed") from None
    ports = int(match[5]), int(match[6])
    if max(ports) > 65535:
        raise HeaderInvalid("malformed")
    return Header(end + 2, Addresses(ends[0], ports[0], ends[1], ports[1]))


def _read_binary(data: bytes) -> Header | None:
    start = len(SIGNATURE)
    command = data[start] if len(data) > start else _LOCAL
    if command not in (_LOCAL, _PROXY):
        raise HeaderInvalid("version" if command >> 4 != 2 else "command")
    family = data[start + 1] if len(data) > start + 1 and command == _PROXY else 0  # of LOCAL it means nothing
    if family not in _FAMILIES:
        raise HeaderInvalid("family")
    if len(data) < _HEAD_BYTES:
        return None
    length = int.from_bytes(data[_HEAD_BYTES - 2 : _HEAD_BYTES])
    size, (one, both) = _HEAD_BYTES + length, _FAMILIES[family]
    if size > BINARY_BYTES:
        raise HeaderInvalid("too_long")
    if length < both:
        raise HeaderInvalid("malformed")
    if len(data) < size:
        return None
    if not one:
        return Header(size, None)
    at = _HEAD_BYTES
    client, server = data[at : at + one], data[at + one : at + 2 * one]
    ports = data[at + 2 * one : at + both]
    return Header(
        size,
        Addresses(
            _text(ip_address(client)), int.from_bytes(ports[:2]), _text(ip_address(server)), int.from_bytes(ports[2:])
        ),
    )


def _text(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def header_of(version: Version, addresses: Addresses | None) -> bytes:
    """The header that tells these; None: the sender speaks for itself."""
    if addresses is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else SIGNATURE + bytes((_LOCAL, 0, 0, 0))
    client, server = _parsed(addresses.client), _parsed(addresses.server)
    if client.version != server.version:  # a header has one family
        client, server = _six(client), _six(server)
    if version == "v1":
        ends = addresses.client_port, addresses.server_port
        return b"PROXY TCP%d %b %b %d %d\r\n" % (client.version, _written(client), _written(server), *ends)
    body = client.packed + server.packed
    body += addresses.client_port.to_bytes(2) + addresses.server_port.to_bytes(2)
    family = 0x11 if client.version == 4 else 0x21
    return SIGNATURE + bytes((_PROXY, family)) + len(body).to_bytes(2) + body


def _parsed(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.partition("%")[0])  # a zone means something on one machine alone


def _written(address: IPv4Address | IPv6Address) -> bytes:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address).encode() if mapped is None else b"::ffff:%b" % str(mapped).encode()


def _six(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
