"""The gateway as processes: start, replace a worker, stop, refuse to start, take over from a killed supervisor."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.asking import status_of
from kit.origin import ScriptedOrigin
from kit.ports import free_port
from kit.processes import GatewayProcess, NotReady, Successor, gateway_toml, process_tree, run_edge
from kit.waiting import until_blocking

Start = Callable[[str], GatewayProcess]


def toml(workers: int = 1) -> str:
    """A gateway without a live origin."""
    return gateway_toml(9, limits='shutdown_grace = "2s"').replace("workers = 1", f"workers = {workers}")


def taken_over(gateway: GatewayProcess, worker: int) -> None:
    """Another gateway ends the worker that was left, and serves."""
    successor = Successor(gateway)
    try:
        until_blocking(lambda: not process_tree(worker))
        assert status_of(gateway.http_port) == 502
    finally:
        successor.stop()


def test_a_worker_killed_is_replaced(gateway_process: Start) -> None:
    gateway = gateway_process(toml(2))
    before = gateway.children
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    until_blocking(lambda: len(gateway.children) == 2 and before[0] not in gateway.children)
    until_blocking(lambda: gateway.admin_status("/readyz") == 200)
    assert status_of(gateway.http_port) == 502


@pytest.mark.parametrize("room", ["of the file's own", "none"])
def test_a_worker_is_replaced_where_its_id_cannot_be_written(gateway_process: Start, room: str) -> None:
    """As on a full disk: who serves comes first."""
    gateway = gateway_process(toml(2))
    known = gateway.directory / "state" / "workers.json"
    before = gateway.children
    known.with_suffix(".new").mkdir()
    if room == "none":
        known.unlink()
        known.mkdir()
    os.kill(before[0], signal.SIGKILL)
    until_blocking(lambda: gateway.log().count("worker.ready") == 3)
    until_blocking(lambda: gateway.admin_status("/readyz") == 200)
    assert status_of(gateway.http_port) == 502
    assert ("worker.unrecorded" in gateway.log()) is (room == "none")
    now = gateway.children
    assert (len(now), before[0] in now) == (2, False)
    if room != "none":
        assert sorted(json.loads(known.read_text())) == sorted(now)
    assert gateway.stop() == 0


def test_term_ends_everything_with_zero(gateway_process: Start) -> None:
    gateway = gateway_process(toml(2))
    children = gateway.children
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert not any(process_tree(pid) for pid in children)
    assert gateway.admin_status("/readyz") == 0


def test_hangup_is_survived_and_usr1_reopens_the_log(gateway_process: Start) -> None:
    gateway = gateway_process(toml().replace('access = "off"', 'access = "@STATE@/access.jsonl"'))
    log = gateway.directory / "state" / "access.jsonl"
    status_of(gateway.http_port)
    until_blocking(lambda: log.exists() and log.stat().st_size > 0)
    log.rename(log.with_suffix(".1"))
    gateway.signal(signal.SIGHUP)
    gateway.signal(signal.SIGUSR1)
    until_blocking(log.exists)
    status_of(gateway.http_port, "/after")
    until_blocking(lambda: b"/after" in log.read_bytes())
    assert gateway.running


@pytest.mark.parametrize("which", ["http", "admin"])
def test_an_address_in_use_is_one_clear_line(tmp_path: Path, gateway_process: Start, which: str) -> None:
    first = gateway_process(toml())
    taken = first.http_port if which == "http" else first.admin_port
    text = toml().replace("@HTTP@" if which == "http" else "@ADMIN@", str(taken))
    with pytest.raises(NotReady) as failed:
        GatewayProcess.start(text, tmp_path)
    assert "ended with 1" in str(failed.value)
    assert f"edge: 127.0.0.1:{taken}: cannot listen: Address already in use" in str(failed.value)


def test_a_state_directory_is_for_one_gateway(tmp_path: Path, gateway_process: Start) -> None:
    first = gateway_process(toml())
    with pytest.raises(NotReady, match="another gateway runs with this state directory"):
        GatewayProcess.start(toml().replace("@STATE@", str(first.directory / "state")), tmp_path)


def test_a_broken_certificate_is_told_by_the_start(tmp_path: Path) -> None:
    listener = (
        f'https = [{{ address = "127.0.0.1:{free_port()}", certificates = [{{ cert = "no.pem", key = "no.pem" }}] }}]'
    )
    with pytest.raises(NotReady) as failed:
        GatewayProcess.start(toml().replace("workers = 1", f"workers = 1\n{listener}"), tmp_path)
    told = f"listen.https[0].certificates[0]: certificate {tmp_path}/no.pem: No such file"
    assert told in str(failed.value)


def test_workers_serve_on_without_a_supervisor_and_the_next_one_takes_over(gateway_process: Start) -> None:
    gateway = gateway_process(toml())
    (worker,) = gateway.children
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    assert status_of(gateway.http_port) == 502
    taken_over(gateway, worker)


HOOKS = """
import pathlib, time
if b"edge.cli.worker" in pathlib.Path("/proc/self/cmdline").read_bytes():
    pathlib.Path(__file__).with_name("begun").touch()
    {does}
