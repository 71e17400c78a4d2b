"""Gateways as processes that share a server, an origin whose answer a test changes, and what all of them say.

One rule: nothing is waited for by the clock alone; `until` waits for a fact.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from kit.asking import ask
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_toml
from kit.redis import RedisProcess
from kit.relay import Relay
from kit.threaded import QuietHandler, ThreadedServer
from kit.waiting import until_blocking

HOST = "site.example"
GIVEN_UP_S = 1.5
MAX_BLIND_S = 6.0  # longer than a machine stands still that is merely busy


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs between tests: further lines of `[fleet]` and of the pool, whose backend is named `b`."""

    server: str = ""  # of [cache.shared] too
    max_blind_s: float = MAX_BLIND_S
    ack_timeout_s: float = 6.0
    fleet: str = ""
    pool: str = ""
    route: str = "cache = true"


class Machine:
    """One gateway with a disk tier, in a fleet whose server is at `url`."""

    def __init__(self, name: str, origin_port: int, url: str, directory: Path, settings: Settings) -> None:
        self.name = name
        self.directory = directory
        directory.mkdir()
        toml = gateway_toml(origin_port, pool=settings.pool, route=settings.route)
        toml = toml.replace("[[pools.origin.backends]]", '[[pools.origin.backends]]\nid = "b"')
        self.toml = f"""{toml}
[cache]
disk = {{ path = "{directory}/cache", size = "64MiB", min_free = "0B" }}
[cache.shared]
url = "{url}"
timeout = "5s"
{settings.server}
[fleet]
url = "{url}"
name = "{self.name}"
max_blind = "{settings.max_blind_s:g}s"
ack_timeout = "{settings.ack_timeout_s:g}s"
{settings.server}
{settings.fleet}
"""
        self.gateway = GatewayProcess(self.toml, directory)

    def wait_ready(self) -> None:
        self.gateway.wait_ready(lambda: self.gateway.admin_status("/readyz") == 200)

    def restart(self, how: Callable[[GatewayProcess], Any]) -> None:
        """End it and start it again with what it had on its disk."""
        how(self.gateway)
        self.gateway = GatewayProcess(self.toml, self.directory)
        self.wait_ready()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """What the admin API answers to what it accepts."""
        status, found = self.gateway.api(method, path, body)
        assert status in (200, 201), found
        return found

    def purge(self, **what: Any) -> Any:
        return self.call("POST", "/v1/purge", what)

    @property
    def fleet(self) -> Any:
        return self.call("GET", "/v1/fleet")

    def get(self, target: str, method: str = "GET", **fields: str) -> bytes:
        """A client's request; the body."""
        found = ask(self.gateway.http_port, target, method, fields={"Host": HOST, **fields})
        assert found.status == 200, found
        return found.body

    def get_shared(self, target: str, is_there: Callable[[], object]) -> None:
        """The same until the server has it too: a write that takes it more than a second is given up."""
        self.get(target)
        looked_at = monotonic()

        def shared() -> object:
            nonlocal looked_at
            if monotonic() - looked_at > GIVEN_UP_S:
                self.get(target, **{"Cache-Control": "no-cache"})
                looked_at = monotonic()
            return is_there()

        until_blocking(shared)

    def told(self, kind: str) -> bool:
        """Whether there was such an event."""
        return bool(self.call("GET", f"/v1/events?follow=0&kind={kind}")["events"])

    def pause(self) -> None:
        """Every process of it stands still."""
        os.killpg(self.gateway.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        os.killpg(self.gateway.pid, signal.SIGCONT)

    def close(self) -> None:
        self.gateway.kill()


class Machines:
    """Some of them, which are one fleet, and their origin."""

    def __init__(self, directory: Path, urls: Sequence[str], settings: Settings = Settings()) -> None:
        self.origin = Origin()
        self.machines: list[Machine] = []
        self._directory, self._settings = directory, settings
        try:
            for url in urls:
                self.add(url)
            until_blocking(self.all_in_step)
        except BaseException:
            self.close()  # nobody else can
            raise

    def add(self, url: str) -> Machine:
        """One more, ready."""
        number = len(self.machines)
        made = Machine(f"edge-{number}", self.way_to_origin(), url, self._directory / str(number), self._settings)
        self.machines.append(made)
        made.wait_ready()
        return made

    def way_to_origin(self) -> int:
        """The port at which the next machine finds the origin."""
        return self.origin.port

    def in_step(self, machine: Machine) -> bool:
        """Whether it is, and sees all others so."""
        found = machine.fleet
        words = [each["state"] for each in found["machines"]]
        return bool(found["in_step"]) and words == ["in step"] * len(self.machines)

    def all_in_step(self) -> bool:
        """Whether all of them are, and each sees it so. Who was silent for some seconds is named late at once."""
        return all(self.in_step(machine) for machine in self.machines)

    def wait_sure(self) -> None:
        """Until "applied on N of N" is certain."""
        until_blocking(lambda: all(machine.fleet["sure"] for machine in self.machines))

    def all_get(self, target: str) -> set[bytes]:
        """What each of them answers."""
        return {machine.get(target) for machine in self.machines}

    def close(self) -> None:
        for machine in self.machines:
            machine.close()
        self.origin.stop()


class LinkedMachines(Machines):
    """Machines that share one redis-server, each by a link of its own (`links`), which a test cuts or holds."""

    def __init__(self, directory: Path, count: int, settings: Settings = Settings()) -> None:
        self.server = RedisProcess.start(directory)
        self.links = [Relay(self.server.port) for _ in range(count)]
        super().__init__(directory, [f"redis://{LOOPBACK}:{link.port}/0" for link in self.links], settings)

    def link(self, machine: Machine) -> Relay:
        """The link between a machine and the server."""
        return self.links[self.machines.index(machine)]

    def close(self) -> None:
        super().close()
        for link in self.links:
            link.close()
        self.server.kill()


class Origin(ThreadedServer):
    """What it has is `now`, whatever is asked for; it knows its own ETag again."""

    def __init__(self) -> None:
        self.now = "1"
        self.asked = 0
        origin = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self.body()
                origin.asked += 1
                tag = f'"{origin.now}"'
                status = 304 if self.headers.get("If-None-Match") == tag else 200
                fields = {"Cache-Control": "max-age=600", "Surrogate-Key": "tag", "ETag": tag}
                self.answer(status, fields, origin.now.encode())

            do_POST = do_GET

        super().__init__(Handler)
