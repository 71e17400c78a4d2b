"""A fleet of gateways on one machine: `python -m bench.fleet [ROW …] [--objects 10000] [--json]`.

    origin   three gateways, each asked for every object in an order of its own: how often the origin was asked
    purge    purges that all three have carried out: how long the answer took
    memory   a hit from memory, with and without a shared tier configured: CPU of the worker
    shared   a hit of 10 KiB from the shared tier beside one from the disk tier: CPU of the worker
    leases   three gateways, asked for the same objects in the same order at once, the origin takes 30 ms: how often
             it was asked and how long an answer took, without and with a lease
    killed   redis-server killed under load, and back: failed requests, the slowest one of each stage

One rule: every process that is started is ended, whatever happens; all of it is on loopback. Figures are of a machine
whose cores the gateways, the server, the origin and the load share: read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_toml
from kit.redis import RedisProcess

from bench.measure import cpu_seconds
from bench.processes import as_command

HOST = b"site.example"
BODY = 10 * 1024
CONNECTIONS = 16
LEASE = "100ms"  # as it is where the configuration says nothing


class Origin(asyncio.Protocol):
    """Answers any GET with the same 10 KiB, and counts."""

    asked = 0
    takes_s = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        *heads, self._data = self._data.split(b"\r\n\r\n")
        for _ in heads:
            Origin.asked += 1
            if Origin.takes_s:
                asyncio.get_running_loop().call_later(Origin.takes_s, self._transport.write, ANSWER)
            else:
                self._transport.write(ANSWER)


ANSWER = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: %d\r\n\r\n" % BODY + b"x" * BODY


class Load:
    """Kept connections to one gateway; `took` is of what was answered since it was emptied."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.took: list[float] = []
        self.failed = self.done = 0

    async def ask(self, targets: list[bytes], connections: int = CONNECTIONS) -> None:
        """Every target once, over some connections."""
        waiting = iter(targets)
        await asyncio.gather(*(self._client(waiting) for _ in range(connections)))

    async def _client(self, waiting: Any) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        for target in waiting:
            began = time.perf_counter()
            try:
                writer.write(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, HOST))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.failed += not head.startswith(b"HTTP/1.1 200")
            except (OSError, asyncio.IncompleteReadError, IndexError):
                self.failed += 1
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
            self.done += 1
            self.took.append(time.perf_counter() - began)
        writer.close()


class Fleet:
    """Gateways, their server and their origin."""

    def __init__(self, stack: ExitStack, origin_port: int, folder: Path) -> None:
        self._stack, self._port, self._folder = stack, origin_port, folder
        self._count = 0
        self.toml = ""  # of the last one that was started
        self.server = RedisProcess.start(folder)
        stack.callback(lambda: self.server.kill())

    def gateway(self, disk: bool = False, shared: bool = True, lease: str = LEASE) -> GatewayProcess:
        """One more, ready."""
        self._count += 1
        folder = self._folder / f"edge-{self._count}"
        folder.mkdir()
        tiers = f'shared = {{ url = "{self.server.url}", timeout = "50ms", lease = "{lease}" }}\n' if shared else ""
        tiers += f'disk = {{ path = "{folder}/cache", size = "1GiB", min_free = "0B" }}\n' if disk else ""
        named = f'[fleet]\nurl = "{self.server.url}"\nname = "{folder.name}"\n'
        toml = gateway_toml(self._port, route="cache = true")
        self.toml = f"{toml}\n[cache]\n{tiers}{named if shared else ''}"
        made = GatewayProcess.start(self.toml, folder)
        self._stack.callback(made.kill)
        return made

    def in_step(self, *gateways: GatewayProcess) -> None:
        """Wait until each sees all of them in step."""

        def there(gateway: GatewayProcess) -> bool:
            found = call(gateway, "GET", "/v1/fleet")
            states = [each["state"] for each in found["machines"]]
            return bool(found["in_step"]) and states.count("in step") >= len(gateways)

        wait(lambda: all(there(gateway) for gateway in gateways))


def call(gateway: GatewayProcess, method: str, path: str, body: Any = None) -> Any:
    """The admin API."""
    token = (gateway.directory / "state" / "admin.token").read_text().strip()
    connection = http.client.HTTPConnection(LOOPBACK, gateway.admin_port, timeout=20)
    connection.request(method, path, None if body is None else json.dumps(body), {"Authorization": f"Bearer {token}"})
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found


