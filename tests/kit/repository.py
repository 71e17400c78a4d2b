"""Repositories for tests: one in memory, one that fails on purpose, and an S3 server as a process of its own.

One rule: the fake passes the same contract suite as the real ones (`contract/test_repository.py`).
"""

from __future__ import annotations

import http.client
import http.server
import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.ports import Repository, RepositoryFile
from kit.asking import ask
from kit.ports import LOOPBACK, free_port
from kit.processes import Process
from kit.threaded import QuietHandler, ThreadedServer
from kit.waiting import WAIT_S

BUCKET = "points"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class MemoryRepository:
    """`ports.Repository` in a dictionary."""

    place = "memory:"

    def __init__(self, held: dict[str, bytes] | None = None) -> None:
        self.held = {} if held is None else held

    def put(self, name: str, data: bytes) -> None:
        self.held[name] = bytes(data)

    def create(self, name: str, data: bytes) -> bool:
        if name in self.held:
            return False
        self.held[name] = bytes(data)
        return True

    def get(self, name: str) -> bytes | None:
        return self.held.get(name)

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        data = self.held.get(name)
        return None if data is None else data[offset : offset + length]

    def size(self, name: str) -> int | None:
        data = self.held.get(name)
        return None if data is None else len(data)

    def files(self, prefix: str) -> Iterator[RepositoryFile]:
        yield from [RepositoryFile(name, len(data)) for name, data in self.held.items() if name.startswith(prefix)]

    def delete(self, name: str) -> None:
        self.held.pop(name, None)

    def clean(self) -> None:
        pass


class Watched:
    """A repository round another one: `before` is called with each operation's name and file, and may raise."""

    def __init__(self, inner: Repository, before: Callable[[str, str], None]) -> None:
        self.place = inner.place
        self._inner = inner
        self._before = before

    def __getattr__(self, operation: str) -> Any:
        deed = getattr(self._inner, operation)

        def watched(*arguments: Any) -> Any:
            self._before(operation, str(arguments[0]) if arguments else "")
            return deed(*arguments)

        return watched


class S3Server:
    """moto's server, with one bucket."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.endpoint = f"http://{LOOPBACK}:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(self.port)]
        self._process = Process(command, directory, "s3")
        self._process.wait_ready(self._answers)
        assert self.request("PUT", f"/{BUCKET}") == 200

    def request(self, method: str, path: str) -> int:
        """The status of a bare request; 0 when nobody answers."""
        try:
            return ask(self.port, path, method).status
        except OSError:
            return 0

    def _answers(self) -> bool:
        return self.request("GET", "/moto-api/") in (200, 301, 302, 308)

    def stop(self) -> None:
        """End it."""
        self._process.kill()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server for a module's tests; the credentials are in the environment meanwhile."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        server = S3Server(tmp_path_factory.mktemp("s3"))
        yield server
        server.stop()


NOT_PASSED_ON = ("connection", "transfer-encoding", "server", "date", "content-length")
WORDS = {"500": b"InternalError", "503": b"SlowDown", "403": b"AccessDenied"}


def passed_on(fields: list[tuple[str, str]], method: str) -> dict[str, str]:
    """The fields of a server's answer as a proxy passes them on; the length of a HEAD's as it was told."""
    kept = {name: value for name, value in fields if name.lower() not in NOT_PASSED_ON}
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    return {**kept, "Content-Length": lengths[0]} if method == "HEAD" and lengths else kept


class FaultyProxy(ThreadedServer):
    """Between a client and an S3 server: `faults` says for each request what becomes of it.

    None: passed on. "500", "503", "403": that answer. "reset": the connection breaks after the request was read.
    "lost": the server does it, and the answer is lost.
    """

    def __init__(self, server: S3Server) -> None:
        self.faults: Iterator[str | None] = itertools.repeat(None)
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        proxy = self

        class Handler(QuietHandler):
            wbufsize = 1 << 16
            disable_nagle_algorithm = True

            def do(self) -> None:
                body = self.body()
                with proxy._lock:
                    fault = next(proxy.faults)
                    proxy.seen[fault or "passed"] += 1
                if fault == "reset":
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault in ("500", "503", "403"):
                    self.answer(int(fault), {}, b"<Error><Code>%b</Code></Error>" % WORDS[fault])
                    return
                upstream = http.client.HTTPConnection(LOOPBACK, server.port, timeout=WAIT_S)
                try:
                    upstream.request(self.command, self.path, body, dict(self.headers.items()))
                    found = upstream.getresponse()
                    data, fields = found.read(), found.getheaders()
                finally:
                    upstream.close()
                if fault == "lost":
                    self.close_connection = True
                    self.connection.close()
                    return
                self.answer(found.status, passed_on(fields, self.command), data)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = do

        super().__init__(Handler)
        self.endpoint = f"http://{LOOPBACK}:{self.port}"
