"""Every command, whatever it is given and whatever answers: one clear line and an exit code, never a traceback.

The commands are found by walking the command line itself, so that a new one is tried without being named here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from kit.control import Whole
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK
from kit.threaded import QuietHandler, ThreadedServer

from edge.cli.client import console, one_line, safe, table
from edge.cli.main import main
from edge.control.access import Access, Token
from edge.control.admin.application import admin_app, start_admin

TOKEN = "t" * 40
BY_REPOSITORY = {"snapshot", "restore", "drill", "runbook"}  # may do without a gateway, so they look for a file first


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):  # some are read only when they are asked for
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = {" ".join(path): command for path, command in leaves(main)}
REMOTE = {
    name: command
    for name, command in COMMANDS.items()
    if name.split()[0] not in BY_REPOSITORY
    and any(isinstance(each, click.Option) and "--admin" in each.opts for each in command.params)
}


def filled(name: str, folder: Path, word: str = "web") -> list[str]:
    """A command with everything that it needs."""
    arguments = name.split()
    for each in COMMANDS[name].params:
        if isinstance(each, click.Argument):
            if isinstance(each.type, click.File):
                (folder / "list").write_text("http://a.test/x\n")
                arguments.append(str(folder / "list"))
            elif each.type is click.INT:
                arguments.append("1")
            else:
                arguments.append("http://a.test/" if each.name == "url" else word)
    if name == "purge":
        arguments += ["--all"]
    if name == "simulate":
        arguments += ["--lose", "europe"]
    if name == "top":
        arguments += ["--count", "1"]
    return arguments


def run(*arguments: str) -> Result:
    return CliRunner(env={"EDGE_TOKEN": TOKEN}).invoke(main, arguments)


def is_clear(result: Result, lines: int = 1) -> None:
    """One line, no traceback, and the exception was click's way to end."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output and "a bug in" not in result.output
    assert result.exit_code in (1, 2)
    assert result.stderr.strip().splitlines()[-1].startswith(("edge: ", "Error: "))


# -- some other server -------------------------------------------------------------------------------------------------

OTHERS = {
    "page": (200, "text/html", b"<html>[/x] hello"),
    "json": (200, "application/json", b'{"status": "ok"}'),
    "list": (200, "application/json", b"[1]"),
    "empty": (200, "application/json", b""),
    "away": (302, "text/html", b"see there"),
    "none": (404, "text/html", b"nothing"),
    "broken": (500, "application/json", b'{"detail": 5}'),
    "bytes": (200, "application/json", b"\xff\xfe\x00"),
    "locked": (401, "text/plain", b""),
}


@pytest.fixture(params=list(OTHERS))
def other(request: pytest.FixtureRequest) -> Iterator[str]:
    status, kind, body = OTHERS[request.param]

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.body()
            self.answer(status, {"Content-Type": kind}, body)

        do_POST = do_PUT = do_DELETE = do_GET

    with ThreadedServer(Handler) as server:
        yield f"{LOOPBACK}:{server.port}"


def test_some_other_server_is_one_line_for_every_command(other: str, tmp_path: Path) -> None:
    for name in REMOTE:
        for more in ([], ["--json"]):
            if more and not any("--json" in each.opts for each in COMMANDS[name].params):
                continue
            result = run(*filled(name, tmp_path), "--admin", other, *more)
            is_clear(result)
            assert "some other server" in result.stderr, (name, result.stderr)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:9900", "x", ":", "a:99999", "[:1", "a b:1", "é:1"])
def test_no_server_is_one_line_for_every_command(address: str, tmp_path: Path) -> None:
    for name in REMOTE:
        is_clear(run(*filled(name, tmp_path), "--admin", address))


# -- what is given -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["\udcff", "a\udc80b"])
def test_arguments_that_are_not_utf8(word: str, tmp_path: Path) -> None:
    for name, command in COMMANDS.items():
        if any(isinstance(each, click.Argument) for each in command.params):
            is_clear(run(*filled(name, tmp_path, word)[:-1], word))
        is_clear(run(*filled(name, tmp_path), "-c", word))
        is_clear(run(*filled(name, tmp_path), f"--{word}"))


def test_tokens_and_lists_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"http://a.test/\xff\n")
    is_clear(run("warm", str(tmp_path / "raw")))
    is_clear(run("status", "--token-file", str(tmp_path / "raw"), "--admin", "127.0.0.1:1"))
    is_clear(run("status", "-c", str(tmp_path / "raw")))
    is_clear(run("check", "-c", str(tmp_path / "raw")))
    result = CliRunner(env={"EDGE_TOKEN": "é" * 20}).invoke(main, ["status", "--admin", "127.0.0.1:1"])
    is_clear(result)


def test_a_bug_in_a_command_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.cli.look.connect", lambda *given: 1 / 0)
    result = run("events")
    assert result.exit_code == 1
    assert result.stderr.startswith("edge: a bug in this command: ZeroDivisionError: division by zero (")
    assert result.stderr.count("\n") == 1


# -- what comes from outside -------------------------------------------------------------------------------------------

