"""What `bench.rules` measures in its own process: decisions of a rate limit, and how long coding holds the loop.

    limits    1,000,000 clients that are known, asked for in any order: what a decision takes, what each takes of memory
    turns     a large page coded as it comes and from store: the CPU time of the longest turn of the loop

One rule: what is timed is the code that a request runs, with the objects that it has; figures are of this thread's CPU.
"""

from __future__ import annotations

import asyncio
import http.client
import statistics
import tempfile
from collections.abc import Callable, Iterator
from mmap import mmap
from time import monotonic, thread_time
from typing import NamedTuple

import uvloop

from bench.mass import Probe
from bench.processes import LOOPBACK, Refused
from edge.app import build, listen
from edge.config.loader import load_text
from edge.dataplane.rules.limits import RateLimit, Share, client_key

KNOWN, ASKED, ROUNDS = 1_000_000, 100_000, 5
SLOTS = 2 * KNOWN  # or full buckets would forget some of them
CONFIG = """
listen = {{ http = ["127.0.0.1:0"] }}
log = {{ access = "off" }}
state = {{ path = "{place}" }}
pools.web = {{ backends = [{{ url = "http://127.0.0.1:{origin}" }}] }}
routes = [
  {{ pool = "web", compress = true, cache = false }},
  {{ host = "stored", pool = "web", compress = true, cache = {{ default_ttl = "1h" }} }},
]
"""
Row = tuple[str, str, str]


class Limits(NamedTuple):
    """What was seen of a rate limit: the decision alone, and the whole rule, which tells it to the client."""

    known: int
    bytes_each: float
    decision_us: float
    rule_us: float


class Asking:
    """An exchange, as far as a rate limit looks at it."""

    address = ""
    told_lines = b""

    def client_text(self) -> str:
        """The client's address."""
        return self.address


def address(number: int) -> str:
    """A client's; each time another object, as each connection has its own."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def limits(rule: RateLimit) -> Limits:
    """One decision of a limit that knows all of them."""
    asking, table = Asking(), rule._table
    for number in range(KNOWN):
        asking.address = address(number)
        rule.apply(asking)  # type: ignore[arg-type]  # stands for an exchange
    now, each = monotonic(), [address(number * 7919 % KNOWN) for number in range(ASKED)]
    decided, told = [], []
    for _ in range(ROUNDS):
        decided.append(thread_us(lambda asking: table.take(client_key(asking.address), now), each))
        told.append(thread_us(rule.apply, each))  # type: ignore[arg-type]
    known = sum(table.owed(address(number), now) > 0 for number in range(KNOWN))
    return Limits(known, table.size_bytes / known, statistics.median(decided), statistics.median(told))


def thread_us(act: Callable[[Asking], object], addresses: list[str]) -> float:
    """One call, less the loop around it."""
    asking = Asking()
    begin = thread_time()
    for asking.address in addresses:
        act(asking)
    middle = thread_time()
    for asking.address in addresses:
        pass
    return (2 * middle - begin - thread_time()) / len(addresses) * 1e6


def limit_rows() -> Iterator[Row]:
    """For people: a worker that is alone, and the memory that several share."""
    shares: dict[str, Share] = {"one worker": lambda name, size: None, "several": lambda name, size: mmap(-1, size)}
    for name, share in shares.items():
        found = limits(RateLimit("1/h", 1 / 3600, 10**9, "client", SLOTS, share))
        yield f"rate limit, {found.known:,} known clients, {name}: a decision", f"{found.decision_us:.2f} µs", "≤ 1 µs"
        yield "the same with the fields that tell the client", f"{found.rule_us:.2f} µs", ""
        yield "memory for each of them", f"{found.bytes_each:.0f} B", "≤ 100 B"


async def turns(origin: int, paths: dict[str, str]) -> list[Row]:
    """The longest turns while one client is served."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        config = load_text(CONFIG.format(origin=origin, place=place), "rules.toml")
        worker = build(config)
        port = (await listen(worker, config))[0][1]
        await asyncio.sleep(0.5)
        for name, path in paths.items():
            for host, how in (("live", "as it comes"), ("stored", "from store")):
                if host == "stored":
                    await ask(port, host, path, "")
                for coding in ("", "zstd", "br", "gzip"):
                    probe = Probe()
                    await ask(port, host, path, coding)
                    probe.end()
                    bound = "≤ 2 ms" if coding else ""
                    rows.append(
                        (f"{name}, {how}, {coding or 'plain'}: longest turn", f"{probe.worst * 1e3:.2f} ms", bound)
                    )
        await worker.close()
    return rows


async def ask(port: int, host: str, path: str, coding: str) -> None:
    """One request, from another thread, whose time is not counted."""

    def get() -> None:
        client = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
        client.request("GET", path, headers={"Host": host, "Accept-Encoding": coding or "identity"})
        response = client.getresponse()
        response.read()
        client.close()
        if response.status != 200 or (response.headers["Content-Encoding"] or "") != coding:
            raise Refused(f"{path} was answered by {response.status}, {response.headers['Content-Encoding']}")

    await asyncio.get_running_loop().run_in_executor(None, get)


def turn_rows(origin: int, paths: dict[str, str]) -> list[Row]:
    """For people."""
    return uvloop.run(turns(origin, paths))
