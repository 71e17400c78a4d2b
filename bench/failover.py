"""The rehearsal: two regions of origins and a gateway as processes, a steady load of GETs, one fault after another.

    python -m bench.failover [--quick] [--only NAME]... [--json] [--rate N]

Each scenario has origins and a gateway of its own, so that no fault leaves a trace in the next. Loopback only; every
load is bounded in count and time. One rule: a figure that a scenario cannot have is a dash, never a held target.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench.faults import QUICK, SCENARIOS, Fault, Figures, Scenario
from bench.processes import LOOPBACK, Running, answer, as_command, free_ports
from bench.steady import Sample, SteadyLoad

RATE = 200.0
CORE = 0
SIGNALS = {
    Fault.KILL: signal.SIGKILL,
    Fault.STOP: signal.SIGSTOP,
    Fault.CONTINUE: signal.SIGCONT,
    Fault.REFUSE: signal.SIGUSR1,
    Fault.LISTEN: signal.SIGUSR2,
}
LATE_S = 10.0  # from when on a victim's share is counted
SHAPE_S = 5.0  # the bins in which the way back is shown


class Stage(ExitStack):
    """The processes of one scenario; all are ended with it."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        names = [f"{region}-{n}" for region, count in scenario.origins for n in range(1, count + 1)]
        ports = free_ports(len(names) + 2)
        self.port, self.admin = ports[0], ports[1]
        self._ports = dict(zip(names, ports[2:], strict=True))
        self._origins: dict[str, Running] = {}
        self._token = directory / "state" / "admin.token"
        (directory / "gateway.toml").write_text(gateway_toml(scenario, self._ports, self.port, self.admin, directory))

    def start(self) -> None:
        """Origins first, then the gateway; returns when all answer."""
        for name in self._ports:
            self._start_origin(name)
        for name, port in self._ports.items():
            self._origins[name].wait_for(port, "/healthz")
        command = [sys.executable, "-m", "edge.cli.main", "run", "-c", "gateway.toml"]
        gateway = self.enter_context(Running("gateway", command, self._directory, CORE))
        gateway.wait_for(self.admin, "/readyz")
        gateway.wait_for(self.port, "/work")

    def _start_origin(self, name: str) -> None:
        command = [sys.executable, "-m", "bench.region_origin", str(self._ports[name]), name]
        self._origins[name] = self.enter_context(Running(name, command, self._directory, CORE))

    def do(self, fault: Fault, names: tuple[str, ...]) -> None:
        """Do this to these origins."""
        for name in names:
            if fault in SIGNALS:
                # `taskset` becomes the origin: the process is the origin itself.
                os.kill(self._origins[name].pid, SIGNALS[fault])
            elif fault is Fault.START:
                self._start_origin(name)
                self._origins[name].wait_for(self._ports[name], "/healthz")  # back is who answers
            else:
                answer(self._ports[name], f"/mode/{fault.value}")

    def ask(self, path: str) -> Any:
        """The admin API's answer."""
        connection = http.client.HTTPConnection(LOOPBACK, self.admin, timeout=5)
        try:
            token = self._token.read_text().strip()
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            return orjson.loads(connection.getresponse().read())
        finally:
            connection.close()

    def counts(self) -> dict[str, int]:
        """How many requests each origin got so far."""
        found = {name: answer(port, "/count") for name, port in self._ports.items()}
        return {name: int(body) for name, (status, body) in found.items() if status == 200}

    @property
    def ids(self) -> dict[str, str]:
        """Backend id → origin's name."""
        return {f"{LOOPBACK}:{port}": name for name, port in self._ports.items()}


def gateway_toml(scenario: Scenario, ports: dict[str, int], port: int, admin: int, directory: Path) -> str:
    """The gateway's configuration: defaults but for what the scenario says."""
    regions = "".join(f"[regions.{name}]\ntier = {tier}\n" for tier, (name, _) in enumerate(scenario.origins))
    backends = "".join(
        f'[[pools.web.backends]]\nurl = "http://{LOOPBACK}:{each}"\nregion = "{name.partition("-")[0]}"\n'
        for name, each in ports.items()
    )
    return f"""
[listen]
http = ["{LOOPBACK}:{port}"]
workers = 1
[admin]
listen = "{LOOPBACK}:{admin}"
token_file = "{directory}/state/admin.token"
[state]
path = "{directory}/state"
[log]
access = "off"
{regions}
[pools.web]
{scenario.lines}health = {{ path = "/healthz", {scenario.probes} }}
{backends}
[[routes]]
pool = "web"
"""


# -- one scenario ------------------------------------------------------------------------------------------------------


