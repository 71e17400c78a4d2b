"""`python -m bench`: options, progress, the table, and the JSON of the run in bench/results/.

One rule: it refuses in one line before anything has started, and whatever ends it, everything that it started ends.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench import table
from bench.cases import CASES
from bench.peers import PEERS
from bench.processes import Refused, as_command
from bench.run import Bench, Outcome, Plan, cores, default_peers, versions

RESULTS = Path(__file__).with_name("results")


def _names(text: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    chosen = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in chosen if word not in known]
    if unknown or not chosen:
        raise Refused(f"no such {what}: {', '.join(unknown) or 'none given'}; there are {', '.join(known)}")
    return tuple(name for name in known if name in chosen)


def plan_from(arguments: list[str]) -> tuple[Plan, Path]:
    """The plan and where its JSON goes."""
    every = tuple(case.name for case in CASES)
    parser = argparse.ArgumentParser(prog="bench", description="Measure the gateway beside its peers, on loopback.")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of each case (3)")
    parser.add_argument("--seconds", type=int, default=4, help="seconds of load for each figure (4)")
    parser.add_argument("--only", default=",".join(every), help="cases: " + ", ".join(every))
    parser.add_argument("--peers", default=",".join(default_peers()), help="peers: " + ", ".join(PEERS))
    parser.add_argument("--quick", action="store_true", help="one round of 1 s, 200 kept connections, 64 MiB bodies")
    parser.add_argument("--json", type=Path, default=None, help="where the figures go (bench/results/TIME.json)")
    chosen = parser.parse_args(arguments)
    if not (1 <= chosen.rounds <= 20 and 1 <= chosen.seconds <= 60):
        raise Refused("rounds must be 1 to 20 and seconds 1 to 60")
    cases = _names(chosen.only, every, "case")
    peers = _names(chosen.peers, tuple(PEERS), "peer")
    stamp = time.strftime("%Y%m%dT%H%M%S")
    path = chosen.json or RESULTS / f"{stamp}.json"
    if chosen.quick:
        return Plan(cases, peers, rounds=1, seconds=1, kept=200, big_mib=64), path
    return Plan(cases, peers, chosen.rounds, chosen.seconds), path


def machine() -> dict[str, str | int]:
    """What a reader needs to judge the figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    proxy, loader = cores()
    return {
        "cpu": model,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "proxy_core": proxy,
        "load_core": loader,
    }


def write_json(path: Path, plan: Plan, outcome: Outcome, said: dict[str, object]) -> None:
    """Medians first, every round behind them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        **said,
        "plan": {name: getattr(plan, name) for name in ("rounds", "seconds", "kept", "big_mib", "cases", "peers")},
        "medians": outcome.medians(),
        "notes": outcome.notes,
        "rounds": outcome.rounds,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def main(arguments: list[str]) -> None:
    """Run the plan and show its table. Raises Refused."""
    console, progress = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = max(console.width, 150)  # a log file has room
    plan, path = plan_from(arguments)
    said: dict[str, object] = {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    if cores()[0] == cores()[1]:
        progress.print("only one core: proxies and load share it, so read the ratios with care", style="yellow")
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        with Bench.opened(plan, Path(name)) as bench:
            said["versions"] = versions(plan.peers)
            with progress.status("starting") as status:
                outcome = bench.measure(status.update)
        write_json(path, plan, outcome, said)
    table.show(outcome, plan.peers, console)
    console.print(f"figures: {path}", markup=False, highlight=False)


if __name__ == "__main__":
    as_command(lambda: main(sys.argv[1:]))
