"""Real processes for tests: the gateway from a TOML text, or any other server, on ports that are free.

One rule: a process that was started is ended, with all its children, whatever the test did; its standard error is
kept and shown when it fails to become ready. In the TOML text @HTTP@, @ADMIN@ and @STATE@ stand for the listener's
and the admin port and a directory of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.measure import process_tree, resident_bytes
from kit.asking import ask
from kit.ports import LOOPBACK, free_ports
from kit.waiting import WAIT_S, until_blocking

TIMEOUTS = "timeouts = {"
ROOT = Path(__file__).resolve().parents[2]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotReady(Exception):
    """The process ended, or its time ran out, before it was ready."""


def run_edge(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """One command of `edge` in a folder, to its end."""
    command = [sys.executable, "-m", "edge.cli.main", *arguments]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=WAIT_S)


def in_session(leader: int) -> list[int]:
    """The living processes of a session, its leader left out."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != leader:
            try:
                state, _, _, session = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == leader and state != "Z":
                found.append(int(path.name))
    return found


class Process:
    """One started command in a session of its own."""

    def __init__(self, command: list[str], directory: Path, name: str) -> None:
        self.name = name
        self.directory = directory
        self.output = directory / f"{name}.out"
        self._left: list[tuple[int, int]] = []  # by launches before this one: process and session
        self._child = self._start(command)

    def launch(self, command: list[str]) -> None:
        """Start it again, after its end."""
        self._left += [(pid, self.pid) for pid in in_session(self.pid)]
        self._child = self._start(command)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
        with self.output.open("wb") as sink:
            return subprocess.Popen(
                command, cwd=self.directory, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    @property
    def children(self) -> list[int]:
        """The descendants' process ids."""
        return process_tree(self.pid)[1:]

    def rss_bytes(self) -> int:
        """Resident memory of the whole tree."""
        return resident_bytes(self.pid)

    def log(self) -> str:
        """What it wrote so far."""
        return self.output.read_text(errors="replace")

    def wait_ready(self, ready: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        """Poll until `ready()`; raises `NotReady` with the output when it ends or takes too long."""
        try:
            until_blocking(lambda: ready() or not self.running, wait_s)
            if self.running:
                return
            state = f"ended with {self._child.returncode}"
        except AssertionError:
            state = "is not ready"
        log = self.log()[-3000:]
        self.kill()
        raise NotReady(f"{self.name} {state}:\n{log}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process."""
        self._child.send_signal(number)

    def wait(self, wait_s: float = WAIT_S) -> int:
        """Wait for its end; the exit code."""
        return self._child.wait(wait_s)

    def stop(self, wait_s: float = WAIT_S) -> int:
        """SIGTERM, then SIGKILL for what is left of the tree; the exit code."""
        if self.running:
            self._child.terminate()
            try:
                self._child.wait(wait_s)
            except subprocess.TimeoutExpired:
                pass
        return self.kill()

    def kill(self) -> int:
        """SIGKILL for the whole session at once, and for what launches before this one left; the exit code."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for pid, session in self._left:
            with suppress(ProcessLookupError):
                if os.getsid(pid) == session:
                    os.kill(pid, signal.SIGKILL)
        return self._child.wait(WAIT_S)


class GatewayProcess(Process):
    """`edge run` on free ports, ready when it is returned by `start`."""

    def __init__(self, toml: str, directory: Path, arguments: tuple[str, ...] = ()) -> None:
        self.http_port, self.admin_port = free_ports(2)
        self.config = directory / "gateway.toml"
        self.config.write_text(self.fill(toml, directory))
        self._command = [sys.executable, "-m", "edge.cli.begin", "run", "-c", str(self.config), *arguments]
        super().__init__(self._command, directory, "gateway")

    @classmethod
    def start(cls, toml: str, directory: Path) -> GatewayProcess:
        """Start and wait for `/readyz`."""
        gateway = cls(toml, directory)
        gateway.wait_ready(gateway.is_ready)
        return gateway

    def again(self) -> None:
        """Start once more after its end, at the same ports and with the same state; ready when it returns."""
        self.launch(self._command)
        self.wait_ready(self.is_ready)

    def is_ready(self) -> bool:
        return self.admin_status("/readyz") == 200

    def fill(self, toml: str, directory: Path) -> str:
        """The text with its placeholders replaced."""
        known = {"@HTTP@": str(self.http_port), "@ADMIN@": str(self.admin_port), "@STATE@": str(directory / "state")}
        for word, value in known.items():
            toml = toml.replace(word, value)
        return toml

    def rewrite(self, toml: str) -> None:
        """Replace the configuration file; what follows (SIGHUP, reload) is the test's business."""
        self.config.write_text(self.fill(toml, self.directory))

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON (else text) of one request to the admin API, by the operator's token."""
        token = (self.directory / "state" / "admin.token").read_text().strip()
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        found = ask(self.admin_port, path, method, None if body is None else json.dumps(body), fields)
        is_json = found.fields.get_content_type() in ("application/json", "application/problem+json")
        return found.status, json.loads(found.body) if is_json else found.body.decode()

    def admin_status(self, path: str) -> int:
        """The status of a GET on the admin listener; 0 when it does not answer."""
        try:
            with DIRECT.open(f"http://{LOOPBACK}:{self.admin_port}{path}", timeout=WAIT_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            with refused:
                return int(refused.code)
        except (OSError, http.client.HTTPException):
            return 0


class Successor(GatewayProcess):
    """Another gateway with the files and ports of one that was killed."""

    def __init__(self, killed: GatewayProcess, ready: bool = True) -> None:
        self.http_port, self.admin_port, self.config = killed.http_port, killed.admin_port, killed.config
        command = [sys.executable, "-m", "edge.cli.main", "run", "-c", str(killed.config)]
        Process.__init__(self, command, killed.directory, f"{killed.name}-again")
        if ready:
            self.wait_ready(self.is_ready)


def gateway_head(workers: int = 1, *, log: str = "off", addresses: Sequence[str] = ()) -> str:
    """What the configuration of a gateway process begins with; `[listen]` is last, for more of its lines."""
    http = ", ".join(f'"{each}"' for each in (f"{LOOPBACK}:@HTTP@", *addresses))
    return f"""
[admin]
listen = "{LOOPBACK}:@ADMIN@"
token_file = "@STATE@/admin.token"
[state]
path = "@STATE@"
[log]
access = "{log}"
[listen]
http = [{http}]
workers = {workers}
"""


def patient(pool: str) -> str:
    """Lines of a pool's table that allow ten seconds for connecting, unless they say otherwise: by default it is one,
    which a machine that stands still for a moment exceeds."""
    if re.search(r"\bconnect\b", pool):
        return pool
    if TIMEOUTS in pool:
        return pool.replace(TIMEOUTS, f'{TIMEOUTS} connect = "10s",', 1)
    return f'{TIMEOUTS} connect = "10s" }}\n{pool}'


def gateway_toml(origin_port: int, *, limits: str = "", pool: str = "", route: str = "cache = false") -> str:
    """A configuration with one origin: extra lines for `[limits]`, the pool and the route may be given."""
    return f"""{gateway_head()}
trusted_proxies = []
[limits]
{limits}

[pools.origin]
ejection = false
{patient(pool)}
[[pools.origin.backends]]
url = "http://{LOOPBACK}:{origin_port}"

[[routes]]
host = "*"
path = "/"
pool = "origin"
{route}
"""
