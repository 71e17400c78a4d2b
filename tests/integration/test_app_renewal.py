"""New code of an application: new workers take over at a reload while the old ones drain, and no request fails."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.processes import GatewayProcess, gateway_head
from kit.reloads import Load
from kit.waiting import until
from reloading import api, get

Start = Callable[[str], GatewayProcess]
CODE = """
import asyncio
from pathlib import Path
from aiohttp import web
from helper_of_site import WORD

async def page(request):
    while "wait" in request.query and not Path(__file__).with_name("go").exists():
        await asyncio.sleep(0.02)
    return web.Response(text=WORD)

def app():
    application = web.Application()
    application.router.add_get("/", page)
    return application

class Hooks:
    def response(self, head):
        return None
"""


@pytest.fixture
def site() -> Iterator[Path]:
    """A folder with an application, and a module that it imports."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site_of_test.py").write_text(CODE)
        (folder / "helper_of_site.py").write_text("WORD = 'one'\n")
        yield folder


def toml(site: Path, workers: int = 2, route: str = "", app: str = "site_of_test:app") -> str:
    return f"""
python_path = ["{site}"]
{gateway_head(workers)}
[pools.site]
timeouts = {{ first_byte = "60s", head = "60s" }}
[[pools.site.backends]]
app = "{app}"
[[routes]]
pool = "site"
cache = false
{route}
"""


async def workers_of(gateway: GatewayProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api(gateway, "GET", "/v1/status"))[1]["workers"]
    return found


async def clients_of(gateway: GatewayProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api(gateway, "GET", "/v1/connections"))[1]["clients"]
    return found


async def test_new_code_takes_over_under_load_and_nothing_fails(gateway_process: Start, site: Path) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(site))
    before = {each["pid"] for each in await workers_of(gateway)}
    load = Load(gateway.http_port)
    asking = asyncio.create_task(load.run(16))
    await until(lambda: load.bodies[b"one"] > 50)
    slow = asyncio.create_task(get(gateway.http_port, "/?wait"))

    async def at_the_old_code() -> bool:
        return any(each["state"] == "fetching" and each["age_s"] > 0.3 for each in await clients_of(gateway))

    await until(at_the_old_code, look_s=0.05)  # the API has a rate limit
    (site / "helper_of_site.py").write_text("WORD = 'second'\n")  # what it imports counts as well
    status, found = await api(gateway, "POST", "/v1/reload")
    assert (status, found["applied"]) == (200, True), found
    await served(gateway, b"second")
    seen = load.bodies[b"second"]
    await until(lambda: load.bodies[b"second"] > seen + 200)
    (site / "go").touch()
    assert await slow == (200, b"one")  # begun with the old code, ended with it
    load.stop.set()
    await asking
    assert load.failed == []

    async def two() -> Any:
        now = await workers_of(gateway)
        return now if len(now) == 2 else None

    now = await until(two, look_s=0.05)
    assert {each["state"] for each in now} == {"ready"}
    assert not before & {each["pid"] for each in now}
    assert "worker.died" not in gateway.log()


async def served(gateway: GatewayProcess, word: bytes) -> None:
    """Who comes after the reload's answer gets the new code, whichever worker it is let in by."""
    assert [await get(gateway.http_port) for _ in range(8)] == [(200, word)] * 8


async def test_code_that_cannot_run_changes_nothing(gateway_process: Start, site: Path) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(site, 1))
    before = [(each["pid"], each["state"]) for each in await workers_of(gateway)]
    for code in (
        "import no_such_module\n",  # seen by the check
        CODE.replace("return application", "application.on_startup.append(fails); return application")
        + "\nasync def fails(application):\n    raise ValueError('no database')\n",  # seen by the new worker
    ):
        (site / "site_of_test.py").write_text(code)
        status, found = await api(gateway, "POST", "/v1/reload")
        assert status == 422, found
        assert "no_such_module" in str(found) or "no database" in str(found)
        assert await get(gateway.http_port) == (200, b"one")
        assert [(each["pid"], each["state"]) for each in await workers_of(gateway)] == before
    (site / "site_of_test.py").write_text(CODE)
    (site / "helper_of_site.py").write_text("WORD = 'good again'\n")
    assert (await api(gateway, "POST", "/v1/reload"))[0] == 200
    await served(gateway, b"good again")


async def test_what_names_the_same_code_needs_no_new_worker(gateway_process: Start, site: Path) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(site, 1))
    pid = (await workers_of(gateway))[0]["pid"]
    gateway.rewrite(toml(site, 1, route='name = "renamed"'))
    assert (await api(gateway, "POST", "/v1/reload"))[0] == 200
    assert [each["pid"] for each in await workers_of(gateway)] == [pid]
    gateway.rewrite(toml(site, 1, route='hooks = ["site_of_test:Hooks"]'))  # another name: it has to be loaded
    assert (await api(gateway, "POST", "/v1/reload"))[0] == 200
    assert pid not in [each["pid"] for each in await workers_of(gateway) if each["state"] == "ready"]
    assert await get(gateway.http_port) == (200, b"one")
