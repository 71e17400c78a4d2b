"""`edge demo`: two regions of sample origins and a gateway before them, on this machine, until Ctrl-C.

One rule: it leaves nothing behind but its state directory. The origins are child processes that end when their standard
input closes, so they end with the demo whatever happens to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

HTTP, ADMIN = "127.0.0.1:8080", "127.0.0.1:9900"
REGIONS = {"eu-west": 2, "us-east": 2}  # origins in each
READY_S = 10.0

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>StreamGate Edge demo</title></head>
<body><h1>StreamGate Edge</h1>
<p>Made by origin {name} at {time}. The gateway keeps this page for 30 seconds.</p></body></html>
"""


# -- the origins -------------------------------------------------------------------------------------------------------


def origin(name: str, region: str) -> web.Application:
    """A sample origin: a page that may be kept, one that may not, and a stream of events."""

    async def page(request: web.Request) -> web.Response:
        text = PAGE.format(name=name, time=datetime.now(UTC).isoformat(timespec="seconds"))
        headers = {"Cache-Control": "public, max-age=30", "ETag": '"demo-1"', "Surrogate-Key": "demo page"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def where(request: web.Request) -> web.Response:
        text = json.dumps({"origin": name, "region": region}) + "\n"
        return web.Response(text=text, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def clock(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        try:
            for number in range(5):
                await response.write(f"id: {number}\ndata: {name} {datetime.now(UTC):%H:%M:%S}\n\n".encode())
                await asyncio.sleep(1)
        except ConnectionResetError:
            pass  # whoever listened has left
        return response

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes(
        [web.get("/", page), web.get("/where", where), web.get("/clock", clock), web.get("/healthz", healthz)]
    )
    return app


async def serve_region(region: str, ports: list[int]) -> None:
    """All origins of one region in this process, until standard input closes."""
    runners = []
    for number, port in enumerate(ports, 1):
        runner = web.AppRunner(origin(f"{region}-{number}", region), access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        runners.append(runner)
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()

    def on_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            closed.set()

    loop.add_reader(sys.stdin.fileno(), on_stdin)
    await closed.wait()
    loop.remove_reader(sys.stdin.fileno())
    for runner in runners:
        await runner.cleanup()


# -- the demo ----------------------------------------------------------------------------------------------------------


class Origins:
    """The origins' processes, one for each region."""

    def __init__(self) -> None:
        self.ports = {region: _free_ports(count) for region, count in REGIONS.items()}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start them and wait until each port answers. Raises RuntimeError when one does not."""
        for region, ports in self.ports.items():
            command = [sys.executable, "-m", "edge.cli.demo", region, *map(str, ports)]
            # A session of their own: Ctrl-C is for the gateway first, which ends its requests before they go.
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        deadline = time.monotonic() + READY_S
        for port in (port for ports in self.ports.values() for port in ports):
            while not _answers(port):
                if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                    raise RuntimeError("the sample origins did not start")
                time.sleep(0.05)

    def stop(self) -> None:
        """End the origins, by force where one takes longer than five seconds."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def demo_toml(ports: dict[str, list[int]], directory: Path) -> str:
    """The demo's configuration; also an example of a small one."""
    backends = "".join(
        f'[[pools.web.backends]]\nurl = "http://127.0.0.1:{port}"\nregion = "{region}"\n'
        for region, found in ports.items()
        for port in found
    )
    directory = directory.resolve()
    return f"""# Written by `edge demo`.
[listen]
http = ["{HTTP}"]
workers = 1

[admin]
listen = "{ADMIN}"
token_file = "{directory}/admin.token"

[state]
path = "{directory}"

{geoip()}[regions.eu-west]
tier = 0

[regions.us-east]
tier = 1

[pools.web]
balance = "least-connections"
failover = "spill"
health = {{ path = "/healthz", interval = "1s", timeout = "500ms" }}
{backends}
[[routes]]
host = "*"
path = "/"
pool = "web"

[log]
access = "{directory}/access.jsonl"
"""


def geoip() -> str:
    """The database of a checkout, wherever the demo is started."""
    path = Path(__file__).resolve().parents[2] / "geoip" / "edge-country.mmdb"
    return f'[geoip]\ndatabase = "{path}"\n\n' if path.is_file() else ""


def greeting(config: Path) -> str:
    """What to try, and what it answers."""
    edge = sys.argv[0] if Path(sys.argv[0]).name == "edge" else "edge"
    return f"""
The gateway listens on http://{HTTP}, its admin API on http://{ADMIN}. Try:

  curl -i http://{HTTP}/
      a page from an origin, kept for 30 s; ask twice: `Cache-Status: edge; fwd=uri-miss; stored`, then `edge; hit`
  curl http://{HTTP}/where
      {{"origin": "eu-west-1", "region": "eu-west"}}: never cached, balanced over the two origins of the first region
  curl -N http://{HTTP}/clock
      five server-sent events, one a second, as they come

  {edge} status -c {config}
  {edge} region drain eu-west -c {config}      now /where answers from us-east

The dashboard is http://{ADMIN}/ and asks for the token in {config.parent}/admin.token.

Ctrl-C ends it all.
"""


def busy(addresses: tuple[str, ...] = (HTTP, ADMIN)) -> str | None:
    """The first address that something listens on already."""
    for address in addresses:
        host, _, port = address.rpartition(":")
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, int(port)))
            except OSError:
                return address
    return None


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    asyncio.run(serve_region(sys.argv[1], [int(port) for port in sys.argv[2:]]))
