"""What rules of a route cost: `python -m bench.rules [PART …] [--rounds 4] [--seconds 1]`, about 110 s.

    requests    CPU of requests (75 s): a header field set and one removed; credentials that are known; 100 KiB of HTML
                compressed each time, beside nginx's gzip of the same at two levels; hits of 10 KiB of HTML
    turns       how long compressing a large page holds the loop (`rules_inside`)
    limits      a decision of a rate limit that knows 1,000,000 clients, and their memory (`rules_inside`)

One nginx is the origin, another the peer; each has one worker, as the gateway has. What a coding costs is the CPU of a
coded answer less that of the same answer forwarded plain, on either side. Rounds are interleaved, figures are medians.

One rule: each row names its bound, and compares figures of this run alone.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import bcrypt

from bench.measure import cpu_seconds
from bench.origin import user_line
from bench.processes import LOOPBACK, Refused, Running, as_command, free_ports, program
from bench.rules_inside import Row, limit_rows, turn_rows

CORE, LOAD_CORE = 0, 1
PAGE_BYTES = 100 * 1024
GATEWAY = """
[listen]
http = ["127.0.0.1:{port}"]
workers = 1
[admin]
listen = "127.0.0.1:{admin}"
[state]
path = "state"
[log]
access = "access.log"
[pools.web]
backends = [{{ url = "http://127.0.0.1:{origin}" }}]
[[routes]]
pool = "web"
cache = false
[[routes]]
host = "request"
pool = "web"
cache = false
request_headers = {{ set = {{ X-A = "1" }}, remove = ["X-B"] }}
[[routes]]
host = "response"
pool = "web"
cache = false
response_headers = {{ set = {{ X-A = "1" }}, remove = ["Server"] }}
[[routes]]
host = "known"
pool = "web"
cache = false
auth = {{ basic = "htpasswd" }}
[[routes]]
host = "coded"
pool = "web"
cache = false
compress = true
[[routes]]
host = "hits"
pool = "web"
cache = {{ default_ttl = "1h" }}
[[routes]]
host = "stored"
pool = "web"
compress = true
cache = {{ default_ttl = "1h" }}
"""
NGINX = """
{user} worker_processes 1; daemon off; pid {name}.pid; error_log {name}.err;
events {{ worker_connections 1024; }}
http {{
  access_log {name}.log combined buffer=64k;
  types {{ text/html html; }} default_type application/octet-stream; keepalive_requests 1000000;
  client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 32; keepalive_requests 1000000; }}
  {servers}
}}
"""
PROXY = """server {{ listen 127.0.0.1:{port}; {gzip}
  location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; {plain} }} }}"""


class Way(NamedTuple):
    """One thing to measure: whose, where, with which fields."""

    pid: int
    port: int
    host: str
    path: str
    fields: tuple[str, ...] = ()


class Started(NamedTuple):
    """What runs: the origin's port, and what is measured, by name."""

    origin: int
    ways: dict[str, Way]


def page(size_bytes: int = PAGE_BYTES) -> bytes:
    """HTML as people write it: few tags, words by their frequency."""
    chance = random.Random(1)
    words = ["".join(random.Random(n).choices("etaoinshrdlu", k=2 + n % 9)) for n in range(900)]
    weights = [1 / (n + 1) for n in range(len(words))]
    out = ["<!doctype html><html><body>"]
    size = 0
    while size < size_bytes:
        text = " ".join(chance.choices(words, weights, k=40))
        out.append(f'<div class="post" id="p{size}"><h2>{text[:40]}</h2><p>{text}</p></div>\n')
        size += len(out[-1])
    return "".join(out).encode()[:size_bytes]


