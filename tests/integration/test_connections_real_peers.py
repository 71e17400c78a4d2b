"""PROXY headers and Unix sockets with real peers: HAProxy and nginx before the gateway and behind it, curl.

One rule: a missing part fails here; `.ci/run` installs them. Whose a request was is read from the gateway's log,
or from what the peer behind it says.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from kit.haproxy import HaproxyProcess
from kit.nginx import READER, UNIX_FRONT, NginxProcess
from kit.ports import free_port
from kit.processes import GatewayProcess, Process
from kit.waiting import WAIT_S

Start = Callable[[str], GatewayProcess]
CLIENT = "127.0.0.5"  # curl's own address

TEXT = """
[listen]
http = ["127.0.0.1:@HTTP@"]
h2c = true
{listen}
[admin]
listen = "127.0.0.1:@ADMIN@"
token_file = "@STATE@/token"
[state]
path = "@STATE@"
[log]
access = "@STATE@/access.log"
[pools.site]
{pool}
[[routes]]
path = "/fixed"
respond = {{ status = 200, body = "fixed" }}
[[routes]]
pool = "site"
cache = false
"""


def text(listen: str = 'proxy_protocol = ["127.0.0.1"]', url: str = "http://127.0.0.1:9", pool: str = "") -> str:
    return TEXT.format(listen=listen, pool=f'{pool}\nbackends = [{{ url = "{url}" }}]')


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True, errors="replace")
    return done.stdout


def clients(gateway: GatewayProcess) -> list[str]:
    """Whose each request was; the drain writes the rest of the log."""
    gateway.stop()
    lines = (gateway.directory / "state" / "access.log").read_text().splitlines()
    return [json.loads(line)["client"] for line in lines]


@pytest.fixture
def peers() -> Iterator[list[Process]]:
    """Whatever is put in here ends with the test."""
    started: list[Process] = []
    yield started
    for each in started:
        each.stop()


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """The lines of a TLS listener on @PORT@."""
    found = trustme.CA().issue_cert("localhost")
    found.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    found.private_key_pem.write_to_path(tmp_path / "k.pem")
    pair = f'[{{ cert = "{tmp_path / "c.pem"}", key = "{tmp_path / "k.pem"}" }}]'
    return f'proxy_protocol = ["127.0.0.1"]\nhttps = [{{ address = "127.0.0.1:@PORT@", certificates = {pair} }}]'


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"])
def test_haproxy_before_it(
    how: str, certificate: str, gateway_process: Start, peers: list[Process], tmp_path: Path
) -> None:
    secure = free_port()
    gateway = gateway_process(text(certificate.replace("@PORT@", str(secure))))
    here = ("--interface", CLIENT)
    for port, scheme in ((gateway.http_port, "http"), (secure, "https")):
        place = tmp_path / scheme
        place.mkdir()
        proxy = HaproxyProcess.before(f"127.0.0.1:{port} {how} check check-send-proxy", place)
        peers.append(proxy)
        url = f"{scheme}://127.0.0.1:{proxy.http_port}/fixed"
        second = "--http2-prior-knowledge" if scheme == "http" else "--http2"
        assert said("curl", "-sk", *here, "--http1.1", url, url) == "fixedfixed"
        assert said("curl", "-sk", *here, second, url) == "fixed"
    assert clients(gateway) == [CLIENT] * 6, "checks are no requests, and every request is its client's"


def test_curl_sends_one(gateway_process: Start, certificate: str) -> None:
    secure = free_port()
    gateway = gateway_process(text(certificate.replace("@PORT@", str(secure))))
    plain, tls = f"http://127.0.0.1:{gateway.http_port}/fixed", f"https://127.0.0.1:{secure}/fixed"
    assert said("curl", "-s", "--haproxy-protocol", plain) == "fixed"
    assert said("curl", "-sk", "--haproxy-protocol", "--http2", tls) == "fixed"
    assert said("curl", "-s", "--interface", CLIENT, plain) == "fixed", "not listed: without"
    liar = ("--haproxy-protocol", "--interface", CLIENT)
    assert said("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *liar, plain) == "400"
    without = subprocess.run(["curl", "-s", plain], capture_output=True, timeout=WAIT_S)
    assert (without.returncode, without.stdout) == (52, b""), "listed, and silent about it: an empty reply"
    assert [each for each in clients(gateway) if each != CLIENT] == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_peers_behind_it_read_what_it_sends(
    kind: str, version: str, gateway_process: Start, peers: list[Process], tmp_path: Path
) -> None:
    peer = NginxProcess(READER, tmp_path) if kind == "nginx" else HaproxyProcess.behind(tmp_path)
    peers.append(peer)
    pool = f'proxy_protocol = "{version}"\nhealth = {{ path = "/" }}'
    gateway = gateway_process(text("", f"http://127.0.0.1:{peer.http_port}", pool))
    url = f"http://127.0.0.1:{gateway.http_port}/"
    for address in (CLIENT, "127.0.0.6", CLIENT):
        lines = said("curl", "-s", "--interface", address, "-w", " %{local_port}\n", url, url).splitlines()
        assert len(lines) == 2
        for line in lines:
            told, told_port, own_port = line.split()
            assert (told, told_port) == (address, own_port)


def test_nginx_and_curl_by_a_unix_socket(gateway_process: Start, peers: list[Process], tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    listen = 'trusted_proxies = ["unix"]'
    gateway = gateway_process(text(listen).replace('@HTTP@"]', f'@HTTP@", "unix:{path}"]'))
    assert said("curl", "-s", "--unix-socket", str(path), "http://any.example/fixed") == "fixed"
    assert said("curl", "-s", "--http2-prior-knowledge", "--unix-socket", str(path), "http://a/fixed") == "fixed"
    nginx = NginxProcess(UNIX_FRONT, tmp_path, socket=path)
    peers.append(nginx)
    assert said("curl", "-s", "--interface", CLIENT, f"http://127.0.0.1:{nginx.http_port}/fixed") == "fixed"
    place = tmp_path / "haproxy"
    place.mkdir()
    haproxy = HaproxyProcess.before(f"unix@{path}", place)
    peers.append(haproxy)
    assert said("curl", "-s", f"http://127.0.0.1:{haproxy.http_port}/fixed") == "fixed"
    assert clients(gateway) == ["unix", "unix", CLIENT, "unix"]
