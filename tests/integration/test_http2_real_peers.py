"""HTTP/2 with real clients: curl, nghttp and h2load (nghttp2), Chromium; nginx is the origin.

One rule: a missing part fails here; `.ci/run` installs them. Which protocol was spoken is read from the gateway's log.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from kit.nginx import NginxProcess
from kit.ports import free_port
from kit.processes import GatewayProcess
from kit.waiting import until_blocking

PAGE = """<!doctype html><html><head><meta charset="utf-8"><link rel="stylesheet" href="/style.css">
<script src="/app.js" defer></script></head><body><h1 id="t">before</h1><img src="/one.svg" alt="one"></body></html>"""
FILES = {
    "index.html": PAGE,
    "style.css": "h1 { color: rgb(1, 2, 3) }",
    "app.js": "document.getElementById('t').textContent = 'set by script ' + document.images.length",
    "one.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
}


class Served(GatewayProcess):
    """A gateway with a TLS listener."""

    https_port = 0
    authority = Path()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Served]:
    root = tmp_path / "www"
    root.mkdir()
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "large.bin").write_bytes(bytes(range(256)) * 4096)
    site = NginxProcess.site(root, tmp_path)
    directory = tmp_path / "gateway"
    directory.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert = authority.issue_cert("localhost", "127.0.0.1")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    cert.private_key_pem.write_to_path(tmp_path / "k.pem")
    port = free_port()
    started = Served.start(
        f"""
        [listen]
        http = ["127.0.0.1:@HTTP@"]
        h2c = true
        [[listen.https]]
        address = "127.0.0.1:{port}"
        certificates = [{{ cert = "{tmp_path}/c.pem", key = "{tmp_path}/k.pem" }}]
        [admin]
        listen = "127.0.0.1:@ADMIN@"
        token_file = "@STATE@/token"
        metrics_open = true
        [state]
        path = "@STATE@"
        [log]
        access = "@STATE@/access.log"
        format = "combined"
        [pools.site]
        [[pools.site.backends]]
        url = "http://127.0.0.1:{site.http_port}"
        [[routes]]
        pool = "site"
        """,
        directory,
    )
    assert isinstance(started, Served)
    started.https_port, started.authority = port, tmp_path / "ca.pem"
    yield started
    started.stop()
    site.stop()


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, errors="replace")
    return done.stdout + done.stderr


def log(gateway: Served) -> list[str]:
    """The access log, whole: the drain writes the rest of it."""
    gateway.stop()
    return (gateway.directory / "state" / "access.log").read_text().splitlines()


def test_curl_over_tls_and_in_the_clear(gateway: Served) -> None:
    ca = ("--cacert", str(gateway.authority))
    form = ("-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code} %{size_download}\n")
    url = f"https://localhost:{gateway.https_port}/large.bin"
    for _ in range(2):  # a miss, a hit
        assert said("curl", *form, *ca, "--http2", url) == "2 200 1048576\n"
    assert said("curl", *form, *ca, "--http1.1", url) == "1.1 200 1048576\n"
    clear = f"http://127.0.0.1:{gateway.http_port}/index.html"
    assert said("curl", *form, "--http2-prior-knowledge", clear) == f"2 200 {len(PAGE)}\n"
    assert said("curl", *form, "--http2", clear) == f"1.1 200 {len(PAGE)}\n"  # an upgrade to h2c is not taken
    many = [f"https://localhost:{gateway.https_port}/{name}" for name in FILES] * 5
    found = said(
        "curl", "--parallel", *form, *ca, "--http2", *[word for each in many for word in ("-o", "/dev/null", each)]
    )
    assert found.count("2 200 ") == len(many)
    versions = {line.split('"')[1].rpartition(" ")[2] for line in log(gateway)}
    assert versions == {"HTTP/1.1", "HTTP/2.0"}


def test_nghttp_finds_nothing_wrong(gateway: Served) -> None:
    url = f"https://127.0.0.1:{gateway.https_port}"
    found = said("nghttp", "-nv", f"{url}/large.bin", f"{url}/index.html", f"{url}/style.css")
    assert "The negotiated protocol: h2" in found
    assert len(re.findall(r":status: 200", found)) == 3
    assert not re.findall(r"recv RST_STREAM|error_code=(?!NO_ERROR)", found)
    upload = said("nghttp", "-nv", "-d", "/dev/null", f"{url}/index.html")
    assert ":status: 405" in upload  # nginx serves files


def test_h2load_has_no_errors(gateway: Served) -> None:
    for protocol in ("--h1", "-m10"):
        found = said("h2load", "-t1", "-n2000", "-c20", protocol, f"https://127.0.0.1:{gateway.https_port}/index.html")
        assert "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout" in found
    url = f"http://127.0.0.1:{gateway.admin_port}/metrics"
    until_blocking(lambda: "edge_http2_streams_total 2000\n" in said("curl", "-s", url))  # workers report each second
    metrics = said("curl", "-s", url)
    assert "edge_http2_connections_total 20\n" in metrics
    assert "edge_http2_connection_errors_total{" not in metrics


def test_chromium_speaks_http2(gateway: Served, tmp_path: Path) -> None:
    binary = shutil.which("chromium")
    assert binary, "chromium is needed for this test"
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    also = f"--ignore-certificate-errors --user-data-dir={tmp_path}/profile --virtual-time-budget=8000 --dump-dom"
    page = said(binary, *flags.split(), *also.split(), f"https://localhost:{gateway.https_port}/index.html")
    assert "set by script 1" in page
    asked = [line.split('"')[1] for line in log(gateway)]
    assert {f"GET /{name} HTTP/2.0" for name in FILES} <= set(asked)
