"""The worker of `edge dev`: one process that serves, and shows its log and events as lines for people.

    python -m edge.cli.dev_worker '{"text": …, "filename": …, "listen": …, "folder": …}'

On standard output stands one JSON line: where it listens and the files that its code came from. One rule: an error in
the application is shown as Python shows it, without the gateway's own frames.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import uvloop

from edge.adapters.app_check import folders
from edge.app import build, listen
from edge.applications import named
from edge.cli.client import safe
from edge.config.listening import places
from edge.config.loader import Config, load
from edge.config.sources import Sources
from edge.config.types import parse_address
from edge.dataplane.worker.listener import place_text
from edge.dataplane.worker.worker import Worker
from edge.errors import ConfigError

GRACE_S = 5.0
OWN = str(Path(__file__).parents[1]) + "/"  # this program's folder
CLOSE_TO_IT = (OWN, "<frozen importlib", f"{os.sep}importlib{os.sep}")


class TerminalLog:
    """An access log for people (`ports.LogSink`)."""

    enabled = True
    stamp = stamp_combined = b""
    waiting: Sequence[bytes] = ()
    lost = 0

    def refresh(self, now: float) -> None:
        """The terminal shows no dates."""

    def add(self, line: bytes) -> None:
        """Show one line of the access log as a short line."""
        found = orjson.loads(line)
        words = [word for word in (found["verdict"], found["reason"], found["error"]) if word]
        show(
            f"{found['status']} {found['method']} {found['host']}{found['target']} {' '.join(words)} "
            f"{found['us'] / 1000:.1f} ms"
        )

    def flush(self) -> None:
        """Lines are shown as they come."""

    def reopen(self) -> None:
        """There is no file."""

    def close(self) -> None:
        """There is no file."""


def show(text: str) -> None:
    """A line on the terminal, which may be gone."""
    with suppress(OSError):
        print(safe(text), file=sys.stderr, flush=True)


def show_event(kind: str, facts: dict[str, Any]) -> None:
    """What the gateway tells: an application's fault with its own frames, other things as a line."""
    what = " ".join(str(facts[key]) for key in ("app", "fault", "evidence") if facts.get(key))
    show(f"{kind}: {what}")
    for line in own_lines(str(facts.get("trace", ""))):
        show(line)


def own_lines(trace: str) -> list[str]:
    """A traceback without the gateway's and aiohttp's frames."""
    kept, skipping = [], False
    for line in trace.splitlines():
        if line.startswith('  File "'):
            skipping = any(place in line for place in (OWN, f"site-packages{os.sep}aiohttp{os.sep}"))
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            kept.append(line)
    return kept


def show_error(error: BaseException) -> None:
    """Why an application cannot be imported or started."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(CLOSE_TO_IT)]
    frames = [frame for frame in frames if "importlib" not in frame.filename]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)] if frames else []
    for line in "".join([*lines, *traceback.format_exception_only(error)]).splitlines():
        show(line)


def files(folder: str) -> list[str]:
    """The files below a folder from which code was loaded; what is installed is not meant."""
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.startswith(folder + "/") and "site-packages" not in file and not file.startswith(OWN):
            found.add(file)
    return sorted(found)


def tell(**facts: Any) -> None:
    """Write the one line of standard output."""
    sys.stdout.buffer.write(orjson.dumps(facts) + b"\n")
    sys.stdout.buffer.flush()


def configuration(asked: dict[str, Any]) -> Config:
    """What is served: as the file says, but that it listens where it is told. Raises ConfigError."""
    config = load(Sources(asked["filename"], asked["text"], asked["files"], os.environ))
    if asked["listen"] is None:
        return config
    try:
        address = parse_address(asked["listen"])
    except ValueError as error:
        raise ConfigError([f"--listen: {error}"]) from None
    return config.model_copy(update={"listen": config.listen.model_copy(update={"http": (address,), "https": ()})})


async def opened(worker: Worker, config: Config) -> list[tuple[str, int]]:
    """Listen, and return the addresses. Raises ConfigError."""
    try:
        return await listen(worker, config)
    except OSError as error:
        wanted = ", ".join(name for name, _, _ in places(config.listen))
        raise ConfigError([f"cannot listen on {wanted}: {error.strerror or error}"]) from None


async def serve(asked: dict[str, Any]) -> int:
    """Until SIGTERM, or until who started it is gone; the exit code."""
    from edge.adapters.app_server import AppUnusable, load

    try:
        config = configuration(asked)
        for name in named(config):
            load(name, folders(config.python_path, asked["filename"]))
        worker = build(config, TerminalLog(), filename=asked["filename"], disk=False)
        worker.tell = show_event
        addresses = await opened(worker, config)
    except AppUnusable as error:
        if error.__cause__ is None:
            show(error.detail)
        else:
            show_error(error.__cause__)
        tell(files=files(asked["folder"]))
        return 1
    except ConfigError as error:
        for line in error.problems:
            show(line)
        tell(files=files(asked["folder"]))
        return 1
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_reader(0, lambda: None if os.read(0, 1024) else ended.set())
    tell(addresses=[place_text(each) for each in addresses], files=files(asked["folder"]))
    await ended.wait()
    loop.remove_reader(0)
    await worker.drain(GRACE_S)
    return 0


if __name__ == "__main__":
    sys.exit(uvloop.run(serve(orjson.loads(sys.argv[1]))))
