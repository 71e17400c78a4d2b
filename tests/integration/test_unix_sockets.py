"""Unix sockets to listen on and as backends; and that each listener has a name, and so a socket, of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from inprocess import Connect, StartEdge, edge_toml
from kit.client import RawClient
from kit.http2 import Http2Client, request_head
from kit.origin import OK, ScriptedOrigin
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, NotReady
from kit.waiting import until
from reloading import api, reload, toml
from reloading import edge as command

from edge.http.proxy_protocol import Addresses, header_of

Start = Callable[[str], GatewayProcess]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edge.sock"


@pytest_asyncio.fixture
async def app(tmp_path: Path) -> AsyncIterator[ScriptedOrigin]:
    """An origin at `app.sock`."""
    scripted = ScriptedOrigin()
    await scripted.start_unix(tmp_path / "app.sock")
    yield scripted
    await scripted.stop()


async def ask(path: Path, *lines: str, first: bytes = b"", sock: socket.socket | None = None) -> int:
    """One request over the socket; its status."""
    client = await RawClient.connect_unix(path, sock)
    head = "".join(f"{line}\r\n" for line in ("GET / HTTP/1.1", "Host: a", *lines))
    await client.send(first + head.encode() + b"\r\n")
    response = await client.read_response()
    await client.close()
    assert response is not None
    return response.status


def is_there(path: Path) -> bool:
    return path.exists()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def number_of(path: Path) -> int:
    return path.stat().st_ino


def put(path: Path, text: str) -> None:
    path.write_text(text)


def text_of(path: Path) -> str:
    return path.read_text()


# -- to listen on ------------------------------------------------------------------------------------------------------


async def test_who_comes_by_a_socket_has_no_address(path: Path, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=f'http = ["unix:{path}"]'))
    assert await ask(path, "X-Forwarded-For: 192.0.2.1") == 200
    named = socket.socket(socket.AF_UNIX)
    named.bind(str(path.with_name("client.sock")))
    named.connect(str(path))
    named.setblocking(False)
    assert await ask(path, sock=named) == 200
    for seen in origin.requests:
        assert (seen.get(b"x-forwarded-for"), seen.get(b"x-real-ip")) == (None, None)
        assert (seen.get(b"forwarded") or b"").startswith(b"for=unknown;")
    assert [line["client"] for line in await gateway.log(2)] == ["unix", "unix"]


async def test_a_trusted_proxy_may_come_by_a_socket(path: Path, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=f'http = ["unix:{path}"]\ntrusted_proxies = ["unix"]'))
    assert await ask(path, "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https") == 200
    assert await ask(path, "X-Real-IP: 192.0.2.9") == 200
    told, nothing = origin.requests
    assert (told.get(b"x-forwarded-for"), told.get(b"x-real-ip")) == (b"192.0.2.1", b"192.0.2.1")
    assert told.get(b"forwarded") == b"for=192.0.2.1, for=unknown;host=a;proto=https"
    assert (nothing.get(b"x-forwarded-for"), nothing.get(b"x-real-ip")) == (None, None)
    assert [line["client"] for line in await gateway.log(2)] == ["192.0.2.1", "unix"]


async def test_a_proxy_header_may_come_by_a_socket(path: Path, origin: ScriptedOrigin, edge: StartEdge) -> None:
    listen = f'http = ["unix:{path}"]\nproxy_protocol = ["unix"]'
    gateway = await edge(edge_toml(origin.port, listen=listen))
    first = header_of("v2", Addresses("203.0.113.9", 1, "198.51.100.1", 443))
    assert await ask(path, first=first) == 200
    assert await ask(path, first=header_of("v1", None)) == 200
    assert [line["client"] for line in await gateway.log(2)] == ["203.0.113.9", "unix"]


async def test_rules_and_geography_do_without_an_address(path: Path, origin: ScriptedOrigin, edge: StartEdge) -> None:
    regions = '[regions.default]\ncidrs = ["10.0.0.0/8"]\n'
    route = 'cache = false\nallow = ["10.0.0.0/8"]'
    gateway = await edge(regions + edge_toml(origin.port, listen=f'http = ["unix:{path}"]', route=route))
    assert await ask(path) == 403
    rules = 'cache = false\nrate_limit = { rate = "1/h" }\ngeo = { prefer = ["default"] }'
    other = path.with_name("other.sock")
    gateway = await edge(regions + edge_toml(origin.port, listen=f'http = ["unix:{other}"]', route=rules))
    assert [await ask(other), await ask(other)] == [200, 429]
    assert gateway.worker.bugs == 0


async def test_http2_tls_and_a_listener_that_goes(
    tmp_path: Path, path: Path, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    found = trustme.CA().issue_cert("localhost")
    found.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    found.private_key_pem.write_to_path(tmp_path / "k.pem")
    pair = f'[{{ cert = "{tmp_path / "c.pem"}", key = "{tmp_path / "k.pem"}" }}]'
    secure = path.with_name("tls.sock")
    https = f'https = [{{ address = "unix:{secure}", certificates = {pair} }}]'
    listen = f'http = ["{LOOPBACK}:0", "unix:{path}"]\nh2c = true\n{https}'
    gateway = await edge(edge_toml(origin.port, listen=listen))
    plain = Http2Client.over((await RawClient.connect_unix(path)).wire)
    assert (await plain.answer(plain.ask(request_head()))).status == 200
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_unix_connection(str(secure), ssl=context, server_hostname="localhost")
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await plain.close()
    kept, other = await RawClient.connect_unix(path), await RawClient.connect(gateway.port)
    for client in (kept, other):
        assert (await client.get("/")).status == 200
    await gateway.on_loop(lambda: gateway.worker.close_listener(f"unix:{path}"))
    assert await kept.ended(), "a listener's connections end with it"
    assert (await other.get("/")).status == 200, "others' do not"
    assert (await asyncio.to_thread(dead, path), await asyncio.to_thread(dead, secure)) == (True, False)
    for client in (kept, other):
        await client.close()


def dead(path: Path) -> bool:
    """Whether nobody listens there."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) != 0


