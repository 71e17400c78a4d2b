"""`edge dev APP.py`: a gateway around an application while it is written, with new code as soon as it is saved.

    a file changed ─► a new worker imports it ─► it listens ─► the old one ends its requests and goes
                                    └─ it cannot be imported: the error is shown, the old one serves on

One rule: what is saved half-way never takes the running one away. There is no supervisor and no admin API here: one
worker, whose log and events are lines on the terminal.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import orjson

from edge.adapters.config_files import sources_of, why_unread
from edge.cli.client import CommandFailed, safe
from edge.config.loader import load
from edge.config.sources import Sources

LOOK_S = 0.25
SETTLE_S = 0.1  # editors write a file in several steps
READY_S = 60.0
END_S = 6.0
LISTEN = "127.0.0.1:8080"

CONFIGURATION = """\
[listen]
http = [{listen}]
[pools.app]
[[pools.app.backends]]
app = {app}
[[routes]]
name = "app"
pool = "app"
"""


class Child:
    """One worker process. `files` are those whose change matters to it."""

    def __init__(self, asked: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "edge.cli.dev_worker", orjson.dumps(asked).decode()]
        # Its standard input ends with this process, however that ends; Ctrl-C is this process's to hear.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        self.files: list[str] = []
        self.addresses: list[str] = []

    def ready(self) -> bool:
        """Wait until it listens; False when it does not, and why is on the terminal."""
        assert self.process.stdout is not None
        said, end = b"", time.monotonic() + READY_S
        while not said.endswith(b"\n") and (left := end - time.monotonic()) > 0:
            if not select.select([self.process.stdout], [], [], left)[0]:
                break
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                break
            said += piece
        try:
            found = json.loads(said)
        except ValueError:
            found = {}
        self.files, self.addresses = found.get("files", []), found.get("addresses", [])
        if not self.addresses:
            self.end()
        return bool(self.addresses)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def end(self) -> None:
        """Let it end its requests, within bounds."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Session:
    """The worker that serves, and the files that are watched."""

    def __init__(self, app: Path, config: Path | None, asked: dict[str, Any]) -> None:
        self._own = [str(path) for path in (app, config) if path is not None]
        self._config = config
        self._asked = asked
        self._serving: Child | None = None
        self._files: list[str] = self._own
        self._seen: dict[str, tuple[int, int]] = {}

    def start(self) -> bool:
        """A worker with the code as it is now; the one before it serves until this one does."""
        self._seen = _stamps(self._files)
        if self._config is not None:
            self._asked |= told(sources_of(self._config))
        child = Child(self._asked)
        ready = child.ready()
        self._files = sorted({*self._own, *child.files, *(self._files if not ready else ())})
        self._seen = {**_stamps(self._files), **{file: self._seen[file] for file in self._files if file in self._seen}}
        if ready:
            before, self._serving = self._serving, child
            if before is not None:
                before.end()
        return ready

    @property
    def addresses(self) -> list[str]:
        """Where the worker that serves listens."""
        return [] if self._serving is None else self._serving.addresses

    def changed(self) -> list[str]:
        """The files that were saved since the last start, once they stay as they are for a moment."""
        now = _stamps(self._files)
        if now == self._seen:
            return []
        while True:
            time.sleep(SETTLE_S)
            later = _stamps(self._files)
            if later == now:
                return sorted(file for file in now if now[file] != self._seen.get(file))
            now = later

    def fell(self) -> bool:
        """Whether the worker has ended by itself."""
        if self._serving is None or self._serving.alive:
            return False
        self._serving.end()
        self._serving = None
        return True

    def end(self) -> None:
        """Have the worker that serves end."""
        if self._serving is not None:
            self._serving.end()


def _stamps(files: list[str]) -> dict[str, tuple[int, int]]:
    """When each was written, and its size; a file that is gone has neither."""
    found = {}
    for file in files:
        try:
            stat = os.stat(file)
            found[file] = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            found[file] = (0, 0)
    return found


def wanted(target: str, config: Path | None, listen: str | None) -> tuple[Path, Path | None, dict[str, Any]]:
    """The application's file, its configuration's, and what the worker is told. Raises CommandFailed, ConfigError."""
    file, attribute = target, "app"
    if ":" in target and not Path(target).exists():
        file, _, attribute = target.rpartition(":")
    app = Path(file).resolve()
    if app.suffix != ".py" or not app.stem.isidentifier() or not attribute.isidentifier():
        raise CommandFailed(f"{target}: must be a Python file such as app.py, or app.py:NAME of what it holds")
    if not app.is_file():
        raise CommandFailed(f"{target}: no such file")
    beside = app.with_suffix(".toml")
    if config is None and beside.is_file():
        config = beside
    if config is None:
        name, place = json.dumps(f"{app.stem}:{attribute}"), json.dumps(listen or LISTEN)
        sources, listen = Sources(str(beside), CONFIGURATION.format(listen=place, app=name)), None
    else:
        config = config.resolve()
        try:
            sources = sources_of(config)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandFailed(f"{config}: {why_unread(error)}") from None
    load(sources)
    return app, config, {**told(sources), "listen": listen, "folder": str(app.parent)}


def told(sources: Sources) -> dict[str, Any]:
    """A configuration for the worker, which has the same environment."""
    return {"text": sources.text, "files": dict(sources.files), "filename": sources.filename}


@click.command()
@click.argument("target", metavar="APP.py[:NAME]")
@click.option(
    "-c", "--config", type=click.Path(path_type=Path), help="Routes and pools; left out: APP.toml beside it, or none."
)
@click.option("--listen", help=f"Address and port; left out: the configuration's, or {LISTEN}.")
def dev(target: str, config: Path | None, listen: str | None) -> None:
    """Run an application with live reload, until Ctrl-C. A gateway around it takes new code as soon as it is saved."""
    app, config, asked = wanted(target, config, listen)
    session = Session(app, config, asked)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored, as with `&`
    try:
        if session.start():
            _say(f"{app.name} on {', '.join(f'http://{each}/' for each in session.addresses)} (Ctrl-C ends it)")
        else:
            _say("waiting for a change")
        while True:
            time.sleep(LOOK_S)
            names = ", ".join(Path(file).name for file in session.changed())
            if session.fell():
                _say("the worker ended by itself; waiting for a change")
            if names:
                ready = session.start()
                _say(f"{names} changed: " + ("new code serves" if ready else "not taken, the code before it serves on"))
    except KeyboardInterrupt:
        pass  # Ctrl-C is how a session ends
    finally:
        session.end()


def _say(text: str) -> None:
    click.echo(safe(f"edge dev: {text}"), err=True)


COMMANDS = (dev,)
