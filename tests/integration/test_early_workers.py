"""Workers whose processes run before the supervisor has read its libraries: taken, or ended with nothing left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kit.ports import LOOPBACK, free_ports
from kit.processes import ROOT, GatewayProcess, in_session
from kit.waiting import WAIT_S, until

from edge.app import build
from edge.config.loader import load_text
from edge.control.early import EarlyWorker, end_early, start_early
from edge.control.slots import Hooks, Slot
from edge.control.worker_process import ProcessChild, spawn_process
from edge.control.workers import Workers
from edge.frames import Frame, FrameKind

TOML = """
listen = { http = ["127.0.0.1:@HTTP@"], workers = 2 }
admin = { listen = "127.0.0.1:@ADMIN@", token_file = "@STATE@/admin.token" }
state = { path = "@STATE@" }
log = { access = "off" }
pools.web.backends = [{ url = "http://127.0.0.1:9" }]
routes = [{ pool = "web" }]
"""


def test_they_become_the_workers(tmp_path: Path) -> None:
    gateway = GatewayProcess.start(TOML, tmp_path)
    try:
        workers = [pid for pid in gateway.children if b"cli.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)  # replaced as any other
        gateway.wait_ready(lambda: gateway.log().count("worker.ready") == 3)
    finally:
        assert gateway.stop() == 0


def children(pid: int) -> list[int]:
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


def test_one_begins_before_anything_is_known(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gateway.toml")  # whoever reads the configuration waits
    with subprocess.Popen(
        [sys.executable, "-m", "edge.cli.begin", "run", "-c", str(tmp_path / "gateway.toml")],
        *(), cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(ROOT)), stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        with (tmp_path / "gateway.toml").open("w") as pipe:  # it is read now
            (early,) = children(process.pid)
            assert b"edge.cli.worker" in Path(f"/proc/{early}/cmdline").read_bytes()
            pipe.write("nonsense")
        assert "not valid TOML" in process.communicate()[1]
    assert (process.returncode, in_session(process.pid)) == (1, [])


@pytest.mark.parametrize("module", ["edge.cli.begin", "edge.cli.main"])
@pytest.mark.parametrize("what", ["in use", "warnings", "bad file"])
def test_a_start_that_fails_leaves_none(tmp_path: Path, what: str, module: str) -> None:
    http, admin = free_ports(2)
    text = TOML.replace("@HTTP@", str(http)).replace("@ADMIN@", str(admin)).replace("@STATE@", str(tmp_path / "state"))
    if what == "bad file":
        text = text.replace("workers = 2", 'workers = 2, backlog = "x"')
    (tmp_path / "gateway.toml").write_text(text)
    with socket.socket() as taken:
        if what == "in use":
            taken.bind((LOOPBACK, http))
            taken.listen()
        if what == "warnings":
            (tmp_path / "state").write_text("no directory")
        with subprocess.Popen(
            [sys.executable, "-m", module, "run", "-c", str(tmp_path / "gateway.toml")],
            *(), cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(ROOT)), stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            said = process.communicate()[1]  # to its end: nobody else holds it any more
        assert process.returncode == 1
    assert "Traceback" not in said and said.strip()
    assert in_session(process.pid) == []


def test_one_that_is_told_nothing_ends_with_its_supervisor() -> None:
    (early,) = start_early(1)
    early.link.close()

    async def ends() -> int:
        return await asyncio.wait_for(early.wait(), WAIT_S)

    assert asyncio.run(ends()) == 1
    early.channel.close()


def test_ctrl_c_does_not_reach_one_that_is_still_reading() -> None:
    (early,) = start_early(1)
    early.send_signal(signal.SIGINT)

    async def answers() -> int:
        taken = [early]
        child = await spawn_process(0, taken)
        assert isinstance(child, ProcessChild) and taken == []
        child.link.send(Frame(FrameKind.DRAIN, {}))  # a first frame that says nothing to serve
        return await asyncio.wait_for(child.wait(), WAIT_S)

    assert asyncio.run(answers()) == 1  # it lived on, and ended over what it was told
    end_early([])


async def test_one_that_died_before_it_was_taken_is_replaced() -> None:
    early, spare, told = start_early(1), socket.socket(), []
    dead = early[0]
    os.kill(dead.pid, signal.SIGKILL)
    await until(lambda: Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")

    def first(slot: Slot) -> tuple[Frame, list[socket.socket]]:
        return Frame(FrameKind.DRAIN, {}), [spare]

    def event(kind: str, facts: dict[str, Any]) -> None:
        told.append((kind, facts["code"]))

    workers = Workers(lambda index: spawn_process(index, early), 1, Hooks(first, lambda index, frame: None, event))
    workers.start()
    try:
        await until(lambda: len(told) > 1)
        assert told[:2] == [("worker.died", -signal.SIGKILL), ("worker.died", 1)]  # the next one, over what it was told
    finally:
        await workers.kill()
        spare.close()


def test_ending_them_leaves_no_process() -> None:
    early = start_early(2)
    end_early(early)
    for each in early:
        assert isinstance(each, EarlyWorker) and not Path(f"/proc/{each.pid}").exists()


def test_a_signal_to_the_whole_group_ends_each_worker_once(tmp_path: Path) -> None:
    """As a service manager stops one, or a terminal: the worker hears of it twice, from outside and over its link."""
    toml = TOML + 'cache = { disk = { path = "@STATE@/cache", size = "64MiB" } }\n'
    gateway = GatewayProcess.start(toml, tmp_path)
    try:
        os.killpg(gateway.pid, signal.SIGTERM)
        assert gateway.wait() == 0
        assert "Traceback" not in gateway.log()
    finally:
        gateway.kill()


def test_a_worker_that_is_ended_twice_closes_its_tier_once(tmp_path: Path) -> None:
    toml = TOML.replace("@HTTP@", "1").replace("@ADMIN@", "2").replace("@STATE@", str(tmp_path))
    closed = []

    async def scene() -> None:
        worker = build(load_text(toml + f'cache = {{ disk = {{ path = "{tmp_path}/cache", size = "64MiB" }} }}\n', "t"))
        assert worker.store is not None and worker.store.disk is not None
        plain = worker.store.disk.close

        def counted() -> None:
            closed.append(1)
            plain()

        worker.store.disk.close = counted  # type: ignore[method-assign]
        await asyncio.gather(worker.close(), worker.close())
        await worker.close()

    asyncio.run(scene())
    assert closed == [1]
