"""Certificates of clients: asked for by listener, verified on every connection, told to backends, asked for by routes.

One rule of these tests: whatever a client may try (another name, a session of another listener, fields of its own), the
origin's record says who the gateway took it for.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import trustme
from inprocess import Connect, Gateway, StartEdge, edge_toml
from kit.http2 import Http2Client, request_head
from kit.origin import OK, Pause, ScriptedOrigin
from kit.ports import LOOPBACK
from kit.tls import Files, issue, issue_client, s_client
from kit.waiting import until

from edge.dataplane.client.certificate import distinguished

NAMES = (b"x-client-cert-subject", b"x-client-cert-fingerprint")
LOOK_LIKE_THEM = (*NAMES, b"client-cert", b"client-cert-chain")
FORGED = (
    b"X-Client-Cert-Subject: CN=root\r\nx-client-cert-FINGERPRINT: 00\r\nX_Client_Cert_Subject: CN=root\r\n"
    b"X-Client_Cert-Fingerprint: 00\r\nClient-Cert: :AAAA:\r\nClient-Cert-Chain: :AAAA:\r\n"
)


class Site:
    """Two authorities, one of which the listener knows, and the files of everybody."""

    def __init__(self, folder: Path) -> None:
        self.ours, theirs = trustme.CA(), trustme.CA()
        self.ca = folder / "ca.pem"
        self.ours.cert_pem.write_to_path(str(self.ca))
        self.servers = [issue(self.ours, folder, name) for name in ("a.test", "b.test")]
        self.alice = issue_client(self.ours, folder, "alice", "Example, Inc.")
        self.bob = issue_client(self.ours, folder, "bob")
        self.stranger = issue_client(theirs, folder, "stranger")
        ended = self.ours.issue_cert("old@example.com", not_after=datetime(2020, 1, 1, tzinfo=UTC))
        self.ended = Files(folder / "ended.pem", folder / "ended.key")
        ended.cert_chain_pems[0].write_to_path(str(self.ended.cert))
        ended.private_key_pem.write_to_path(str(self.ended.key))

    def listener(self, auth: str | None) -> str:
        """A listener with both names; `auth`: None, or how it asks for certificates."""
        shown = ", ".join(each.toml for each in self.servers)
        asks = "" if auth is None else f'client_ca = "{self.ca}"\nclient_auth = "{auth}"\n'
        return f'[[listen.https]]\naddress = "{LOOPBACK}:0"\ncertificates = [{shown}]\n{asks}'

    def context(self, client: Files | None, *protocols: str) -> ssl.SSLContext:
        """A client's."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(protocols or ("http/1.1",))
        if client is not None:
            context.load_cert_chain(*client.pair)
        return context


def shown(client: Files) -> tuple[str, ...]:
    return ("-cert", str(client.cert), "-key", str(client.key))


def fingerprint(client: Files) -> bytes:
    return sha256(ssl.PEM_cert_to_DER_cert(client.cert.read_text())).hexdigest().encode()