def wait(fact: Callable[[], bool], wait_s: float = 30.0) -> None:
    """Until it is so."""
    end = time.monotonic() + wait_s
    while not fact():
        if time.monotonic() > end:
            raise SystemExit("bench.fleet: it never came in step")
        time.sleep(0.05)


def worker_cpu(gateway: GatewayProcess) -> float:
    """CPU seconds of its worker so far."""
    return sum(cpu_seconds(pid) for pid in gateway.children)


def targets(count: int, prefix: bytes = b"/o") -> list[bytes]:
    """As many, in an order of their own."""
    found = [b"%b/%d" % (prefix, number) for number in range(count)]
    random.shuffle(found)
    return found


async def origin(fleet: Fleet, objects: int) -> dict[str, Any]:
    """Row `origin`."""
    gateways = [fleet.gateway() for _ in range(3)]
    fleet.in_step(*gateways)
    before = Origin.asked
    loads = [Load(gateway.http_port) for gateway in gateways]
    began = time.perf_counter()
    await asyncio.gather(*(load.ask(targets(objects)) for load in loads))
    asked = Origin.asked - before
    return {
        "requests": sum(load.done for load in loads),
        "failed": sum(load.failed for load in loads),
        "origin_requests": asked,
        "times_objects": round(asked / objects, 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


async def purge(fleet: Fleet, objects: int) -> dict[str, Any]:
    """Row `purge`."""
    gateways = [fleet.gateway() for _ in range(3)]
    fleet.in_step(*gateways)
    await asyncio.sleep(3.5)  # a young stream waits for machines that may still come
    took, whole = [], 0
    for number in range(300):
        body = {"url": f"http://site.example/o/{number}"}
        began = time.perf_counter()
        found = await asyncio.to_thread(call, gateways[number % 3], "POST", "/v1/purge", body)
        took.append(time.perf_counter() - began)
        whole += found["machines"]["applied"] == 3
    took.sort()
    return {
        "purges": len(took),
        "on_all_three": whole,
        "median_ms": round(took[len(took) // 2] * 1000, 2),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1000, 2),
    }


async def memory(fleet: Fleet, objects: int) -> dict[str, Any]:
    """Row `memory`: rounds by turns, the median of each."""
    gateways = {"without": fleet.gateway(shared=False), "with": fleet.gateway()}
    fleet.in_step(gateways["with"])
    wanted = targets(500) * 40
    spent: dict[str, list[float]] = {name: [] for name in gateways}
    for gateway in gateways.values():
        await Load(gateway.http_port).ask(wanted[:2000])
    for _ in range(5):
        for name, gateway in gateways.items():
            before = worker_cpu(gateway)
            await Load(gateway.http_port).ask(wanted)
            spent[name].append((worker_cpu(gateway) - before) / len(wanted) * 1e6)
    medians = {name: sorted(values)[2] for name, values in spent.items()}
    return {
        "without_us": round(medians["without"], 2),
        "with_us": round(medians["with"], 2),
        "ratio": round(medians["with"] / medians["without"], 3),
    }


async def shared(fleet: Fleet, objects: int) -> dict[str, Any]:
    """Row `shared`: each object once, so that none is in memory."""
    count = min(objects, 5000)
    filling, asking = fleet.gateway(), fleet.gateway()
    fleet.in_step(filling, asking)
    await Load(filling.http_port).ask(targets(count))
    await asyncio.sleep(1)
    before, asked = worker_cpu(asking), Origin.asked
    await Load(asking.http_port).ask(targets(count))
    from_shared = (worker_cpu(asking) - before) / count * 1e6
    missed = Origin.asked - asked
    disk = fleet.gateway(disk=True, shared=False)
    await Load(disk.http_port).ask(targets(count))
    await asyncio.sleep(2)
    disk.stop()
    again = GatewayProcess.start(fleet.toml, disk.directory)
    try:
        await asyncio.sleep(2)  # its index is read
        before, asked = worker_cpu(again), Origin.asked
        await Load(again.http_port).ask(targets(count))
        from_disk = (worker_cpu(again) - before) / count * 1e6
        missed_disk = Origin.asked - asked
    finally:
        again.kill()
    return {
        "shared_us": round(from_shared, 1),
        "disk_us": round(from_disk, 1),
        "ratio": round(from_shared / from_disk, 2),
        "missed_shared": missed,
        "missed_disk": missed_disk,
    }


async def leases(fleet: Fleet, objects: int) -> dict[str, Any]:
    """Row `leases`."""
    found: dict[str, Any] = {}
    Origin.takes_s = 0.03
    for lease in ("0s", LEASE):
        gateways = [fleet.gateway(lease=lease) for _ in range(3)]
        fleet.in_step(*gateways)
        before, count = Origin.asked, min(objects, 2000)
        same = [b"/%b/%d" % (lease.encode(), number) for number in range(count)]
        loads = [Load(gateway.http_port) for gateway in gateways]
        spent = [worker_cpu(gateway) for gateway in gateways]
        await asyncio.gather(*(load.ask(same, 8) for load in loads))
        cpu = sum(worker_cpu(gateway) for gateway in gateways) - sum(spent)
        took = sorted(each for load in loads for each in load.took)
        found |= {
            f"lease_{lease}_times_objects": round((Origin.asked - before) / count, 3),
            f"lease_{lease}_median_ms": round(took[len(took) // 2] * 1000, 1),
            f"lease_{lease}_p99_ms": round(took[int(len(took) * 0.99)] * 1000, 1),
            f"lease_{lease}_cpu_us": round(cpu / len(took) * 1e6, 1),
        }
        for gateway in gateways:
            gateway.stop()
    Origin.takes_s = 0.0
    return found


async def killed(fleet: Fleet, objects: int) -> dict[str, Any]:
    """Row `killed`: half of what is asked for was never asked before. Stages of 4 s: before, away, back.

    The server is ended and started in a thread: waiting for it here would be taken for slow answers.
    """
    gateways = [fleet.gateway() for _ in range(3)]
    fleet.in_step(*gateways)
    loads = [Load(gateway.http_port) for gateway in gateways]
    ended = False

    async def steady(load: Load, number: int) -> None:
        turn = 0
        while not ended:
            turn += 1
            known = [b"/known/%d" % random.randrange(500) for _ in range(50)]
            await load.ask([*known, *(b"/new/%d/%d/%d" % (number, turn, each) for each in range(50))], 8)

    def again() -> None:
        fleet.server = fleet.server.again()

    async def stage(name: str) -> None:
        await asyncio.sleep(4)
        took = sorted(each for load in loads for each in load.took)
        for load in loads:
            load.took.clear()
        found[f"{name}_p999_ms"] = round(took[int(len(took) * 0.999)] * 1000, 1)
        found[f"{name}_slowest_ms"] = round(took[-1] * 1000, 1)

    found: dict[str, Any] = {}
    running = [asyncio.create_task(steady(load, number)) for number, load in enumerate(loads)]
    await stage("before")
    await asyncio.to_thread(fleet.server.kill)
    await stage("away")
    await asyncio.to_thread(again)
    await stage("back")
    ended = True
    await asyncio.gather(*running)
    fleet.in_step(*gateways)
    return {"requests": sum(load.done for load in loads), "failed": sum(load.failed for load in loads), **found}


ROWS = {"origin": origin, "purge": purge, "memory": memory, "shared": shared, "leases": leases, "killed": killed}


async def run(rows: list[str], objects: int) -> dict[str, Any]:
    """Each row with processes of its own."""
    server = await asyncio.get_running_loop().create_server(Origin, LOOPBACK, 0, backlog=1024)
    port = int(server.sockets[0].getsockname()[1])
    found = {}
    for row in rows:
        with tempfile.TemporaryDirectory(prefix="bench-fleet-") as folder, ExitStack() as stack:
            found[row] = await ROWS[row](Fleet(stack, port, Path(folder)), objects)
    server.close()
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench.fleet", description=__doc__)
    parser.add_argument("rows", nargs="*", default=[], choices=[*ROWS, []], help="left out: all of them")
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = uvloop.run(run(asked.rows or list(ROWS), asked.objects))
    if asked.json:
        print(json.dumps(found))
        return
    for row, figures in found.items():
        print(f"{row:8}", ", ".join(f"{name} {value:,}" for name, value in figures.items()))


if __name__ == "__main__":
    as_command(main)