async def play(scenario: Scenario, rate: float, console: Console) -> dict[str, Any]:
    """Run it; its figures, verdicts and the events that the gateway told."""
    with tempfile.TemporaryDirectory(prefix="failover-") as place:
        with Stage(scenario, Path(place)) as stage:
            await asyncio.to_thread(stage.start)
            load = SteadyLoad(stage.port, rate, scenario.seconds)
            with console.status(scenario.name) as status:

                def progress(at: float) -> None:
                    failed = sum(1 for sample in load.samples if not sample.ok)
                    status.update(f"{scenario.name}: {at:.0f} of {scenario.seconds:.0f} s, {failed} failed")

                running = asyncio.create_task(load.run(progress), name="load")
                await load.begun.wait()
                run = Run(scenario, stage.ids)
                for step in scenario.steps:
                    await asyncio.sleep(max(0.0, step.at - load.now()))
                    await asyncio.to_thread(stage.do, step.fault, step.origins)
                    run.done.append(load.now())
                    run.done_wall.append(time.time())
                if scenario.victims:
                    await asyncio.sleep(max(0.0, run.done[0] + LATE_S - load.now()))
                    run.counts.append(await asyncio.to_thread(stage.counts))
                run.samples = await running
            if scenario.victims:
                run.counts.append(await asyncio.to_thread(stage.counts))
            run.events = (await asyncio.to_thread(stage.ask, "/v1/events?follow=0"))["events"]
            for event in run.events:
                event["time"] = datetime.fromisoformat(event["time"]).timestamp()
            pool = (await asyncio.to_thread(stage.ask, "/v1/pools"))["pools"][0]
        figures = figures_of(run)
        figures["retries"] = float(pool["numbers"]["retries"])
        return {
            "name": scenario.name,
            "title": scenario.title,
            "figures": figures,
            "targets": {words: holds(figures) for words, holds in scenario.targets},
            "shape": shape(run.samples, run.done),
        }


