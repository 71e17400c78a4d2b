"""A new program on the same sockets, a stop that nobody notices, and the service manager's side of both."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit.control import Whole
from kit.ports import LOOPBACK
from kit.processes import ROOT, GatewayProcess, Process, in_session, process_tree
from kit.reloads import EchoServer, Load, WebSocket
from kit.waiting import WAIT_S, until
from reloading import GOING_AWAY, api, edge, get, toml

from edge.adapters.disk_place import TierInUse, lock_tier
from edge.cache.purge import Purge, PurgeKind
from edge.control.registry import Change
from edge.control.succession import Belongings, NotUpgraded, Successor, Upgrading
from edge.control.workers import Workers
from edge.frames import FrameKind

Start = Callable[[str], GatewayProcess]


@pytest.fixture
async def origin() -> AsyncIterator[EchoServer]:
    """One."""
    found = await EchoServer(b"one").start()
    yield found
    await found.stop()


def main_pid(gateway: GatewayProcess, told: int) -> None:
    """The session's processes belong to the kit's process whoever is the gateway now; ended by its session."""
    assert os.getpgid(told) == gateway.pid


def supervisors(gateway: GatewayProcess) -> list[int]:
    """The programs that keep workers, beside the one that was started first."""
    commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in in_session(gateway.pid)}
    return [pid for pid, path in commands.items() if path.exists() and b"edge.cli.begin" in path.read_bytes()]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_an_upgrade_under_load_loses_nothing(gateway_process: Start, origin: EchoServer) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origin.port, workers=2))
    old = gateway.children
    load = Load(gateway.http_port)
    asking = asyncio.create_task(load.run(16))
    await until(lambda: load.done > 100)
    status, found = await api(gateway, "POST", "/v1/upgrade")
    assert status == 200, found
    assert found["before"] == gateway.pid
    main_pid(gateway, found["pid"])
    await until(lambda: not gateway.running)
    seen = load.done
    await until(lambda: load.done > seen + 200)
    load.stop.set()
    await asking
    assert load.failed == []
    assert gateway.wait() == 0
    await until(lambda: not any(process_tree(pid) for pid in old))
    _, shown = await api(gateway, "GET", "/v1/status")
    assert (shown["pid"], shown["ready"]) == (found["pid"], True)
    assert (await api(gateway, "POST", "/v1/purge", {"all": True}))[0] == 200  # the journal is the new one's
    os.kill(found["pid"], signal.SIGTERM)
    await until(lambda: not process_tree(found["pid"]))


HELD = """
import time
from pathlib import Path

while not Path({file!r}).exists():
    time.sleep(0.01)


class Hooks:
    def request(self, head):
        return None
