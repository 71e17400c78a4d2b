"""`python -m bench.disaster [objects]`: a machine is lost under traffic and comes back: RPO, RTO, hit rate, purges.

    origin ◄─ gateway (disk tier) ◄─ Zipf traffic ─► full points under steady load, nothing scheduled (p99 of hits)
    started again, points every 10 s ─► purge ─► kill -9 of everything, rm -rf of the state
    edge restore ─► edge run ─► the same traffic

The origin counts what it is asked, and answers 304 to a validator that it knows. One line of JSON at the end.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from bench.processes import as_command
from bench.steady import Sample, SteadyLoad
from edge.cli.client import connect
from edge.cli.second import spare_ports

REQUESTS, BYTES = 6000, 60_000
SETTLE_S = 3  # the file system is still busy with what was removed
ROUNDS = 7  # of the load without and with a full point
OBJECTS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000  # 17,500 are about 1 GiB
TOML = """
listen = {{ http = ["127.0.0.1:{http}"], workers = 1 }}
admin = {{ listen = "127.0.0.1:{admin}", token_file = "{home}/var/admin.token" }}
state = {{ path = "{home}/var" }}
log = {{ access = "off" }}
cache = {{ memory = "64MiB", disk = {{ path = "{home}/var/cache", size = "2GiB" }} }}
pools.web.backends = [{{ url = "http://127.0.0.1:{origin}" }}]
routes = [{{ pool = "web" }}]
snapshots = {{ repository = "file:{home}/points", full = "1d", incremental = "{every}", jitter = "0s", verify = "7d" }}
"""


class Origin(asyncio.Protocol):
    """Bodies by number; a known validator gets a 304."""

    asked: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            assert self._transport is not None
            self._transport.write(self.answer(head))

    @classmethod
    def answer(cls, head: bytes) -> bytes:
        path = head.split(b" ", 2)[1]
        etag = b'"%b"' % path
        fields = b"ETag: %b\r\nCache-Control: max-age=3600\r\n" % etag
        if b"if-none-match: " + etag.lower() in head.lower():
            cls.asked["304"] += 1
            return b"HTTP/1.1 304 Not Modified\r\n%b\r\n" % fields
        cls.asked["200"] += 1
        body = random.Random(path).randbytes(BYTES)
        return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)


class Machine:
    """The gateway's process and what it is asked."""

    def __init__(self, home: Path, origin: int) -> None:
        self.home = home
        self.http, self.admin = spare_ports(2)
        self._origin = origin
        self.configure("1d")
        self._environment = {**os.environ, "PYTHONPATH": os.getcwd()}

    def configure(self, every: str) -> None:
        """An incremental point so often."""
        text = TOML.format(home=self.home, http=self.http, admin=self.admin, origin=self._origin, every=every)
        (self.home / "edge.toml").write_text(text)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.home / "gateway.log").open("ab") as log:
            found = subprocess.Popen(
                [sys.executable, "-m", "edge.cli.main", "run", "-c", str(self.home / "edge.toml")],
                *(), stdout=log, stderr=log, cwd=self.home, env=self._environment, start_new_session=True,
            )  # fmt: skip
        while self.get(self.admin, "/readyz")[0] != 200:
            assert found.poll() is None, (self.home / "gateway.log").read_text()
            time.sleep(0.02)
        return found

    def edge(self, *arguments: str) -> str:
        found = subprocess.run(
            [sys.executable, "-m", "edge.cli.main", *arguments, "-c", str(self.home / "edge.toml")],
            *(), stdout=subprocess.PIPE, text=True, cwd=self.home, env=self._environment, check=False,
        )  # fmt: skip
        assert found.returncode == 0, arguments
        return found.stdout

    def take(self) -> None:
        """A full point, asked of the gateway without a command's process, whose start would take a core away."""
        for line in connect(self.home / "edge.toml", None, None).lines("POST", "/v1/snapshots", {"kind": "full"}):
            last = json.loads(line)
        assert last["finished"] is True, last

    def filled(self) -> None:
        """Wait until every body has followed the restore."""
        while (self.home / "var/cache/store/awaited").exists():
            time.sleep(0.05)

    @staticmethod
    def get(port: int, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path, headers={"Host": "site.example"})
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("Cache-Status") or ""
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def traffic(self) -> dict[str, Any]:
        """Zipf requests, always the same; what became of them."""
        chooser = random.Random(7)
        weights = [1 / (number + 1) ** 0.9 for number in range(OBJECTS)]
        verdicts: Counter[str] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=20)
        for number in chooser.choices(range(OBJECTS), weights, k=REQUESTS):
            connection.request("GET", f"/{number}", headers={"Host": "site.example"})
            answer = connection.getresponse()
            answer.read()
            said = answer.getheader("Cache-Status") or ""
            word = "hit" if "; hit" in said else "revalidated" if "fwd-status=304" in said else "miss"
            verdicts[word] += 1
        connection.close()
        rate = (verdicts["hit"] + verdicts["revalidated"]) / REQUESTS
        return {"rate": round(rate, 4), **verdicts}


