"""What applications and hooks cost: `python -m bench.compute [--rounds 3] [--seconds 2]`, about two minutes.

One gateway, one worker, access log on, pinned to one core; wrk, nginx as an origin and the run on the other. The
yardsticks of the same run are the same application served by aiohttp alone (uvloop, no log), and that behind nginx with
both processes counted. Rounds are interleaved, figures are medians of CPU per request.

One rule: each row names its bound, and compares figures of this run alone.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import aiohttp

from bench import origin
from bench.load import Shape, run
from bench.measure import cpu_seconds, resident_bytes
from bench.processes import LOOPBACK, Refused, Running, as_command, free_ports, program

GATEWAY_CORE, LOAD_CORE = 0, 1
MIB = 1024 * 1024
LARGE = 1024 * MIB

SITE = """
import json
from aiohttp import web
from edge.sdk import Changes, edge

TEXT = json.dumps({"text": "x" * 1000})
SAME = Changes(set={"X-From-Hook": "1"})

async def constant(request):
    return web.Response(text=TEXT, content_type="application/json")

async def stored(request):
    return web.Response(text=TEXT, content_type="application/json", headers={"Cache-Control": "max-age=3600"})

async def fetches(request):
    async with await edge().fetch("/stored") as answer:
        return web.Response(body=await answer.read(), content_type="application/json")

async def upload(request):
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
    return web.Response(text=str(size))

async def download(request):
    response = web.StreamResponse()
    response.content_length = 1024 * 1024 * 1024
    await response.prepare(request)
    piece = b"d" * 65536
    for _ in range(16384):
        await response.write(piece)
    return response

def make():
    application = web.Application(client_max_size=0)
    for handler in (constant, stored, fetches, upload, download):
        application.router.add_route("*", "/" + handler.__name__, handler)
    return application

class OnRequest:
    def request(self, head):
        return SAME

class OnResponse:
    def response(self, head):
        return SAME
"""

ALONE = """
import sys, uvloop, asyncio
from aiohttp import web
from site_of_bench import make