NASTY = ["c\\[/red]", "[bold]x[/bold]", "[/]", ":smile:", "\x1b[31mred", "\x9b31m", "a\u202eb", "line\nbreak", "\x00"]


@pytest.mark.parametrize("word", NASTY)
def test_nothing_from_outside_is_markup_or_obeyed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    from edge.cli.live import _tree

    console().print(table(word, [word], [[word], [[word, word]]]))
    _tree(console(), {word: word, "list": [{word: word}], "inner": {"key": [word]}})
    said = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in said)
    assert word.replace("\n", "") in said.replace("\n", "") or not word.isprintable()
    assert one_line({word: word}).isprintable()
    assert safe(word).replace("\n", "").isprintable()


@pytest_asyncio.fixture
async def gateway(origin: ScriptedOrigin) -> AsyncIterator[str]:
    whole = Whole(
        f"""
[listen]
http = ["127.0.0.1:0"]
[log]
access = "off"
[regions.europe]
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:{origin.port}"
region = "europe"
[[routes]]
name = "a[/b]"
pool = "web"
"""
    )
    await whole.start()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = admin_app(whole.supervisor, Access([Token(TOKEN)]))
    runner = await start_admin(app, "127.0.0.1", port, 64, 10.0, listener)
    yield f"127.0.0.1:{port}"
    await runner.cleanup()
    await whole.supervisor.stop(1.0)


async def ask(*arguments: str) -> Result:
    return await asyncio.to_thread(run, *arguments)


async def test_every_command_shows_what_a_gateway_full_of_markup_says(gateway: str, tmp_path: Path) -> None:
    reason = "a\\[/x] [bold]"
    for arguments in (
        ["region", "drain", "europe", "--force", "--reason", reason],
        ["region", "activate", "europe", "--reason", reason],
        ["region", "failback", "europe", "--reason", reason],
        ["purge", "--tag", "c\\[/red]", "--reason", reason],
    ):
        result = await ask(*arguments, "--admin", gateway)
        assert result.exit_code == 0, result.output
    for name in ("status", "top", "events", "audit", "connections", "config show", "cache show", "region list"):
        result = await ask(*filled(name, tmp_path), "--admin", gateway)
        assert result.exit_code == 0, result.output
        assert result.exception is None
    for name, shown in (("audit", "state"), ("region list", reason), ("events", "c\\[/red]"), ("status", "europe")):
        assert shown in (await ask(*name.split(), "--admin", gateway)).stdout, name


async def test_times_are_rfc_3339_everywhere(gateway: str) -> None:
    import json
    from datetime import datetime

    await ask("region", "drain", "europe", "--force", "--expires", "1h", "--admin", gateway)
    found: list[tuple[str, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key in ("time", "since") or key.endswith("_at") or key == "at":
                    found.append((key, item))
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    for name in ("status", "events", "audit", "config show", "region list", "backend list", "cache show"):
        walk(json.loads((await ask(*name.split(), "--json", "--admin", gateway)).stdout))
    assert {"time", "since", "started_at", "loaded_at", "at", "expires_at"} <= {key for key, _ in found}
    for key, item in found:
        assert item is None or (isinstance(item, str) and item.endswith("Z") and datetime.fromisoformat(item)), key


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["region", "drain", "erope"], "there is no region erope, did you mean europe?"),
        (["region", "failback", "mars"], "there is no region mars; known: europe"),
        (["backend", "list", "wbe"], "there is no pool wbe, did you mean web?"),
        (["backend", "drain", "webb", "x"], "there is no pool webb, did you mean web?"),
        (["backend", "drain", "web", "127.0.0.1"], "did you mean 127.0.0.1:"),
        (
            ["backend", "add", "web", "http://a:1", "--region", "erope"],
            "there is no region erope, did you mean europe?",
        ),
        (["simulate", "--lose", "erope"], "there is no region erope, did you mean europe?"),
        (["simulate", "--down", "web/x"], "there is no backend web/x"),
    ],
)
async def test_a_name_that_does_not_exist_is_an_error_with_the_nearest(
    gateway: str, arguments: list[str], said: str
) -> None:
    result = await ask(*arguments, "--admin", gateway)
    is_clear(result)
    assert said in result.stderr


async def test_warm_names_what_failed_and_why(gateway: str, origin: ScriptedOrigin, tmp_path: Path) -> None:
    origin.route("/good", b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok")
    origin.route("/bad", b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno")
    urls = ["good", "bad", *(f"http://{host}/" for host in ("a:b:c", "ok:99999", "[")), "x" * 9000]
    urls = [url if "://" in url else f"http://a.test/{url}" for url in urls]
    (tmp_path / "list").write_text("\n".join(urls))
    result = await ask("warm", str(tmp_path / "list"), "--admin", gateway)
    assert (result.exit_code, result.stdout) == (1, "1 of 6 stored, 5 failed\n")
    text = result.stderr
    assert "http://a.test/bad: 404: answered by the origin" in text
    for host in ("a:b:c", "ok:99999", "["):
        assert f"http://{host}/: invalid Host" in text
    assert ": request line too long" in text
    assert origin.counters["requests"] == 2