def start(stack: ExitStack, folder: Path) -> Started:
    """Origin, peer and gateway."""
    nginx = program("nginx")
    if nginx is None or program("wrk") is None:
        raise Refused("this needs nginx and wrk: apt-get install nginx-light wrk")
    origin, *ports, port, admin = free_ports(6)
    (folder / "www").mkdir()
    for name, body in (("small", b"x" * 1024), *((f"{path}.html", page(size)) for path, size in PAGES.items())):
        (folder / "www" / name).write_bytes(body)
    (folder / "htpasswd").write_bytes(b"alice:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(5)) + b"\n")
    fixed = f"server {{ listen 127.0.0.1:{origin}; root {folder}/www; }}"
    # Without the client's Accept-Encoding: the origin is to send plain pages.
    plain = 'proxy_set_header Accept-Encoding "";'
    gzips = ["", *(f"gzip on; gzip_proxied any; gzip_comp_level {level};" for level in (1, 6))]
    peers = "\n".join(PROXY.format(port=each, gzip=gzip, plain=plain) for each, gzip in zip(ports, gzips, strict=True))
    (folder / "t").mkdir()
    for name, servers in (("origin", fixed), ("peer", peers)):
        (folder / f"{name}.conf").write_text(
            NGINX.format(name=f"{folder}/{name}", origin=origin, servers=servers, user=user_line())
        )
    (folder / "edge.toml").write_text(GATEWAY.format(port=port, admin=admin, origin=origin))

    def run(name: str, command: list[str], core: int, at: int) -> int:
        return stack.enter_context(Running(name, command, folder, core)).wait_for(at, "/small").pid

    run("origin", [nginx, "-p", str(folder), "-c", "origin.conf"], LOAD_CORE, origin)
    peer = run("peer", [nginx, "-p", str(folder), "-c", "peer.conf"], CORE, ports[0])
    gateway = run("gateway", [sys.executable, "-m", "edge.cli.main", "run", "-c", "edge.toml"], CORE, port)
    found = {f"edge {host}": Way(gateway, port, host, "/small") for host in ("plain", "request", "response")}
    found |= {
        f"edge {name}": Way(gateway, port, host, "/small", MEMBER) for name, host in (("sent", "x"), ("known", "known"))
    }
    found |= {f"edge {name}": Way(gateway, port, "coded", "/page.html", accepts(name)) for name in ("none", *CODINGS)}
    found |= {
        f"stored {name}": Way(gateway, port, "hits" if name == "none" else "stored", "/ten.html", accepts(name))
        for name in STORED
    }
    found |= {
        f"nginx {name}": Way(peer, each, "a", "/page.html", accepts("gzip"))
        for name, each in zip(("none", "gzip 1", "gzip 6"), ports, strict=True)
    }
    return Started(origin, found)


CODINGS = ("zstd", "br", "gzip")
STORED = ("none", "zstd", "br")
PAGES = {"ten": 10 * 1024, "page": PAGE_BYTES, "sixty": 60 * 1024, "large": 4 * 1024 * 1024}
MEMBER = ("Authorization: Basic YWxpY2U6c2VjcmV0",)


def accepts(coding: str) -> tuple[str, ...]:
    """The field for a coding."""
    return () if coding == "none" else (f"Accept-Encoding: {coding}",)


def measure(way: Way, seconds: int) -> float:
    """CPU of one request in microseconds."""
    fields = [word for line in way.fields for word in ("-H", line)]
    before = cpu_seconds(way.pid)
    done = subprocess.run(
        [
            *("taskset", "-c", str(LOAD_CORE), program("wrk") or "wrk", "-t1", "-c16", f"-d{seconds}s", *fields),
            *("-H", f"Host: {way.host}", "-H", "X-B: 1", f"http://{LOOPBACK}:{way.port}{way.path}"),
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=True,
    ).stdout
    spent = cpu_seconds(way.pid) - before
    count = re.search(r"([0-9]+) requests in", done)
    if count is None or "Non-2xx" in done or "Socket errors" in done:
        raise Refused(f"the load failed: {done.strip()}")
    return spent / int(count[1]) * 1e6


def rows(costs: dict[str, float]) -> list[Row]:
    """What is told: a name, its figure, its bound."""
    plain = costs["edge plain"]
    found = [("forward 1 KiB, no rules", f"{plain:.1f} µs", "")]
    for side in ("request", "response"):
        more = costs[f"edge {side}"] - plain
        found.append((f"one {side} field set, one removed", f"{more:+.1f} µs", "≤ 1 µs more"))
    known = costs["edge known"] - costs["edge sent"]
    found.append(("basic auth, known credentials", f"{known:+.1f} µs", "≤ 2 µs more"))
    found += [
        (
            f"hit of 10 KiB HTML, {name if name != 'none' else 'as it came'}",
            f"{costs[f'stored {name}']:.1f} µs",
            "as any hit",
        )
        for name in STORED
    ]
    peer = {name: costs[f"nginx {name}"] - costs["nginx none"] for name in ("gzip 1", "gzip 6")}
    found += [(f"nginx {name}, 100 KiB HTML", f"{cost:.0f} µs", "") for name, cost in peer.items()]
    for coding in CODINGS:
        cost = costs[f"edge {coding}"] - costs["edge none"]
        times = " and ".join(f"{cost / base:.2f}" for base in peer.values())
        found.append((f"{coding}, 100 KiB HTML", f"{cost:.0f} µs, {times} × nginx", "≤ 1.0 × nginx's gzip"))
    return found


PARTS = ("requests", "turns", "limits")


def told(given: argparse.Namespace) -> Iterator[Row]:
    """The rows of the parts that are asked for, each part when it is done."""
    parts = given.parts or PARTS
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        started = start(stack, Path(folder))
        if "requests" in parts:
            found: dict[str, list[float]] = defaultdict(list)
            for _ in range(given.rounds):
                for name, way in started.ways.items():
                    found[name].append(measure(way, given.seconds))
            yield from rows({name: statistics.median(each) for name, each in found.items()})
        if "turns" in parts:
            yield from turn_rows(started.origin, {"4 MiB HTML": "/large.html", "60 KiB HTML": "/sixty.html"})
        if "limits" in parts:
            yield from limit_rows()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=1)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for row in told(given):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    as_command(main)