class Hooks:
    def request(self, request):
        return None
"""


def killed(gateway: GatewayProcess, does: str) -> int:
    """Its worker, which serves on without its supervisor; the file then has a hook at which its next worker does so."""
    (worker,) = gateway.children
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    (gateway.directory / "own.py").write_text(HOOKS.format(does=does))
    text = f'python_path = ["{gateway.directory}"]\n{toml()}'.replace("cache = false", 'hooks = ["own:Hooks"]')
    gateway.rewrite(text)
    return worker


def test_a_start_that_fails_leaves_the_workers_to_the_next_one(gateway_process: Start) -> None:
    gateway = gateway_process(toml())
    worker = killed(gateway, "raise RuntimeError('no')")
    failed = Successor(gateway, ready=False)
    assert failed.wait() == 1
    assert (gateway.directory / "begun").exists()
    assert status_of(gateway.http_port) == 502, "it serves on"
    gateway.rewrite(toml())
    taken_over(gateway, worker)


def test_who_is_told_to_stop_while_it_starts_ends_the_workers_of_the_one_before(gateway_process: Start) -> None:
    gateway = gateway_process(toml())
    worker = killed(gateway, "time.sleep(3600)")
    starting = Successor(gateway, ready=False)
    until_blocking((gateway.directory / "begun").exists)
    starting.signal(signal.SIGTERM)
    starting.wait()
    until_blocking(lambda: not process_tree(worker))
    assert status_of(gateway.http_port) == 0


def test_changes_survive_kill_and_restart(gateway_process: Start) -> None:
    text = toml() + "[regions.eu]\n[regions.us]\ntier = 1\n"
    text = text.replace("[[pools.origin.backends]]", '[[pools.origin.backends]]\nregion = "eu"')
    gateway = gateway_process(text)
    where = ("-c", str(gateway.config))
    here = gateway.directory
    added = run_edge("backend", "add", "origin", "http://127.0.0.1:19", "--region", "us", *where, directory=here)
    assert added.returncode == 0, added.stderr
    assert run_edge("region", "drain", "eu", "--reason", "test", *where, directory=here).returncode == 0
    gateway.kill()
    again = Successor(gateway)
    try:
        listed = json.loads(run_edge("region", "list", "--json", *where, directory=here).stdout)
        states = {region["name"]: (region["admin"], region["source"]) for region in listed["regions"]}
        assert states == {"eu": ("draining", "file"), "us": ("active", "file")}
        pools = json.loads(run_edge("backend", "list", "--json", *where, directory=here).stdout)
        sources = [backend["source"] for backend in pools["pools"][0]["backends"]]
        assert sources == ["file", "runtime"]
    finally:
        again.stop()


def test_the_token_is_its_owners_alone(gateway_process: Start) -> None:
    gateway = gateway_process(toml())
    token = gateway.directory / "state" / "admin.token"
    assert token.stat().st_mode & 0o777 == 0o600
    where = ("--admin", f"127.0.0.1:{gateway.admin_port}")
    refused = run_edge("status", *where, "--token-file", str(gateway.config), directory=gateway.directory)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


async def test_the_demo_starts_answers_and_ends(tmp_path: Path, origin: ScriptedOrigin) -> None:
    """Only what needs no fixed port: the demo's own ports are often in use where tests run."""
    from edge.cli.demo import Origins, busy, demo_toml

    assert busy((f"127.0.0.1:{origin.port}",)) == f"127.0.0.1:{origin.port}"
    origins = Origins()
    try:
        origins.start()
        ports = [port for found in origins.ports.values() for port in found]
        assert [status_of(port, "/healthz") for port in ports] == [200] * 4
        path = tmp_path / "demo.toml"
        path.write_text(demo_toml(origins.ports, tmp_path))
        assert "edge-country.mmdb" in path.read_text()
        checked = run_edge("check", "-c", str(path), directory=tmp_path)
        assert (checked.returncode, checked.stderr) == (0, "")  # a newcomer's first file has no warning either
    finally:
        origins.stop()
    assert [status_of(port) for port in ports] == [0] * 4