def unix_toml(port: int, *paths: Path, workers: int = 1) -> str:
    """A gateway that listens on sockets, too."""
    return toml(port, workers=workers, addresses=[f"unix:{path}" for path in paths]).replace("any.example", "*")


async def test_the_file_is_made_with_its_mode_and_removed_at_the_end(
    gateway_process: Start, origin: ScriptedOrigin, path: Path
) -> None:
    text = unix_toml(origin.port, path, workers=2)
    gateway = await asyncio.to_thread(gateway_process, text)
    assert mode_of(path) == 0o660
    assert [await ask(path) for _ in range(20)] == [200] * 20
    await reload(gateway, text.replace("workers = 2", 'workers = 2\nsocket_mode = "0666"'))
    assert mode_of(path) == 0o666
    assert await asyncio.to_thread(gateway.stop) == 0
    assert not is_there(path)


async def test_a_living_socket_is_refused_and_a_dead_one_replaced(
    gateway_process: Start, origin: ScriptedOrigin, path: Path, tmp_path: Path
) -> None:
    first = await asyncio.to_thread(gateway_process, unix_toml(origin.port, path))
    (tmp_path / "other").mkdir()
    with pytest.raises(NotReady) as refused:
        await asyncio.to_thread(GatewayProcess.start, unix_toml(origin.port, path), tmp_path / "other")
    said = str(refused.value).splitlines()
    assert said[1:] == [f"edge: unix:{path}: cannot listen: Address already in use"]
    assert await ask(path) == 200, "the first one's is as it was"
    await asyncio.to_thread(first.kill)
    assert is_there(path)
    second = await asyncio.to_thread(gateway_process, unix_toml(origin.port, path))
    assert await ask(path) == 200
    await asyncio.to_thread(second.stop)
    put(path, "mine")
    with pytest.raises(NotReady, match="there is a file, which is no socket"):
        await asyncio.to_thread(GatewayProcess.start, unix_toml(origin.port, path), tmp_path / "other")
    assert text_of(path) == "mine"


async def test_a_supervisor_that_was_killed_is_followed_by_one_that_takes_the_socket(
    gateway_process: Start, origin: ScriptedOrigin, path: Path
) -> None:
    """Its workers live on and accept; the new gateway's socket stands in the old one's place in one step."""
    gateway = await asyncio.to_thread(gateway_process, unix_toml(origin.port, path))
    gateway.signal(signal.SIGKILL)
    await asyncio.to_thread(gateway.wait)
    assert await ask(path) == 200, "the worker serves on"
    gateway.launch([sys.executable, "-m", "edge.cli.main", "run", "-c", str(gateway.config)])
    await asyncio.to_thread(gateway.wait_ready, lambda: gateway.admin_status("/readyz") == 200)
    assert await ask(path) == 200
    await asyncio.to_thread(gateway.stop)
    assert not is_there(path)