@dataclass(slots=True)
class Run:
    """What was seen of a scenario. Times are seconds from the load's start."""

    scenario: Scenario
    ids: dict[str, str]  # backend id → origin's name
    done: list[float] = field(default_factory=list)  # when each step was done
    done_wall: list[float] = field(default_factory=list)  # the same, epoch seconds
    samples: list[Sample] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)  # late and at the end

    @property
    def back_at(self) -> float:
        """When the fault was undone."""
        return self.done[1] if len(self.done) > 1 else inf

    @property
    def hurt(self) -> list[Sample]:
        """Requests that the fault failed or held up."""
        slow_s, fault_at = self.scenario.slow_s, self.done[0]
        return [
            each
            for each in self.samples
            if each.at + each.took >= fault_at and each.at < self.back_at and (not each.ok or each.took > slow_s)
        ]

    @property
    def lost(self) -> set[str]:
        """Regions all of whose origins the first step hits."""
        hit = self.scenario.steps[0].origins
        sizes = dict(self.scenario.origins)
        regions = {name.partition("-")[0] for name in hit}
        return {
            name for name in regions if len(sizes) > 1 and sum(o.startswith(f"{name}-") for o in hit) == sizes[name]
        }

    def told(self, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
        """(origin, event) of the events of these kinds about a backend."""
        found = [
            (str(each.get("backend", each.get("subject", ""))), each) for each in self.events if each["kind"] in kinds
        ]
        return [(self.ids[identity], event) for identity, event in found if identity in self.ids]


def figures_of(run: Run) -> Figures:
    """What is told of a run; times are seconds after the fault, of a failback after the return."""
    samples, fault_at, hurt = run.samples, run.done[0], run.hurt
    figures: Figures = {
        "requests": float(len(samples)),
        "failed": float(sum(1 for sample in samples if not sample.ok)),
        "slowest_s": max(sample.took for sample in samples),
        "affected": float(len(hurt)),
        "last_affected_s": max((s.at + s.took - fault_at for s in hurt), default=0.0),
        "p50_ms": statistics.median(sample.took for sample in samples) * 1000,
    }
    after = [sample for sample in samples if sample.at >= fault_at]
    figures["failed_pct"] = 100.0 * sum(1 for sample in after if not sample.ok) / max(1, len(after))
    if len(run.done) > 1:
        back_at, hit = run.back_at, run.scenario.steps[0].origins
        first = [sample.at - back_at for sample in samples if sample.at >= back_at and sample.origin in hit]
        figures["failback_begins_s"] = min(first) if first else None
        late = [sample.at + sample.took - back_at for sample in samples if sample.at >= back_at and not sample.ok]
        figures["over_s"] = max(late, default=0.0)
    if run.lost:
        figures.update(_region_figures(run))
    if run.scenario.victims:
        figures.update(_victim_figures(run))
    return figures


def _region_figures(run: Run) -> Figures:
    samples, fault_at, back_at, lost = run.samples, run.done[0], run.back_at, run.lost
    # From then on every answer comes at once and from another region ...
    late = [s.at for s in run.hurt] + [s.at for s in samples if fault_at <= s.at < back_at and _region(s) in lost]
    # ... and the gateway knows: each backend of the region is out, by live failures or by probes.
    out: dict[str, float] = {}
    for name, event in run.told("ejected", "backend.health"):
        if event.get("is", "unhealthy") == "unhealthy" and event["time"] >= run.done_wall[0]:
            out.setdefault(name, event["time"] - run.done_wall[0])
    known = [out.get(name, inf) for name in run.scenario.steps[0].origins]
    switches = sum(1 for event in run.events if event["kind"] == "region.switch")
    return {
        "switch_s": max([*known, *(at - fault_at for at in late)]),
        "failback_ends_s": _whole_again(samples, back_at, lost),
        "switches_per_h": switches * 3600 / run.scenario.seconds,
    }


def _victim_figures(run: Run) -> Figures:
    victims = run.scenario.victims
    moves = [event for name, event in run.told("backend.health") if name in victims and event["was"] != "unknown"]
    before, after = run.counts
    late = {name: count - before.get(name, 0) for name, count in after.items()}
    share = 100.0 * sum(late.get(name, 0) for name in victims) / max(1, sum(late.values()))
    return {
        "transitions_per_min": len(moves) * 60 / (run.scenario.seconds - run.scenario.steps[0].at),
        "ejections": float(sum(1 for name, _ in run.told("ejected") if name in victims)),
        "victim_share_late": share,
    }


def _region(sample: Sample) -> str:
    return sample.origin.partition("-")[0]


def _whole_again(samples: list[Sample], back_at: float, lost: set[str]) -> float | None:
    """When the region that came back carries all of it for good."""
    after = [sample for sample in samples if sample.at >= back_at]
    others = [sample.at for sample in after if _region(sample) not in lost]
    if not after or not others or others[-1] >= after[-1].at - 1.0:
        return None
    return others[-1] - back_at


def shape(samples: list[Sample], done: list[float]) -> list[dict[str, Any]]:
    """Percent of the answers by region in bins from the return on; empty without a return."""
    bins: dict[int, Counter[str]] = {}
    for sample in samples:
        if len(done) > 1 and sample.at >= done[1]:
            bins.setdefault(int((sample.at - done[1]) / SHAPE_S), Counter())[_region(sample)] += 1
    return [
        {"from_s": at * SHAPE_S, **{name: round(100 * n / counts.total(), 1) for name, n in sorted(counts.items())}}
        for at, counts in sorted(bins.items())
    ]


# -- showing -----------------------------------------------------------------------------------------------------------

COLUMNS = (
    ("failed", "failed", ".0f"),
    ("failed_pct", "failed %", ".2f"),
    ("slowest_s", "slowest s", ".2f"),
    ("affected", "affected", ".0f"),
    ("last_affected_s", "last affected s", ".1f"),
    ("switch_s", "switch s", ".2f"),
    ("over_s", "over s", ".1f"),
    ("failback_begins_s", "back from s", ".1f"),
    ("failback_ends_s", "back all s", ".1f"),
    ("transitions_per_min", "transitions/min", ".1f"),
    ("victim_share_late", "victim %", ".2f"),
    ("switches_per_h", "switches/h", ".0f"),
    ("retries", "retries", ".0f"),
)


def show(results: list[dict[str, Any]], console: Console) -> None:
    """The table, and the shape of each return."""
    table = Table(title="failover under a steady load of GETs", title_justify="left")
    table.add_column("scenario")
    table.add_column("requests", justify="right")
    for _, title, _ in COLUMNS:
        table.add_column(title, justify="right")
    table.add_column("targets")
    for result in results:
        figures = result["figures"]
        cells = [_cell(figures.get(key), form) for key, _, form in COLUMNS]
        words = [
            f"[{'green' if held else 'red'}]{name}{'' if held else ': missed'}[/]"
            for name, held in result["targets"].items()
        ]
        table.add_row(result["title"], f"{figures['requests']:.0f}", *cells, "\n".join(words))
    console.print(table)
    for result in results:
        if result["shape"]:
            bins = "  ".join(
                f"{each['from_s']:.0f} s: " + ", ".join(f"{k} {v:g} %" for k, v in each.items() if k != "from_s")
                for each in result["shape"]
            )
            console.print(f"{result['name']}, from the return on: {bins}", highlight=False)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def main() -> int:
    """Run what is asked for; 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="bench.failover", description="Rehearse the loss of backends and regions.")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--only", action="append", choices=[each.name for each in SCENARIOS], help="may be repeated")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second (default %(default)g)")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    given = parser.parse_args()
    wanted = given.only or (QUICK if given.quick else [each.name for each in SCENARIOS])
    console = Console(stderr=given.json, width=None if sys.stdout.isatty() else 200)
    results = []
    for scenario in SCENARIOS:
        if scenario.name in wanted:
            results.append(asyncio.run(play(scenario, given.rate, console)))
            console.print(f"{scenario.name}: done", style="dim")
    if given.json:
        print(orjson.dumps(results, option=orjson.OPT_INDENT_2).decode())
    else:
        show(results, console)
    return 0 if all(held for result in results for held in result["targets"].values()) else 1


if __name__ == "__main__":
    as_command(main)
