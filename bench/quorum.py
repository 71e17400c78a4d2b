"""How long until a machine believes what most machines' probes say: `python -m bench.quorum [--rounds 10]`.

Three gateways, each with a way of its own to one backend. The ways of two are cut; from the moment at which the second
of them has found out by its own probes, until the third, which reaches the backend, believes that it is down.

One rule: moments are those of the gateways' own events, so that asking for them adds nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kit.fleet import Machines, Settings
from kit.redis import RedisProcess
from kit.relay import Relay
from kit.waiting import until_blocking

from bench.processes import as_command

PROBES = 'health = { path = "/", interval = "300ms", timeout = "200ms", fall = 2, rise = 1 }'
SETTINGS = Settings(max_blind_s=30.0, fleet='share = ["health"]', pool=PROBES)
KINDS = ("backend.health", "fleet.disputed")


class Disagreeing(Machines):
    """The three gateways."""

    def __init__(self, directory: Path, url: str) -> None:
        self.ways: list[Relay] = []
        super().__init__(directory, [url] * 3, SETTINGS)

    def way_to_origin(self) -> int:
        """As `Machines.way_to_origin`."""
        self.ways.append(Relay(self.origin.port))
        return self.ways[-1].port

    def all_say(self, word: str) -> bool:
        """Whether all of them believe this of the backend, and their own probes say so too."""
        found = [machine.call("GET", "/v1/pools/origin/backends")["backends"][0] for machine in self.machines]
        return all(each["health"] == word for each in found)

    def agreed(self) -> bool:
        """Whether all probes say that it is up."""
        return self.all_say("healthy") and not any(machine.fleet["disputes"] for machine in self.machines)

    def first_said(self, number: int, after: float) -> float:
        """When a machine's mind first changed after a moment: by its own probes, or by what the others say."""
        events = [self.machines[number].call("GET", f"/v1/events?follow=0&kind={kind}")["events"] for kind in KINDS]
        times = [datetime.fromisoformat(each["time"]).timestamp() for found in events for each in found]
        return min(each for each in times if each >= after)

    def round(self) -> float:
        """Seconds."""
        until_blocking(self.agreed, 30)
        began = time.time()
        for way in self.ways[:2]:
            way.cut()
        until_blocking(lambda: self.all_say("unhealthy"), 30)
        took = self.first_said(2, began) - max(self.first_said(0, began), self.first_said(1, began))
        for way in self.ways:
            way.mend()
        return took

    def close(self) -> None:
        """End everything."""
        super().close()
        for way in self.ways:
            way.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench.quorum", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-quorum-") as folder:
        server = RedisProcess.start(Path(folder))
        try:
            world = Disagreeing(Path(folder), server.url)
            try:
                took = sorted(world.round() for _ in range(rounds))
            finally:
                world.close()
        finally:
            server.kill()
    print(f"quorum   rounds {rounds}, median {took[len(took) // 2]:.3f} s, longest {took[-1]:.3f} s")


if __name__ == "__main__":
    as_command(main)
