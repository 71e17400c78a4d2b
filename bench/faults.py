"""The scenarios of `bench.failover`: which pool, which fault at which second, and what each must reach.

One rule: a scenario is data; the run knows no scenario by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """What is done to an origin."""

    KILL = "kill -9"
    STOP = "SIGSTOP"
    CONTINUE = "SIGCONT"
    REFUSE = "refuse"
    LISTEN = "listen"
    START = "start"
    SLOW = "slow"
    FLAP = "flap"
    SICK = "503"
    RESET = "reset"
    WELL = "ok"


@dataclass(frozen=True, slots=True)
class Step:
    """At second `at` this happens to these origins."""

    at: float
    fault: Fault
    origins: tuple[str, ...]


Figures = dict[str, float | None]
Check = tuple[str, Callable[[Figures], bool]]  # the target's words, and whether it holds


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run of a fresh gateway. `lines` go into the pool's table; `origins` are region → how many."""

    name: str
    title: str
    seconds: float
    steps: tuple[Step, ...]
    targets: tuple[Check, ...]
    lines: str = ""
    probes: str = 'interval = "5s", timeout = "2s"'
    origins: tuple[tuple[str, int], ...] = (("eu", 2), ("us", 2))
    victims: tuple[str, ...] = ()  # whose transitions and share are told
    slow_s: float = 0.5  # a request that took longer was affected


def _at_most(name: str, bound: float) -> Callable[[Figures], bool]:
    return lambda figures: (value := figures.get(name)) is not None and value <= bound


def _below(name: str, bound: float) -> Callable[[Figures], bool]:
    return lambda figures: (value := figures.get(name)) is not None and value < bound


def _no(name: str) -> Callable[[Figures], bool]:
    return lambda figures: figures.get(name) == 0


ALL = ("eu-1", "eu-2", "us-1", "us-2")
BACK: Check = ("back from ≤ 10 s", _at_most("failback_begins_s", 10.0))
NONE_FAILED: Check = ("0 failed", _no("failed"))
SLOWEST: Check = ("slowest ≤ 2 s", _at_most("slowest_s", 2.0))
EU = ("eu-1", "eu-2")
FAST = 'interval = "250ms", timeout = "200ms"'
SOON = 'up_after = "5s"\nramp = "10s"\nmin_dwell = "5s"\n'


def switch(bound: float) -> Check:
    """All traffic on the next region within this time."""
    return f"switch < {bound:g} s", _at_most("switch_s", bound)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("kill", "one backend killed -9", 8, (Step(2, Fault.KILL, EU[:1]),), (NONE_FAILED, SLOWEST)),
    Scenario("refuse", "one backend refuses", 8, (Step(2, Fault.REFUSE, EU[:1]),), (NONE_FAILED, SLOWEST)),
    Scenario("stop", "one backend hangs (SIGSTOP)", 20, (Step(2, Fault.STOP, EU[:1]),), (NONE_FAILED, SLOWEST)),
    Scenario(
        "slow", "one backend takes 2 s", 14, (Step(2, Fault.SLOW, EU[:1]),),
        (NONE_FAILED, ("slowest ≤ 2.2 s", _at_most("slowest_s", 2.2))),
    ),
    Scenario(
        "flap", "one backend fails 1 probe of 3", 62, (Step(1, Fault.FLAP, EU[:1]),),
        (NONE_FAILED, ("≤ 2 transitions a minute", _at_most("transitions_per_min", 2.0))), victims=EU[:1],
    ),
    Scenario(
        "sick", "one of five answers 503 at once, latency policy", 22, (Step(2, Fault.SICK, EU[:1]),),
        (NONE_FAILED, ("< 2 % of attempts after 10 s", _at_most("victim_share_late", 2.0))),
        lines='balance = "latency"\n', origins=(("eu", 5),), victims=EU[:1],
    ),
    Scenario(
        "kill-back", "one backend killed -9 and back", 30, (Step(2, Fault.KILL, EU[:1]), Step(14, Fault.START, EU[:1])),
        (NONE_FAILED, SLOWEST, BACK),
    ),
    Scenario(
        "stop-back", "one backend hangs (SIGSTOP) and comes back", 30,
        (Step(2, Fault.STOP, EU[:1]), Step(14, Fault.CONTINUE, EU[:1])), (NONE_FAILED, SLOWEST, BACK),
    ),
    Scenario(
        "reset", "one of three resets bodies", 22, (Step(2, Fault.RESET, EU[:1]),),
        (("< 1.5 % cut", _below("failed_pct", 1.5)),), origins=(("eu", 3),), victims=EU[:1],
    ),
    Scenario(
        "alone", "the only backend restarts: down for 1 s", 10,
        (Step(2, Fault.KILL, EU[:1]), Step(3, Fault.START, EU[:1])), (NONE_FAILED,), origins=(("eu", 1),),
    ),
    Scenario(
        "total", "every backend of both regions killed and back", 22,
        (Step(2, Fault.KILL, ALL), Step(12, Fault.START, ALL)), (("over in < 3 s", _below("over_s", 3.0)),),
    ),
    Scenario(
        "region", "a region killed and back, default settings", 100,
        (Step(2, Fault.KILL, EU), Step(15, Fault.START, EU)), (NONE_FAILED, SLOWEST, switch(5)),
    ),
    Scenario(
        "region-fast", "a region killed, probes of 250 ms", 8, (Step(2, Fault.KILL, EU),),
        (NONE_FAILED, SLOWEST, switch(1)), probes=FAST,
    ),
    Scenario(
        "region-stop", "a region hangs (SIGSTOP) and comes back", 40,
        (Step(2, Fault.STOP, EU), Step(20, Fault.CONTINUE, EU)), (NONE_FAILED, SLOWEST, switch(10), BACK),
        lines='ramp = "5s"\n',
    ),
    Scenario(
        "switch", "failover = switch: a region killed and back, short holds", 50,
        (Step(2, Fault.KILL, EU), Step(10, Fault.START, EU)),
        (NONE_FAILED, SLOWEST, switch(5), ("≤ 720 switches an hour (min_dwell 5 s)", _at_most("switches_per_h", 720))),
        lines='failover = "switch"\n' + SOON, probes=FAST,
    ),
)  # fmt: skip
QUICK = ("kill", "refuse", "stop", "reset", "alone", "total", "region-fast", "region-stop")
