"""The proxies: how each is configured and started, with one worker or thread.

All know the same paths: /f/ forwards, /c/ and /k/ cache, /u/ would cache (the gateway and Varnish) or forwards what may
not be stored, /big/ streams to the sink, /sf/ and /s/ forward and cache before the slow origin.
One rule: each is set up as an operator would for this work, with limits that a benchmark would only
stumble over (requests per kept connection) lifted for all.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.cases import GATEWAY
from bench.origin import user_line
from bench.processes import LOOPBACK, Refused, Running, program


@dataclass(frozen=True, slots=True)
class Site:
    """Where one peer lives: its directory, its port, a spare port, and the ports of what is behind it."""

    directory: Path
    port: int
    spare_port: int
    files: int
    slow: int
    sink: int
    tls_port: int  # of those that speak TLS here (SPEAK_TLS)
    secrets: Path  # where the run's certificate and key are


NGINX = """
{user} worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err crit;
events {{ worker_connections 8192; }}
http {{
  sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 300s; client_max_body_size 0;
  access_log {dir}/access.log combined buffer=64k flush=1s;
  proxy_cache_path {dir}/cache levels=1:2 keys_zone=store:32m max_size=1g inactive=1d;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  upstream files {{ server 127.0.0.1:{files}; keepalive 128; keepalive_requests 1000000000; }}
  upstream slow {{ server 127.0.0.1:{slow}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.1:{tls} ssl http2 backlog=4096;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {secrets}/cert.pem; ssl_certificate_key {secrets}/key.pem;
    http2_max_concurrent_streams 128;
    location /f/ {{ proxy_pass http://files; }}
    location /u/ {{ proxy_pass http://files; }}
    location /k/ {{ proxy_pass http://files; proxy_cache store; proxy_cache_lock on; }}
    location /c/ {{ proxy_pass http://files; proxy_cache store; proxy_cache_lock on; }}
    location /sf/ {{ proxy_pass http://slow; }}
    location /s/ {{ proxy_pass http://slow; proxy_cache store; proxy_cache_lock on; }}
    location /big/ {{ proxy_pass http://127.0.0.1:{sink}; proxy_buffering off; proxy_request_buffering off; }}
  }}
  server {{
    listen 127.0.0.1:{tls} ssl http2;
    server_name rsa.test;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {secrets}/rsa-cert.pem; ssl_certificate_key {secrets}/rsa-key.pem;
    location /c/ {{ proxy_pass http://files; proxy_cache store; proxy_cache_lock on; }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  http-reuse always
  option forwardfor
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
cache store
  total-max-size 512
  max-object-size 200000
  max-age 86400
frontend front
  bind 127.0.0.1:{port} backlog 4096
  bind 127.0.0.1:{tls} ssl crt {secrets}/both.pem crt {secrets}/rsa-both.pem alpn h2,http/1.1 backlog 4096
  use_backend files-cached if {{ path_beg /c/ }}
  use_backend files-cached if {{ path_beg /k/ }}
  use_backend slow-cached if {{ path_beg /s/ }}
  use_backend slow if {{ path_beg /sf/ }}
  use_backend sink if {{ path_beg /big/ }}
  default_backend files
backend files
  server origin 127.0.0.1:{files}
backend files-cached
  http-request cache-use store
  http-response cache-store store
  server origin 127.0.0.1:{files}
backend slow
  server origin 127.0.0.1:{slow}
backend slow-cached
  http-request cache-use store
  http-response cache-store store
  server origin 127.0.0.1:{slow}
backend sink
  server origin 127.0.0.1:{sink}
"""

VARNISH = """
vcl 4.1;
backend files {{ .host = "127.0.0.1"; .port = "{files}"; }}
backend slow {{ .host = "127.0.0.1"; .port = "{slow}"; }}
backend sink {{ .host = "127.0.0.1"; .port = "{sink}"; }}
sub vcl_recv {{
  set req.backend_hint = files;
  if (req.url ~ "^/sf?/") {{ set req.backend_hint = slow; }}
  if (req.url ~ "^/big/") {{ set req.backend_hint = sink; }}
  if (req.url ~ "^/(f|sf|big)/") {{ return (pass); }}
}}
"""

EDGE = """
[listen]
http = ["127.0.0.1:{port}"]
workers = 1
http2 = {{ requests = 1000000000 }}
[[listen.https]]
address = "127.0.0.1:{tls}"
certificates = [
  {{ cert = "{secrets}/cert.pem", key = "{secrets}/key.pem" }},
  {{ cert = "{secrets}/rsa-cert.pem", key = "{secrets}/rsa-key.pem" }},
]
[limits]
max_body = "4GiB"
idle_timeout = "5m"
[admin]
listen = "127.0.0.1:{spare}"
token_file = "{dir}/admin.token"
[state]
path = "{dir}/state"
[log]
access = "{dir}/access.jsonl"
"""
TIERS, DISK = "tiers", "disk"  # the gateway with memory and disk; with next to no memory before the disk
MEMOLESS = "memoless"  # its worker without the memory of HPACK blocks (`memoless`)
GATEWAYS = (GATEWAY, TIERS, DISK, MEMOLESS)  # the first is the default one
SPEAK_TLS = (*GATEWAYS, "nginx", "haproxy")
CACHED = ("/u/", "/k/", "/c/", "/s/")
EDGE_POOL = '[pools.{name}]\nejection = false\n[[pools.{name}.backends]]\nurl = "http://127.0.0.1:{port}"\n'
EDGE_ROUTE = '[[routes]]\nhost = "*"\npath = "{path}"\npool = "{pool}"\n{cache}\n'


def _fill(text: str, site: Site) -> str:
    return text.format(
        dir=site.directory, port=site.port, spare=site.spare_port, files=site.files, slow=site.slow, sink=site.sink,
        user=user_line(), tls=site.tls_port, secrets=site.secrets,
    )  # fmt: skip


def _write(site: Site, name: str, text: str) -> str:
    path = site.directory / name
    path.write_text(text)
    return str(path)


def _nginx(site: Site, nginx: str) -> list[str]:
    return [nginx, "-p", str(site.directory), "-c", _write(site, "nginx.conf", _fill(NGINX, site))]


def _haproxy(site: Site, haproxy: str) -> list[str]:
    return [haproxy, "-db", "-f", _write(site, "haproxy.cfg", _fill(HAPROXY, site))]


def _varnish(site: Site, varnishd: str) -> list[str]:
    parameters = {"thread_pools": 1, "thread_pool_min": 200, "thread_pool_max": 2500, "timeout_idle": 300}
    options = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
    return [
        varnishd, "-F", "-j", "none", "-T", "none", "-n", str(site.directory / "varnish"),
        "-a", f"{LOOPBACK}:{site.port}", "-f", _write(site, "bench.vcl", _fill(VARNISH, site)),
        "-s", "malloc,512m", *options,
    ]  # fmt: skip


def _naive(site: Site, python: str) -> list[str]:
    return [python, "-m", "bench.naive", str(site.port), str(site.files), str(site.slow)]


def _gateway(site: Site, python: str, cache: str = "") -> list[str]:
    pools = {"files": site.files, "slow": site.slow, "sink": site.sink}
    routes = dict.fromkeys(("/f/", "/u/", "/k/", "/c/"), "files") | {"/sf/": "slow", "/s/": "slow", "/big/": "sink"}
    text = _fill(EDGE, site) + cache + "".join(EDGE_POOL.format(name=name, port=port) for name, port in pools.items())
    for path, pool in routes.items():
        text += EDGE_ROUTE.format(path=path, pool=pool, cache="" if path in CACHED else "cache = false")
    return [python, "-m", "edge.cli.main", "run", "-c", _write(site, "gateway.toml", text)]


def _memoless(site: Site, python: str) -> list[str]:
    return [python, "-m", "bench.memoless", _gateway(site, python)[-1]]


def _with_disk(memory: str) -> Callable[[Site, str], list[str]]:
    """The gateway with its disk tier, and this much memory before it."""

    def command(site: Site, python: str) -> list[str]:
        disk = f'disk = {{ path = "{site.directory}/tier", size = "1GiB" }}'
        return _gateway(site, python, f'[cache]\nmemory = "{memory}"\n{disk}\n')

    return command


@dataclass(frozen=True, slots=True)
class Peer:
    """`program` is looked for on this machine; `package` is what to install; `version` asks it for its version."""

    name: str
    program: str
    package: str
    command: Callable[[Site, str], list[str]]
    version: tuple[str, ...]

    def path(self) -> str:
        """Its program; `Refused` with what to do when it is missing."""
        if self.name in GATEWAYS and importlib.util.find_spec("edge.cli.main") is None:
            raise Refused(
                "the gateway is missing: edge.cli.main cannot be imported from here (or leave it out with --peers)"
            )
        found = sys.executable if self.program == "python" else program(self.program)
        if found is None:
            raise Refused(f"{self.name} is missing: apt-get install {self.package} (or leave it out with --peers)")
        return found

    def start(self, site: Site, core: int) -> Running:
        """Start it and wait until it forwards."""
        running = Running(self.name, self.command(site, self.path()), site.directory, core)
        try:
            if self.name in GATEWAYS and self.name != MEMOLESS:  # that one has no admin API
                running.wait_for(site.spare_port, "/readyz")
            return running.wait_for(site.port, "/f/1k")
        except BaseException:
            running.stop()
            raise

    def version_line(self) -> str:
        """The first line that it says about its version."""
        command = [self.path(), *self.version]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        lines = (said.stdout + said.stderr).strip().splitlines()
        return lines[0] if lines else "unknown"


_VERSIONS = (
    "import importlib.metadata as m, sys; print(sys.version.split()[0], *(p + ' ' + m.version(p) for p in {!r}))"
)
PEERS = {
    peer.name: peer
    for peer in (
        Peer(GATEWAY, "python", "", _gateway, ("-c", _VERSIONS.format(("uvloop", "aiohttp")))),
        Peer(TIERS, "python", "", _with_disk("256MiB"), ("-c", _VERSIONS.format(("uvloop", "aiohttp")))),
        Peer(DISK, "python", "", _with_disk("1KiB"), ("-c", _VERSIONS.format(("uvloop", "aiohttp")))),
        Peer(MEMOLESS, "python", "", _memoless, ("-c", _VERSIONS.format(("uvloop", "aiohttp")))),
        Peer("nginx", "nginx", "nginx", _nginx, ("-v",)),
        Peer("haproxy", "haproxy", "haproxy", _haproxy, ("-v",)),
        Peer("varnish", "varnishd", "varnish", _varnish, ("-V",)),
        Peer("naive", "python", "", _naive, ("-c", _VERSIONS.format(("aiohttp", "aiocache")))),
    )
}