async def main():
    runner = web.AppRunner(make(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()

uvloop.run(main())
"""

CONFIG = """
[listen]
http = ["127.0.0.1:{port}"]
[admin]
listen = "127.0.0.1:{admin}"
[limits]
max_body = "2GiB"
[state]
path = "state"
[log]
access = "access.log"
[pools.app]
timeouts = {{ body = "60s" }}
[[pools.app.backends]]
app = "site_of_bench:make"
[pools.origin]
[[pools.origin.backends]]
url = "http://127.0.0.1:{origin}"
[[routes]]
path = "/constant"
pool = "app"
cache = false
[[routes]]
path = "/fetches"
pool = "app"
cache = false
[[routes]]
path = "/upload"
pool = "app"
cache = false
[[routes]]
path = "/download"
pool = "app"
cache = false
[[routes]]
path = "/stored"
pool = "app"
[[routes]]
path = "/f"
pool = "origin"
cache = false
[[routes]]
path = "/c"
pool = "origin"
[[routes]]
path = "/u"
pool = "origin"
cache = false
hooks = ["site_of_bench:OnRequest"]
[[routes]]
path = "/k"
pool = "origin"
cache = false
hooks = ["site_of_bench:OnResponse"]
"""

NGINX = """
{user} daemon off; worker_processes 1; pid nginx.pid; error_log error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d;
scgi_temp_path e; upstream app {{ server 127.0.0.1:{app}; keepalive 64; }}
server {{ listen 127.0.0.1:{port};
location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""

# (name, peer, path): the same load for each
LOADS = (
    ("forward", "gateway", "/f/1k"),
    ("forward, one hook on the request", "gateway", "/u/1k"),
    ("forward, one hook on the response", "gateway", "/k/1"),
    ("hit", "gateway", "/c/1k"),
    ("application", "gateway", "/constant"),
    ("application, alone", "alone", "/constant"),
    ("application, alone behind nginx", "nginx", "/constant"),
    ("application, stored: hit", "gateway", "/stored"),
    ("application that fetches a hit", "gateway", "/fetches"),
)


class Bench:
    """The processes, and what was measured."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.ports = dict(zip(("gateway", "admin", "origin", "alone", "nginx"), free_ports(5), strict=True))
        python, ports = sys.executable, self.ports
        (directory / "site_of_bench.py").write_text(SITE)
        (directory / "alone.py").write_text(ALONE)
        (directory / "edge.toml").write_text(
            CONFIG.format(port=ports["gateway"], admin=ports["admin"], origin=ports["origin"])
        )
        nginx = program("nginx")
        if nginx is None:
            raise Refused("this needs nginx: apt-get install nginx")
        conf = NGINX.format(user=origin.user_line(), app=ports["alone"], port=ports["nginx"])
        (directory / "nginx.conf").write_text(conf)
        stack.enter_context(origin.start(directory, ports["origin"], LOAD_CORE))
        self.running: dict[str, list[Running]] = {}
        commands = {
            "gateway": [python, "-m", "edge.cli.main", "run", "-c", str(directory / "edge.toml")],
            "alone": [python, str(directory / "alone.py"), str(ports["alone"])],
            "nginx": [nginx, "-p", str(directory), "-c", str(directory / "nginx.conf")],
        }
        paths = {"gateway": "/constant", "alone": "/constant", "nginx": "/constant"}
        for name in ("gateway", "alone", "nginx"):
            process = stack.enter_context(Running(name, commands[name], directory, GATEWAY_CORE))
            self.running[name] = [process.wait_for(ports[name], paths[name])]
        self.running["nginx"] += self.running["alone"]
        self.found: dict[str, list[float]] = defaultdict(list)

    def load(self, name: str, peer: str, path: str, seconds: int) -> None:
        """CPU microseconds of a request."""
        before = sum(cpu_seconds(each.pid) for each in self.running[peer])
        load = run(self.ports[peer], Shape(path, "plain", 32, seconds), LOAD_CORE)
        if load.errors:
            raise Refused(f"{name}: {load.errors} errors")
        used = sum(cpu_seconds(each.pid) for each in self.running[peer]) - before
        self.found[name].append(used / load.requests * 1e6)

    def large(self) -> dict[str, float]:
        """How much memory grows while 1 GiB goes through an application, down and up; MiB."""
        gateway = self.running["gateway"][0].pid
        return asyncio.run(large(f"http://{LOOPBACK}:{self.ports['gateway']}", gateway))


async def large(url: str, pid: int) -> dict[str, float]:
    """Both ways, with the peak looked at meanwhile."""
    found = {}

    async def pieces() -> object:
        piece = b"u" * 65536
        for _ in range(LARGE // 65536):
            yield piece

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120), read_bufsize=65536) as session:
        for way in ("down", "up"):
            before = peak = resident_bytes(pid)
            began = perf_counter()
            if way == "down":
                async with session.get(f"{url}/download") as answer:
                    async for _ in answer.content.iter_any():
                        peak = max(peak, resident_bytes(pid)) if perf_counter() - began > 0.1 else peak
                        began = perf_counter() if perf_counter() - began > 0.1 else began
            else:
                request = asyncio.ensure_future(session.post(f"{url}/upload", data=pieces()))
                while not request.done():
                    peak = max(peak, resident_bytes(pid))
                    await asyncio.sleep(0.05)
                async with await request as answer:
                    if await answer.text() != str(LARGE):
                        raise Refused("the upload did not arrive whole")
            found[way] = (peak - before) / MIB
    return found


def table(found: dict[str, float], memory: dict[str, float]) -> list[tuple[str, str, str, bool]]:
    """(row, figure, bound, reached)."""
    app, alone, both = (found[f"application{rest}"] for rest in ("", ", alone", ", alone behind nginx"))
    forward, hit = found["forward"], found["hit"]
    fetched = found["application that fetches a hit"] - app
    on_request, on_response = (
        found[f"forward, one hook on the {which}"] - forward for which in ("request", "response")
    )
    rows = [
        ("an application's constant JSON", app / alone, "of the same alone", 1.6, "x"),
        ("the same", app / both, "of the same alone behind nginx", 0.6, "x"),
        ("the same, stored: a hit", found["application, stored: hit"] / hit, "of any hit", 1.05, "x"),
        ("a hook on the request that sets a field", on_request, "more", 3, "us"),
        ("a hook on the response that sets a field", on_response, "more", 3, "us"),
        ("fetch of a hit from an application", fetched, "more", 25, "us"),
        ("1 GiB down through an application", memory["down"], "of memory", 32, "MiB"),
        ("1 GiB up through an application", memory["up"], "of memory", 32, "MiB"),
    ]
    return [
        (name, f"{figure:.2f} {unit} {of}", f"<= {bound:g} {unit}", figure <= bound)
        for name, figure, of, bound, unit in rows
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.compute")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-compute-")))
        bench = Bench(stack, directory)
        for _ in range(given.rounds):
            for name, peer, path in LOADS:
                bench.load(name, peer, path, given.seconds)
        memory = bench.large()
    found = {name: statistics.median(each) for name, each in bench.found.items()}
    print("CPU of a request, microseconds (median of rounds; each round)")
    for name, rounds in bench.found.items():
        print(f"  {name:36} {found[name]:7.1f}   {' '.join(f'{each:.1f}' for each in rounds)}")
    print()
    for row, figure, bound, reached in table(found, memory):
        print(f"  {row:42} {figure:44} {bound:12} {'reached' if reached else 'NOT REACHED'}")


if __name__ == "__main__":
    as_command(main)
