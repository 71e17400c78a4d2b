"""What tests of reloads and upgrades share: a configuration, commands and questions to a running gateway."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from kit.ports import LOOPBACK
from kit.processes import ROOT, GatewayProcess, gateway_head, patient
from kit.waiting import WAIT_S

GOING_AWAY = (0x88, b"\x03\xe9")


def toml(
    port: int, *, workers: int = 1, route: str = "", pool: str = "", more: str = "", addresses: Sequence[str] = ()
) -> str:
    """A gateway before one origin."""
    return f"""{gateway_head(workers, addresses=addresses)}
[pools.web]
{patient(pool)}
[[pools.web.backends]]
id = "one"
url = "http://{LOOPBACK}:{port}"
[[routes]]
host = "any.example"
pool = "web"
cache = false
{route}
{more}
"""


async def edge(gateway: GatewayProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m", "edge.cli.main", *arguments, "-c", str(gateway.config)]
    return await asyncio.to_thread(
        subprocess.run, command, cwd=gateway.directory, env=environment, capture_output=True, text=True, timeout=WAIT_S
    )


async def api(gateway: GatewayProcess, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One question to the admin API."""

    def ask() -> tuple[int, Any]:
        token = (gateway.directory / "state" / "admin.token").read_text().strip()
        connection = http.client.HTTPConnection(LOOPBACK, gateway.admin_port, timeout=WAIT_S)
        data = None if body is None else json.dumps(body)
        with closing(connection):
            connection.request(method, path, data, {"Authorization": f"Bearer {token}"})
            found = connection.getresponse()
            return found.status, json.loads(found.read())

    return await asyncio.to_thread(ask)


async def reload(gateway: GatewayProcess, text: str) -> dict[str, Any]:
    """With this file; accepted."""
    gateway.rewrite(text)
    status, found = await api(gateway, "POST", "/v1/reload")
    assert status == 200, found
    assert found["applied"]
    return dict(found)


async def get(port: int, path: str = "/", host: str = "any.example") -> tuple[int, bytes]:
    """Status and body of one request; 0 when there is no answer."""

    def ask() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=WAIT_S)
        try:
            connection.request("GET", path, headers={"Host": host})
            found = connection.getresponse()
            return found.status, found.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    return await asyncio.to_thread(ask)