def told(origin: ScriptedOrigin, number: int = -1) -> list[bytes | None]:
    """Subject and fingerprint as the origin got them."""
    received = origin.requests[number]
    alike = [name for name, _ in received.fields if name.lower().replace(b"_", b"-") in LOOK_LIKE_THEM]
    assert len(alike) in (0, 2)
    return [received.get(name) for name in NAMES]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listeners are told apart by their port before it is known: one each."""


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("name", ["a.test", "b.test", "other.test", ""])
async def test_under_no_name_is_a_client_served_without_a_certificate_that_is_good(
    name: str, version: str, site: Site, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=site.listener("require")))
    for client in ((), shown(site.stranger), shown(site.ended)):
        seen = await s_client(gateway.port, version, *client, name=name)
        assert seen.code and not seen.statuses, seen.text
    assert not origin.requests
    seen = await s_client(gateway.port, version, *shown(site.alice), name=name)
    assert seen.statuses == [200]
    subject, digest = told(origin)
    assert subject is not None and subject.startswith(rb"CN=alice,") and subject.endswith(rb"O=Example\, Inc.")
    assert digest == fingerprint(site.alice)


async def test_where_it_is_optional_a_certificate_is_good_or_there_is_none(
    site: Site, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=site.listener("optional")))
    assert (await s_client(gateway.port)).statuses == [200]
    assert told(origin) == [None, None]
    assert (await s_client(gateway.port, *shown(site.bob))).statuses == [200]
    assert told(origin)[1] == fingerprint(site.bob)
    assert not (await s_client(gateway.port, *shown(site.stranger))).statuses


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_resumed_session_brings_its_own_certificate_and_no_other(
    version: str, site: Site, origin: ScriptedOrigin, edge: StartEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by another name; whoever has no session with one is refused; a certificate that ended is one no more."""
    gateway = await edge(edge_toml(origin.port, listen=site.listener("require")))
    session = str(tmp_path / "session")
    assert (await s_client(gateway.port, version, *shown(site.alice), "-sess_out", session)).statuses == [200]
    for name in ("a.test", "b.test"):
        resumed = await s_client(gateway.port, version, "-sess_in", session, name=name)
        if resumed.statuses:
            assert resumed.reused
            assert told(origin)[1] == fingerprint(site.alice)
    assert len(origin.requests) >= 2, "a session was resumed"
    monkeypatch.setattr("edge.dataplane.client.handshake.time", lambda: 4e10)
    count = len(origin.requests)
    assert not (await s_client(gateway.port, version, "-sess_in", session)).statuses
    assert len(origin.requests) == count


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_session_of_one_listener_opens_no_other(
    version: str, site: Site, origin: ScriptedOrigin, edge: StartEdge, tmp_path: Path
) -> None:
    open_one = await edge(edge_toml(origin.port, listen=site.listener(None)))
    optional = await edge(edge_toml(origin.port, listen=site.listener("optional")))
    closed = await edge(edge_toml(origin.port, listen=site.listener("require")))
    session = str(tmp_path / "session")
    for first in (open_one, optional):
        assert (await s_client(first.port, version, "-sess_out", session)).statuses == [200]
        assert (await s_client(first.port, version, "-sess_in", session)).reused
        seen = await s_client(closed.port, version, "-sess_in", session)
        assert not seen.reused and not seen.statuses


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
@pytest.mark.parametrize("has_one", [False, True], ids=["without", "with"])
async def test_what_a_client_says_of_its_certificate_is_removed(
    has_one: bool, protocol: str, site: Site, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=site.listener("optional"), route="cache = false"))
    context = site.context(site.bob if has_one else None, protocol)
    lines = [
        (name.lower(), value) for name, _, value in (line.partition(b": ") for line in FORGED.split(b"\r\n")) if name
    ]
    status = await ask(gateway, context, protocol, lines)
    assert status == 200
    assert told(origin)[1] == (fingerprint(site.bob) if has_one else None)


async def test_nor_may_it_say_it_on_a_plain_listener(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port))
    for extra in (b"", b"Connection: X-Client-Cert-Subject\r\n", b"X-Forwarded-For: 10.0.0.1\r\n"):
        client = await raw_client(gateway.port)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + FORGED + extra + b"\r\n")
        assert (await client.read_response()) is not None
        assert told(origin) == [None, None]


async def ask(
    gateway: Gateway, context: ssl.SSLContext, protocol: str, lines: list[tuple[bytes, bytes]], path: bytes = b"/"
) -> int:
    """One request on a connection of its own."""
    if protocol == "h2":
        client = await Http2Client.connect(gateway.port, context)
        answer = await client.answer(client.ask(request_head(path, host=b"a.test", scheme=b"https", extra=lines)))
        await client.close()
        return answer.status
    reader, writer = await asyncio.open_connection(LOOPBACK, gateway.port, ssl=context, server_hostname="a.test")
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    writer.write(b"GET %b HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n%b\r\n" % (path, head))
    said = await reader.read()
    writer.close()
    return int(said.split(b" ")[1])