async def test_a_reload_opens_and_closes_sockets(gateway_process: Start, origin: ScriptedOrigin, path: Path) -> None:
    other = path.with_name("other.sock")
    gateway = await asyncio.to_thread(gateway_process, unix_toml(origin.port, path))
    await reload(gateway, unix_toml(origin.port, other))
    assert not is_there(path)
    assert await ask(other) == 200
    other_file = path.with_name("notes")
    put(other_file, "mine")
    gateway.rewrite(unix_toml(origin.port, other_file))
    status, found = await api(gateway, "POST", "/v1/reload")
    assert (status // 100, "no socket" in str(found)) == (4, True)
    assert await ask(other) == 200
    await asyncio.to_thread(gateway.stop)
    assert not is_there(other)


async def test_an_upgrade_hands_sockets_over(gateway_process: Start, origin: ScriptedOrigin, path: Path) -> None:
    gone = path.with_name("gone.sock")
    text = unix_toml(origin.port, path, gone)
    gateway = await asyncio.to_thread(gateway_process, text)
    number, asked = number_of(path), 0
    gateway.rewrite(text.replace("cache = false", "cahce = false"))
    status, _ = await api(gateway, "POST", "/v1/upgrade")
    assert status == 500
    assert await ask(path) == 200, "a successor that failed has left the file alone"
    gateway.rewrite(unix_toml(origin.port, path))
    upgrading = asyncio.create_task(api(gateway, "POST", "/v1/upgrade"))
    while gateway.running:
        assert await ask(path) == 200
        asked += 1
    status, found = await upgrading
    assert (status, asked > 0) == (200, True)
    assert number_of(path) == number
    assert await ask(path) == 200
    assert not is_there(gone), "the new file has no such listener"
    os.kill(found["pid"], signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{found['pid']}").exists())
    assert not is_there(path)


# -- as backends -------------------------------------------------------------------------------------------------------


async def test_a_backend_behind_a_socket(
    tmp_path: Path, app: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(f"unix:{tmp_path / 'app.sock'}", route="cache = false\npreserve_host = false"))
    client = await raw_client(gateway.port)
    assert [(await client.get("/one")).status, (await client.get("/two")).status] == [200, 200]
    assert [(each.get(b"host"), each.connection) for each in app.requests] == [(b"localhost", 1)] * 2
    name = f"unix:{str(tmp_path).strip('/').replace('/', '-')}-app.sock"
    assert [line["backend"] for line in await gateway.log(2)] == [name, name]
    await app.stop()
    (tmp_path / "app.sock").unlink(missing_ok=True)
    assert (await client.get("/")).status == 502
    await app.start_unix(tmp_path / "app.sock")
    assert (await client.get("/")).status == 200


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_backend_behind_a_socket_is_told_of_clients(
    version: str, tmp_path: Path, app: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    app.announced = True
    gateway = await edge(edge_toml(f"unix:{tmp_path / 'app.sock'}", pool=f'proxy_protocol = "{version}"'))
    clients = [await raw_client(gateway.port) for _ in range(2)]
    for client in clients * 2:
        assert (await client.get("/")).status == 200
    assert [each.connection for each in app.requests] == [1, 2, 1, 2]
    assert len(set(app.announcements.values())) == 2


async def test_probes_and_commands_know_sockets(gateway_process: Start, tmp_path: Path, app: ScriptedOrigin) -> None:
    url = f"unix:{tmp_path / 'app.sock'}"
    app.route("/well", OK)
    text = toml(1, pool='health = { path = "/well", interval = "1s", timeout = "900ms" }', route="")
    gateway = await asyncio.to_thread(gateway_process, text.replace("http://127.0.0.1:1", url).replace("any.", "*."))

    async def shown(*wanted: tuple[str, str]) -> bool:
        _, found = await api(gateway, "GET", "/v1/pools/web/backends")
        return tuple((each["url"], each["health"]) for each in found["backends"]) == wanted

    await until(lambda: shown((url, "healthy")), look_s=0.05)
    await app.stop()
    await until(lambda: shown((url, "unhealthy")), look_s=0.05)
    added = await command(gateway, "backend", "add", "web", f"unix:{tmp_path / 'more.sock'}", "--region", "default")
    assert added.returncode == 0, added.stderr
    _, found = await api(gateway, "GET", "/v1/pools/web/backends")
    assert f"unix:{tmp_path / 'more.sock'}" in [each["url"] for each in found["backends"]]


# -- names of listeners ------------------------------------------------------------------------------------------------


async def test_every_listener_has_a_socket_of_its_own(tmp_path: Path, origin: ScriptedOrigin, edge: StartEdge) -> None:
    found = trustme.CA().issue_cert("localhost")
    found.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    found.private_key_pem.write_to_path(tmp_path / "k.pem")
    pair = f'[{{ cert = "{tmp_path / "c.pem"}", key = "{tmp_path / "k.pem"}" }}]'
    any_port = f"{LOOPBACK}:0"
    https = f'https = [{{ address = "{any_port}", certificates = {pair} }}]'
    gateway = await edge(edge_toml(origin.port, listen=f'http = ["{any_port}", "{any_port}"]\n{https}'))
    assert len(set(gateway.ports)) == 3
    for port in gateway.ports[:2]:
        client = await RawClient.connect(port)
        assert (await client.get("/")).status == 200
        await client.close()
    secure = await RawClient.connect(gateway.ports[2])
    await secure.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not (await secure.wire.until_end()).startswith(b"HTTP/1.1 200"), "it speaks TLS"
    await secure.close()
