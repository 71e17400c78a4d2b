"""The commands: exit codes, one clear line for each failure, where the gateway is looked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import edge.cli
from edge.cli import client as cli_client
from edge.cli.client import CommandFailed, connect, percent, size, table, text
from edge.cli.main import LATER, main
from edge.cli.reload import WIDEST, brief

GOOD = """
[listen]
http = ["127.0.0.1:8080"]
[admin]
listen = "0.0.0.0:9955"
token_file = "@TOKEN@"
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:9000"
[[routes]]
pool = "web"
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file nearby, nothing in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGE_ADMIN", raising=False)
    monkeypatch.delenv("EDGE_TOKEN", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def good(tmp_path: Path) -> Path:
    token = tmp_path / "token"
    token.write_text("t" * 40 + "\n")
    path = tmp_path / "good.toml"
    path.write_text(GOOD.replace("@TOKEN@", str(token)))
    return path


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_of_a_good_file(tmp_path: Path) -> None:
    result = run("check", "-c", str(good(tmp_path)))
    assert result.exit_code == 0
    assert "ok (1 route, 1 pool, 1 region)" in result.stdout


def test_check_looks_at_the_machine_and_strict_makes_warnings_errors(tmp_path: Path) -> None:
    path = good(tmp_path)  # its admin listener is on every address
    result = run("check", "-c", str(path))
    assert result.exit_code == 0
    assert f"{path}:5:1 admin.listen: " in result.stderr and "(warning)" in result.stderr
    strict = run("check", "--strict", "-c", str(path))
    assert strict.exit_code == 1
    assert f"{path}:5:1 admin.listen: " in strict.stderr
    path.write_text(path.read_text() + '[cache]\nmemory = "900TiB"\n')
    for command in ("check", "run"):
        result = run(command, "-c", str(path))
        assert result.exit_code == 1
        assert f"{path}:13:1 cache.memory: 900.0 TiB is more than this machine has" in result.stderr


def test_check_tells_every_mistake_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(GOOD.replace("http = [", "htp = [").replace('pool = "web"', 'pool = "wob"'))
    result = run("check", "-c", str(path))
    lines = result.stderr.splitlines()
    assert result.exit_code == 1
    assert len(lines) == 3, lines  # no address, the unknown key, the unknown pool
    assert all(line.startswith(f"{path}:") and line.split(":")[1].isdigit() for line in lines)


def test_check_as_json(tmp_path: Path) -> None:
    path = good(tmp_path)
    assert json.loads(run("check", "-c", str(path), "--json").stdout)["ok"] is True
    path.write_text("x = 1")
    result = run("check", "-c", str(path), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"]


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_missing_file_is_an_error(command: str) -> None:
    result = run(command, "-c", "nowhere.toml")
    assert result.exit_code == 1
    assert result.stderr == (
        "edge: nowhere.toml: No such file or directory; `edge init` writes a first one, -c FILE names another\n"
    )


def test_keys_lists_each_key_with_its_help() -> None:
    keys = {key["key"]: key for key in json.loads(run("check", "--keys", "--json").stdout)}
    assert keys["limits.header_timeout"]["default"] == '"10s"'
    assert all(key["help"] for key in keys.values())


# -- where the gateway is ----------------------------------------------------------------------------------------------


def test_no_gateway_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_TOKEN", "x" * 40)
    result = run("status", "--admin", "127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "no gateway answers at 127.0.0.1:1" in result.stderr


def test_no_token_is_one_line() -> None:
    result = run("status")
    assert result.exit_code == 1
    assert "var/admin.token: there is no admin token" in result.stderr


def test_a_point_of_a_file_with_mistakes_is_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[snapshots]\nrepository = "file:{tmp_path}/points"\n')
    result = run("snapshot", "take", "-c", str(path))
    assert result.exit_code == 1
    assert result.stderr == f"edge: {path} cannot be used: `edge check` names its mistakes\n"
    path.unlink()
    result = run("snapshot", "take", "-c", str(path), "--repository", f"file:{tmp_path}/points")
    assert result.exit_code == 1 and "no such file" in result.stderr


def test_the_configuration_file_tells_address_and_token(tmp_path: Path) -> None:
    admin = connect(good(tmp_path), None, None)
    assert (admin.target.host, admin.target.port, admin.token) == ("127.0.0.1", 9955, "t" * 40)


def test_options_win_over_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ADMIN", "[::1]:7000")
    assert connect(good(tmp_path), None, None).target.host == "::1"
    assert connect(good(tmp_path), "127.0.0.1:6000", None).target.port == 6000


def test_an_address_without_port_is_refused() -> None:
    with pytest.raises(CommandFailed, match="not HOST:PORT"):
        connect(None, "localhost", None)


# -- requests ----------------------------------------------------------------------------------------------------------


class Recorded:
    """The admin API as these tests want it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[str, str, Any, Any]] = []

    def call(self, method: str, path: str, body: Any = None, query: Any = None) -> Any:
        self.calls.append((method, path, body, query))
        return self.answer

    def get(self, path: str, query: Any = None) -> Any:
        return self.call("GET", path, None, query)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    found = Recorded({"id": 4, "kind": "tag", "value": "a", "count": 2})
    monkeypatch.setattr("edge.cli.purge.connect", lambda *_: found)
    monkeypatch.setattr("edge.cli.regions.connect", lambda *_: found)
    return found


def test_purge_says_id_and_count(recorded: Recorded) -> None:
    result = run("purge", "--tag", "a", "--soft", "--reason", "why")
    assert result.stdout == "purge 4: tag a (soft), 2 stored responses\n"
    method, path, body, _ = recorded.calls[0]
    assert (method, path, body["tag"], body["soft"], body["reason"]) == ("POST", "/v1/purge", "a", True, "why")


def test_many_purges_go_together(recorded: Recorded, tmp_path: Path) -> None:
    one = recorded.answer
    recorded.answer = {"purges": [{**one, "id": number} for number in range(25)]}
    (tmp_path / "list").write_text("# old ones\nhttp://a/1\n\ntag t 1\nprefix a/b\n")
    result = run("purge", "--url", "http://a/2", "--url", "http://a/3", "--file", str(tmp_path / "list"), "--soft")
    assert result.exit_code == 0
    method, path, body, _ = recorded.calls[0]
    assert (method, path, body["soft"]) == ("POST", "/v1/purge", True)
    wanted = [{"url": "http://a/2"}, {"url": "http://a/3"}, {"url": "http://a/1"}, {"tag": "t 1"}, {"prefix": "a/b"}]
    assert body["items"] == wanted
    assert result.stdout.splitlines()[-1] == "and 5 more, the last one is purge 24"


def test_a_long_list_goes_in_parts_that_the_api_takes(recorded: Recorded, tmp_path: Path) -> None:
    recorded.answer = {"purges": []}
    (tmp_path / "list").write_text("".join(f"http://a/{number}\n" for number in range(2500)))
    assert run("purge", "--json", "--file", str(tmp_path / "list")).exit_code == 0
    assert [len(body["items"]) for _, _, body, _ in recorded.calls] == [1000, 1000, 500]


@pytest.mark.parametrize("line", ["no url", "http", "tag", "tag "])
def test_a_list_that_cannot_be_read_purges_nothing(recorded: Recorded, tmp_path: Path, line: str) -> None:
    (tmp_path / "list").write_text(f"http://a/1\n{line}\n")
    result = run("purge", "--file", str(tmp_path / "list"))
    assert (result.exit_code, "line 2: expected a URL" in result.stderr) == (1, True)
    assert not recorded.calls


@pytest.mark.parametrize("arguments", [(), ("--tag", "a", "--all")])
def test_purge_wants_something_and_all_stands_alone(recorded: Recorded, arguments: tuple[str, ...]) -> None:
    assert run("purge", *arguments).exit_code == 2
    assert not recorded.calls


@pytest.mark.parametrize(
    ("arguments", "method", "path", "body"),
    [
        (("region", "drain", "eu"), "POST", "/v1/regions/eu/state", {"state": "draining"}),
        (("region", "deactivate", "a/b"), "POST", "/v1/regions/a%2Fb/state", {"state": "inactive"}),
        (("backend", "activate", "web", "b1"), "POST", "/v1/pools/web/backends/b1/state", {"state": "active"}),
        (("backend", "add", "web", "http://h:1", "--region", "eu"), "PUT", "/v1/pools/web/backends", {"region": "eu"}),
        (
            ("backend", "add", "web", "http://h:1", "--id", "x"),
            "PUT",
            "/v1/pools/web/backends/x",
            {"url": "http://h:1"},
        ),
    ],
)
def test_changes_become_requests(
    recorded: Recorded, arguments: tuple[str, ...], method: str, path: str, body: dict[str, Any]
) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert recorded.calls[0][:2] == (method, path)
    assert body.items() <= recorded.calls[0][2].items()


def test_removal_has_its_change_in_the_query(recorded: Recorded) -> None:
    assert run("region", "remove", "eu", "--force", "--reason", "gone").exit_code == 0
    method, path, body, query = recorded.calls[0]
    assert (method, path, body) == ("DELETE", "/v1/regions/eu", None)
    assert query["force"] == "true"
    assert query["reason"] == "gone"


@pytest.mark.parametrize("given", ["eu", "eu=", "eu=x"])
def test_simulate_wants_numbers(recorded: Recorded, given: str) -> None:
    assert run("simulate", "--capacity", given).exit_code == 2


# -- showing -----------------------------------------------------------------------------------------------------------


def test_cells() -> None:
    cells = {
        None: "-",
        "": "-",
        True: "yes",
        1.50: "1.5",
        (2, 3): "2, 3",
        (): "-",
        "[x]": "[x]",
        "a\x9bb\n": "a\\x9bb ",
    }
    assert {cell: text(cell) for cell in cells} == cells
    assert (percent(None), percent(0.123)) == (None, "12.3 %")
    assert (size(5), size(2048), size(3 * 2**30)) == ("5 B", "2.0 KiB", "3.0 GiB")


def test_a_table_without_rows() -> None:
    assert table("t", ["a"], []).row_count == 0


def test_the_module_has_no_token_on_its_command_line() -> None:
    assert not any(option == "--token" for option in run("status", "--help").stdout.split()), cli_client.__doc__


def commands(command: click.Command = main, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands that people use, with their names."""
    yield names, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from commands(inner, *names, name)


def test_every_list_of_commands_shows_whole_sentences() -> None:
    for names, command in commands():
        if isinstance(command, click.Group):
            listed = run(*names, "--help").stdout.partition("Commands:\n")[2].splitlines()
            assert listed
            assert not [line for line in listed if not line.endswith(".") or line.endswith("...")], names


def test_every_option_is_explained() -> None:
    options = [(*names, each) for names, command in commands() for each in command.params]
    assert not [each for each in options if isinstance(each[-1], click.Option) and not each[-1].help]


def test_a_mistyped_command_is_guessed() -> None:
    result = run("stauts")
    assert result.exit_code == 2
    assert "did you mean 'status'?" in result.stderr
    assert "did you mean" not in run("xyz").stderr


def test_every_command_stands_in_the_table_under_its_module() -> None:
    """A start reads no module of another command: the table must say where each one is."""
    with click.Context(main) as context:
        for name in main.list_commands(context):
            assert main.get_command(context, name) is not None, name
    for name, module in LATER.items():
        assert name in {each.name for each in import_module(f"edge.cli.{module}").COMMANDS}
    modules = [path.stem for path in Path(edge.cli.__file__).parent.glob("*.py")]
    found = {
        command.name: stem
        for stem in modules
        if stem != "main"
        for command in getattr(import_module(f"edge.cli.{stem}"), "COMMANDS", ())
    }
    assert found == LATER


COSTLY = {
    "edge.cli.begin": ("asyncio", "click", "pydantic", "ssl", "edge.config", "edge.errors", "pathlib"),
    "edge.cli.main": ("aiohttp", "rich", "edge.cli.live", "edge.sidecar", "edge.control.gateway", "obstore"),
    "edge.cli.worker_process": (
        "aiohttp",
        "difflib",
        "edge.adapters.disk_tier",
        "mimetypes",
        "rich",
        "redis",
        "aiocache",
        "geoip2",
        "obstore",
        "edge.sidecar",
        "prometheus_client",
    ),
    "edge.control.gateway": (
        "edge.adapters.disk_tier",
        "edge.control.fleet.member",
        "edge.recovery",
        "rich",
        "redis",
        "geoip2",
        "obstore",
        "edge.dataplane.worker.worker",
    ),
}


@pytest.mark.parametrize("module", COSTLY)
def test_a_start_waits_for_nothing_that_it_does_not_use(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in COSTLY[module] if name in loaded] == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (False, "false"),
        (0, "0"),
        ([], "[]"),
        ({"name": "new", "cache": False}, '{"name":"new","cache":false}'),
    ],
)  # fmt: skip
def test_a_change_is_told_in_brief(value: object, shown: str) -> None:
    assert brief(value) == shown
    assert len(brief([value] * 500)) == WIDEST + 1
