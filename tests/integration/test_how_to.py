"""docs/how-to.md, as it stands: each job's lines in a gateway of their own, each command with what it prints.

One rule: nothing is rewritten. curl is told by its own configuration file where the names are; other commands make
files before the gateway starts. What the page shows has to be in the output, line by line and in this order.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kit.ports import LOOPBACK, free_port
from kit.processes import ROOT, GatewayProcess
from kit.threaded import QuietHandler, ThreadedServer
from kit.waiting import WAIT_S

POOLS = ("web", "app", "canary", "shadow")
COUNTS_DOWN = re.compile(r'(retry-after: |ratelimit: "default";r=[0-9]+;t=)([0-9]+)')


class Command(NamedTuple):
    """One line of a console block and what it shows."""

    line: str
    shown: list[str]


class Job(NamedTuple):
    """One section of the page."""

    title: str
    toml: str
    commands: list[Command]


def jobs() -> Iterator[Job]:
    """The sections that have lines and commands."""
    text = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")
    for section in re.split(r"(?m)^## ", text)[1:]:
        toml = re.findall(r"(?s)```toml\n(.*?)```", section)
        consoles = re.findall(r"(?s)```console\n(.*?)```", section)
        if toml:
            yield Job(section.partition("\n")[0], "\n".join(toml), [c for each in consoles for c in commands(each)])


def commands(block: str) -> Iterator[Command]:
    """The commands of a block."""
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        line, _, shown = part.partition("\n")
        yield Command(line, [each.strip() for each in shown.splitlines() if each.strip()])


class Echo(QuietHandler):
    """Answers with the pool's name and with what it was asked."""

    server_version = "Python"
    name = ""
    seen = Path(os.devnull)

    def do_GET(self) -> None:
        """Any method."""
        self.body()
        with self.seen.open("a") as file:
            file.write(f"{self.command} {self.path}\n")
        lines = [f"{self.name}: {self.command} {self.path}", *(f"{k}: {v}" for k, v in self.headers.items())]
        self.answer(200, {"Content-Type": "text/plain"}, ("\n".join(lines) + "\n").encode())

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET


@pytest.fixture(scope="module")
def echoes() -> Iterator[dict[str, ThreadedServer]]:
    """One server for each pool."""
    servers = {name: ThreadedServer(type(name, (Echo,), {"name": name})) for name in POOLS}
    yield servers
    for server in servers.values():
        server.stop()


def test_the_page_has_its_jobs() -> None:
    assert len(list(jobs())) >= 8
    assert all(any(c.line.startswith("curl") for c in job.commands) for job in jobs())


@pytest.mark.parametrize("job", list(jobs()), ids=lambda job: job.title)
def test_a_job(job: Job, echoes: dict[str, ThreadedServer], tmp_path: Path) -> None:
    assert shutil.which("curl"), "this test needs curl"
    before = [each for each in job.commands if not each.line.startswith("curl")]
    for each in before:
        check(each, tmp_path)
    for name, server in echoes.items():
        server.handler.seen = tmp_path / f"{name}.seen"  # type: ignore[attr-defined]
    pools = f'[pools.away]\nbackends = [{{ url = "http://{LOOPBACK}:{free_port()}" }}]\n'
    pools += "".join(
        f'[pools.{name}]\nbackends = [{{ url = "http://{LOOPBACK}:{server.port}" }}]\n'
        for name, server in echoes.items()
    )
    gateway = GatewayProcess.start(
        f'[listen]\nhttp = ["{LOOPBACK}:@HTTP@"]\n[admin]\nlisten = "{LOOPBACK}:@ADMIN@"\n'
        f'token_file = "@STATE@/token"\n[state]\npath = "@STATE@"\n[log]\naccess = "off"\n{pools}{job.toml}',
        tmp_path,
    )
    try:
        (tmp_path / ".curlrc").write_text(f'connect-to = "::{LOOPBACK}:{gateway.http_port}"\nmax-time = 10\n')
        for each in job.commands:
            if each.line.startswith("curl"):
                check(each, tmp_path)
    finally:
        gateway.stop()


def check(command: Command, folder: Path) -> None:
    """Run a line; what the page shows is in what it prints, in order. Seconds that count down may be fewer."""
    done = subprocess.run(
        ["bash", "-c", command.line],
        cwd=folder,
        env={**os.environ, "CURL_HOME": str(folder), "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    printed = iter(done.stdout.replace("\r", "").splitlines())
    for line in command.shown:
        assert any(is_shown(line.casefold(), each.strip().casefold()) for each in printed), (
            f"{command.line}\n{done.stdout}{done.stderr}\nlacks: {line}"
        )


def is_shown(line: str, printed: str) -> bool:
    """Whether a printed line is the page's; the machine may have stood still for some of the seconds that it shows."""
    shown, found = COUNTS_DOWN.fullmatch(line), COUNTS_DOWN.fullmatch(printed)
    if shown is None or found is None:
        return line == printed
    return shown[1] == found[1] and 0 < int(found[2]) <= int(shown[2])
