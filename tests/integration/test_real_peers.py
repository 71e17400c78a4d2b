"""The gateway between real parts: nginx as the origin, Chromium and curl as clients.

One rule: a missing part fails here; `.ci/run` installs them. Nothing is faked and nothing is skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.nginx import NginxProcess
from kit.processes import GatewayProcess, patient
from kit.waiting import WAIT_S

PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>site</title>
<link rel="stylesheet" href="/style.css"><script src="/app.js" defer></script></head>
<body><h1 id="t">before</h1><img src="/one.svg" alt="one"><img src="/two.svg" alt="two"></body></html>"""
FILES = {
    "index.html": PAGE,
    "style.css": "h1 { color: rgb(1, 2, 3) }",
    "app.js": "document.getElementById('t').textContent = 'set by script ' + document.images.length",
    "one.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
    "two.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>',
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[NginxProcess]:
    root = tmp_path / "www"
    root.mkdir()
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "large.bin").write_bytes(bytes(range(256)) * 4096)
    started = NginxProcess.site(root, tmp_path)
    yield started
    started.stop()


@pytest.fixture
def gateway(site: NginxProcess, tmp_path: Path) -> Iterator[GatewayProcess]:
    directory = tmp_path / "gateway"
    directory.mkdir()
    started = GatewayProcess.start(
        f"""
        [listen]
        http = ["127.0.0.1:@HTTP@"]
        [admin]
        listen = "127.0.0.1:@ADMIN@"
        token_file = "@STATE@/token"
        [state]
        path = "@STATE@"
        [log]
        access = "@STATE@/access.jsonl"
        [pools.site]
        health = {{ path = "/index.html", interval = "10s", timeout = "9s" }}
        {patient("")}
        [[pools.site.backends]]
        url = "http://127.0.0.1:{site.http_port}"
        [[routes]]
        pool = "site"
        """,
        directory,
    )
    yield started
    started.stop()


def chromium(url: str, profile: Path) -> str:
    """The page as Chromium renders it, with an empty profile: no browser cache helps."""
    binary = shutil.which("chromium")
    assert binary, "chromium is needed for this test"
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    also = f"--disable-component-update --disable-sync --user-data-dir={profile} --virtual-time-budget=8000 --dump-dom"
    command = [binary, *flags.split(), *also.split(), url]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout


def lines(gateway: GatewayProcess) -> list[dict[str, object]]:
    log = gateway.directory / "state" / "access.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_chromium_loads_a_site_twice_and_the_second_load_is_all_hits(gateway: GatewayProcess, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{gateway.http_port}/index.html"
    wanted = {f"/{name}" for name in FILES}
    for number in (1, 2):
        page = chromium(url, tmp_path / f"profile-{number}")
        assert "set by script 2" in page, "the script ran and both images were there"
    gateway.stop()  # the drain writes the rest of the log
    seen = [entry for entry in lines(gateway) if entry["target"] in wanted]
    first, second = seen[: len(wanted)], seen[len(wanted) :]
    assert {entry["target"] for entry in first} == {entry["target"] for entry in second} == wanted
    assert {entry["verdict"] for entry in first} == {"miss"}
    assert {entry["verdict"] for entry in second} == {"hit"}


def curl(url: str, *arguments: str) -> tuple[int, bytes, bytes]:
    """Status, raw head and body of one answer."""
    raw = subprocess.run(["curl", "-s", "-i", *arguments, url], capture_output=True, timeout=WAIT_S, check=True).stdout
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), head, body


@pytest.mark.parametrize(
    "asked", ["X: y", "Range: bytes=1000-1999", "Range: bytes=-5", "Range: bytes=99999999-", "If-None-Match: *"]
)
def test_a_hit_answers_as_nginx_would(gateway: GatewayProcess, site: NginxProcess, asked: str) -> None:
    ours, theirs = (f"http://127.0.0.1:{port}/large.bin" for port in (gateway.http_port, site.http_port))
    assert b"stored" in curl(ours)[1]
    status, head, body = curl(ours, "-H", asked)
    nginx_status, _, nginx_body = curl(theirs, "-H", asked)
    assert b"Cache-Status: edge; hit" in head
    assert status == nginx_status
    assert body == nginx_body or status == 416


def test_a_wish_for_something_newer_is_validated_with_nginx(gateway: GatewayProcess) -> None:
    url = f"http://127.0.0.1:{gateway.http_port}/large.bin"
    curl(url)
    status, head, body = curl(url, "-H", "Cache-Control: no-cache")
    assert status == 200
    assert len(body) == 1024 * 1024
    assert b"fwd-status=304" in head