"""  # they are there when the test says so


async def test_a_program_that_is_killed_as_it_hands_over_leaves_no_worker(
    gateway_process: Start, origin: EchoServer
) -> None:
    """They would serve on by the old file, and hear of no purge."""
    gateway = await asyncio.to_thread(gateway_process, toml(origin.port, workers=2))
    old, go_on = gateway.children, gateway.directory / "go on"
    (gateway.directory / "held.py").write_text(HELD.format(file=str(go_on)))
    hooked = toml(origin.port, workers=2, route='hooks = ["held:Hooks"]')
    gateway.rewrite(f'python_path = ["{gateway.directory}"]\n{hooked}')
    upgrading = asyncio.create_task(api(gateway, "POST", "/v1/upgrade"))
    await until(lambda: len(supervisors(gateway)) == 1)
    gateway.signal(signal.SIGSTOP)  # it never hears that the new one is ready, and tells its workers nothing
    go_on.touch()
    await until(lambda: gateway.log().count("worker.ready") == 4)
    for _ in range(2):
        status, shown = await api(gateway, "GET", "/v1/status")  # of the new one: the old one takes no questions
        assert (status, shown["ready"], shown["pid"] != gateway.pid) == (200, True, True)
    assert all(process_tree(pid) for pid in old)
    gateway.signal(signal.SIGKILL)
    await until(lambda: not any(process_tree(pid) for pid in old))
    await asyncio.gather(upgrading, return_exceptions=True)
    assert (await get(gateway.http_port))[0] == 200
    os.kill(shown["pid"], signal.SIGTERM)
    await until(lambda: not process_tree(shown["pid"]))


async def test_the_new_program_is_the_service_manager_s_child_when_it_hears_of_it(
    gateway_process: Start, origin: EchoServer
) -> None:
    """systemd waits at a stop for its own children alone: any other main process it kills at once."""
    text = toml(origin.port).replace("[listen]", '[limits]\nshutdown_grace = "60s"\n[listen]')
    gateway = await asyncio.to_thread(gateway_process, text)
    socket = await WebSocket.connect(gateway.http_port, "/")  # the old program stays for it
    _, found = await api(gateway, "POST", "/v1/upgrade")
    assert gateway.running
    assert parent_of(found["pid"]) not in (gateway.pid, *gateway.children)
    main_pid(gateway, found["pid"])
    socket.close()
    os.kill(found["pid"], signal.SIGTERM)
    await until(lambda: not process_tree(found["pid"]))


async def test_a_new_program_that_cannot_start_leaves_the_old_one(gateway_process: Start, origin: EchoServer) -> None:
    good = toml(origin.port)
    gateway = await asyncio.to_thread(gateway_process, good)
    gateway.rewrite(good.replace("cache = false", "cahce = false"))
    load = Load(gateway.http_port)
    asking = asyncio.create_task(load.run(4))
    status, found = await api(gateway, "POST", "/v1/upgrade")
    assert (status, "cahce" in found["detail"]) == (500, True), found
    by_hand = await edge(gateway, "upgrade")
    assert (by_hand.returncode, "cahce" in by_hand.stderr) == (1, True)
    assert gateway.running
    assert (await api(gateway, "POST", "/v1/purge", {"all": True}))[0] == 200  # changes are possible again
    seen = load.done
    await until(lambda: load.done > seen + 20)
    load.stop.set()
    await asking
    assert load.failed == []
    gateway.rewrite(good)
    assert (await api(gateway, "POST", "/v1/reload"))[0] == 200


async def test_an_upgrade_keeps_the_state_directory_and_takes_on_another_disk_tier(
    gateway_process: Start, origin: EchoServer
) -> None:
    def text(tier: str, state: str = "@STATE@") -> str:
        found = toml(origin.port, more=f'[cache.disk]\npath = "@STATE@/{tier}"\nsize = "64MiB"\n')
        return found.replace('path = "@STATE@"\n', f'path = "{state}"\n')

    gateway = await asyncio.to_thread(gateway_process, text("one"))
    gateway.rewrite(text("one", "@STATE@/elsewhere"))
    status, found = await api(gateway, "POST", "/v1/upgrade")
    assert (status, "needs a restart" in found["detail"]) == (500, True), found
    assert (gateway.running, await get(gateway.http_port)) == (True, (200, b"one"))
    gateway.rewrite(text("two"))
    status, found = await api(gateway, "POST", "/v1/upgrade")
    assert status == 200, found
    await until(lambda: not gateway.running)
    assert await get(gateway.http_port) == (200, b"one")
    state = gateway.directory / "state"
    with pytest.raises(TierInUse):
        lock_tier(state / "two")
    os.close(lock_tier(state / "one"))


async def test_sigusr2_upgrades_and_what_was_drained_stays_drained(gateway_process: Start, origin: EchoServer) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origin.port, pool='health = { path = "/" }'))
    url = f"http://{LOOPBACK}:9"
    assert (await edge(gateway, "backend", "add", "web", url, "--region", "default")).returncode == 0
    assert (await edge(gateway, "backend", "drain", "web", f"{LOOPBACK}:9")).returncode == 0
    gateway.signal(signal.SIGUSR2)
    await until(lambda: not gateway.running)
    assert await get(gateway.http_port) == (200, b"one")
    _, found = await api(gateway, "GET", "/v1/pools/web/backends")
    states = {each["id"]: each["admin"] for each in found["backends"]}
    assert states == {"one": "active", f"{LOOPBACK}:9": "draining"}


async def test_a_stop_takes_requests_for_a_while_and_says_goodbye_to_websockets(
    gateway_process: Start, origin: EchoServer
) -> None:
    text = toml(origin.port, more='[limits]\nshutdown_delay = "8s"\nshutdown_grace = "60s"\n')
    gateway = await asyncio.to_thread(gateway_process, text)
    spoken = await WebSocket.connect(gateway.http_port)
    assert await spoken.echo(b"hello") == b"hello"
    load = Load(gateway.http_port)
    asking = asyncio.create_task(load.run(4))
    await until(lambda: load.done > 20)
    gateway.signal(signal.SIGTERM)
    await until(lambda: gateway.admin_status("/readyz") == 503)
    seen = load.done
    assert await get(gateway.http_port) == (200, b"one")
    assert await spoken.echo(b"still here") == b"still here"
    await until(lambda: load.done > seen + 20)
    assert await spoken.frame() == GOING_AWAY
    assert await spoken.ended() == b""
    spoken.close()
    assert await asyncio.to_thread(gateway.wait) == 0  # long before the grace time is over
    load.stop.set()
    await asking
    await until(lambda: origin.closed == [b"\x03\xe9"])
    assert all("Connect" in each for each in load.failed), load.failed  # refused at the end; never cut


# -- the service manager ----------------------------------------------------------------------------------------------


class Manager:
    """The notify socket of a service manager."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.told: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while said := self._socket.recv(4096):
            self.told.append(said.decode())

    def heard(self, word: str) -> bool:
        """Whether it was told this since the last time."""
        found = [at for at, said in enumerate(self.told) if word in said.split("\n") or said.startswith(word)]
        if found:
            del self.told[: found[0] + 1]
        return bool(found)

    def close(self) -> None:
        """No more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"", str(self.path))
        self._listener.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """One that listens."""
    found = Manager(tmp_path)
    yield found
    found.close()


@contextmanager
def managed(
    text: str, folder: Path, environment: dict[str, str], *inherited: socket.socket
) -> Iterator[GatewayProcess]:
    """A gateway as a service manager starts it, with its sockets as files 3 and on."""

    class Managed(GatewayProcess):
        def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
            names = [f"{each.fileno()}" for each in inherited]
            moves = "".join(f"exec {3 + at}<&{name}; " for at, name in enumerate(names))
            script = f'{moves}LISTEN_FDS={len(names)} LISTEN_PID=$$ exec "$@"'
            environ = dict(os.environ, PYTHONPATH=str(ROOT), **environment)
            with self.output.open("ab") as sink:
                return subprocess.Popen(
                    ["bash", "-c", script if inherited else 'exec "$@"', "bash", *command],
                    cwd=self.directory, env=environ, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                    start_new_session=True, pass_fds=[each.fileno() for each in inherited],
                )  # fmt: skip

    gateway = Managed(text, folder)
    try:
        yield gateway
    finally:
        gateway.kill()


async def test_a_service_manager_is_told(tmp_path: Path, origin: EchoServer, manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    with managed(toml(origin.port), tmp_path, environment) as gateway:
        await until(lambda: manager.heard("READY=1"))
        assert gateway.admin_status("/readyz") == 200
        await until(lambda: manager.heard("WATCHDOG=1"))
        await until(lambda: manager.heard("WATCHDOG=1"))
        gateway.signal(signal.SIGHUP)
        await until(lambda: manager.heard("RELOADING=1"))
        await until(lambda: manager.heard("READY=1"))
        status, found = await api(gateway, "POST", "/v1/upgrade")
        assert status == 200
        await until(lambda: manager.heard(f"MAINPID={found['pid']}"))
        await until(lambda: not gateway.running)
        os.kill(found["pid"], signal.SIGTERM)
        await until(lambda: manager.heard("STOPPING=1"))
        await until(lambda: not process_tree(found["pid"]))


async def test_a_restart_on_a_given_socket_loses_nothing(tmp_path: Path, origin: EchoServer) -> None:
    with socket.socket() as given:
        given.bind((LOOPBACK, 0))
        given.listen(512)
        port = given.getsockname()[1]
        text = toml(origin.port, workers=2).replace("@HTTP@", str(port))
        load = Load(port)
        asking = asyncio.create_task(load.run(8))  # waits until somebody accepts
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            with managed(text, folder, {}, given) as gateway:
                seen = load.done
                await until(lambda seen=seen: load.done > seen + 50)  # type: ignore[misc]
                gateway.signal(signal.SIGTERM)
                assert await asyncio.to_thread(gateway.wait) == 0
        with managed(text, tmp_path, {}, given):
            seen = load.done
            await until(lambda: load.done > seen + 50)
            load.stop.set()
            await asking
        assert load.failed == []


async def test_a_unix_socket_that_was_given_stays_its_manager_s(tmp_path: Path, origin: EchoServer) -> None:
    path = str(tmp_path / "given.sock")
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(path)
        given.listen(16)
        text = toml(origin.port, addresses=[f"unix:{path}"]).replace("any.example", "*")
        with managed(text, tmp_path, {}, given) as gateway:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"one")
            writer.close()
            gateway.signal(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.wait) == 0
        assert os.stat(path)


def test_another_process_s_sockets_are_left_alone(tmp_path: Path) -> None:
    """LISTEN_PID names somebody else: the variables are not for us."""
    code = (
        "import os; from edge.adapters.systemd import Manager\n"
        "found = Manager()\n"
        "print(list(found.fds), [name for name in os.environ if name.startswith('LISTEN_')])"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT), LISTEN_PID="1", LISTEN_FDS="3")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


async def test_purges_reach_the_workers_that_still_end_requests(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both programs in this process: the old one is `whole`, of the new one there are only the workers' calls."""
    lock, found = os.open(os.devnull, os.O_RDONLY), {"sockets": [], "tier_lock": None}
    upgrading = Upgrading(whole.supervisor, Freezes(), Belongings(list, list, lock, None, dict), asyncio.Lock())

    async def started(channel: socket.socket) -> Any:
        successor = Successor({**found, "state_lock": lock, "channel": os.dup(channel.fileno())})
        assert successor.ready()
        return SimpleNamespace(pid=4711, close=lambda: None, successor=successor)

    monkeypatch.setattr(upgrading, "_spawn", started)
    assert (await asyncio.wait_for(upgrading.upgrade(Change("test")), WAIT_S))["pid"] == 4711
    process: Any = upgrading._process
    successor: Successor = process.successor
    new = Workers(lambda index: asyncio.Future(), 0, whole.supervisor.workers._hooks)
    outliving = asyncio.create_task(successor.outlive(new))
    await until(lambda: new.elsewhere is not None)
    agents = [child.frames for child in whole.children]
    await new.tell(FrameKind.PURGE, {"purge": Purge(PurgeKind.ALL).to_dict(), "number": 1})
    assert all(frames[-1].kind is FrameKind.PURGE for frames in agents)  # done when `tell` returns
    assert upgrading._link is not None
    upgrading._link.end("the old program ends")
    await outliving
    assert new.elsewhere is None
    await new.tell(FrameKind.PURGE, {"purge": Purge(PurgeKind.ALL).to_dict(), "number": 2})  # nobody is waited for
    os.close(lock)


