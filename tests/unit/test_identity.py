"""What trusted proxies tell: read from the right, in every form that proxies write, and one story in what goes on."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import BadRequest
from edge.http.forwarding import ForwardedIdentity, Networks
from edge.http.identity import node_address, told_by
from edge.http.message import Fields

TRUSTED = Networks([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
PEER = "10.0.0.1"


def told(*lines: str, peer: str = PEER) -> ForwardedIdentity:
    fields = Fields([(name.encode(), value.encode()) for name, _, value in (line.partition(": ") for line in lines)])
    return told_by(fields, peer, b"http", TRUSTED)


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:51234", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:DB8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("203.0.113.7:_port", "203.0.113.7"),
        ("unknown", None),
        ("_hidden", None),
        ("fe80::1%eth0", None),
        ("", None),
        ("1.2.3.4.5", None),
        ("[", None),
    ],
)
def test_a_node(node: str, address: str | None) -> None:
    assert node_address(node) == address


@pytest.mark.parametrize(
    ("lines", "client", "scheme", "host"),
    [
        ([], PEER, b"http", b""),
        (["X-Forwarded-For: 203.0.113.7:51234"], "203.0.113.7", b"http", b""),
        (["X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.9"], "203.0.113.7", b"http", b""),
        (["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.7"], "203.0.113.7", b"http", b""),
        (["X-Forwarded-For: 203.0.113.7, nonsense, 10.0.0.9"], "10.0.0.9", b"http", b""),
        (["X-Forwarded-For: unknown"], PEER, b"http", b""),
        (["Forwarded: for=203.0.113.7;proto=https"], "203.0.113.7", b"https", b""),
        (['Forwarded: For="[2001:db8::7]:4711";Proto=HTTPS;Host="w.example"'], "2001:db8::7", b"https", b"w.example"),
        (["Forwarded: for=6.6.6.6;proto=https, for=203.0.113.7;proto=http"], "203.0.113.7", b"http", b""),
        (["Forwarded: for=203.0.113.7;proto=https, for=10.0.0.9"], "203.0.113.7", b"https", b""),
        (["Forwarded: for=_hidden;proto=https"], PEER, b"https", b""),
        (["Forwarded: for=203.0.113.7; proto=https"], PEER, b"http", b""),
        (["Forwarded: for=1.2.3.4;for=203.0.113.7"], PEER, b"http", b""),
        (["X-Forwarded-Proto: https"], PEER, b"https", b""),
        (["X-Forwarded-Proto: wss"], PEER, b"https", b""),
        (["X-Forwarded-Proto: gopher"], PEER, b"http", b""),
        (["X-Forwarded-For: 203.0.113.7, 10.0.0.9", "X-Forwarded-Proto: https, http"], "203.0.113.7", b"https", b""),
        (["X-Forwarded-For: 6.6.6.6, 203.0.113.7", "X-Forwarded-Proto: http, https"], "203.0.113.7", b"https", b""),
        (["X-Forwarded-Host: W.example:443"], PEER, b"http", b"w.example:443"),
        (["X-Forwarded-Host: a b"], PEER, b"http", b""),
        # both families: the one fills what the other leaves out, as long as they speak of one client
        (["X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.7;proto=https"], "203.0.113.7", b"https", b""),
        (["X-Forwarded-For: 203.0.113.7", "Forwarded: for=6.6.6.6;proto=https"], "203.0.113.7", b"http", b""),
        (["X-Forwarded-Proto: http", "Forwarded: for=203.0.113.7;proto=https"], "203.0.113.7", b"http", b""),
    ],
)
def test_what_counts(lines: list[str], client: str, scheme: bytes, host: bytes) -> None:
    found = told(*lines)
    assert (found.client, found.scheme, found.host) == (client, scheme, host)


@pytest.mark.parametrize(
    ("lines", "lists"),
    [
        (["Forwarded: for=203.0.113.7;proto=https"], (b"203.0.113.7", b"for=203.0.113.7;proto=https")),
        (['Forwarded: for="[2001:db8::7]:1", for=_x'], (b"2001:db8::7, unknown", b'for="[2001:db8::7]:1", for=_x')),
        (["X-Forwarded-For: 203.0.113.7:51"], (b"203.0.113.7:51", b'for="203.0.113.7:51"')),
        (["X-Forwarded-For: 2001:db8::7, what"], (b"2001:db8::7, what", b'for="[2001:db8::7]", for=unknown')),
        (["X-Forwarded-For: 203.0.113.7", "Forwarded: for=6.6.6.6"], (b"203.0.113.7", b"for=203.0.113.7")),
    ],
)
def test_both_lists_go_on_and_tell_the_same(lines: list[str], lists: tuple[bytes, bytes]) -> None:
    assert told(*lines).lists == lists


def test_lists_are_bounded() -> None:
    with pytest.raises(BadRequest):
        told("X-Forwarded-For: " + "::1," * 300)
    with pytest.raises(BadRequest):
        told("Forwarded: " + "for=1.1.1.1," * 300)


ADDRESSES = st.sampled_from(("192.0.2.1", "10.0.0.1", "10.9.9.9", "fd00::1", "2001:db8::1", "not-one", "1.2.3.4:80"))


@given(st.lists(ADDRESSES, max_size=6), st.booleans())
@settings(max_examples=200)
def test_the_client_is_the_first_untrusted_from_the_right_in_either_family(chain: list[str], rfc: bool) -> None:
    if rfc:
        nodes = [f'"[{each}]"' if each.count(":") > 1 else f'"{each}"' for each in chain]
        line = "Forwarded: " + ", ".join(f"for={node}" for node in nodes)
    else:
        line = "X-Forwarded-For: " + ", ".join(chain)
    walked = [PEER]
    for member in reversed(chain):
        if walked[-1] not in TRUSTED or (address := node_address(member)) is None:
            break
        walked.append(address)
    assert told(*([line] if chain else [])).client == walked[-1]
