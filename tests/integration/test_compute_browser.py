"""Two examples of docs/compute in a real browser: a page, its script, a WebSocket and server-sent events."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from inprocess import StartEdge
from kit.browser import Browser

DOCS = Path(__file__).parents[2] / "docs" / "compute"


@pytest_asyncio.fixture
async def browser(edge: StartEdge, tmp_path: Path) -> AsyncIterator[Browser]:
    """It ends before the gateways do (`edge`): a stream that a stopped gateway cuts is no trouble of a page's."""
    async with Browser(tmp_path / "browser") as found:
        yield found
        troubles = [each for each in found.troubles if "/favicon.ico" not in each]  # the examples have none
        assert not troubles, troubles


async def start(edge: StartEdge, name: str, patch: pytest.MonkeyPatch) -> str:
    patch.syspath_prepend(str(DOCS))
    patch.setitem(sys.modules, name, None)  # an application runs once: whatever is loaded here leaves with the test
    del sys.modules[name]
    text = (DOCS / f"{name}.toml").read_text().replace("127.0.0.1:8080", "127.0.0.1:0")
    gateway = await edge(f'log.access = "@LOG@"\npython_path = ["{DOCS}"]\n{text}')
    return f"http://127.0.0.1:{gateway.port}/"


async def test_people_chat(browser: Browser, edge: StartEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    await browser.open(await start(edge, "chat", monkeypatch))
    await browser.until("document.readyState === 'complete' && socket.readyState === 1")
    for number, words in enumerate(("hello", "<b>who?</b>"), 1):
        await browser.eval(f"text.value = {words!r}; document.forms[0].requestSubmit()")
        await browser.until(f"document.querySelectorAll('#said li').length === {number}")
        assert await browser.eval("document.querySelector('#said li:last-child').textContent") == words


async def test_the_clock_goes(browser: Browser, edge: StartEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    await browser.open(await start(edge, "clock", monkeypatch))
    first = await browser.until("document.querySelector('#now')?.textContent")
    await browser.until(f"document.querySelector('#now').textContent !== {first!r}")
