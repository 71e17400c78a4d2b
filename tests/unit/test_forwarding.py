"""What crosses the gateway: the hop-by-hop table, the trust rules, and that nobody can write a line of his own."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.heads import split_lines

from edge.http.forwarding import (
    ASSERTED,
    OVERRIDES,
    Networks,
    appended_lines,
    asserted_lines,
    is_loop,
    request_lines,
    response_lines,
)
from edge.http.grammar import Limits
from edge.http.hopbyhop import HOP_BY_HOP, dropped_names
from edge.http.identity import told_by
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
    assert request_lines(fields, dropped_names(fields), False) == b"X-Kept: 1\r\n"
    assert response_lines(fields, dropped_names(fields)) == b"X-Kept: 1\r\n"


@pytest.mark.parametrize("named", [b"content-length", b"host", b"Host , Content-Length", b"keep-alive,close"])
def test_connection_cannot_talk_framing_or_host_away(named: bytes) -> None:
    dropped = dropped_names(Fields([(b"Connection", named)]))
    assert not dropped & {b"content-length", b"host"}


def test_connection_names_any_other_field_in_any_case_and_on_several_lines() -> None:
    fields = Fields(
        [(b"Connection", b"X-One,,"), (b"X-ONE", b"1"), (b"connection", b" x-two"), (b"X-Two", b"2"), (b"A", b"b")]
    )
    assert request_lines(fields, dropped_names(fields), False) == b"A: b\r\n"
    assert response_lines(fields, dropped_names(fields)) == b"A: b\r\n"


@pytest.mark.parametrize("name", sorted(ASSERTED))
def test_what_the_gateway_asserts_is_never_taken_over(name: bytes) -> None:
    for spelling in (name, name.upper(), name.replace(b"-", b"_"), name.title().replace(b"-", b"_", 1)):
        assert request_lines(Fields([(spelling, b"x")]), HOP_BY_HOP, True) == b""


@given(LINES, st.booleans())
@settings(max_examples=200)
def test_lines_that_cross_are_lines_that_came(fields: Fields, trace: bool) -> None:
    dropped = dropped_names(fields)
    for raw in (request_lines(fields, dropped, trace), response_lines(fields, dropped)):
        lines = split_lines(raw, LIMITS)
        assert lines is not None
        rest = list(fields.lines)
        for line in lines:
            rest.remove(line)  # in number too
            assert line[0].lower() not in dropped


ADDRESSES = st.sampled_from(("192.0.2.7", "2001:db8::7"))
HOSTS = st.sampled_from((b"a.example", b"[::1]:80", b""))
OURS = "X-Forwarded-For X-Real-IP Forwarded X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port Via CDN-Loop"


@given(LINES, ADDRESSES, HOSTS)
@settings(max_examples=100)
def test_forwarding_lines_are_one_of_each_and_end_with_our_own(fields: Fields, client: str, host: bytes) -> None:
    told = told_by(fields, "10.0.0.1", b"https", TRUSTED)
    for raw, peer in (
        (asserted_lines(client, b"https", host, b"edge-1", fields), client),
        (appended_lines(fields, "10.0.0.1", told, host, b"edge-1"), "10.0.0.1"),
    ):
        found = parsed(raw)
        assert [name.decode() for name in found] == OURS.split()
        assert found[b"X-Forwarded-For"].endswith(peer.encode())
        assert found[b"Via"].endswith(b"1.1 edge")
        assert found[b"CDN-Loop"].endswith(b"edge-1")
        assert found[b"Forwarded"].endswith(b"proto=" + found[b"X-Forwarded-Proto"])


def test_nobody_s_own_request_names_no_client() -> None:
    found = parsed(asserted_lines("", b"http", b"a.example", b"edge-1"))
    assert b"X-Forwarded-For" not in found and b"X-Real-IP" not in found
    assert found[b"Forwarded"] == b"for=unknown;host=a.example;proto=http"


def test_an_untrusted_client_s_claims_are_replaced_and_a_trusted_proxy_s_are_appended_to() -> None:
    fields = Fields(
        [
            (b"X-Forwarded-For", b"6.6.6.6"),
            (b"X-Forwarded-Proto", b"https"),
            (b"X-Real-IP", b"7.7.7.7"),
            (b"Via", b"1.0 p"),
        ]
    )
    assert parsed(asserted_lines("192.0.2.7", b"http", b"a.example:81", b"edge-1")) == {
        b"X-Forwarded-For": b"192.0.2.7", b"X-Real-IP": b"192.0.2.7", b"X-Forwarded-Proto": b"http",
        b"X-Forwarded-Host": b"a.example:81", b"X-Forwarded-Port": b"81", b"CDN-Loop": b"edge-1",
        b"Forwarded": b'for=192.0.2.7;host="a.example:81";proto=http', b"Via": b"1.1 edge",
    }  # fmt: skip
    told = told_by(fields, "10.0.0.1", b"http", TRUSTED)
    assert parsed(appended_lines(fields, "10.0.0.1", told, b"a.example", b"edge-1")) == {
        b"X-Forwarded-For": b"6.6.6.6, 10.0.0.1", b"X-Real-IP": b"6.6.6.6", b"X-Forwarded-Proto": b"https",
        b"X-Forwarded-Host": b"a.example", b"X-Forwarded-Port": b"443", b"CDN-Loop": b"edge-1",
        b"Forwarded": b"for=6.6.6.6, for=10.0.0.1;host=a.example;proto=https", b"Via": b"1.0 p, 1.1 edge",
    }  # fmt: skip


def test_ipv6_is_quoted_in_forwarded_as_rfc_7239_wants_it() -> None:
    found = parsed(asserted_lines("2001:db8::7", b"http", b"[::1]:80", b"edge-1"))
    assert found[b"Forwarded"] == b'for="[2001:db8::7]";host="[::1]:80";proto=http'
    assert found[b"X-Forwarded-For"] == b"2001:db8::7"


@pytest.mark.parametrize("name", sorted(OVERRIDES))
def test_fields_that_would_change_the_request_are_withheld_in_every_spelling(name: bytes) -> None:
    for spelling in (name, name.upper(), name.replace(b"-", b"_"), name.replace(b"-", b"."), name.title()):
        fields = Fields([(spelling, b"/admin"), (b"X-Kept", b"1")])
        assert request_lines(fields, HOP_BY_HOP, True, OVERRIDES) == b"X-Kept: 1\r\n"


@pytest.mark.parametrize(
    ("value", "loop"),
    [
        (b"edge-1", True), (b"other, EDGE-1", True), (b"other;a=edge-1, edge-1;v=1", True), (b"a," * 300, True),
        (b"edge-12", False), (b"other;a=edge-1", False), (b"", False),
    ],
)  # fmt: skip
def test_a_loop_is_a_member_of_cdn_loop(value: bytes, loop: bool) -> None:
    assert is_loop(Fields([(b"CDN-Loop", value)]), b"edge-1") is loop


def test_the_memory_of_networks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.http.forwarding.REMEMBERED", 3)
    networks = Networks([ip_network("10.0.0.0/24")])
    assert [f"10.0.0.{n}" in networks for n in range(9)] == [True] * 9
    assert "10.0.1.1" not in networks
    assert len(networks._known) <= 3
    assert 5 not in networks
    assert "10.0.0.1" not in Networks()
    assert "fe80::1%" + "a" * 100 not in networks
