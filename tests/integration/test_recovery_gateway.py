"""Recovery of a whole gateway: processes, schedule, admin API, commands, disaster, drill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.ports import LOOPBACK
from kit.processes import ROOT, Process, run_edge
from kit.repository import BUCKET, S3Server
from kit.threaded import QuietHandler, ThreadedServer
from kit.waiting import until_blocking
from recovery_site import Site, first_point


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, f"file:{tmp_path}/points")
    yield found
    if found.gateway is not None:
        found.gateway.kill()


def test_a_lost_machine_comes_back_as_it_was(site: Site) -> None:
    site.start()
    assert first_point(site)["kind"] == "full"
    site.edge("region", "drain", "eu")
    site.edge("backend", "add", "web", "http://127.0.0.3:9", "--region", "us")
    site.edge("purge", "--url", "http://www.example.com/gone")
    site.edge("purge", "--prefix", "www.example.com/old")
    point = site.edge("snapshot", "take", "--kind", "incremental").strip()
    listed = site.points()
    assert listed[0]["id"] == point and listed[0]["needs"] == [listed[1]["id"]]
    before = site.answers()
    epoch = site.api("GET", "/v1/cache")[1]["epoch"]
    site.destroy()
    assert "no journal survived" in site.edge("restore")
    site.start()
    assert site.answers() == before
    assert site.api("GET", "/v1/cache")[1]["epoch"] >= epoch
    audit = site.api("GET", "/v1/audit")[1]["audit"]
    assert [each["action"] for each in audit].count("state.restored") == 1
    newer = until_blocking(lambda: [each for each in site.points() if each["id"] > point])
    assert newer[0]["kind"] == "full" and newer[0]["history"] != listed[0]["history"]


def test_purges_that_survive_are_replayed(site: Site) -> None:
    gateway = site.start()
    first_point(site)
    point = site.edge("snapshot", "take").strip()
    for number in range(3):
        site.edge("purge", "--tag", f"t{number}")
    epoch = site.api("GET", "/v1/cache")[1]["epoch"]
    site.edge("restore", "--point", point, code=1)
    assert "stop it" in site.said
    gateway.kill()
    assert "replayed 3 purges" in site.edge("restore", "--point", point)
    olds = list(site.home.glob("state.before-*"))
    assert len(olds) == 1 and (olds[0] / "state.sqlite").exists()
    site.start()
    assert site.api("GET", "/v1/cache")[1]["epoch"] == epoch


def test_a_drill_proves_a_point_and_a_damaged_one_fails(site: Site) -> None:
    site.start()
    first_point(site)
    site.edge("region", "drain", "eu")
    site.edge("purge", "--url", "http://www.example.com/gone")
    point = site.edge("snapshot", "take").strip()
    found = json.loads(site.edge("drill", "--json"))
    assert found["passed"] and found["point"] == point
    assert [each["step"] for each in found["steps"] if each["ok"]] == [
        *("copy", "data", "restore", "config", "purged", "golden", "served", "boot", "damage"),
    ]
    assert sum("refused" in note for note in found["notes"]) >= 3
    assert found["rto_s"] > 0
    status, again = site.api("POST", f"/v1/snapshots/{point}/drill")
    assert status == 200 and again["passed"]
    assert site.points()[0]["drilled_at"]
    named = json.loads(site.edge("snapshot", "show", point, "--json"))["files"]
    index = site.home / "points" / next(each["name"] for each in named if each["name"].startswith("index/"))
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(data)
    site.edge("drill", "--point", point, code=1)
    assert "its bytes are not those that were written" in site.said
    site.edge("snapshot", "verify", "--read-data", code=1)
    assert site.points()[0]["status"] == "corrupt"
    assert not list(site.state.glob(".drill")), "nothing of a drill is left"


def test_a_drill_passes_for_a_point_that_was_taken_while_a_region_returned(site: Site) -> None:
    site.start()
    first_point(site)
    site.edge("backend", "drain", "web", "127.0.0.1:9")
    until_blocking(lambda: site.api("GET", "/v1/pools")[1]["pools"][0]["regions"]["eu"]["available"] == 0)
    site.edge("backend", "activate", "web", "127.0.0.1:9")
    until_blocking(lambda: site.api("GET", "/v1/regions/eu")[1]["ramping"])
    point = site.edge("snapshot", "take").strip()
    found = json.loads(site.edge("drill", "--json"))
    assert found["passed"] and found["point"] == point


def test_the_admin_api(site: Site) -> None:
    gateway = site.start()
    first_point(site)
    status, taken = site.api("POST", "/v1/snapshots", {"kind": "incremental", "reason": "before the upgrade"})
    assert status == 200 and taken["kind"] == "incremental"
    status, listed = site.api("GET", "/v1/snapshots")
    assert listed["points"][0]["id"] == taken["id"]
    assert site.api("POST", f"/v1/snapshots/{taken['id']}/verify")[1]["ok"] is True
    assert site.api("POST", f"/v1/snapshots/{taken['id']}/hold", {"reason": "court"})[0] == 200
    assert site.points()[0]["hold"] == "court"
    assert site.api("POST", f"/v1/snapshots/{taken['id']}/release")[0] == 200
    assert site.api("POST", "/v1/snapshots/nothing/hold")[0] == 404
    assert site.api("POST", "/v1/snapshots", {"kind": "half"})[0] == 400
    until_blocking(lambda: "edge_recovery_points 2.0" in site.api("GET", "/metrics")[1])
    report = site.api("GET", "/v1/recovery")[1]["report"]
    assert report["points"] == 2 and report["rpo"]["target_s"] == 900.0
    sidecar = next(pid for pid in gateway.children if b"edge.cli.sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(sidecar, signal.SIGKILL)
    until_blocking(lambda: site.api("GET", "/v1/recovery")[1].get("sidecar_restarts") == 1)
    until_blocking(lambda: site.api("GET", "/v1/snapshots")[0] == 200)
    assert gateway.stop() == 0
    assert not Path(f"/proc/{sidecar}").exists()


def test_points_are_taken_by_schedule_and_alert_when_they_cannot_be(tmp_path: Path) -> None:
    site = Site(tmp_path, f"file:{tmp_path}/points", "targets = { rpo = '10s' }", "10s")
    gateway = site.start()
    try:
        first_point(site)
        until_blocking(lambda: len(site.points()) >= 2)
        assert site.points()[0]["kind"] == "incremental"
        (tmp_path / "points").rename(tmp_path / "gone")
        (tmp_path / "points").write_text("no directory")
        site.edge("purge", "--tag", "x")
        until_blocking(lambda: "recovery.failed" in gateway.log())
        until_blocking(lambda: site.api("GET", "/v1/recovery")[1]["failures"] > 0)
        assert site.get("www.example.com", "/a")[0] == 504  # requests are served as before
        until_blocking(lambda: "RPO missed" in gateway.log())
        (tmp_path / "points").unlink()
        (tmp_path / "gone").rename(tmp_path / "points")
        until_blocking(lambda: "recovery.alert_over" in gateway.log())
    finally:
        gateway.kill()


def test_from_an_object_store_encrypted(tmp_path: Path, s3: S3Server) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("5a" * 32 + "\n")
    more = f"endpoint = '{s3.endpoint}'\nencryption_key_file = '{key}'"
    site = Site(tmp_path, f"s3://{BUCKET}/gateway", more)
    try:
        site.start()
        until_blocking(
            lambda: site.api("GET", "/v1/snapshots")[0] == 200 and site.api("GET", "/v1/snapshots")[1]["points"]
        )
        site.edge("region", "drain", "us")
        point = site.edge("snapshot", "take").strip()
        before = site.answers()
        token = (site.state / "admin.token").read_text()
        assert json.loads(site.edge("drill", "--json"))["passed"]
        site.destroy()
        site.edge("restore", "--point", point)
        restored = site.state / "restored" / str(site.state / "admin.token").lstrip("/")
        assert restored.read_text() == token  # it is encrypted: secrets are in the point
        site.start()
        assert site.answers() == before
        key.write_text("00" * 32)
        site.edge("snapshot", "list", code=1)
        assert "the key is not that of" in site.said
    finally:
        if site.gateway is not None:
            site.gateway.kill()


def test_what_goes_wrong_is_one_line_that_says_what_to_do(site: Site) -> None:
    site.start()
    first_point(site)
    for arguments, words in (
        (["snapshot", "show", "nothing"], "snapshot list"),
        (["snapshot", "verify", "nothing"], "snapshot list"),
        (["restore", "--at", "2020-01-01T00:00:00Z", "--to", "there"], "old enough"),
        (["restore", "--to", "points"], "not empty"),
        (["drill", "--point", "nothing"], "snapshot list"),
        (["snapshot", "list", "--repository", "file:nowhere"], "snapshot take"),
        (["snapshot", "list", "--repository", "file:points", "--key-file", "none"], "openssl rand"),
    ):
        site.edge(*arguments, code=1)
        assert words in site.said and site.said.count("\n") == 1, (arguments, site.said)


def test_runbooks_against_a_gateway(site: Site) -> None:
    gateway = site.start()
    first_point(site)
    site.edge("runbook", "run", "lose-a-region", "--set", "region=eu", "--dry-run")
    assert site.answers()["regions"][0]["admin"] == "active"
    site.edge("runbook", "run", "lose-a-region", "--set", "region=eu")
    assert {each["name"]: each["admin"] for each in site.answers()["regions"]} == {"eu": "inactive", "us": "active"}
    actors = {each["actor"] for each in site.api("GET", "/v1/audit")[1]["audit"]}
    assert any("(runbook:lose-a-region-" in actor for actor in actors), actors  # behind the name of the token
    site.edge("runbook", "run", "lose-a-region", "--set", "region=us", code=1)
    waits, failed = site.said.splitlines()
    assert waits.startswith("waiting") and "survives = us" in failed
    good = site.config.read_text()
    gateway.stop()
    site.config.write_text(good + "\nnonsense = [")
    site.edge("runbook", "run", "bad-config", "--dry-run")
    site.edge("runbook", "run", "nothing", code=1)
    assert "known: bad-config, lose-a-region, rebuild-a-machine" in site.said
    running = subprocess.Popen(
        [sys.executable, "-m", "edge.cli.main", "runbook", "run", "bad-config", "-c", str(site.config)],
        *(), cwd=site.home, env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    until_blocking(lambda: site.config.read_text() == good)
    restarted = Process([sys.executable, "-m", "edge.cli.main", "run", "-c", str(site.config)], site.home, "again")
    try:
        assert running.wait() == 0
    finally:
        running.kill()
        restarted.kill()
    assert len(list(site.home.glob("gateway.toml.bad-*"))) == 1


class Pages(QuietHandler):
    """An origin: a page for each path, a 304 for its validator."""

    def do_GET(self) -> None:
        etag = f'"{self.path}"'
        status = 304 if self.headers.get("If-None-Match") == etag else 200
        self.answer(status, {"ETag": etag, "Cache-Control": "max-age=3600"}, self.path.encode() * 400)


@pytest.fixture
def pages() -> Iterator[int]:
    with ThreadedServer(Pages) as server:
        yield server.port


def test_cached_responses_come_back_and_purged_ones_do_not(tmp_path: Path, pages: int) -> None:
    site = Site(tmp_path, f"file:{tmp_path}/points")
    site._toml = site._toml.replace('127.0.0.1:9"', f'127.0.0.1:{pages}"').replace("127.0.0.2:9", f"localhost:{pages}")
    site._toml += '\n[cache]\nmemory = "8MiB"\ndisk = { path = "@STATE@/cache", size = "64MiB" }\n'
    try:
        site.start()
        first_point(site)
        for number in range(20):
            assert site.fetch(f"/{number}")[0] == 200
        assert site.fetch("/3")[1].startswith("edge; hit")
        site.edge("purge", "--url", "http://www.example.com/3")
        point = until_blocking(lambda: site.taken_with(19))
        found = json.loads(site.edge("drill", "--json", "--point", point))
        assert found["passed"], found["problems"]
        site.edge("purge", "--url", "http://www.example.com/4")
        site.destroy()
        restored = json.loads(site.edge("restore", "--point", point, "--json"))
        assert (restored["bodies"], restored["purge_gap"]) == (19, True)
        site.start()
        for number in range(20):
            status, said = site.fetch(f"/{number}")
            assert status == 200 and "hit" not in said  # the origin was asked about every one
            assert ("fwd-status=304" in said) is (number != 3), said
        assert site.fetch("/4")[1].startswith("edge; hit")
    finally:
        if site.gateway is not None:
            site.gateway.kill()


def test_a_gateway_elsewhere_is_asked_by_its_admin_listener(site: Site) -> None:
    gateway = site.start()
    first_point(site)
    elsewhere = site.home / "elsewhere"
    elsewhere.mkdir()
    there = ["--admin", f"{LOOPBACK}:{gateway.admin_port}", "--token-file", str(site.state / "admin.token")]

    def edge(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_edge(*arguments, *there, directory=elsewhere)

    point = edge("snapshot", "take", "--kind", "incremental").stdout.strip()
    assert json.loads(edge("snapshot", "list", "--json").stdout)["points"][0]["id"] == point
    refused = edge("snapshot", "prune")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
