"""Probes of applications: every worker that runs one is asked over its link, for each has an instance of its own.

One rule: an application is well when it is in all workers. A worker that does not answer in time is no reason to end
it: who is too busy to answer a probe is told as unwell.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from edge.control.link import LinkLost, Refused
from edge.control.probes import ProbeKind, ProbeResult, ProbeTarget, judged
from edge.control.slots import Slot, State
from edge.control.workers import Workers
from edge.frames import FrameKind

LOOK_S = 0.1
MARGIN_S = 0.5  # the worker's own deadline comes first


async def ask_workers(workers: Workers, target: ProbeTarget) -> ProbeResult:
    """The first that is unwell, or the slowest. Waits while no worker runs: there is nobody to ask."""
    while not (ready := [slot for slot in workers.holding if slot.state is State.READY]):  # noqa: ASYNC110 (as they come)
        await asyncio.sleep(LOOK_S)
    answers = await asyncio.gather(*(_one(slot, target) for slot in ready))
    return next((each for each in answers if not each.ok), max(answers, key=lambda each: each.latency_s))


async def _one(slot: Slot, target: ProbeTarget) -> ProbeResult:
    if target.kind is ProbeKind.TCP:
        return ProbeResult(True, 0.0, "its worker runs")
    began, child = monotonic(), slot.child
    body = {
        "what": "probe",
        "app": target.host,
        "path": target.path,
        "host": target.authority.decode("latin-1") or target.host,
        "timeout_s": target.timeout_s,
    }
    try:
        if child is None:
            raise LinkLost("the worker has ended")
        async with asyncio.timeout(target.timeout_s + MARGIN_S):
            found = await child.link.ask(FrameKind.ASK, body)
    except TimeoutError:
        return ProbeResult(False, monotonic() - began, f"worker {slot.index} did not answer in time")
    except (LinkLost, Refused) as error:
        return ProbeResult(False, monotonic() - began, f"worker {slot.index}: {error.detail}")
    if "error" in found:
        return ProbeResult(False, monotonic() - began, f"worker {slot.index}: {found['error']}")
    return judged(target, int(found["status"]), str(found["body"]).encode("latin-1"), float(found["seconds"]))
