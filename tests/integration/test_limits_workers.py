"""A rate limit counts for all workers of a gateway together."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.asking import status_of
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_head
from kit.waiting import WAIT_S, until_blocking

TOML = f"""{gateway_head(2, log="@STATE@/access.log")}
[pools.web]
timeouts = {{ connect = "10m", first_byte = "10m", head = "10m" }}
backends = [{{ url = "http://{LOOPBACK}:1" }}]
[[routes]]
pool = "web"
path = "/other"
[[routes]]
rate_limit = {{ rate = "10/h" }}
respond = {{ status = 204 }}
"""


def test_workers_count_together_and_over_a_restart_anew(tmp_path: Path) -> None:
    for _ in range(2):
        gateway = GatewayProcess.start(TOML, tmp_path)
        try:
            answers = [status_of(gateway.http_port) for _ in range(40)]
            assert (answers.count(204), answers.count(429)) == (10, 30)
            assert len(list((tmp_path / "state" / "limits").iterdir())) == 1, "of this run alone"
        finally:
            gateway.stop()


RATE = 'rate_limit = { rate = "10/h" }\nrespond = { status = 204 }'
AT_ONCE = TOML.replace(RATE, 'pool = "web"\nconcurrency = { total = 5 }').replace("workers = 2", "workers = 3")


class Clients:
    """Each has sent one request over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.waiting: list[socket.socket] = []
        self._port = port

    def ask(self, count: int) -> None:
        """So many more."""
        for _ in range(count):
            self.waiting.append(socket.create_connection((LOOPBACK, self._port), timeout=WAIT_S))
            self.waiting[-1].sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    def left(self) -> int:
        """How many still wait; those that were refused, or whose worker was killed, go."""
        answered, _, _ = select.select(self.waiting, [], [], 0)
        for each in answered:
            try:
                data = each.recv(4096)
            except ConnectionError:
                data = b""
            assert data.startswith(b"HTTP/1.1 503") or not data, data
            each.close()
            self.waiting.remove(each)
        return len(self.waiting)

    def fill(self, most: int) -> None:
        """Ask until so many wait, and then no more can."""

        def full() -> bool:
            self.ask(1)
            until_blocking(lambda: self.left() <= most)
            return len(self.waiting) == most

        until_blocking(full)
        self.ask(9)
        until_blocking(lambda: self.left() == most)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """An origin that never answers."""
    with socket.create_server((LOOPBACK, 0), backlog=128) as listening:
        yield listening


def test_workers_count_what_runs_together_and_not_what_a_killed_one_ran(tmp_path: Path, silent: socket.socket) -> None:
    origin = f"http://{LOOPBACK}:{silent.getsockname()[1]}"
    gateway = GatewayProcess.start(AT_ONCE.replace(f"http://{LOOPBACK}:1", origin), tmp_path)
    clients = Clients(gateway.http_port)
    try:
        clients.fill(5)
        for pid in gateway.children:
            os.kill(pid, signal.SIGKILL)
            until_blocking(lambda pid=pid: pid not in gateway.children and len(gateway.children) == 3)  # type: ignore[misc]
            clients.fill(5)
    finally:
        for each in clients.waiting:
            each.close()
        gateway.stop()