def p99(samples: list[Sample]) -> float:
    """Milliseconds."""
    times = sorted(sample.took for sample in samples)
    assert all(sample.ok for sample in samples)
    return round(times[int(len(times) * 0.99)] * 1000, 3)


async def under_load(machine: Machine) -> dict[str, Any]:
    """p99 of hits without and while a full point is taken, at 1000 a second: by turns, and the medians."""
    machine.get(machine.http, "/work")
    without, during, took = [], [], 0.0
    for _ in range(ROUNDS):
        shutil.rmtree(machine.home / "points", ignore_errors=True)  # so that every body is copied
        os.sync()
        await asyncio.sleep(SETTLE_S)
        without.append(p99(await SteadyLoad(machine.http, 1000, 6).run(lambda at: None)))
        load = SteadyLoad(machine.http, 1000, 16)
        running = asyncio.create_task(load.run(lambda at: None))
        begun = time.monotonic()
        await asyncio.to_thread(machine.take)
        took = time.monotonic() - begun
        during.append(p99([sample for sample in await running if sample.at <= took]))
    ratio = round(statistics.median(during) / statistics.median(without), 2)
    return {"without_ms": without, "during_ms": during, "ratio_of_medians": ratio, "full_s": round(took, 2)}


async def main() -> None:
    """All of it."""
    home = Path(tempfile.mkdtemp(prefix="disaster-", dir=os.environ.get("BENCH_DIR")))
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", 0)
    machine = Machine(home, server.sockets[0].getsockname()[1])
    rows: dict[str, Any] = {}
    running: list[subprocess.Popen[bytes]] = []
    try:
        running.append(await asyncio.to_thread(machine.start))
        for number in range(OBJECTS):
            await asyncio.to_thread(machine.get, machine.http, f"/{number}")
        rows["filled"] = await asyncio.to_thread(machine.traffic)
        rows["before"] = await asyncio.to_thread(machine.traffic)
        rows["p99_of_hits"] = await under_load(machine)
        running[-1].terminate()
        running[-1].wait()
        machine.configure("10s")
        running.append(await asyncio.to_thread(machine.start))
        await asyncio.to_thread(machine.edge, "purge", "--url", "http://site.example/1")
        await asyncio.sleep(13)  # a point by schedule
        rows["points"] = len(json.loads(await asyncio.to_thread(machine.edge, "snapshot", "list", "--json"))["points"])
        await asyncio.to_thread(machine.edge, "purge", "--url", "http://site.example/2")
        lost_at = time.time()
        os.killpg(running[-1].pid, signal.SIGKILL)
        running[-1].wait()
        shutil.rmtree(home / "var")
        begun = time.monotonic()
        restored = json.loads(await asyncio.to_thread(machine.edge, "restore", "--json"))
        rows["restore_s"], rows["restored_bodies"] = restored["seconds"], restored["bodies"]
        running.append(await asyncio.to_thread(machine.start))
        first = await asyncio.to_thread(machine.get, machine.http, "/7")
        rows["rto_s"] = round(time.monotonic() - begun, 2)
        rows["rpo_s"] = round(lost_at - time.mktime(time.strptime(restored["taken_at"][:19], "%Y-%m-%dT%H:%M:%S")), 1)
        rows["first"], rows["bodies_awaited_then"] = first, (home / "var/cache/store/awaited").exists()
        before = Counter(Origin.asked)
        rows["purged_before_the_point"] = (await asyncio.to_thread(machine.get, machine.http, "/1"))[1]
        rows["purged_after_the_point"] = (await asyncio.to_thread(machine.get, machine.http, "/2"))[1]
        rows["after"] = await asyncio.to_thread(machine.traffic)
        rows["origin_after"] = dict(Origin.asked - before)
        rows["of_the_rate_before"] = round(rows["after"]["rate"] / rows["before"]["rate"], 4)
        await asyncio.to_thread(machine.filled)
        rows["restore_to_all_bodies_s"] = round(time.monotonic() - begun, 2)
        rows["after_again"] = await asyncio.to_thread(machine.traffic)
    finally:
        for each in running:
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
                each.wait()
        server.close()
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    as_command(lambda: asyncio.run(main()))
