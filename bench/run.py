"""One run: start origin and peers, measure each case in interleaved rounds, take medians, end everything.

Proxies share one core, of which only one is under load at a time; wrk, the origin and this process share another.
One rule: a figure that could not be taken is a note in its place, never a zero; only a peer that does not start ends
the run.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import big, h2load, handshakes, idle, load, origin
from bench.cases import CASES, GATEWAY, KEPT, Case, Kind
from bench.certificates import certificates
from bench.measure import cpu_seconds
from bench.peers import GATEWAYS, PEERS, SPEAK_TLS, Site
from bench.processes import Refused, Running, answer, free_ports

Figures = dict[str, float]
Progress = Callable[[str], None]
Work = Callable[[Case, str], Figures]
WARM_S = 2
NOT_FOR_NAIVE = "reads bodies whole"
NO_TLS = "not set up with TLS here"
SECURE = (Kind.TLS, Kind.HANDSHAKE)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: names of cases and peers, rounds, seconds of each load, and the sizes of the two memory cases."""

    cases: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int = 3
    seconds: int = 4
    kept: int = KEPT
    big_mib: int = 1024


@dataclass(slots=True)
class Outcome:
    """`rounds[case][peer]` is one dictionary of figures for each round; `notes` says what is missing and why."""

    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)

    def medians(self) -> dict[str, dict[str, Figures]]:
        """The median over the rounds of each figure."""
        return {
            case: {
                peer: {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
                for peer, rounds in peers.items()
            }
            for case, peers in self.rounds.items()
        }


def cores() -> tuple[int, int]:
    """(the proxies' core, the load's core)."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


class Bench:
    """What a run has started; a context manager through `opened`."""

    def __init__(self, plan: Plan, directory: Path, stack: ExitStack) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self._directory = directory
        self._stack = stack
        self._proxy_core, self._load_core = cores()
        self._files, self._slow, self._sink = free_ports(3)
        self._running: dict[str, tuple[Site, Running]] = {}
        self._fresh = 0

    @classmethod
    @contextmanager
    def opened(cls, plan: Plan, directory: Path) -> Iterator[Bench]:
        """Everything started; everything ended afterwards."""
        for name in plan.peers:
            PEERS[name].path()  # refuse before anything starts
        idle.need_descriptors(max(4096, plan.kept * 2 + 512))
        os.sched_setaffinity(0, {cores()[1]})
        with ExitStack() as stack:
            bench = cls(plan, directory, stack)
            bench._start()
            yield bench

    def _start(self) -> None:
        enter = self._stack.enter_context
        certificates(self._directory)
        enter(origin.start(self._directory, self._files, self._load_core))
        slow = [sys.executable, "-m", "bench.slow_origin", str(self._slow)]
        enter(Running("slow-origin", slow, self._directory, self._load_core)).wait_for(self._slow, "/count")
        for name in self.plan.peers:
            self._running[name] = self._start_peer(name)

    def _start_peer(self, name: str) -> tuple[Site, Running]:
        self._fresh += 1
        directory = self._directory / f"{name}-{self._fresh}"
        directory.mkdir()
        port, spare, tls = free_ports(3)
        site = Site(directory, port, spare, self._files, self._slow, self._sink, tls, self._directory)
        return site, self._stack.enter_context(PEERS[name].start(site, self._proxy_core))

    # -- cases

    def measure(self, say: Progress) -> Outcome:
        """All cases."""
        for case in CASES:
            if case.name in self.plan.cases:
                self._case(case, say)
        return self.outcome

    def _case(self, case: Case, say: Progress) -> None:
        once = case.kind in (Kind.IDLE, Kind.BIG)
        names = list(self.plan.peers)
        if case.kind is Kind.LATENCY:
            names.insert(0, "direct")
        for name in names:
            if case.cached:
                self._attempt(case, name, self._warm)
        for number in range(1 if once else self.plan.rounds):
            for name in names:
                if name in self.outcome.notes.get(case.name, {}):
                    continue
                say(f"{case.title}: round {number + 1}, {name}")
                figures = self._attempt(case, name, self._figures)
                if figures is not None:
                    self.outcome.rounds.setdefault(case.name, {}).setdefault(name, []).append(figures)

    def _attempt(self, case: Case, name: str, work: Work) -> Figures | None:
        try:
            return work(case, name)
        except Refused as refused:
            self.outcome.notes.setdefault(case.name, {})[name] = str(refused)
            return None

    def _figures(self, case: Case, name: str) -> Figures:
        if case.kind is Kind.IDLE:
            return self._idle(case, name)
        if case.kind is Kind.BIG:
            return self._big(name)
        if name == "direct":
            seen = load.run(self._files, self._shape(case), self._load_core)
            return {"p50_us": seen.p50_us, "p99_us": seen.p99_us}
        return self._loaded(case, name)

    def _shape(self, case: Case, seconds: int = 0, mode: str = "") -> load.Shape:
        return load.Shape(case.path, mode or case.mode, case.connections, seconds or self.plan.seconds)

    def _warm(self, case: Case, name: str) -> Figures:
        site, _ = self._running[name]
        mode = "each" if case.mode == "zipf" else case.mode
        if mode not in ("each", "h2-paths"):
            answer(site.port, case.path)  # one fill, so that no herd meets a cold cache
        if case.kind in SECURE:
            self._load(case, name, WARM_S)
        else:
            load.run(site.port, self._shape(case, WARM_S, mode), self._load_core)
        return {}

    def _load(self, case: Case, name: str, seconds: int) -> load.Load:
        """One run of the load that the case is measured with."""
        site, _ = self._running[name]
        if case.kind not in SECURE:
            return load.run(site.port, self._shape(case, seconds), self._load_core)
        if name not in SPEAK_TLS:
            raise Refused(NO_TLS)
        if case.kind is Kind.HANDSHAKE:
            how = handshakes.Shape(case.path, case.mode.startswith("resumed"), case.mode.endswith("-rsa"))
            return handshakes.run(site.tls_port, how, seconds)
        streams = h2load.Streams(
            case.path, case.connections, case.streams, case.mode == "http/1.1", case.mode == "h2-paths"
        )
        return h2load.run(site.tls_port, streams, seconds, self._load_core, self._directory)

    def _behind(self, case: Case) -> tuple[int, int]:
        """Requests that reached the origin so far: (cacheable, not cacheable)."""
        if case.kind is Kind.SLOW:
            cacheable, others = answer(self._slow, "/count")[1].split()
            return int(cacheable), int(others)
        return origin.requests_so_far(self._files), 0

    def _loaded(self, case: Case, name: str) -> Figures:
        _, running = self._running[name]
        behind, cpu = self._behind(case), cpu_seconds(running.pid)
        seen = self._load(case, name, self.plan.seconds)
        used = cpu_seconds(running.pid) - cpu
        after = self._behind(case)
        figures = {
            "cpu_us": used / seen.requests * 1e6,
            "rps": seen.per_second,
            "p50_us": seen.p50_us,
            "p99_us": seen.p99_us,
            "mib_s": seen.bytes / seen.seconds / 2**20,
            "busy": used / seen.seconds,
            "errors": seen.errors,
        }
        if case.cached:
            others = after[1] - behind[1]
            cacheable = max(1, seen.requests - others)
            figures["hit_ratio"] = max(0.0, 1 - max(0, after[0] - behind[0] - 1) / cacheable)
        if case.kind is Kind.LATENCY:
            direct = self.outcome.rounds.get(case.name, {}).get("direct", [])
            if direct:
                figures["added_us"] = max(1.0, seen.p50_us - direct[-1]["p50_us"])
        return figures

    @contextmanager
    def _fresh_peer(self, name: str) -> Iterator[tuple[Site, Running]]:
        """A process that has done nothing yet: memory that an earlier case left behind would hide growth."""
        site, running = self._start_peer(name)
        try:
            yield site, running
        finally:
            running.stop()

    def _idle(self, case: Case, name: str) -> Figures:
        protocol = "" if case.mode == "plain" else case.mode
        if protocol and name not in SPEAK_TLS:
            raise Refused(NO_TLS)
        with self._fresh_peer(name) as (site, running):
            port = site.tls_port if protocol else site.port
            return {"bytes_each": idle.bytes_each(port, case.path, running.pid, self.plan.kept, protocol)}

    def _big(self, name: str) -> Figures:
        if name == "naive":
            raise Refused(NOT_FOR_NAIVE)
        with self._fresh_peer(name) as (site, running):
            return asdict(big.growth(site.port, self._sink, running.pid, self.plan.big_mib * big.MIB))


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """What each peer says about itself."""
    return {name: PEERS[name].version_line() for name in names if name in PEERS}


def default_peers() -> tuple[str, ...]:
    """The gateway without a disk tier first, and the others."""
    return (GATEWAY, *(name for name in PEERS if name not in GATEWAYS))