async def test_a_program_that_cannot_be_replaced_says_so_and_starts_nothing(whole: Whole) -> None:
    upgrading = Upgrading(whole.supervisor, Freezes(), Belongings(list, list, 0, None, dict), asyncio.Lock())
    upgrading.refused = "the demo cannot be upgraded"
    with pytest.raises(NotUpgraded, match="the demo cannot be upgraded"):
        await upgrading.upgrade(Change("test"))
    assert upgrading._process is None
    assert not [each for each in whole.supervisor.events.recent if each["kind"].startswith("gateway.upgrad")]


class Freezes:
    """A journal that is nobody's."""

    def freeze(self, why: str | None) -> None:
        """Nothing is open."""


@pytest.fixture
async def whole(origin: EchoServer) -> AsyncIterator[Whole]:
    """A gateway in this process."""
    found = Whole(toml(origin.port, workers=2).replace("@HTTP@", "0").replace("@ADMIN@", "1").replace("@STATE@", "no"))
    await found.start()
    yield found
    await found.supervisor.close()


# -- killed ------------------------------------------------------------------------------------------------------------


async def test_a_killed_supervisor_is_succeeded_without_a_lost_request(
    gateway_process: Start, origin: EchoServer
) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origin.port, workers=2))
    left = gateway.children
    load = Load(gateway.http_port)
    asking = asyncio.create_task(load.run(8))
    await until(lambda: load.done > 50)
    gateway.signal(signal.SIGKILL)
    await asyncio.to_thread(gateway.wait)
    command = [sys.executable, "-m", "edge.cli.main", "run", "-c", str(gateway.config)]
    second = Process(command, gateway.directory, "successor")
    try:
        await until(lambda: not any(process_tree(pid) for pid in left))
        seen = load.done
        await until(lambda: load.done > seen + 50)
        load.stop.set()
        await asking
        assert load.failed == []
    finally:
        await asyncio.to_thread(second.stop)


async def test_who_connects_while_a_worker_is_replaced_waits_for_the_next(
    gateway_process: Start, origin: EchoServer
) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origin.port))
    (worker,) = gateway.children
    os.kill(worker, signal.SIGKILL)
    await until(lambda: not process_tree(worker))
    assert await get(gateway.http_port) == (200, b"one")
    assert gateway.children != [worker]
