"""Health of applications: their path is asked in every worker, and a sick one gives way to a backend that is well."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_head
from kit.reloads import EchoServer
from kit.waiting import until
from reloading import api, get

Start = Callable[[str], GatewayProcess]
CODE = """
import asyncio, os
from aiohttp import web
from edge.sdk import edge

async def page(request):
    return web.Response(text="app")

async def healthz(request):
    assert edge().client and edge().request_id and edge().route
    try:
        how = open(os.path.join(os.path.dirname(__file__), "how")).read()
    except OSError:
        how = ""
    if how == "raise":
        raise ValueError("a secret")
    if how == "hang":
        await asyncio.sleep(60)
    return web.Response(text="fine" if not how else how, status=503 if how == "sick" else 200)

def app():
    application = web.Application()
    application.router.add_get("/", page)
    application.router.add_get("/healthz", healthz)
    return application
"""


@pytest.fixture
def site() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "site_with_health.py").write_text(CODE)
        yield Path(name)


def toml(site: Path, port: int) -> str:
    return f"""
python_path = ["{site}"]
{gateway_head(2)}
[regions.first]
tier = 0
[regions.second]
tier = 1
[pools.site]
slow_start = "0s"
down_after = "0s"
up_after = "0s"
ramp = "0s"
min_dwell = "100ms"
[pools.site.health]
path = "/healthz"
body = "fine"
interval = "1100ms"
timeout = "1s"
fall = 2
rise = 2
interval_down = "200ms"
interval_transition = "100ms"
[[pools.site.backends]]
app = "site_with_health:app"
region = "first"
[[pools.site.backends]]
url = "http://{LOOPBACK}:{port}"
region = "second"
[[routes]]
pool = "site"
cache = false
"""


async def health_of(gateway: GatewayProcess) -> tuple[str, str]:
    """State and evidence of the application."""
    backends = (await api(gateway, "GET", "/v1/pools/site/backends"))[1]["backends"]
    found: dict[str, Any] = next(each for each in backends if each["id"] == "site_with_health:app")
    return found["health"], str(found)


async def until_health(gateway: GatewayProcess, wanted: str) -> str:
    """Wait for a state of the application; the evidence."""
    found = ("", "")

    async def has_it() -> bool:
        nonlocal found
        found = await health_of(gateway)
        return found[0] == wanted

    await until(has_it, look_s=0.05, said=lambda: f"{found}, not {wanted}: {gateway.log()[-2000:]}")
    return found[1]


async def sick(gateway: GatewayProcess, site: Path, how: str) -> str:
    """Let it be so until the gateway has noticed; the evidence."""
    (site / "next").write_text(how)
    (site / "next").rename(site / "how")  # a probe reads all of it or nothing
    return await until_health(gateway, "unhealthy")


async def well(gateway: GatewayProcess, site: Path) -> None:
    """It is well again."""
    (site / "how").unlink()
    await until_health(gateway, "healthy")


async def until_answer(gateway: GatewayProcess, wanted: bytes) -> None:
    async def has_it() -> bool:
        return await get(gateway.http_port) == (200, wanted)

    await until(has_it)


@pytest_asyncio.fixture
async def other() -> AsyncIterator[EchoServer]:
    server = await EchoServer(b"other fine").start()
    yield server
    await server.stop()


async def test_a_sick_application_gives_way_and_returns(gateway_process: Start, site: Path, other: EchoServer) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(site, other.port))
    await until_health(gateway, "healthy")
    await until_answer(gateway, b"app")
    for how, evidence in (("sick", "status 503"), ("raise", "status 500"), ("hang", "timed out"), ("odd", "without")):
        while evidence not in await sick(gateway, site, how):
            await well(gateway, site)  # it was unwell before, for a machine that stood still, and said that
        await until_answer(gateway, b"other fine")
        await well(gateway, site)
        await until_answer(gateway, b"app")
    assert "worker.died" not in gateway.log() and "worker.hung" not in gateway.log()
