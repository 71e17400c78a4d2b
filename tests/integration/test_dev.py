"""`edge dev` and `edge init`, as processes: write, save, see, break, read the error, go on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner
from kit.ports import free_port
from kit.waiting import WAIT_S, until, until_blocking

from edge.cli.main import main
from edge.config.loader import load_text

APP = """
from aiohttp import web

async def page(request):
    if "raise" in request.query:
        raise ValueError("a bug of mine")
    return web.Response(text="{text}", headers={{"Cache-Control": "no-store"}})

app = web.Application()
app.router.add_get("/", page)
"""


class Dev:
    """A running `edge dev`; what it says is in a file."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        self._said = folder / "said.txt"
        command = [sys.executable, "-m", "edge.cli.main", "dev", *arguments, "--listen", f"127.0.0.1:{self.port}"]
        with self._said.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)

    @property
    def said(self) -> str:
        return self._said.read_text()

    async def answers(self, text: str, path: str = "/") -> None:
        """Wait until it does."""

        async def does() -> bool:
            return await self.ask(path) == text

        await until(does, WAIT_S, look_s=0.05, said=lambda: f"not {text!r}; it said: {self.said}")

    async def ask(self, path: str = "/") -> str | None:
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{self.port}{path}") as answer:
                return await answer.text()
        except aiohttp.ClientError:
            return None

    async def says(self, text: str) -> None:
        """Wait until it has."""
        await until(lambda: text in self.said, WAIT_S, look_s=0.05, said=lambda: f"{text!r} is not in: {self.said}")

    def write(self, text: str) -> None:
        (self.folder / "page.py").write_text(text)

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WAIT_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page.py").write_text(APP.format(text="one"))
    return tmp_path


async def test_write_save_see_break_read_go_on(folder: Path) -> None:
    dev = Dev(folder, "page.py")
    try:
        await dev.answers("one")
        dev.write(APP.format(text="two"))
        await dev.answers("two")
        await dev.says("page.py changed: new code serves")
        dev.write(APP.format(text="three").replace("return web", "return return"))
        await dev.says("not taken, the code before it serves on")
        assert "SyntaxError" in dev.said and "return return" in dev.said and "page.py" in dev.said
        assert await dev.ask() == "two"
        dev.write(APP.format(text="three").replace("import web", "import webb"))
        await dev.says("ImportError")
        assert await dev.ask() == "two"
        dev.write(APP.format(text="four"))
        await dev.answers("four")
        assert "internal error" in str(await dev.ask("/?raise"))
        await dev.says("ValueError: a bug of mine")
        assert "in page" in dev.said
        trace = dev.said[dev.said.index("app.error") :]
        assert "edge/" not in trace and "aiohttp/" not in trace
        await dev.says("200 GET 127.0.0.1")
    finally:
        code = dev.end()
    assert code == 0
    assert await dev.ask() is None


async def test_it_waits_for_a_first_version_that_runs(folder: Path) -> None:
    (folder / "page.py").write_text("from helper import text\n" + APP.format(text="{text}").replace('"{text}"', "text"))
    dev = Dev(folder, "page.py")
    try:
        await dev.says("No module named 'helper'")
        await dev.says("waiting for a change")
        (folder / "helper.py").write_text("text = 'one'\n")
        dev.write((folder / "page.py").read_text() + "\n")
        await dev.answers("one")
        (folder / "helper.py").write_text("text = 'two'\n")  # what it imports is watched as well
        await dev.answers("two")
    finally:
        dev.end()


async def test_a_port_that_is_taken_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        dev = Dev(folder, "page.py", port=port)
        try:
            await dev.says(f"cannot listen on 127.0.0.1:{port}: Address already in use")
        finally:
            dev.end()


async def test_the_configuration_beside_it_counts(folder: Path) -> None:
    (folder / "page.toml").write_text(
        'listen.http = ["127.0.0.1:1"]\npools.p.backends = [{ app = "page:app" }]\n'
        'routes = [{ path = "/", pool = "p" }]\n'
    )
    dev = Dev(folder, "page.py")
    try:
        await dev.answers("one")
        text = (folder / "page.toml").read_text().replace('path = "/"', 'path = "/below"')
        (folder / "page.toml").write_text(text)
        await dev.says("page.toml changed: new code serves")
        assert await dev.ask() != "one"
    finally:
        dev.end()


def test_its_worker_goes_with_it(folder: Path) -> None:
    dev = Dev(folder, "page.py")
    asyncio.run(dev.answers("one"))
    children = Path(f"/proc/{dev.process.pid}/task/{dev.process.pid}/children").read_text().split()
    assert len(children) == 1
    dev.process.kill()
    dev.process.wait()
    try:
        until_blocking(lambda: not Path(f"/proc/{children[0]}").exists() or _state(children[0]) == "Z", look_s=0.05)
    except AssertionError:
        os.kill(int(children[0]), signal.SIGKILL)
        raise


def _state(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.py"], "nothing.py: no such file"),
        (["page.txt"], "must be a Python file"),
        (["page.py", "-c", "nothing.toml"], "No such file"),
    ],
)
def test_what_dev_refuses(arguments: list[str], said: str, folder: Path) -> None:
    found = CliRunner().invoke(main, ["dev", *[str(folder / a) if "." in a else a for a in arguments]])
    assert found.exit_code == 1 and said in found.output


def test_init_writes_what_loads_and_never_over(tmp_path: Path) -> None:
    run = CliRunner()
    assert run.invoke(main, ["init", str(tmp_path / "a"), "--backend", "http://127.0.0.1:9"]).exit_code == 0
    config = load_text((tmp_path / "a" / "config.toml").read_text(), "config.toml")
    assert str(config.pools["site"].backends[0].id) == "127.0.0.1:9"
    again = run.invoke(main, ["init", str(tmp_path / "a"), "--app"])
    assert again.exit_code == 1 and "there already; nothing was written" in again.output
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["config.toml"]
    assert run.invoke(main, ["init", str(tmp_path / "b"), "--backend", "nonsense"]).exit_code == 1
    assert run.invoke(main, ["init", str(tmp_path / "b"), "--app", "--backend", "http://a"]).exit_code == 2
    assert not (tmp_path / "b").exists()


def test_the_application_that_init_writes_passes_its_own_test(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["init", str(tmp_path), "--app"]).exit_code == 0
    checked = subprocess.run(
        [sys.executable, "-m", "edge.cli.main", "check"], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S
    )
    assert checked.returncode == 0, checked.stderr
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
