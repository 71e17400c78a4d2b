"""What crosses the gateway: the hop-by-hop table, the trust rules, and that nobody can write a line of his own."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.http.forwarding import (
    ASSERTED,
    Networks,
    appended_lines,
    asserted_lines,
    client_address,
    is_address,
    request_lines,
    response_lines,
)
from edge.http.grammar import Limits, split_lines
from edge.http.hopbyhop import HOP_BY_HOP, dropped_names
from edge.http.message import Fields

LIMITS = Limits()
TRUSTED = Networks([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
FIXED = "connection keep-alive proxy-connection te transfer-encoding upgrade trailer proxy-authenticate"
NAMES = st.sampled_from(
    b"X-Forwarded-For x-forwarded-host X-Forwarded-Proto Forwarded Via X-Real-IP X_Forwarded_For Content_Length Cookie "
    b"Connection Transfer-Encoding Host Expect Accept X-One X-Two Set-Cookie".split()
)
VALUES = st.one_of(
    st.sampled_from((b"X-One", b"content-length, x-two", b"10.1.2.3, 192.0.2.1", b"for=1.2.3.4", b"", b"close")),
    st.binary(max_size=8).map(lambda raw: bytes(b for b in raw if b in b"\t" or 32 <= b != 127).strip(b" \t")),
)
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(Fields)


def parsed(raw: bytes) -> dict[bytes, bytes]:
    lines = split_lines(raw, LIMITS)
    assert lines is not None, raw
    assert len({name for name, _ in lines}) == len(lines)
    return dict(lines)


@pytest.mark.parametrize("name", [*FIXED.split(), "proxy-authorization", "proxy-authentication-info"])
def test_hop_by_hop_fields_never_cross(name: str) -> None:
    assert name.encode() in HOP_BY_HOP
    fields = Fields([(name.title().encode(), b"x"), (b"X-Kept", b"1")])
    assert request_lines(fields, dropped_names(fields), False)[0] == b"X-Kept: 1\r\n"
    assert response_lines(fields, dropped_names(fields)) == b"X-Kept: 1\r\n"


@pytest.mark.parametrize("named", [b"content-length", b"host", b"Host , Content-Length", b"keep-alive,close"])
def test_connection_cannot_talk_framing_or_host_away(named: bytes) -> None:
    dropped = dropped_names(Fields([(b"Connection", named)]))
    assert not dropped & {b"content-length", b"host"}


def test_connection_names_any_other_field_in_any_case_and_on_several_lines() -> None:
    fields = Fields(
        [(b"Connection", b"X-One,,"), (b"X-ONE", b"1"), (b"connection", b" x-two"), (b"X-Two", b"2"), (b"A", b"b")]
    )
    assert request_lines(fields, dropped_names(fields), False)[0] == b"A: b\r\n"
    assert response_lines(fields, dropped_names(fields)) == b"A: b\r\n"


@pytest.mark.parametrize("name", sorted(ASSERTED))
def test_what_the_gateway_asserts_is_never_taken_over(name: bytes) -> None:
    for spelling in (name, name.upper(), name.replace(b"-", b"_"), name.title().replace(b"-", b"_", 1)):
        assert request_lines(Fields([(spelling, b"x")]), HOP_BY_HOP, True)[0] == b""


@given(LINES, st.booleans())
@settings(max_examples=200)
def test_lines_that_cross_are_lines_that_came(fields: Fields, trace: bool) -> None:
    dropped = dropped_names(fields)
    for raw in (request_lines(fields, dropped, trace)[0], response_lines(fields, dropped)):
        lines = split_lines(raw, LIMITS)
        assert lines is not None
        rest = list(fields.lines)
        for line in lines:
            rest.remove(line)  # in number too
            assert line[0].lower() not in dropped


@given(LINES, st.sampled_from(("192.0.2.7", "2001:db8::7")), st.sampled_from((b"a.example", b"[::1]:80", b"")))
@settings(max_examples=100)
def test_forwarding_lines_are_one_of_each_and_end_with_our_own(fields: Fields, client: str, host: bytes) -> None:
    for raw in (
        asserted_lines(client, b"https", host, fields.joined(b"via")),
        appended_lines(fields, client, b"https", host),
    ):
        found = parsed(raw)
        assert list(found) == [b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"Forwarded", b"Via"]
        assert found[b"X-Forwarded-For"].endswith(client.encode())
        assert found[b"Via"].endswith(b"1.1 edge")
        assert found[b"Forwarded"].endswith(b"proto=https")


def test_an_untrusted_client_s_claims_are_replaced_and_a_trusted_proxy_s_are_appended_to() -> None:
    fields = Fields(
        [
            (b"X-Forwarded-For", b"6.6.6.6"),
            (b"X-Forwarded-Proto", b"https"),
            (b"Forwarded", b"for=6.6.6.6"),
            (b"Via", b"1.0 p"),
        ]
    )
    own = parsed(asserted_lines("192.0.2.7", b"http", b"a.example"))
    assert own == {
        b"X-Forwarded-For": b"192.0.2.7", b"X-Forwarded-Proto": b"http", b"X-Forwarded-Host": b"a.example",
        b"Forwarded": b"for=192.0.2.7;host=a.example;proto=http", b"Via": b"1.1 edge",
    }  # fmt: skip
    both = parsed(appended_lines(fields, "10.0.0.1", b"http", b"a.example"))
    assert both == {
        b"X-Forwarded-For": b"6.6.6.6, 10.0.0.1", b"X-Forwarded-Proto": b"https", b"X-Forwarded-Host": b"a.example",
        b"Forwarded": b"for=6.6.6.6, for=10.0.0.1;host=a.example;proto=http", b"Via": b"1.0 p, 1.1 edge",
    }  # fmt: skip


def test_ipv6_is_quoted_in_forwarded_as_rfc_7239_wants_it() -> None:
    found = parsed(asserted_lines("2001:db8::7", b"http", b"[::1]:80"))
    assert found[b"Forwarded"] == b'for="[2001:db8::7]";host="[::1]:80";proto=http'
    assert found[b"X-Forwarded-For"] == b"2001:db8::7"


ADDRESSES = st.sampled_from(
    ("192.0.2.1", "10.0.0.1", "10.9.9.9", "fd00::1", "2001:db8::1", "not-one", "", "1.2.3.4:80")
)


@given(st.lists(ADDRESSES, max_size=6), ADDRESSES)
@settings(max_examples=200)
def test_the_client_s_address_is_the_first_untrusted_from_the_right(chain: list[str], peer: str) -> None:
    fields = Fields([(b"X-Forwarded-For", ", ".join(chain).encode())] if chain else [])
    found = client_address(fields, peer, TRUSTED)
    if peer not in TRUSTED:
        assert found == peer
        return
    walked = [peer]
    for member in reversed(chain):
        if walked[-1] not in TRUSTED or not is_address(member):
            break
        walked.append(member)
    assert found == walked[-1]


def test_the_memory_of_networks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.http.forwarding.REMEMBERED", 3)
    networks = Networks([ip_network("10.0.0.0/24")])
    assert [f"10.0.0.{n}" in networks for n in range(9)] == [True] * 9
    assert "10.0.1.1" not in networks
    assert len(networks._known) <= 3
    assert 5 not in networks
    assert "10.0.0.1" not in Networks()
