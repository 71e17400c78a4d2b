"""Processes of a run: free ports, pinning to a core, waiting until they answer, and ending all of them.

One rule: each process lives in a session of its own and is ended through it, children included, on every way out of
the run; Ctrl-C and SIGTERM reach the run alone, which then ends the rest in order (`as_command`).
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple, NoReturn

LOOPBACK = "127.0.0.1"
SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
READY_S = 30.0
STOP_S = 5.0


class Refused(Exception):
    """The run cannot start, or a process of it failed; the text is one line for people."""


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second one must not stop the cleaning up
    raise KeyboardInterrupt


def as_command(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` as a command, and exit with its code: 2 when it was refused, 130 when it was interrupted."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    try:
        sys.exit(main())
    except Refused as refused:
        print(f"bench: {refused}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("bench: interrupted, everything is ended", file=sys.stderr)
        sys.exit(130)


def program(name: str) -> str | None:
    """The path of an installed program, also where Debian keeps daemons."""
    return shutil.which(name, path=SEARCH)


def free_ports(count: int) -> list[int]:
    """Distinct free ports on loopback."""
    held = [socket.socket() for _ in range(count)]
    try:
        for sock in held:
            sock.bind((LOOPBACK, 0))
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()


def answer(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of one GET; status 0 when nobody answers."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Running(AbstractContextManager["Running"]):
    """One process, pinned to `core`."""

    def __init__(self, name: str, command: list[str], directory: Path, core: int) -> None:
        self.name = name
        self.output = directory / f"{name}.out"
        with self.output.open("wb") as sink:
            self._child = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                env=dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[1])),
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait_for(self, port: int, path: str) -> Running:
        """Wait until `path` answers 200."""
        deadline = time.monotonic() + READY_S
        while answer(port, path)[0] != 200:
            if self._child.poll() is not None or time.monotonic() > deadline:
                tail = self.output.read_text(errors="replace").strip().splitlines()[-4:]
                raise Refused(f"{self.name} did not become ready: {' | '.join(tail) or 'no output'}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """SIGTERM, a short grace, then SIGKILL for the whole session."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._child.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Pair(NamedTuple):
    """A gateway and the origin behind it, both ready."""

    gateway: Running
    port: int
    admin: int
    place: Path


@contextmanager
def gateway_and_origin(name: str, config: str) -> Iterator[Pair]:
    """Start `bench.soak_origin` and a gateway with this configuration, whose {…} are filled in."""
    origin, port, admin = free_ports(3)
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        place = Path(folder)
        text = config.format(loopback=LOOPBACK, port=port, admin=admin, origin=origin, place=place)
        (place / "gateway.toml").write_text(text)
        own = [sys.executable, "-m", "edge.cli.main", "run", "-c", "gateway.toml"]
        with (
            Running("origin", [sys.executable, "-m", "bench.soak_origin", str(origin)], place, 1) as behind,
            Running("gateway", own, place, 0) as gateway,
        ):
            behind.wait_for(origin, "/healthz")
            gateway.wait_for(admin, "/readyz")
            gateway.wait_for(port, "/page/steady")
            yield Pair(gateway, port, admin, place)
