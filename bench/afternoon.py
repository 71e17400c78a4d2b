"""An afternoon of a fleet, as a script: `python -m bench.afternoon`.

Three gateways, a primary with two replicas and three sentinels: a purge, a backend that is drained everywhere, a
machine that hears nothing while purges pass, and a failover of the server that loses an acknowledged purge. After each
step what `edge fleet` says, and what clients get.

One rule: everything is on loopback, and every process is ended, whatever happens.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kit.fleet import HOST, Machine, Machines, Settings
from kit.redis_many import SentinelGroup
from kit.waiting import until_blocking

from bench.processes import as_command

SETTINGS = Settings(max_blind_s=8.0, fleet='share = ["states", "health"]')


def main() -> None:
    """The command."""
    with tempfile.TemporaryDirectory(prefix="afternoon-") as folder:
        group = SentinelGroup(Path(folder))
        fleet = Machines(Path(folder), [group.url] * 3, SETTINGS)
        try:
            Afternoon(group, fleet).pass_by()
        finally:
            fleet.close()
            group.kill()


class Afternoon:
    """The steps, one after the other."""

    def __init__(self, group: SentinelGroup, fleet: Machines) -> None:
        self._group = group
        self._fleet = fleet
        self._began = monotonic()

    def pass_by(self) -> None:
        """All of it."""
        first, second, third = self._fleet.machines
        self._fleet.wait_sure()
        self._head("Three machines, one object, asked of each")
        self._fleet.origin.now = "version 1"
        self._clients("/page")
        self._edge(first, "fleet")

        self._head("The origin has something new; it is purged on edge-1")
        self._fleet.origin.now = "version 2"
        self._clients("/page")
        self._edge(second, "purge", "--url", f"http://{HOST}/page")
        self._clients("/page")

        self._head("A backend is drained on edge-0, and comes back on edge-2")
        self._edge(first, "backend", "drain", "origin", "b", "--reason", "new kernel", "--force")
        self._until("edge-2 has drained it too", lambda: self._backend(third) == "draining")
        self._edge(third, "backend", "activate", "origin", "b")
        self._until("edge-0 has it back", lambda: self._backend(first) == "active")

        self._head("edge-2 stands still; two purges pass without it")
        third.pause()
        self._fleet.origin.now = "version 3"
        self._edge(first, "purge", "--url", f"http://{HOST}/page")
        self._edge(first, "purge", "--tag", "tag")
        self._edge(first, "fleet")
        third.go_on()
        print(f"its first answer, within max_blind ({SETTINGS.max_blind_s:g} s): {third.get('/page').decode()!r}")
        self._until("edge-2 is in step", lambda: self._fleet.in_step(third))
        self._clients("/page")
        self._edge(third, "fleet")

        self._head("The server's replicas fall behind, a purge is acknowledged, and the primary dies")
        self._fleet.wait_sure()
        history, run = first.fleet["history"], first.fleet["run"]
        self._group.keep_from_replicas()
        self._fleet.origin.now = "version 4"
        self._edge(second, "purge", "--url", f"http://{HOST}/page")
        self._group.fail_over()
        self._edge(first, "fleet")
        self._until("all are in step with the new primary", lambda: self._moved(run))
        print(f"the stream is {'another one' if first.fleet['history'] != history else 'the same'}")
        self._clients("/page")
        self._edge(first, "fleet")

    def _moved(self, run: str) -> bool:
        machines = self._fleet.machines
        return all(self._fleet.in_step(each) and each.fleet["run"] != run for each in machines)

    def _head(self, words: str) -> None:
        print(f"\n## {monotonic() - self._began:.1f} s: {words}\n", flush=True)

    def _clients(self, target: str) -> None:
        found = [f"{each.name} {each.get(target).decode()!r}" for each in self._fleet.machines]
        print(f"clients get: {', '.join(found)}; the origin was asked {self._fleet.origin.asked} times so far")

    def _until(self, words: str, fact: Callable[[], bool]) -> None:
        began = monotonic()
        until_blocking(fact, 60)
        print(f"{words}: after {monotonic() - began:.1f} s")

    @staticmethod
    def _backend(machine: Machine) -> str:
        [found] = machine.call("GET", "/v1/pools/origin/backends")["backends"]
        return str(found["admin"])

    @staticmethod
    def _edge(machine: Machine, *words: str) -> None:
        """An operator's command, at this machine."""
        print(f"{machine.name}$ edge {' '.join(words)}", flush=True)
        address = f"http://127.0.0.1:{machine.gateway.admin_port}"
        token = str(machine.directory / "state" / "admin.token")
        program = Path(sys.executable).parent / "edge"
        command = [str(program), *words, "--admin", address, "--token-file", token]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}, timeout=60, check=False
        )
        print((done.stdout + done.stderr).rstrip(), flush=True)
        if done.returncode:
            print(f"(exit code {done.returncode})")


if __name__ == "__main__":
    as_command(main)
