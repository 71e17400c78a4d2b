"""A real redis-server on a free loopback port, which a test may stop, let go on, kill and start again.

One rule: it keeps nothing on disk unless told, and every file is in the directory that it is given.
"""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path

from kit.ports import LOOPBACK, free_port
from kit.processes import Process


class RedisProcess(Process):
    """`start` returns when it answers."""

    def __init__(self, directory: Path, port: int, options: tuple[str, ...]) -> None:
        self.port, self.options = port, options
        command = [program(), "--port", str(port), "--bind", LOOPBACK, "--save", "", "--appendonly", "no"]
        super().__init__([*command, "--dir", str(directory), *options], directory, f"redis-{port}")

    @classmethod
    def start(cls, directory: Path, *options: str, port: int = 0) -> RedisProcess:
        """A server with further options as on its command line."""
        server = cls(directory, port or free_port(), options)
        server.wait_ready(lambda: server.answers)
        return server

    def again(self) -> RedisProcess:
        """Another process at the same port, empty."""
        return RedisProcess.start(self.directory, *self.options, port=self.port)

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def answers(self) -> bool:
        try:
            return self.say("PING")[:1] in (b"+", b"-")
        except OSError:
            return False

    def say(self, *words: str | bytes) -> bytes:
        """One command; its answer as it comes, up to 64 KiB."""
        return say(self.port, *words)

    def say_as(self, password: str, *words: str) -> bytes:
        """As `say`, where a password is asked for."""
        return say(self.port, *words, password=password)

    def pause(self) -> None:
        """It accepts connections (the kernel does) and answers nothing."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        self.signal(signal.SIGCONT)


def say(port: int, *words: str | bytes, password: str = "") -> bytes:
    """One command to who listens there; its answer as it comes, up to 64 KiB."""
    with socket.create_connection((LOOPBACK, port), 10) as sock:
        sock.settimeout(10)
        for command in (("AUTH", password), words) if password else (words,):
            raw = [word.encode() if isinstance(word, str) else word for word in command]
            sock.sendall(b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw))
            answer = sock.recv(65536)
        return answer


def program() -> str:
    """The server of this machine."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    assert found is not None, "these tests need redis-server (Debian's package of that name)"
    return found