# -- the rule of a route -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_a_route_lets_in_who_showed_a_certificate(
    protocol: str, site: Site, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    rule = "auth = { client_certificate = true }"
    gateway = await edge(edge_toml(origin.port, listen=site.listener("optional"), route=rule))
    forged = [(b"x-client-cert-fingerprint", fingerprint(site.bob)), (b"x-client-cert-subject", b"CN=bob")]
    assert await ask(gateway, site.context(None, protocol), protocol, forged) == 403
    assert not origin.requests
    (line,) = await gateway.log(1)
    assert (line["status"], line["reason"]) == (403, "no-certificate")
    origin.default = (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",)
    for client, asked in ((site.bob, 1), (site.bob, 1), (site.alice, 2), (site.alice, 2)):
        assert await ask(gateway, site.context(client, protocol), protocol, forged) == 200
        assert len(origin.requests) == asked, "each client has stored responses of its own"
        assert told(origin)[1] == fingerprint(client)


async def test_a_certificate_that_ends_meanwhile_lets_in_no_more(
    site: Site, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(
        edge_toml(
            origin.port, listen=site.listener("optional"), route="auth = { client_certificate = true }\ncache = false"
        )
    )
    client = await Http2Client.connect(gateway.port, site.context(site.bob, "h2"))
    head = request_head(host=b"a.test", scheme=b"https")
    assert (await client.answer(client.ask(head))).status == 200

    def later() -> None:
        gateway.stop_ticks()  # else the next one would say what time it is
        gateway.worker.now = 4e10

    await gateway.on_loop(later)
    assert (await client.answer(client.ask(head))).status == 403
    await client.close()


async def test_on_a_plain_listener_the_rule_lets_nobody_in(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, route="auth = { client_certificate = true }"))
    client = await raw_client(gateway.port)
    assert (await client.get("/")).status == 403


# -- what is stored ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "kept"),
    [
        (b"Cache-Control: max-age=60\r\n", False),
        (b"Cache-Control: public, max-age=60\r\n", True),
        (b"Cache-Control: public, max-age=60\r\nVary: X-Client-Cert-Subject\r\n", False),
    ],
)
async def test_what_one_client_got_is_nobody_elses_unless_it_says_so(
    control: bytes, kept: bool, site: Site, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    """A certificate is to a shared cache what Authorization is (RFC 9111 3.5)."""
    gateway = await edge(edge_toml(origin.port, listen=site.listener("optional"), route=""))
    origin.default = (b"HTTP/1.1 200 OK\r\n" + control + b"Content-Length: 2\r\n\r\nok",)
    for client in (site.bob, site.alice, None):
        assert await ask(gateway, site.context(client), "http/1.1", []) == 200
    assert len(origin.requests) == (1 if kept else 3)


async def test_clients_do_not_wait_for_one_answer(site: Site, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=site.listener("require"), route=""))
    origin.default = (Pause("both"), OK)
    asked = [
        asyncio.create_task(ask(gateway, site.context(client), "http/1.1", [])) for client in (site.bob, site.alice)
    ]
    await until(lambda: len(origin.requests) == 2)
    origin.release("both")
    assert await asyncio.gather(*asked) == [200, 200]
    assert {told(origin, number)[1] for number in (0, 1)} == {fingerprint(site.bob), fingerprint(site.alice)}


# -- how a subject is told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ((), b""),
        (
            ((("countryName", "DE"),), (("organizationName", "Example, Inc."),), (("commonName", "a b"),)),
            rb"CN=a b,O=Example\, Inc.,C=DE",
        ),
        (((("commonName", " #x "),),), rb"CN=\ #x\ "),
        (((("commonName", "#x"),),), rb"CN=\#x"),
        (((("commonName", "Zoë\r\nX-Evil: 1\0"),),), rb"CN=Zo\C3\AB\0D\0AX-Evil: 1\00"),
        (((("commonName", 'a="b"+<c>;\\'),),), rb"CN=a\=\"b\"\+\<c\>\;\\"),
        (((("1.2.3.4", "x"), ("userId", "u")),), b"1.2.3.4=x+UID=u"),
    ],
)
def test_a_subject_fits_a_field_line(subject: object, text: bytes) -> None:
    assert distinguished(subject) == text
