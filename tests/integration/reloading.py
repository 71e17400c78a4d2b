"""What tests of reloads and upgrades share: a configuration, commands and questions to a running gateway."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from typing import Any

from kit.asking import ask
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_head, patient, run_edge

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
    """One command, with the gateway's configuration."""
    return await asyncio.to_thread(run_edge, *arguments, "-c", str(gateway.config), directory=gateway.directory)


async def api(gateway: GatewayProcess, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One question to the admin API."""
    return await asyncio.to_thread(gateway.api, method, path, body)


async def reload(gateway: GatewayProcess, text: str) -> dict[str, Any]:
    """With this file; accepted."""
    gateway.rewrite(text)
    status, found = await api(gateway, "POST", "/v1/reload")
    assert status == 200, found
    assert found["applied"]
    return dict(found)


async def get(port: int, path: str = "/", host: str = "any.example") -> tuple[int, bytes]:
    """Status and body of one request; 0 when there is no answer."""
    try:
        found = await asyncio.to_thread(ask, port, path, fields={"Host": host})
    except OSError:
        return 0, b""
    return found.status, found.body
