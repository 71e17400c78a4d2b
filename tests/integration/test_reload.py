"""A reload of a running gateway: nobody notices, a mistake changes nothing, what was accepted can be gone back to."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from kit.ports import LOOPBACK, free_port, free_ports
from kit.processes import GatewayProcess, Process
from kit.reloads import EchoServer, Load, WebSocket
from kit.waiting import until
from reloading import GOING_AWAY, api, edge, get, reload, toml

Start = Callable[[str], GatewayProcess]


@pytest.fixture
async def origins() -> AsyncIterator[list[EchoServer]]:
    """Two, told apart by their answers."""
    found = [await EchoServer(name).start() for name in (b"one", b"two")]
    yield found
    for each in found:
        await each.stop()


Connect = Callable[..., Awaitable[WebSocket]]


@pytest.fixture
async def websocket() -> AsyncIterator[Connect]:
    """Open one; it is closed with the test."""
    opened: list[WebSocket] = []

    async def connect(port: int, path: str = "/") -> WebSocket:
        opened.append(await WebSocket.connect(port, path))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


async def test_nobody_notices_reloads_under_load(
    gateway_process: Start, origins: list[EchoServer], websocket: Connect
) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origins[0].port, workers=2))
    load = Load(gateway.http_port)
    sockets = [await websocket(gateway.http_port) for _ in range(5)]
    asking = asyncio.create_task(load.run(16))
    for number in range(1, 9):
        seen = load.done
        await reload(gateway, toml(origins[number % 2].port, workers=2, pool=f"queue = {100 + number}"))
        await until(lambda seen=seen: load.done > seen + 50)  # type: ignore[misc]
        assert [await each.echo(b"still here") for each in sockets] == [b"still here"] * 5
    load.stop.set()
    await asking
    assert load.failed == []
    assert set(load.bodies) == {b"one", b"two"}
    assert load.reconnects == 0  # not even a connection was closed


async def test_a_new_request_goes_by_the_new_file_at_once(gateway_process: Start, origins: list[EchoServer]) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origins[0].port, workers=2))
    for number in range(1, 7):
        await reload(gateway, toml(origins[number % 2].port, workers=2))
        answers = [await get(gateway.http_port) for _ in range(6)]
        assert answers == [(200, origins[number % 2].name)] * 6


async def test_a_mistake_changes_nothing_and_is_told_with_its_lines(
    gateway_process: Start, origins: list[EchoServer]
) -> None:
    good = toml(origins[0].port)
    gateway = await asyncio.to_thread(gateway_process, good)
    for wrong, told in (
        (good.replace('pool = "web"', 'pool = "wed"').replace("cache = false", "cahce = false"), ["wed", "cahce"]),
        (good.replace("[pools.web]", "[pools.web"), ["gateway.toml:"]),
        (
            good.replace(f'url = "http://{LOOPBACK}', 'url = "https://127.0.0.1') + '[pools.web.tls]\nca = "no.pem"\n',
            ["no.pem"],
        ),
        (good.replace('"]\nworkers', f'", "{LOOPBACK}:{origins[1].port}"]\nworkers'), ["cannot listen"]),
    ):
        gateway.rewrite(wrong)
        status, found = await api(gateway, "POST", "/v1/reload")
        assert status == 422, found
        assert all(any(word in line for line in found["problems"]) for word in told), found
        assert "nothing changed" in found["detail"]
        by_hand = await edge(gateway, "reload")
        assert by_hand.returncode == 1
        assert all(word in by_hand.stderr for word in told)
        assert await get(gateway.http_port) == (200, b"one")
        _, shown = await api(gateway, "GET", "/v1/status")
        assert not shown["reload"]["ok"]
        assert shown["reload"]["problems"] == found["problems"]
        assert "the last reload was refused: " + "; ".join(found["problems"]) in (await edge(gateway, "status")).stdout
    await reload(gateway, good)
    _, shown = await api(gateway, "GET", "/v1/status")
    assert shown["reload"]["ok"]
    assert (shown["reload"]["accepted"], shown["reload"]["refused"]) == (1, 8)


async def test_sighup_reloads(gateway_process: Start, origins: list[EchoServer]) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origins[0].port))
    gateway.rewrite(toml(origins[1].port))
    gateway.signal(signal.SIGHUP)
    await until(lambda: "gateway.reloaded" in gateway.log())
    assert await get(gateway.http_port) == (200, b"two")
    gateway.rewrite("nonsense")
    gateway.signal(signal.SIGHUP)
    await until(lambda: "gateway.reload_failed" in gateway.log())
    assert await get(gateway.http_port) == (200, b"two")


async def test_listeners_come_and_go_and_those_that_stay_are_not_touched(
    gateway_process: Start, origins: list[EchoServer], websocket: Connect
) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origins[0].port, workers=2))
    other = free_port()
    kept = await websocket(gateway.http_port)
    await reload(gateway, toml(origins[0].port, workers=2, addresses=[f"{LOOPBACK}:{other}"]))
    assert [await get(port) for port in (gateway.http_port, other) * 3] == [(200, b"one")] * 6
    load = Load(other)
    asking = asyncio.create_task(load.run(4))
    await until(lambda: load.done > 20)
    await reload(gateway, toml(origins[0].port, workers=2))
    await until(lambda: bool(load.failed) or load.reconnects > 0)
    load.stop.set()
    await asking
    assert all("Connect" in each for each in load.failed), load.failed  # refused, never cut within an answer
    assert (await get(other))[0] == 0
    assert await kept.echo(b"still here") == b"still here"
    assert await get(gateway.http_port) == (200, b"one")


async def test_a_websocket_ends_with_its_own_route_only(
    gateway_process: Start, origins: list[EchoServer], websocket: Connect
) -> None:
    extra = '[[routes]]\nname = "chat"\nhost = "any.example"\npath = "/chat"\npool = "web"\n'
    gateway = await asyncio.to_thread(gateway_process, toml(origins[0].port, more=extra))
    stays = await websocket(gateway.http_port)
    goes = await websocket(gateway.http_port, "/chat")
    assert await goes.echo(b"hello") == b"hello"
    await reload(gateway, toml(origins[1].port, more=extra))  # another origin: both go on with theirs
    assert await goes.echo(b"hello") == b"hello"
    await reload(gateway, toml(origins[1].port))
    assert await goes.frame() == GOING_AWAY
    assert await goes.ended() == b""
    assert await stays.echo(b"still here") == b"still here"
    await until(lambda: origins[0].closed == [b"\x03\xe9"])


async def test_a_dry_run_tells_and_changes_nothing(gateway_process: Start, origins: list[EchoServer]) -> None:
    regions = "[regions.eu]\n[regions.us]\ntier = 1\n"
    text = toml(origins[0].port, more=regions).replace('id = "one"', 'id = "one"\nregion = "eu"')
    gateway = await asyncio.to_thread(gateway_process, text)
    gateway.rewrite(text.replace('region = "eu"', 'region = "us"').replace("tier = 1", "tier = 0"))
    status, found = await api(gateway, "POST", "/v1/reload", {"dry_run": True})
    assert (status, found["applied"]) == (200, False)
    assert {each["key"]: (each["was"], each["is"]) for each in found["changes"]} == {
        "regions.us.tier": (1, 0),
        "pools.web.backends[one].region": ("eu", "us"),
    }
    assert found["forecast"]["pools"] == [
        {
            "name": "web",
            "regions": [{"name": "us", "before": 0.0, "after": 100.0}, {"name": "eu", "before": 100.0, "after": 0.0}],
        }
    ]
    _, shown = await api(gateway, "GET", "/v1/config")
    assert shown["config"]["regions"]["us"]["tier"] == 1
    by_hand = await edge(gateway, "reload", "--dry-run")
    assert "regions.us.tier: 1 → 0" in by_hand.stdout
    assert "would change: 2 keys" in by_hand.stdout


async def test_what_was_accepted_is_kept_compared_and_gone_back_to(
    gateway_process: Start, origins: list[EchoServer]
) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origins[0].port))
    first = gateway.config.read_text()
    await reload(gateway, toml(origins[1].port))
    second = gateway.config.read_text()
    listed = json.loads((await edge(gateway, "config", "history", "--json")).stdout)["revisions"]
    assert [(each["id"], each["running"]) for each in listed] == [(2, True), (1, False)]
    compared = (await edge(gateway, "config", "diff")).stdout
    assert f'-url = "http://{LOOPBACK}:{origins[0].port}"' in compared
    assert f'+url = "http://{LOOPBACK}:{origins[1].port}"' in compared
    mistake = second + "\n[[routs]]\n"
    gateway.config.write_text(mistake)
    back = await edge(gateway, "config", "rollback")
    assert back.returncode == 0, back.stderr
    assert await get(gateway.http_port) == (200, b"one")
    assert gateway.config.read_text() == first
    assert gateway.config.with_name("gateway.toml.replaced").read_text() == mistake
    again = await edge(gateway, "config", "rollback", "2")
    assert again.returncode == 0, again.stderr
    assert gateway.config.read_text() == second
    assert await get(gateway.http_port) == (200, b"two")
    unknown = await edge(gateway, "config", "rollback", "77")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)


async def test_run_time_states_and_registrations_survive(gateway_process: Start, origins: list[EchoServer]) -> None:
    text = toml(origins[0].port, pool='health = { path = "/", interval = "3s" }')
    gateway = await asyncio.to_thread(gateway_process, text)
    url = f"http://{LOOPBACK}:{origins[1].port}"
    assert (await edge(gateway, "backend", "add", "web", url, "--region", "default")).returncode == 0
    assert (await edge(gateway, "backend", "drain", "web", "one", "--reason", "test")).returncode == 0

    async def backends() -> dict[str, tuple[str, str, str]]:
        _, found = await api(gateway, "GET", "/v1/pools")
        return {each["id"]: (each["admin"], each["health"], each["source"]) for each in found["pools"][0]["backends"]}

    name = f"{LOOPBACK}:{origins[1].port}"
    expected = {"one": ("draining", "healthy", "file"), name: ("active", "healthy", "runtime")}

    async def as_expected() -> bool:
        return await backends() == expected

    await until(as_expected, look_s=0.05)
    await reload(gateway, text.replace('"3s"', '"4s"'))
    assert await backends() == expected  # at once: no probe has to find out again
    assert [await get(gateway.http_port) for _ in range(4)] == [(200, b"two")] * 4
    _, found = await api(gateway, "GET", "/v1/status")
    assert not [each for each in found["events"] if each["kind"] == "bug"]


async def test_what_cannot_be_applied_is_named_and_keeps_its_value(
    gateway_process: Start, origins: list[EchoServer]
) -> None:
    text = toml(origins[0].port)
    gateway = await asyncio.to_thread(gateway_process, text)
    other = text.replace('@STATE@"\n[log]', '@STATE@/elsewhere"\n[log]')
    other += '[cache.disk]\npath = "@STATE@/tier"\nsize = "64MiB"\n'
    found = await reload(gateway, other.replace(str(origins[0].port), str(origins[1].port)))
    needs = {"upgrade": ["cache.disk"], "restart": ["state.path"]}
    assert (sorted(found["not_applied"]), found["needs"]) == (["cache.disk", "state.path"], needs)
    assert await get(gateway.http_port) == (200, b"two")
    _, shown = await api(gateway, "GET", "/v1/config")
    assert shown["config"]["state"]["path"] == str(gateway.directory / "state")
    for command in (["status"], ["explain", f"http://{LOOPBACK}/"], ["check"], ["reload", "--dry-run"]):
        told = await edge(gateway, *command)
        lines = " ".join((told.stdout + told.stderr).split())
        assert "not in force until `edge upgrade`: cache.disk" in lines, command
        assert "not in force until a restart: state.path" in lines, command


async def test_new_workers_take_over_where_the_store_is_another_one(
    gateway_process: Start, origins: list[EchoServer]
) -> None:
    text = toml(origins[0].port, workers=2, more='[cache]\neviction = "lru"\n')
    gateway = await asyncio.to_thread(gateway_process, text)
    before = gateway.children
    load = Load(gateway.http_port)
    asking = asyncio.create_task(load.run(8))
    await until(lambda: load.done > 50)
    found = await reload(gateway, text.replace('"lru"', '"fifo"'))
    assert found["not_applied"] == []
    await until(lambda: not set(before) & set(gateway.children))
    seen = load.done
    await until(lambda: load.done > seen + 50)
    load.stop.set()
    await asking
    assert load.failed == []


async def test_a_file_that_is_watched_is_loaded_when_it_changes(
    gateway_process: Start, origins: list[EchoServer]
) -> None:
    quiet = toml(origins[0].port)
    watched = quiet.replace("[admin]", "[admin]\nreload_on_change = true")
    gateway = await asyncio.to_thread(gateway_process, watched)
    gateway.rewrite("half a fi")
    await until(lambda: "gateway.reload_failed actor=file changed" in gateway.log())
    assert await get(gateway.http_port) == (200, b"one")
    gateway.rewrite(quiet.replace(str(origins[0].port), str(origins[1].port)))
    await until(lambda: "gateway.reloaded actor=file changed" in gateway.log())
    assert await get(gateway.http_port) == (200, b"two")
    gateway.rewrite("half a fi")  # the file that was loaded last says that it is not watched
    assert (await api(gateway, "POST", "/v1/reload"))[0] == 422
    assert gateway.log().count("reload_failed actor=file changed") == 1, gateway.log()


SITE = """
[[routes]]
host = "{name}.example"
respond = {{ file = "{name}.txt" }}
"""


async def asked(gateway: GatewayProcess, host: str) -> bytes:
    """The body that a host answers with."""
    reader, writer = await asyncio.open_connection(LOOPBACK, gateway.http_port)
    with closing(writer):
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).partition(b"\r\n\r\n")[2]


def site(gateway: GatewayProcess, name: str) -> None:
    """One more included file, with a page beside it."""
    folder = gateway.config.parent / "sites"
    (folder / f"{name}.txt").write_text(name)
    (folder / f"{name}.toml").write_text(SITE.format(name=name))


async def test_a_configuration_of_several_files_is_one(
    gateway_process: Start, origins: list[EchoServer], tmp_path: Path
) -> None:
    text = 'include = ["sites/*.toml"]\n' + toml(origins[0].port)
    gateway = await asyncio.to_thread(gateway_process, text)
    (gateway.config.parent / "sites").mkdir()
    site(gateway, "a")
    await reload(gateway, text)
    site(gateway, "b")
    await reload(gateway, text)
    assert [await asked(gateway, f"{name}.example") for name in "ab"] == [b"a", b"b"]
    assert (await edge(gateway, "check")).returncode == 0

    broken = gateway.config.parent / "sites" / "b.toml"
    broken.write_text(SITE.format(name="b").replace("respond", "resond") + 'path_regex = "("\n')
    for command in ("check", "reload"):
        told = await edge(gateway, command)
        assert told.returncode == 1
        lines = [line for line in told.stderr.splitlines() if "b.toml" in line]
        assert len(lines) == len(set(lines)) >= 2, told.stderr
        assert all(line.startswith(f"{broken}:") for line in lines), told.stderr
        assert told.stderr.count("unknown key") == 1, "the first mistake is told once"
    assert await asked(gateway, "b.example") == b"b"

    broken.write_text(SITE.format(name="c"))
    (broken.parent / "c.txt").write_text("c")
    await reload(gateway, text)
    compared = (await edge(gateway, "config", "diff")).stdout
    assert '-host = "b.example"' in compared and '+host = "c.example"' in compared and "sites/b.toml" in compared
    site(gateway, "d")
    await reload(gateway, text)
    listed = json.loads((await edge(gateway, "config", "history", "--json")).stdout)["revisions"]
    assert [each["running"] for each in listed] == [True] + [False] * (len(listed) - 1)
    _, kept = await api(gateway, "GET", f"/v1/config/history/{listed[0]['id']}")
    assert sorted(kept["files"]) == ["sites/a.toml", "sites/b.toml", "sites/d.toml"]

    back = await edge(gateway, "config", "rollback", str(listed[2]["id"]))
    assert back.returncode == 0, back.stderr
    assert broken.read_text() == SITE.format(name="b")
    assert not (broken.parent / "d.toml").exists() and (broken.parent / "d.toml.replaced").exists()
    assert await asked(gateway, "b.example") == b"b"
    assert (await edge(gateway, "check")).returncode == 0, "the files are what runs"
    _, shown = await api(gateway, "GET", "/v1/config/history?limit=1")
    assert (await api(gateway, "POST", "/v1/reload", {"dry_run": True}))[1]["changes"] == []
    assert shown["revisions"][0]["running"]


async def test_an_included_file_that_changes_is_loaded_again(gateway_process: Start, origins: list[EchoServer]) -> None:
    text = 'include = ["sites/*.toml"]\n' + toml(origins[0].port).replace("[admin]", "[admin]\nreload_on_change = true")
    gateway = await asyncio.to_thread(gateway_process, text)
    (gateway.config.parent / "sites").mkdir()
    for name in "ab":
        before = gateway.log().count("gateway.reloaded")
        site(gateway, name)
        await until(lambda before=before: gateway.log().count("gateway.reloaded") > before)  # type: ignore[misc]
        assert await asked(gateway, f"{name}.example") == name.encode()


class Elsewhere(GatewayProcess):
    """Its configuration is not in the folder in which it starts."""

    def __init__(self, toml: str, directory: Path) -> None:
        self.http_port, self.admin_port = free_ports(2)
        self.config = directory / "home" / "edge.toml"
        self.config.parent.mkdir()
        self.config.write_text(self.fill(toml, directory))
        Process.__init__(
            self, [sys.executable, "-m", "edge.cli.main", "run", "-c", "home/edge.toml"], directory, "edge"
        )


async def test_paths_do_not_depend_on_where_the_program_starts(
    gateway_process: Start, origins: list[EchoServer], tmp_path: Path
) -> None:
    text = toml(origins[0].port).replace('path = "@STATE@"', 'path = "own"').replace("@STATE@/admin", "own/admin")
    gateway, home = Elsewhere(text, tmp_path), tmp_path / "home"
    try:
        await asyncio.to_thread(gateway.wait_ready, lambda: gateway.admin_status("/readyz") == 200)
        assert (home / "own" / "admin.token").is_file() and (home / "own" / "state.sqlite").is_file()
        assert not (tmp_path / "own").exists()
        assert (await edge(gateway, "status")).returncode == 0
    finally:
        gateway.stop()
