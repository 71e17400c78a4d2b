"""A reload that changes how many workers there are, and what the gateway prints: nobody who connects is refused."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess
from kit.reloads import EchoServer, Load
from kit.waiting import until
from reloading import api, get, reload, toml

from edge.adapters.app_check import IMPORT_S
from edge.adapters.sockets import bind
from edge.config.loader import Listen
from edge.control.listeners import Listeners

Start = Callable[[str], GatewayProcess]


@pytest.fixture
async def origin() -> AsyncIterator[EchoServer]:
    """One."""
    found = await EchoServer(b"one").start()
    yield found
    await found.stop()


class Newcomers:
    """Clients with a connection for each request: the kernel gives it to any socket of the address."""

    def __init__(self, port: int) -> None:
        self.done, self.failed, self.over = 0, list[str](), False
        self._port = port

    async def run(self, clients: int) -> None:
        """Until `over`."""
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        while not self.over:
            try:
                reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
                writer.write(b"GET / HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                if not answer.endswith(b"one"):
                    self.failed.append(repr(answer[:40]))
            except OSError as error:
                self.failed.append(repr(error))
            self.done += 1


async def workers(gateway: GatewayProcess) -> list[str]:
    """Their states."""
    _, found = await api(gateway, "GET", "/v1/status")
    return [each["state"] for each in found["workers"]]


async def test_workers_come_and_go_and_nobody_is_refused(gateway_process: Start, origin: EchoServer) -> None:
    gateway = await asyncio.to_thread(gateway_process, toml(origin.port, workers=1))
    newcomers, load = Newcomers(gateway.http_port), Load(gateway.http_port)
    asking = [asyncio.create_task(newcomers.run(6)), asyncio.create_task(load.run(6))]
    for number in (3, 1, 2, 4, 1):
        found = await reload(gateway, toml(origin.port, workers=number))
        assert (found["not_applied"], found["changes"][0]["key"]) == ([], "listen.workers")
        assert (await workers(gateway)).count("ready") == number, "they are there when it is answered"
        assert gateway.admin_status("/readyz") == 200
        seen, kept = newcomers.done, load.done
        await until(lambda seen=seen: newcomers.done > seen + 150)  # type: ignore[misc]
        await until(lambda kept=kept: load.done > kept + 50)  # type: ignore[misc]
    await until(lambda: len(gateway.children) == 1)
    newcomers.over = True
    load.stop.set()
    await asyncio.gather(*asking)
    assert (newcomers.failed, load.failed) == ([], [])


async def test_readiness_does_not_wait_for_workers_that_join(gateway_process: Start, origin: EchoServer) -> None:
    text = toml(origin.port, workers=1, more='[cache]\neviction = "lru"\n')
    gateway = await asyncio.to_thread(gateway_process, text)
    for other in (text.replace("workers = 1", "workers = 2"), text.replace('"lru"', '"fifo"')):
        reloading = asyncio.create_task(reload(gateway, other))
        while not reloading.done():
            assert gateway.admin_status("/readyz") == 200
            await asyncio.sleep(0.01)  # asks a hundred times a second, as long as it takes
        assert (await reloading)["applied"]


async def test_what_a_worker_alone_counted_is_counted_on_by_several(gateway_process: Start, origin: EchoServer) -> None:
    text = toml(origin.port, workers=1, route='rate_limit = { rate = "5/h" }')
    gateway = await asyncio.to_thread(gateway_process, text)
    assert [(await get(gateway.http_port))[0] for _ in range(3)] == [200] * 3
    await reload(gateway, text.replace("workers = 1", "workers = 3"))
    assert [(await get(gateway.http_port))[0] for _ in range(20)].count(200) == 2
    await reload(gateway, text)
    assert [(await get(gateway.http_port))[0] for _ in range(5)].count(200) == 0


async def test_what_is_printed_changes_with_the_level(gateway_process: Start, origin: EchoServer) -> None:
    text = toml(origin.port)
    gateway = await asyncio.to_thread(gateway_process, text)
    quiet = text.replace("[log]", '[log]\nlevel = "error"')
    assert (await reload(gateway, quiet))["not_applied"] == []
    before = gateway.log().count("gateway.reloaded")
    await reload(gateway, quiet)
    gateway.rewrite(text.replace("[routes]", "[rootes]"))
    assert (await api(gateway, "POST", "/v1/reload"))[0] == 422
    await until(lambda: "error gateway.reload_failed" in gateway.log())
    assert gateway.log().count("gateway.reloaded") == before
    await reload(gateway, text.replace("[log]", '[log]\nlevel = "debug"'))
    assert (await api(gateway, "POST", "/v1/purge", {"all": True}))[0] == 200
    await until(lambda: "debug purge" in gateway.log())


def test_a_socket_that_was_handed_over_is_kept_with_fewer_workers() -> None:
    first = bind(LOOPBACK, 0)
    address = f"{LOOPBACK}:{first.getsockname()[1]}"
    given = [first, *(bind(LOOPBACK, first.getsockname()[1]) for _ in range(3))]
    listeners = Listeners((address, each) for each in given)
    try:
        listeners.add(listeners.open_all(Listen(http=(address,)), 2))
        held = [[sock for _, sock in listeners.of(place)] for place in range(2)]
        assert held == [[given[0], given[2], given[3]], [given[1], given[2], given[3]]]
        assert {sock.fileno() for _, sock in listeners.all()} == {each.fileno() for each in given}
        listeners.add(listeners.open_all(Listen(http=(address,)), 6))
        assert all(len(listeners.of(place)) == 1 for place in range(6)), "each has its own again"
    finally:
        listeners.close()
        assert all(isinstance(each, socket.socket) and each.fileno() == -1 for each in given)


async def test_a_stop_does_not_wait_for_a_reload_whose_import_hangs(gateway_process: Start, origin: EchoServer) -> None:
    good = toml(origin.port)
    gateway = await asyncio.to_thread(gateway_process, good)
    told = gateway.directory / "told"
    (gateway.directory / "slow.py").write_text(f"import time\nopen({str(told)!r}, 'w').close()\ntime.sleep(3600)\n")
    gateway.rewrite(
        good.replace('id = "one"\n', "").replace(f'url = "http://{LOOPBACK}:{origin.port}"', 'app = "slow:app"')
    )
    gateway.signal(signal.SIGHUP)
    await until(told.exists)
    gateway.signal(signal.SIGTERM)
    assert await asyncio.to_thread(gateway.wait, IMPORT_S / 2) == 0
