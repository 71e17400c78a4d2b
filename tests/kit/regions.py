"""Two regions of scripted origins, a real gateway process before them, its admin API and CLI, and a load of GETs.

One rule: nothing waits for time. What is waited for is a state that the admin API tells, or a number of answers.
Each origin answers /work with its own name; a region is lost when its origins stop listening.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.client import RawClient
from kit.message import Malformed
from kit.origin import ScriptedOrigin
from kit.processes import GatewayProcess, Successor, gateway_head, run_edge
from kit.waiting import WAIT_S, until

NAMES = ("eu-1", "eu-2", "us-1", "us-2")
PROBES = (
    'health = { path = "/healthz", interval = "2100ms", timeout = "2s", interval_transition = "100ms",'
    ' interval_down = "250ms", fall = 2, rise = 1 }'
)  # who refuses is known at once; who is slow has time enough, for origins run where the test does
QUICK_PROBES = PROBES.replace("2100ms", "250ms").replace('"2s"', '"200ms"')
ROW = 10
FENCED = """
[[routes]]
name = "fenced"
host = "fenced.example"
pool = "web"
geo = { require = ["eu"] }
"""


def answer_of(name: str) -> bytes:
    """What an origin answers to /work."""
    return f"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the admin API."""

    status: int
    body: Any


class Regions:
    """The whole of it. `pool` are lines for the pool's table, `more` tables for the end of the file."""

    def __init__(self, directory: Path) -> None:
        self.origins = {name: ScriptedOrigin() for name in NAMES}
        self.gateway: GatewayProcess = None  # type: ignore[assignment]  # set by start
        self._directory = directory

    async def start(
        self, pool: str = "", more: str = "", workers: int = 1, head: str = "", ramp: str = "1s", probes: str = PROBES
    ) -> None:
        """Origins, then the gateway; returns when every backend is known to be well."""
        for name, origin in self.origins.items():
            origin.route("/work", answer_of(name))
            await origin.start()
        text = self._toml(f'{probes}\nramp = "{ramp}"\n{pool}', more, workers, head)
        self.gateway = await asyncio.to_thread(GatewayProcess.start, text, self._directory)
        await self.until(lambda found: all(each["health"] == "healthy" for each in found["backends"]))

    def _toml(self, pool: str, more: str, workers: int, head: str) -> str:
        backends = "".join(
            f'[[pools.web.backends]]\nurl = "{origin.url}"\nid = "{name}"\nregion = "{name[:2]}"\n'
            for name, origin in self.origins.items()
        )
        return f"""{gateway_head(workers)}
[limits]
shutdown_grace = "2s"
{head}
[regions.eu]
tier = 0
location = [53.3, -6.3]
continents = ["EU", "AF"]
[regions.us]
tier = 1
location = [38.9, -77.5]
continents = ["NA", "SA"]
[pools.web]
timeouts = {{ connect = "10s" }}
slow_start = "0s"
{pool}
{backends}
[[routes]]
name = "all"
pool = "web"
{more}
"""

    async def stop(self) -> None:
        """End everything."""
        if self.gateway is not None:
            await asyncio.to_thread(self.gateway.stop)
        for origin in self.origins.values():
            await origin.stop()

    # -- faults ------------------------------------------------------------------------------------------------------

    async def lose(self, region: str) -> None:
        """All origins of a region refuse."""
        for name, origin in self.origins.items():
            if name.startswith(region):
                await origin.stop()

    async def give_back(self, region: str) -> None:
        """They listen again."""
        for name, origin in self.origins.items():
            if name.startswith(region):
                await origin.start()

    async def kill_supervisor_and_restart(self) -> None:
        """kill -9 of the supervisor alone; then another one with the same state."""
        killed = self.gateway
        killed.signal(signal.SIGKILL)
        await asyncio.to_thread(killed.wait)
        self.gateway = await asyncio.to_thread(Successor, killed)

    # -- the admin API and the CLI -----------------------------------------------------------------------------------

    async def api(self, method: str, path: str, body: Any = None) -> Answer:
        """One authorised request."""
        return Answer(*await asyncio.to_thread(self.gateway.api, method, path, body))

    async def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of `edge`, with this gateway's configuration."""
        where = ("-c", str(self.gateway.config))
        return await asyncio.to_thread(run_edge, *arguments, *where, directory=self._directory)

    async def pool(self) -> Any:
        """The pool as the API shows it."""
        return (await self.api("GET", "/v1/pools")).body["pools"][0]

    async def until(self, condition: Callable[[Any], bool], wait_s: float = WAIT_S) -> Any:
        """Ask for the pool until the condition holds of it."""
        found: Any = None

        async def holds() -> bool:
            nonlocal found
            found = await self.pool()
            return condition(found)

        await until(holds, wait_s, look_s=0.03, said=lambda: json.dumps(found, indent=1))
        return found

    async def until_share(self, region: str, percent: float = 100) -> None:
        """Until a region gets this much."""
        await self.until(lambda found: found["view"]["shares"].get(region, 0) == percent)

    async def events(self) -> list[Any]:
        """Everything that was told."""
        return list((await self.api("GET", "/v1/events?follow=0")).body["events"])


class Load:
    """Clients that ask for /work again and again; every answer is kept, in order of its end."""

    def __init__(self, port: int, clients: int = 4, host: str = "a.example") -> None:
        self.answers: list[tuple[int, str]] = []  # status (0: none), body
        self._port, self._host = port, host
        self._clients = clients
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._run(), name="load") for _ in range(self._clients)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> list[tuple[int, str]]:
        """The next `count` answers to requests that begin from now on."""
        start = len(self.answers) + self._clients  # what runs now was begun before
        async with asyncio.timeout(WAIT_S):
            while len(self.answers) < start + count:
                self._news.clear()
                await self._news.wait()
        return self.answers[start : start + count]

    async def become(self, wanted: Callable[[tuple[int, str]], bool]) -> None:
        """Wait until some answers in a row are so: a worker hears of it a moment after the admin API tells."""
        start = len(self.answers)
        await until(lambda: len(self.answers) >= start + ROW and all(map(wanted, self.answers[-ROW:])))

    @property
    def failed(self) -> list[tuple[int, str]]:
        """What was not answered with 200."""
        return [each for each in self.answers if each[0] != 200]

    async def _run(self) -> None:
        client: RawClient | None = None
        while not self._stop:
            try:
                client = client or await RawClient.connect(self._port)
                response = await client.get("/work", self._host)
                self.answers.append((response.status, response.body.content.decode()))
                if response.closed:
                    await client.close()
                    client = None
            except (OSError, AssertionError, Malformed, TimeoutError):
                self.answers.append((0, ""))
                if client is not None:
                    await client.close()
                client = None
            self._news.set()
            await asyncio.sleep(0.005)
        if client is not None:
            await client.close()


def of(region: str) -> Callable[[tuple[int, str]], bool]:
    """Whether an answer is from there."""
    return lambda answer: answer[1].startswith(region)


def spread(answers: list[tuple[int, str]]) -> dict[str, float]:
    """Percent by region."""
    counts = Counter(body[:2] for _, body in answers)
    return {region: 100 * count / len(answers) for region, count in counts.items()}
