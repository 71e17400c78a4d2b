"""Several redis-servers that belong together, as processes: a primary with replicas and sentinels, or a cluster.

One rule: `start` returns when all of them know one another, and `kill` ends them all. Time limits are a test's, not
those of a real installation: a server is given up after some seconds, which is more than a busy machine takes.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kit.ports import LOOPBACK, free_port
from kit.processes import Process
from kit.redis import RedisProcess, program, say
from kit.waiting import until_blocking

NAME = "main"
DOWN_AFTER_MS = 2000
USER = "user edge on >its-own ~* &* -@all +auth +ping +hello +client +sentinel"


class SentinelProcess(Process):
    """One sentinel of a primary."""

    def __init__(self, directory: Path, primary_port: int, password: str) -> None:
        self.port, self.password = free_port(), password
        guards = (f"requirepass {password}", f"sentinel sentinel-pass {password}", USER) if password else ()
        file = directory / f"sentinel-{self.port}.conf"
        lines = [
            f"port {self.port}", f"bind {LOOPBACK}", f"dir {directory}",
            f"sentinel monitor {NAME} {LOOPBACK} {primary_port} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} 3000", *guards,
        ]  # fmt: skip
        file.write_text("\n".join(lines) + "\n")
        super().__init__([program(), str(file), "--sentinel"], directory, f"sentinel-{self.port}")

    def say(self, *words: str) -> bytes:
        """One command of it."""
        return say(self.port, "SENTINEL", *words, password=self.password)

    @property
    def primary_port(self) -> int:
        """Of the primary that it names."""
        parts = self.say("GET-MASTER-ADDR-BY-NAME", NAME).split(b"\r\n")
        return int(parts[4]) if len(parts) > 4 else 0

    def counts(self, what: bytes) -> int:
        """What it knows of the primary: `num-slaves`, `num-other-sentinels`."""
        parts = self.say("MASTER", NAME).split(b"\r\n")
        return int(parts[parts.index(what) + 2]) if what in parts else -1


class SentinelGroup:
    """A primary, two replicas and three sentinels, which may ask for a password (of the user `edge`, for another)."""

    def __init__(self, directory: Path, password: str = "") -> None:
        self.servers = [RedisProcess.start(directory)]
        primary = self.servers[0].port
        slow = ("--repl-diskless-sync-delay", "0")
        self.servers += [RedisProcess.start(directory, "--replicaof", f"{LOOPBACK} {primary}", *slow) for _ in range(2)]
        self.sentinels = [SentinelProcess(directory, primary, password) for _ in range(3)]
        until_blocking(self._know_each_other)

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}"

    @property
    def primary(self) -> RedisProcess:
        """The one that most sentinels name."""
        ports = sorted(each.primary_port for each in self.sentinels if each.running)
        return self.at(ports[len(ports) // 2])

    @property
    def replicas(self) -> list[RedisProcess]:
        """The others that run."""
        return [each for each in self.servers if each.running and each is not self.primary]

    def at(self, port: int) -> RedisProcess:
        return next(each for each in self.servers if each.port == port)

    def keep_from_replicas(self) -> None:
        """From now on replicas get nothing: what the primary takes is lost when it dies."""
        primary, replicas = self.primary, self.replicas
        for each in replicas:
            each.pause()
        primary.say("CLIENT", "KILL", "TYPE", "replica")

    def fail_over(self) -> None:
        """Kill the primary; wait until all sentinels name another."""
        old = self.primary
        replicas = self.replicas
        old.kill()
        for each in replicas:
            each.go_on()
        until_blocking(lambda: all(each.primary_port != old.port for each in self.sentinels))
        until_blocking(lambda: b"role:master" in self.primary.say("INFO", "replication"))

    def kill(self) -> None:
        for each in (*self.sentinels, *self.servers):
            each.kill()

    def _know_each_other(self) -> bool:
        try:
            return all(
                each.counts(b"num-other-sentinels") == 2 and each.counts(b"num-slaves") == 2 for each in self.sentinels
            )
        except OSError:
            return False


class ClusterGroup:
    """Three primaries without replicas, and one more node that may become a replica."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.nodes = [self._node() for _ in range(3)]
        addresses = [f"{LOOPBACK}:{each.port}" for each in self.nodes]
        self._cli("--cluster", "create", *addresses, "--cluster-yes")
        until_blocking(lambda: all(b"cluster_state:ok" in each.say("CLUSTER", "INFO") for each in self.nodes))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{LOOPBACK}:{each.port}" for each in self.nodes[:2])

    def owner(self, name: str) -> RedisProcess:
        """The primary that has the slot of a name."""
        for node in self.nodes:
            if node.running and not node.say("EXISTS", name).startswith(b"-"):
                return node
        raise AssertionError("nobody has the slot")

    def add_replica(self, of: RedisProcess) -> RedisProcess:
        """One more node, which has all that another has."""
        made = self._node()
        identity = of.say("CLUSTER", "MYID").split(b"\r\n")[1].decode()
        also = ("--cluster-slave", "--cluster-master-id", identity)
        self._cli("--cluster", "add-node", f"{LOOPBACK}:{made.port}", f"{LOOPBACK}:{of.port}", *also)
        until_blocking(lambda: b"master_link_status:up" in made.say("INFO", "replication"))
        self.nodes.append(made)
        return made

    def kill(self) -> None:
        for each in self.nodes:
            each.kill()

    def _node(self) -> RedisProcess:
        port = free_port()
        options = ("--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{port}.conf")
        bus = ("--cluster-port", str(free_port()), "--cluster-node-timeout", "4000")
        return RedisProcess.start(self._directory, *options, *bus, "--repl-diskless-sync-delay", "0", port=port)

    def _cli(self, *words: str) -> None:
        found = shutil.which("redis-cli") or shutil.which("valkey-cli")
        assert found is not None, "these tests need redis-cli (Debian's package redis-tools)"
        done = subprocess.run([found, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
