"""The certificates of a TLS listener as `openssl s_client` sees them: by name, and while they change."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from inprocess import Gateway, StartEdge, edge_toml
from kit.client import RawClient
from kit.http2 import Http2Client, request_head
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK
from kit.tls import Files, issue, s_client
from kit.wire import Wire

from edge.errors import ConfigError


def listener(*certificates: Files, keys: str = "") -> str:
    """The lines of a listener."""
    shown = ", ".join(each.toml for each in certificates)
    return f'[[listen.https]]\naddress = "{LOOPBACK}:0"\ncertificates = [{shown}]\n{keys}'


def show(gateway: Gateway, *certificates: Files) -> None:
    """As whoever renews certificates does it in the worker."""
    (one,) = gateway.worker.listeners.values()
    assert one.tls is not None
    one.tls.show([each.pair for each in certificates])


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("www.example.com", "www.example.com"),
        ("WWW.Example.COM", "www.example.com"),
        ("shop.example.com", "*.example.com"),
        ("a.shop.example.com", "first.test"),
        ("example.com", "first.test"),
        ("other.test", "first.test"),
        ("", "first.test"),
    ],
)
async def test_the_name_chooses(
    asked: str, shown: str, authority: trustme.CA, tmp_path: Path, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    """Exact before wildcard, one label under a wildcard, else the first."""
    certificates = [issue(authority, tmp_path, name) for name in ("first.test", "*.example.com", "www.example.com")]
    gateway = await edge(edge_toml(origin.port, listen=listener(*certificates)))
    seen = await s_client(gateway.port, name=asked)
    assert (seen.subject, seen.statuses) == (shown, [200])


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_other_certificates_are_shown_from_the_next_handshake_on(
    version: str, authority: trustme.CA, tmp_path: Path, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    """A session made before is resumed after, and what cannot be used changes nothing."""
    before, after = issue(authority, tmp_path, "before.test"), issue(authority, tmp_path, "after.test")
    gateway = await edge(edge_toml(origin.port, listen=listener(before)))
    session = str(tmp_path / "session")
    assert (await s_client(gateway.port, version, "-sess_out", session)).subject == "before.test"
    show(gateway, after)
    assert (await s_client(gateway.port, version)).subject == "after.test"
    resumed = await s_client(gateway.port, version, "-sess_in", session)
    assert resumed.reused and resumed.statuses == [200]
    for broken in (Files(before.cert, after.key), Files(tmp_path / "none.pem", after.key)):
        with pytest.raises(ConfigError, match="certificate"):
            show(gateway, before, broken)
    assert (await s_client(gateway.port, version)).subject == "after.test"


@pytest.mark.parametrize(
    "options",
    [("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"), ("-tls1_2", "-cipher", "AES128-SHA256:ECDHE-ECDSA-AES128-SHA256")],
)
async def test_what_is_old_is_not_spoken(
    options: tuple[str, ...], authority: trustme.CA, tmp_path: Path, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=listener(issue(authority, tmp_path, "a.test"))))
    seen = await s_client(gateway.port, *options)
    assert seen.code and not seen.done


async def test_names_that_no_certificate_covers_may_be_refused(
    authority: trustme.CA, tmp_path: Path, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    certificates = [issue(authority, tmp_path, name) for name in ("first.test", "*.example.com")]
    lines = listener(*certificates, keys='unknown_names = "refuse"\n')
    gateway = await edge(edge_toml(origin.port, listen=lines))
    for name in ("other.test", "a.b.example.com", ""):
        seen = await s_client(gateway.port, name=name)
        assert seen.code and not seen.subject
        assert "unrecognized name" in seen.text
    await gateway.turned()
    assert dict(gateway.worker.handshakes.results) == {"unknown_name": 3}
    for name in ("first.test", "www.example.com"):
        assert (await s_client(gateway.port, name=name)).statuses == [200]


@pytest.mark.parametrize(
    ("options", "version", "agreed"),
    [
        (("-tls1_3", "-alpn", "h2,http/1.1"), "TLSv1.3", "h2"),
        (("-tls1_2", "-alpn", "h2,http/1.1"), "TLSv1.2", "h2"),
        (("-tls1_2", "-alpn", "http/1.1"), "TLSv1.2", "http/1.1"),
        (("-tls1_3",), "TLSv1.3", ""),
    ],
)
@pytest.mark.parametrize("name", ["first.test", "second.test", "other.test"])
async def test_protocols_are_agreed_on_under_every_name(
    name: str,
    options: tuple[str, ...],
    version: str,
    agreed: str,
    authority: trustme.CA,
    tmp_path: Path,
    origin: ScriptedOrigin,
    edge: StartEdge,
) -> None:
    certificates = [issue(authority, tmp_path, each) for each in ("first.test", "second.test")]
    gateway = await edge(edge_toml(origin.port, listen=listener(*certificates)))
    seen = await s_client(gateway.port, *options, name=name)
    assert (seen.version, seen.protocol) == (version, agreed)
    assert dict(gateway.worker.handshakes.versions) == {version: 1}


@pytest.mark.parametrize("route", ["cache = false", ""], ids=["forwarded", "stored"])
@pytest.mark.parametrize(
    ("name", "host", "status"),
    [
        ("www.example.com", "www.example.com", 200),
        ("www.example.com", "WWW.example.com:8443", 200),
        ("www.example.com", "alias.example.com", 200),
        ("www.example.com", "shop.example.com", 421),
        ("www.example.com", "first.test", 421),
        ("www.example.com", "10.0.0.1", 421),
        ("shop.example.com", "other.example.com", 200),
        ("shop.example.com", "www.example.com", 200),
        ("shop.example.com", "a.b.example.com", 421),
        ("unknown.test", "unknown.test", 200),
        ("unknown.test", "www.example.com", 200),
        ("", "www.example.com", 200),
    ],
)
async def test_a_host_that_the_certificate_is_not_for_is_misdirected(
    name: str,
    host: str,
    status: int,
    route: str,
    authority: trustme.CA,
    tmp_path: Path,
    origin: ScriptedOrigin,
    edge: StartEdge,
) -> None:
    """Where the client asked for a name that we have; stored or not."""
    several = [("first.test",), ("www.example.com", "alias.example.com"), ("*.example.com",)]
    certificates = [issue(authority, tmp_path, *names) for names in several]
    origin.default = (b"HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: 2\r\n\r\nok",)
    gateway = await edge(edge_toml(origin.port, listen=listener(*certificates), route=route))
    for _ in range(2):
        await s_client(gateway.port, name="", host=host)
        assert (await s_client(gateway.port, name=name, host=host)).statuses == [status]


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_after_a_host_of_its_own_a_connection_is_misdirected_too(
    protocol: str, authority: trustme.CA, tmp_path: Path, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    """Also where the quick way remembers the host, and by a trusted proxy never."""
    origin.default = (b"HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: 2\r\n\r\nok",)
    lines = listener(issue(authority, tmp_path, "a.test"))
    for trusted in ("", f'trusted_proxies = ["{LOOPBACK}/32"]\n'):
        gateway = await edge(edge_toml(origin.port, listen=trusted + lines, route=""))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        context.set_alpn_protocols([protocol])
        hosts = [b"a.test", b"a.test", b"b.test", b"b.test", b"a.test"]
        if protocol == "h2":
            client = await Http2Client.connect(gateway.port, context)
            heads = [request_head(host=host, scheme=b"https") for host in hosts]
            found = [(await client.answer(client.ask(head))).status for head in heads]
            await client.close()
        else:
            loop = asyncio.get_running_loop()
            _, wire = await loop.create_connection(Wire, LOOPBACK, gateway.port, ssl=context, server_hostname="a.test")
            found = [(await RawClient(wire).get("/", host=host.decode())).status for host in hosts]
            await wire.close()
        assert found == ([200] * 5 if trusted else [200, 200, 421, 421, 200])
