"""PROXY headers: what is told comes back at any split, nothing else is taken, and waiting has a bound."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.http.proxy_protocol import (
    BINARY_BYTES,
    SIGNATURE,
    TEXT_BYTES,
    Addresses,
    Header,
    HeaderInvalid,
    Version,
    header_of,
    read_header,
)

FOUR = bytes((192, 0, 2, 7, 198, 51, 100, 1)) + (51234).to_bytes(2) + (443).to_bytes(2)
SIX = IPv6Address("2001:db8::7").packed + IPv6Address("2001:db8::1").packed + FOUR[8:]
TOLD_FOUR = Addresses("192.0.2.7", 51234, "198.51.100.1", 443)
TOLD_SIX = Addresses("2001:db8::7", 51234, "2001:db8::1", 443)


def binary(body: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return SIGNATURE + bytes((command, family)) + (len(body) if length is None else length).to_bytes(2) + body


LONGEST_UNKNOWN = b"PROXY UNKNOWN ffff:f...f:ffff" + b" " * (TEXT_BYTES - 31) + b"\r\n"
GOOD: dict[str, tuple[bytes, Addresses | None]] = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n", TOLD_FOUR),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::7 2001:DB8:0::1 51234 443\r\n", TOLD_SIX),
    "v1 mapped": (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 51234 443\r\n", TOLD_FOUR),
    "v1 ports": (b"PROXY TCP4 192.0.2.7 198.51.100.1 0 65535\r\n", Addresses("192.0.2.7", 0, "198.51.100.1", 65535)),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN more": (b"PROXY UNKNOWN what ever:1\r\n", None),
    "v1 longest": (LONGEST_UNKNOWN, None),
    "v2 TCP4": (binary(FOUR), TOLD_FOUR),
    "v2 UDP4": (binary(FOUR, family=0x12), TOLD_FOUR),
    "v2 TCP6": (binary(SIX, family=0x21), TOLD_SIX),
    "v2 UDP6": (binary(SIX, family=0x22), TOLD_SIX),
    "v2 TLVs": (binary(FOUR + b"\x02\x00\x03a.b\x20\xff\xff"), TOLD_FOUR),
    "v2 longest": (binary(FOUR + bytes(BINARY_BYTES - 16 - 12)), TOLD_FOUR),
    "v2 UNSPEC": (binary(b"", family=0), None),
    "v2 UNSPEC with bytes": (binary(b"abc", family=0), None),
    "v2 UNIX": (binary(bytes(216), family=0x31), None),
    "v2 UNIX datagrams": (binary(bytes(216), family=0x32), None),
    "v2 LOCAL": (binary(b"", command=0x20, family=0), None),
    "v2 LOCAL with addresses": (binary(FOUR, command=0x20), None),
    "v2 LOCAL of any family": (binary(b"\0", command=0x20, family=0xFF), None),
}
TCP4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"
BAD: dict[str, tuple[bytes, str]] = {
    "a request": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "no_header"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", "no_header"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no_header"),
    "lower case": (TCP4.replace(b"PROXY", b"proxy"), "no_header"),
    "a tab": (TCP4.replace(b"PROXY ", b"PROXY\t"), "no_header"),
    "a blank line first": (b"\r\n" + TCP4, "no_header"),
    "a space first": (b" " + TCP4, "no_header"),
    "no family": (b"PROXY\r\n", "no_header"),
    "an empty family": (b"PROXY \r\n", "malformed"),
    "another family": (TCP4.replace(b"TCP4", b"UDP4"), "malformed"),
    "TCP": (TCP4.replace(b"TCP4", b"TCP"), "malformed"),
    "tcp4": (TCP4.replace(b"TCP4", b"tcp4"), "malformed"),
    "UNKNOWN and a tab": (b"PROXY UNKNOWN\tx\r\n", "malformed"),
    "UNKNOWNx": (b"PROXY UNKNOWNx\r\n", "malformed"),
    "UNKNOWN and NUL": (b"PROXY UNKNOWN \0\r\n", "malformed"),
    "UNKNOWN and LF": (b"PROXY UNKNOWN a\nb\r\n", "malformed"),
    "two spaces": (TCP4.replace(b" 443", b"  443"), "malformed"),
    "a space at the end": (TCP4.replace(b"443", b"443 "), "malformed"),
    "a port missing": (TCP4.replace(b" 443", b""), "malformed"),
    "a word more": (TCP4.replace(b"443", b"443 x"), "malformed"),
    "a port too high": (TCP4.replace(b"443", b"65536"), "malformed"),
    "a zero before a port": (TCP4.replace(b"443", b"0443"), "malformed"),
    "a sign before a port": (TCP4.replace(b"443", b"+443"), "malformed"),
    "a port below zero": (TCP4.replace(b"443", b"-1"), "malformed"),
    "no port's digits": (TCP4.replace(b"443", b"4\xb2"), "malformed"),
    "a zero before an octet": (TCP4.replace(b"192.", b"0192."), "malformed"),
    "an octet too high": (TCP4.replace(b"192.", b"256."), "malformed"),
    "three octets": (TCP4.replace(b"192.0.2.7", b"192.0.7"), "malformed"),
    "IPv6 for TCP4": (TCP4.replace(b"192.0.2.7", b"2001:db8::7"), "malformed"),
    "IPv4 for TCP6": (TCP4.replace(b"TCP4", b"TCP6"), "malformed"),
    "a zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "malformed"),
    "brackets": (b"PROXY TCP6 [::1] ::1 1 2\r\n", "malformed"),
    "a name": (TCP4.replace(b"192.0.2.7", b"localhost"), "malformed"),
    "LF alone": (TCP4.replace(b"\r", b""), "too_long"),
    "CR alone": (TCP4.replace(b"\n", b""), "too_long"),
    "108 bytes": (LONGEST_UNKNOWN.replace(b"\r\n", b" \r\n"), "too_long"),
    "endless": (b"PROXY TCP4 " + b"1" * 200, "too_long"),
    "v2 signature broken": (binary(FOUR).replace(b"QUIT", b"QUIz"), "no_header"),
    "v2 version 1": (binary(FOUR, command=0x11), "version"),
    "v2 version 3": (binary(FOUR, command=0x31), "version"),
    "v2 version 0": (binary(FOUR, command=0x01), "version"),
    "v2 command 2": (binary(FOUR, command=0x22), "command"),
    "v2 command 15": (binary(FOUR, command=0x2F), "command"),
    "v2 family 0x01": (binary(FOUR, family=0x01), "family"),
    "v2 family 0x10": (binary(FOUR, family=0x10), "family"),
    "v2 family 0x13": (binary(FOUR, family=0x13), "family"),
    "v2 family 0x41": (binary(FOUR, family=0x41), "family"),
    "v2 IPv4 too short": (binary(FOUR[:-1]), "malformed"),
    "v2 IPv4 without bytes": (binary(b""), "malformed"),
    "v2 IPv6 with IPv4's bytes": (binary(FOUR, family=0x21), "malformed"),
    "v2 UNIX too short": (binary(bytes(215), family=0x31), "malformed"),
    "v2 a byte too long": (binary(FOUR + bytes(BINARY_BYTES - 16 - 12 + 1)), "too_long"),
    "v2 longest length": (binary(b"", length=65535), "too_long"),
    "v2 LOCAL too long": (binary(b"", command=0x20, length=65535), "too_long"),
}
PADDING = b" " * (TEXT_BYTES + 1)


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_at_every_split(name: str) -> None:
    data, told = GOOD[name]
    whole = Header(len(data), told)
    for end in range(len(data)):
        assert read_header(data[:end]) is None, f"{end} bytes of {len(data)} are enough"
    for rest in (b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", data):
        assert read_header(data + rest) == whole


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused_at_every_split(name: str) -> None:
    """However it comes: a prefix is waited for or refused, and once it is refused it stays so."""
    data, word = BAD[name]
    data += PADDING if word == "too_long" else b""
    words = []
    for end in range(1, len(data) + 1):
        try:
            assert read_header(data[:end]) is None, "taken before it was whole"
        except HeaderInvalid as error:
            words.append(error.word)
        else:
            assert not words, "refused, then not"
    assert set(words) == {word}


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_waited_for_or_read(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21", SIGNATURE + b"\x21\x11"):
        try:
            found = read_header(start + data)
        except HeaderInvalid:
            continue
        if found is None:
            assert len(start + data) < BINARY_BYTES
        else:
            assert found.size <= len(start + data)


ADDRESS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORT = st.integers(0, 65535)


@given(ADDRESS, PORT, ADDRESS, PORT, st.sampled_from(("v1", "v2")), st.binary(max_size=20))
def test_what_is_written_is_what_is_read(
    client: IPv4Address | IPv6Address,
    client_port: int,
    server: IPv4Address | IPv6Address,
    server_port: int,
    version: Version,
    rest: bytes,
) -> None:
    data = header_of(version, Addresses(str(client), client_port, str(server), server_port))
    found = read_header(data + rest)
    assert found is not None and found.size == len(data)
    told = found.addresses
    assert told is not None
    assert (told.client_port, told.server_port) == (client_port, server_port)
    for each, text in ((client, told.client), (server, told.server)):
        assert text in (str(each), str(getattr(each, "ipv4_mapped", None)))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_sender_that_speaks_for_itself(version: Version) -> None:
    data = header_of(version, None)
    assert read_header(data) == Header(len(data), None)
    assert data == (b"PROXY UNKNOWN\r\n" if version == "v1" else SIGNATURE + b"\x20\0\0\0")


def test_the_headers_of_the_specification() -> None:
    assert header_of("v1", TOLD_FOUR) == TCP4
    assert header_of("v2", TOLD_FOUR) == binary(FOUR)
    assert header_of("v2", TOLD_SIX) == binary(SIX, family=0x21)
    mixed = Addresses("192.0.2.7", 1, "2001:db8::1", 2)
    assert header_of("v1", mixed) == b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"
    zone = Addresses("fe80::1%eth0", 1, "fe80::2", 2)
    assert header_of("v1", zone) == b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"


def test_the_corpus_is_no_accident() -> None:
    assert len(BAD) >= 50
    for (one, (first, _)), (other, (second, _)) in itertools.combinations(BAD.items(), 2):
        assert first != second, f"{one} and {other} are the same"
