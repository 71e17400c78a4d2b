"""A headless Chromium for tests, driven over its DevTools protocol; aiohttp is all that it takes.

One rule: what a page writes to its console as an error, throws, or is refused (policy, network) is kept in `troubles`,
so that a test that looks at nothing else still sees it.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from kit.waiting import WAIT_S, until


def chromium() -> str | None:
    """The program, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One browser with one page. Use it as an async context."""

    def __init__(self, home: Path, width: int = 1400, height: int = 1000) -> None:
        self._home = home
        self._size = (width, height)
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.troubles: list[str] = []
        self.requests: list[str] = []  # URLs that the page asked for

    async def __aenter__(self) -> Browser:
        program = chromium()
        assert program is not None, "there is no chromium"
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-extensions", "--disable-component-update",
            "--no-proxy-server", "--force-color-profile=srgb", "--hide-scrollbars", "--remote-debugging-port=0",
            f"--user-data-dir={self._home}", f"--window-size={self._size[0]},{self._size[1]}", "about:blank",
        ]  # fmt: skip
        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(  # noqa: ASYNC220
            [program, *flags], stdout=nowhere, stderr=nowhere, start_new_session=True
        )
        try:
            await self._connect()
        except BaseException:
            self._kill()
            raise
        return self

    async def __aexit__(self, *what: object) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()
        await self._session.close()
        self._kill()

    def _kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(WAIT_S)

    async def _connect(self) -> None:
        port_file = self._home / "DevToolsActivePort"

        def started() -> bool:
            assert self._process.poll() is None, "chromium did not start"
            return port_file.exists() and "\n" in port_file.read_text()

        await until(started, WAIT_S, look_s=0.05)
        port = int(port_file.read_text().split("\n")[0])
        self._session = ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as response:
            pages = [each for each in await response.json() if each["type"] == "page"]
        self._socket: ClientWebSocketResponse = await self._session.ws_connect(
            pages[0]["webSocketDebuggerUrl"], max_msg_size=64 * 1024 * 1024
        )
        self._reader = asyncio.ensure_future(self._read())
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        await self.size(*self._size)

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                break
            found = message.json()
            waiting = self._asked.pop(found.get("id", 0), None)
            if waiting is not None:
                if not waiting.done():
                    waiting.set_result(found)
            else:
                self._told(found.get("method", ""), found.get("params", {}))

    def _told(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.troubles.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.troubles.append(" ".join(str(each.get("value", each.get("description"))) for each in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.troubles.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}".strip())
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command; its result."""
        number = next(self._numbers)
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        found = await asyncio.wait_for(answer, WAIT_S)
        assert "error" not in found, f"{method}: {found['error']}"
        return dict(found.get("result", {}))

    # -- for tests ---------------------------------------------------------------------------------------------------

    async def size(self, width: int, height: int, phone: bool = False) -> None:
        """The window."""
        scale = 2 if phone else 1
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    async def scheme(self, word: str) -> None:
        """What the person's system prefers: light or dark."""
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": word}])

    async def open(self, url: str) -> None:
        """Go there."""
        await self.send("Page.navigate", url=url)

    async def eval(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, script: str, wait_s: float = WAIT_S) -> Any:
        """Poll until an expression is true; its value."""

        async def look() -> Any:
            try:
                return await self.eval(script)
            except AssertionError as error:
                if "navigated" in str(error):
                    return None  # the page is being loaded
                raise

        return await until(look, wait_s, look_s=0.05, said=lambda: f"{script}; {self.troubles}")

    async def text(self, selector: str) -> str:
        """The text of an element."""
        return str(await self.until(f"document.querySelector({selector!r})?.textContent ?? ''"))

    async def click(self, selector: str) -> None:
        """Press an element, once it is there."""
        await self.until(f"(found => found && !found.disabled && !found.hidden)(document.querySelector({selector!r}))")
        await self.eval(f"document.querySelector({selector!r}).click()")

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.send("Input.insertText", text=text)

    async def key(self, name: str, code: int) -> None:
        """Press a key by its DevTools name and its virtual key code."""
        text = "\r" if name == "Enter" else ""
        extra = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **extra
            )

    async def picture(self, path: Path, whole: bool = True) -> None:
        """What the page looks like, as a PNG."""
        found = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))  # noqa: ASYNC240
