"""A machine that is cut off while purges pass:
`python -m bench.cut [--seconds 60] [--purges 1000] [--max-blind 30] [--lose]`.

Three gateways with a disk tier, each with a link of its own to one redis-server. The link of one is cut, the others
purge, the link is mended; clients ask the one that is cut off all the time. What they get is old (purged meanwhile) or
new; each answer counts from when it was asked for.

    late             purges whose answer named the machine as late: nobody was told that it had applied them
    old_while_cut    old answers before `max_blind` was over, as it may
    old_blind        old answers after that, until the end: none, whenever the link is mended
    old_after_mend   old answers between the mend and the moment in which the server heard it, if it was not blind
    old_after_heard  old answers from that moment on: none
    in_step_ms       from the mend until everything that was missed is applied

One rule: every process is ended, whatever happens; all of it is on loopback.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kit.fleet import HOST, LinkedMachines, Machine, Settings
from kit.ports import LOOPBACK
from kit.waiting import WAIT_S, until_blocking

from bench.processes import as_command

TARGETS = [f"/o{number}" for number in range(20)]
TOGETHER = 100  # purges of one request
CLIENTS = 4
PAUSE_S = 0.02  # of a client between requests, while nothing happens


class Answer(NamedTuple):
    """What a client got."""

    asked_at: float
    took_s: float
    is_old: bool


@dataclass
class Clients:
    """They ask one machine until they are ended."""

    machine: Machine
    answers: list[Answer] = field(default_factory=list)
    failed: int = 0
    pause_s: float = PAUSE_S

    def __post_init__(self) -> None:
        self._over = Event()
        self._threads = [Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self.machine.gateway.http_port, timeout=WAIT_S)
        while not self._over.wait(self.pause_s):
            number += 1
            began = monotonic()
            try:
                connection.request("GET", TARGETS[number % len(TARGETS)], headers={"Host": HOST})
                answer = connection.getresponse()
                body = answer.read()
                self.failed += answer.status != 200
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()
                continue
            self.answers.append(Answer(began, monotonic() - began, body != b"new"))
        connection.close()

    def end(self) -> None:
        """No more requests."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def old(self, after: float, before: float) -> list[Answer]:
        """The old answers that were asked for in that time."""
        return [each for each in self.answers if each.is_old and after <= each.asked_at < before]


def purge_all(machine: Machine, purges: int, cut: Machine) -> int:
    """So many purges, what clients ask for among them; how many named the machine that is cut off as late."""
    items = [{"tag": f"t{number}"} for number in range(purges - len(TARGETS))]
    items += [{"url": f"http://{HOST}{target}"} for target in TARGETS]
    late = 0
    for at in range(0, len(items), TOGETHER):
        found = machine.call("POST", "/v1/purge", {"items": items[at : at + TOGETHER]})
        late += sum(cut.name in each["machines"]["late"] for each in found["purges"])
    return late


def run(fleet: LinkedMachines, given: argparse.Namespace) -> dict[str, float]:
    """The figures."""
    cut, other, _ = fleet.machines
    link, server = fleet.link(cut), fleet.server
    fleet.origin.now = "old"
    for target in TARGETS:
        fleet.all_get(target)
    me = cut.fleet["id"]
    clients = Clients(cut)
    try:
        (link.lose if given.lose else link.cut)()
        cut_at = monotonic()
        until_blocking(lambda: not cut.fleet["in_step"])
        fleet.origin.now = "new"
        purged_at = monotonic()
        late = purge_all(other, given.purges, cut)
        sleep(max(0.0, given.seconds - (monotonic() - cut_at)))
        silent = server.say("HGET", "{edge}:machines", me)
        clients.pause_s = 0.0
        mended_at = monotonic()
        link.mend()
        until_blocking(lambda: server.say("HGET", "{edge}:machines", me) != silent)
        heard_at = monotonic()
        until_blocking(lambda: cut.fleet["in_step"])
        in_step_at = monotonic()
        sleep(0.5)
    finally:
        clients.end()
    blind_at, end = cut_at + given.max_blind, monotonic()
    after_mend = clients.old(mended_at, heard_at)
    return {
        "requests": len(clients.answers),
        "failed": clients.failed,
        "late": late,
        "old_while_cut": len(clients.old(purged_at, min(blind_at, mended_at))),
        "old_blind": len(clients.old(blind_at, end)),
        "old_after_mend": len(after_mend),
        "last_of_them_ms": round(max((each.asked_at - mended_at for each in after_mend), default=0.0) * 1000, 1),
        "old_after_heard": len(clients.old(heard_at, end)),
        "heard_ms": round((heard_at - mended_at) * 1000, 1),
        "in_step_ms": round((in_step_at - mended_at) * 1000),
        "slowest_ms": round(max(each.took_s for each in clients.answers) * 1000),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench.cut", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the link is cut")
    parser.add_argument("--purges", type=int, default=1000)
    parser.add_argument("--max-blind", type=float, default=30.0, help="fleet.max_blind, seconds; its default is 30")
    parser.add_argument("--lose", action="store_true", help="the link loses what is sent, and ends nothing")
    given = parser.parse_args()
    settings = Settings(max_blind_s=given.max_blind)
    with (
        tempfile.TemporaryDirectory(prefix="bench-cut-") as folder,
        closing(LinkedMachines(Path(folder), 3, settings)) as fleet,
    ):
        found = run(fleet, given)
    print("cut     ", ", ".join(f"{name} {value:,}" for name, value in found.items()))


if __name__ == "__main__":
    as_command(main)
