"""The dashboard in a real browser before a real gateway: its numbers are the API's, its forms do what they say.

One rule: every test ends with a look at what the page wrote to its console and whom it asked; an error there, or a
request to anyone but the gateway, fails it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from kit.browser import Browser
from kit.fleet import Machines, Settings
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_head
from kit.redis import RedisProcess
from kit.waiting import WAIT_S

pytestmark = pytest.mark.xdist_group("browser")

TOML = f"""{gateway_head(1, log="@STATE@/access.jsonl")}
[snapshots]
repository = "file:@STATE@/points"
[regions.eu]
[regions.us]
[pools.web]
[[pools.web.backends]]
url = "http://{LOOPBACK}:@ORIGIN@"
region = "eu"
[[pools.web.backends]]
url = "http://localhost:@ORIGIN@"
region = "us"
[[routes]]
name = "all"
pool = "web"
[routes.cache]
[[routes]]
host = "rules.example"
pool = "web"
redirect = {{ to = "https://{{host}}{{uri}}", status = 308 }}
"""


class Page:
    """A browser at the dashboard of a gateway, and the API beside it."""

    def __init__(self, browser: Browser, gateway: GatewayProcess) -> None:
        self.browser = browser
        self.gateway = gateway
        self.base = f"http://{LOOPBACK}:{gateway.admin_port}"
        self.token = (gateway.directory / "state/admin.token").read_text().strip()

    def api(self, path: str) -> Any:
        """What the API says."""
        asked = urllib.request.Request(self.base + path, headers={"Authorization": f"Bearer {self.token}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(asked, timeout=WAIT_S) as found:
            return json.loads(found.read())

    async def login(self, token: str = "") -> None:
        """Type the token, as a person does."""
        await self.browser.until("document.querySelector('dialog input[name=token]') !== null")
        await self.browser.eval("document.querySelector('dialog input[name=token]').focus()")
        await self.browser.type(token or self.token)
        await self.browser.key("Enter", 13)

    async def open(self) -> None:
        """Go there and log in; returns when numbers are there."""
        await self.browser.open(self.base + "/")
        await self.login()
        await self.browser.until("document.querySelectorAll('#backends tbody tr').length === 2")

    async def get(self, path: str, times: int = 1) -> None:
        """Ask the gateway for something."""
        async with ClientSession() as client:
            for _ in range(times):
                async with client.get(f"http://{LOOPBACK}:{self.gateway.http_port}{path}") as response:
                    await response.read()


@pytest_asyncio.fixture
async def page(origin: ScriptedOrigin, tmp_path: Path) -> AsyncIterator[Page]:
    origin.default = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nCache-Control: max-age=60\r\n\r\nhello"]
    toml = TOML.replace("@ORIGIN@", str(origin.port))
    gateway = await asyncio.to_thread(GatewayProcess.start, toml, tmp_path)
    try:
        async with Browser(tmp_path / "browser") as browser:
            found = Page(browser, gateway)
            yield found
            foreign = [url for url in browser.requests if not url.startswith((found.base, "about:"))]
            assert not foreign, foreign
            assert not browser.troubles, browser.troubles
    finally:
        gateway.stop()


async def test_its_numbers_are_those_of_the_api(page: Page) -> None:
    await page.get("/a?secret=1", 7)
    await page.get("/b", 3)
    await page.open()
    await page.browser.until("document.querySelector('#tile-total').textContent === '10'")
    status, cache = page.api("/v1/status"), page.api("/v1/cache")
    assert sum(route["requests"] for route in status["requests"]["routes"].values()) == 10
    shown = json.loads(
        await page.browser.eval(
            """JSON.stringify([...document.querySelectorAll('#backends tbody tr')].map(
                row => [...row.children].map(cell => cell.textContent.trim())))"""
        )
    )
    rows = {row[0]: row for row in shown}
    for backend in status["backends"]:
        row = rows[backend["id"]]
        assert row[1].split() == [backend["admin"], backend["health"]]
        assert row[2:4] == ["web", backend["region"]]
        assert row[6] == str(backend["attempts"])
    window = cache["routes"]["all"]["5m"]
    wanted = f"all|{window['requests']}|{window['hit_rate'] * 100:.1f} %|"
    row = "document.querySelector('#cache .routes tbody tr')"
    cells = f"[...{row}.children].map(each => each.textContent).join('|')"
    await page.browser.until(f"{row} && {cells}.startsWith({wanted!r})")  # the stores are asked for every 5 s
    path = f"{LOOPBACK}:{page.gateway.http_port}/a"
    await page.browser.until(f"document.querySelector('#cache .pair tbody').textContent.includes({path!r})")
    assert "secret" not in await page.browser.text("#cache .pair tbody")
    said = await page.browser.eval("document.querySelector('.plot').getAttribute('aria-label')")
    assert said.startswith("Requests per second, now: all ")
    assert await page.browser.eval("document.querySelectorAll('.plot canvas').length") == 4


async def test_a_region_is_drained_by_its_form_and_the_event_is_seen(page: Page) -> None:
    await page.open()
    lane = "li[data-region=us]"
    await page.browser.click(f"{lane} .acts button")
    await page.browser.until("document.querySelector('dialog[open] input[name=reason]') !== null")
    await page.browser.eval("document.querySelector('dialog input[name=reason]').focus()")
    await page.browser.type("<b>maintenance</b>")
    await page.browser.key("Enter", 13)
    await page.browser.until(f"document.querySelector({lane!r}).textContent.includes('draining')")
    assert page.api("/v1/regions/us")["admin"] == "draining"
    assert page.api("/v1/regions/us")["change"]["reason"] == "<b>maintenance</b>"
    assert await page.browser.eval(f"document.querySelector({lane!r}).querySelector('b') === null")  # text, not markup
    await page.browser.until("document.querySelector('#events li[data-kind=\"region.admin\"]') !== null")
    await page.browser.until(f"document.querySelector({lane!r}).textContent.includes('web 0 %')")
    await page.browser.click(f"{lane} .acts button.main")
    await page.browser.until("document.querySelector('dialog[open] button.main') !== null")
    await page.browser.click("dialog[open] button.main")
    await page.browser.until(f"!document.querySelector({lane!r}).textContent.includes('draining')")
    assert page.api("/v1/regions/us")["admin"] == "active"


async def test_an_event_looks_as_what_it_says_a_state_is_not_as_what_it_was(page: Page) -> None:
    await page.open()
    told = [
        {"kind": "region.health", "was": "unknown", "is": "healthy"},
        {"kind": "region.health", "was": "healthy", "is": "degraded"},
        {"kind": "backend.health", "was": "degraded", "is": "unhealthy"},
        {"kind": "backend.health", "was": "unhealthy", "is": "healthy", "evidence": "3 in a row after it failed"},
        {"kind": "region.admin", "was": "active", "is": "draining"},
        {"kind": "worker.ready", "worker": 0},
        {"kind": "worker.died", "worker": 0},
        {"kind": "gateway.stopping"},
    ]
    looks = await page.browser.eval(
        f"""import("/dashboard/events.js").then(({{ Events }}) => {{
            const root = document.createElement("div"), events = new Events(root);
            for (const each of {json.dumps(told)}) events.add({{ id: 1, time: "2026-11-27T12:00:00Z", ...each }});
            return [...root.querySelectorAll("li")].reverse().map(each => each.className).join(" ");
        }})"""
    )
    assert looks == "good warn bad good warn good bad plain"


async def test_the_token_is_kept_nowhere_and_a_wrong_one_is_asked_for_again(page: Page) -> None:
    await page.browser.open(page.base + "/")
    await page.login("w" * 40)
    await page.browser.until("document.querySelector('dialog p')?.textContent.includes('token is needed')")
    page.browser.troubles.clear()  # the browser itself notes the 401
    await page.login()
    await page.browser.until("document.querySelectorAll('#backends tbody tr').length === 2")
    kept = await page.browser.eval(
        """JSON.stringify([localStorage.length, sessionStorage.length, document.cookie, location.href,
            document.documentElement.outerHTML])"""
    )
    assert json.loads(kept)[:3] == [0, 0, ""]
    assert page.token not in kept
    await page.browser.eval("location.reload()")
    await page.browser.until("document.querySelector('dialog input[name=token]') !== null")


async def test_purge_explain_and_snapshot_by_form(page: Page, origin: ScriptedOrigin) -> None:
    await page.get("/a", 2)
    await page.get("/b", 1)
    before = len(origin.requests)
    await page.open()
    url = f"http://{LOOPBACK}:{page.gateway.http_port}/a"
    await page.browser.eval(f"document.querySelector('#explain-url').value = {url!r}")
    await page.browser.click("#explain form button[type=submit]")
    steps = await page.browser.until(
        "(all => all.length > 3 && all.map(each => each.textContent).join('|'))"
        "([...document.querySelectorAll('#explain-steps > li')])"
    )
    assert "all" in steps and "hit" in steps and "fresh" in steps and "No backend is asked." in steps
    assert len(origin.requests) == before
    await page.browser.eval(f"document.querySelector('#purge-values').value = {url!r} + '\\n' + {url[:-1]!r} + 'b'")
    await page.browser.click("#purge form button[type=submit]")
    await page.browser.until("document.querySelector('#purge-result').textContent.startsWith('2 done, 2 stored')")
    await page.get("/a")
    assert len(origin.requests) == before + 1
    await page.browser.click("#snapshot-take")
    await page.browser.until("document.querySelector('#snapshot-step').textContent === 'done'")
    points = page.api("/v1/snapshots")["points"]
    await page.browser.until(f"document.querySelectorAll('#recovery tbody tr').length === {len(points)}")
    assert page.api("/v1/audit")["audit"][0]["action"] == "snapshot.take"


async def test_rules_that_answer_and_a_reload_that_failed_are_shown(page: Page) -> None:
    await page.open()
    assert await page.browser.eval("document.querySelector('#reload').hidden")
    await page.browser.eval("document.querySelector('#explain-url').value = 'http://rules.example/a'")
    await page.browser.click("#explain form button[type=submit]")
    await page.browser.until("document.querySelector('#explain-steps')?.textContent.includes('308 to https://rules')")
    assert "No backend" not in await page.browser.text("#explain-steps")
    page.gateway.config.write_text("[listen]\nhttp = 5\n")
    page.gateway.signal(signal.SIGHUP)
    await page.browser.until("!document.querySelector('#reload').hidden")
    assert "pools: is missing" in await page.browser.text("#reload")


@pytest.mark.parametrize(("width", "height", "phone"), [(1400, 1000, False), (390, 844, True), (820, 1180, False)])
async def test_nothing_sticks_out_at_any_width(page: Page, width: int, height: int, phone: bool) -> None:
    await page.browser.size(width, height, phone)
    await page.open()
    for word in ("light", "dark"):
        await page.browser.scheme(word)
        assert await page.browser.eval("document.documentElement.scrollWidth") <= width
    ratio = await page.browser.eval(CONTRAST)
    assert ratio >= 4.5, "text is hard to read in the dark"


async def test_it_can_be_used_by_keyboard_and_read_aloud(page: Page) -> None:
    await page.open()
    await page.browser.eval("document.body.focus()")
    await page.browser.key("Tab", 9)
    assert await page.browser.eval("document.activeElement.className") == "skip"
    nameless = await page.browser.eval(NAMELESS)
    assert nameless == "", nameless
    seen = set()
    for _ in range(60):
        await page.browser.key("Tab", 9)
        seen.add(await page.browser.eval(FOCUSED))
    assert {"window", "pause", "theme", "Drain region eu"} <= seen


CONTRAST = """(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map((each) => {
      const part = each / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const found = getComputedStyle(at).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(found)) return found;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("main *, header *")].filter(
    (node) => [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim()) && node.offsetParent);
  return Math.min(...texts.map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(back(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()"""

FOCUSED = "document.activeElement.id || document.activeElement.getAttribute('aria-label')"

NAMELESS = """[...document.querySelectorAll("button, input, select, textarea, a, [role=img], section, table")]
  .filter((node) => !node.hidden && !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby")
    || node.caption || (node.labels && node.labels.length) || node.textContent.trim()))
  .map((node) => node.outerHTML.slice(0, 80)).join("\\n")"""


async def test_the_machines_of_a_fleet_are_shown(tmp_path: Path) -> None:
    server = RedisProcess.start(tmp_path)
    settings = Settings(fleet='region = "fra"', max_blind_s=30.0)
    machines = await asyncio.to_thread(Machines, tmp_path, [server.url] * 2, settings)
    try:
        async with Browser(tmp_path / "browser") as browser:
            page = Page(browser, machines.machines[0].gateway)
            await browser.open(page.base + "/")
            await page.login()
            await browser.until("document.querySelectorAll('#fleet tbody tr').length === 2")
            text = "[...document.querySelectorAll('#fleet tbody tr')].map(row => row.textContent).join('|')"
            first, second = (await browser.eval(text)).split("|")
            assert first.startswith("edge-0 (here)in step") and second.startswith("edge-1in step") and "fra" in second
            assert (await browser.text("#fleet-standing")).startswith("edge-0: in step at purge ")
            assert not await browser.eval("document.getElementById('fleet-link').hidden")
            assert not browser.troubles, browser.troubles
    finally:
        machines.close()
        server.kill()
