"""The admin listener by TLS and by a Unix socket, and the commands that reach it so."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result
from kit.control import Whole
from kit.ports import LOOPBACK, free_ports

from edge.adapters.tls import renewing_context
from edge.adapters.unix_sockets import unix_socket
from edge.cli.main import main
from edge.control.access import Access, Token
from edge.control.admin.application import admin_app, start_admin

TOKEN = "t" * 40
TOML = """
[listen]
http = ["127.0.0.1:0"]
[log]
access = "off"
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:9"
[[routes]]
pool = "web"
"""


def issue(directory: Path, name: str = "edge.example") -> trustme.CA:
    """A certificate and its key at fixed places."""
    authority = trustme.CA()
    issued = authority.issue_cert(name)
    issued.cert_chain_pems[0].write_to_path(directory / "admin.pem")
    issued.private_key_pem.write_to_path(directory / "admin.key")
    return authority


@asynccontextmanager
async def serving(directory: Path, tls: bool, path: Path | None = None) -> AsyncIterator[int]:
    """A gateway whose admin listener is there; its port."""
    whole, port = Whole(TOML), free_ports(1)[0]
    await whole.start()
    context = renewing_context(str(directory / "admin.pem"), str(directory / "admin.key")) if tls else None
    app = admin_app(whole.supervisor, Access([Token(TOKEN)]))
    runner = await start_admin(app, LOOPBACK, port, 16, 5.0, None, context, path)
    try:
        yield port
    finally:
        await runner.cleanup()
        await whole.supervisor.stop(1.0)


async def edge(directory: Path, *arguments: str) -> Result:
    """A command, beside the gateway."""
    (directory / "token").write_text(TOKEN)
    given = (*arguments, "--token-file", str(directory / "token"))
    return await asyncio.to_thread(CliRunner().invoke, main, given)


def configured(directory: Path, port: int) -> Path:
    """A configuration that names the listener."""
    path = directory / "edge.toml"
    files = f'cert = "{directory}/admin.pem", key = "{directory}/admin.key"'
    path.write_text(f'{TOML}\n[admin]\nlisten = "{LOOPBACK}:{port}"\ntls = {{ {files} }}\n')
    return path


async def test_a_command_trusts_the_certificate_that_the_file_names_and_no_other(tmp_path: Path) -> None:
    issue(tmp_path)
    async with serving(tmp_path, tls=True) as port:
        config = configured(tmp_path, port)
        assert (await edge(tmp_path, "status", "-c", str(config))).exit_code == 0
        issue(tmp_path / "..")  # somebody else's certificate, in the place of the one that is expected
        other = config.read_text().replace(f"{tmp_path}/admin.pem", f"{tmp_path.parent}/admin.pem")
        config.write_text(other.replace(f"{tmp_path}/admin.key", f"{tmp_path.parent}/admin.key"))
        result = await edge(tmp_path, "status", "-c", str(config))
        assert (result.exit_code, "its certificate is not the one in" in result.stderr) == (1, True), result.stderr
        result = await edge(tmp_path, "status", "--admin", f"https://{LOOPBACK}:{port}")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "certificate verify failed" in result.stderr
        result = await edge(tmp_path, "status", "--admin", f"{LOOPBACK}:{port}")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


async def test_a_renewed_certificate_is_served_and_a_broken_one_is_not(tmp_path: Path) -> None:
    issue(tmp_path)
    async with serving(tmp_path, tls=True) as port:
        for _ in range(2):
            authority = issue(tmp_path)  # also before anyone came
            await answered(port, authority)
        (tmp_path / "admin.pem").write_text("broken")
        await answered(port, authority)
        await answered(port, issue(tmp_path))


async def answered(port: int, authority: trustme.CA) -> None:
    """A request by TLS that trusts just this authority."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=trusting, server_hostname="edge.example")
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"ok\n")
    writer.close()


async def test_a_unix_socket_is_for_its_owner_and_asks_for_the_token(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(tmp_path, tls=False, path=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await edge(tmp_path, "status", "--json", "--admin", f"unix:{path}")).exit_code == 0
        (tmp_path / "other").write_text("x" * 40)
        result = await asyncio.to_thread(
            CliRunner().invoke,
            main,
            ["status", "--admin", f"unix:{path}", "--token-file", str(tmp_path / "other")],
        )
        assert (result.exit_code, "does not accept the token" in result.stderr) == (1, True)
        with pytest.raises(OSError, match="in use"):
            unix_socket(path)
    assert not path.exists()
    result = await edge(tmp_path, "status", "--admin", f"unix:{path}")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="no socket"):
        unix_socket(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


async def test_a_successor_takes_the_socket_over_and_the_old_one_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(tmp_path, tls=False, path=path):
        with unix_socket(path, succeeds=True) as taken:
            taken.listen()
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(str(path))
            number = path.stat().st_ino
    assert path.stat().st_ino == number


def test_a_socket_that_a_dead_gateway_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    unix_socket(path).close()
    assert path.exists()
    mask = os.umask(0o022)
    os.umask(mask)
    with unix_socket(path):
        assert stat.S_ISSOCK(path.stat().st_mode)
    after = os.umask(0o022)
    os.umask(after)
    assert after == mask
