"""The figures for people: a table for each kind of case, the gateway's ratios, and which targets hold.

One rule: a ratio or a target without both of its figures is shown as a dash, never as held.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from bench.cases import CASES, GATEWAY, TARGETS, Case, Kind, Target
from bench.run import Figures, Outcome

DASH = "–"
Medians = dict[str, dict[str, Figures]]


def _figure(medians: Medians, case: str, peer: str, name: str) -> float | None:
    return medians.get(case, {}).get(peer, {}).get(name)


def _ratio(mine: float | None, other: float | None) -> str:
    return DASH if mine is None or not other else f"{mine / other:.2f}"


def _compact(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _cases(kinds: Iterable[Kind], medians: Medians, outcome: Outcome) -> list[Case]:
    wanted = set(kinds)
    return [case for case in CASES if case.kind in wanted and (case.name in medians or case.name in outcome.notes)]


def load_table(outcome: Outcome, peers: tuple[str, ...]) -> Table:
    """CPU µs per request, thousands of requests per second, and the gateway's CPU over each other peer's."""
    medians = outcome.medians()
    others = [peer for peer in peers if peer != GATEWAY]
    table = Table(title="CPU µs per request (thousand requests/s)", title_justify="left")
    table.add_column("case")
    for peer in peers:
        table.add_column(peer, justify="right")
    if GATEWAY in peers:
        for peer in others:
            table.add_column(f"÷ {peer}", justify="right")
    for case in _cases((Kind.LOAD, Kind.TLS, Kind.HANDSHAKE), medians, outcome):
        cells = [_load_cell(medians, outcome, case.name, peer) for peer in peers]
        mine = _figure(medians, case.name, GATEWAY, "cpu_us")
        if GATEWAY in peers:
            cells += [_ratio(mine, _figure(medians, case.name, peer, "cpu_us")) for peer in others]
        table.add_row(case.title, *cells)
    return table


def _load_cell(medians: Medians, outcome: Outcome, case: str, peer: str) -> str:
    figures = medians.get(case, {}).get(peer)
    if figures is None:
        return "failed" if peer in outcome.notes.get(case, {}) else DASH
    marks = ""
    if figures["errors"]:
        marks += f" !{figures['errors']:.0f}"
    if figures["busy"] < 0.85:
        marks += " ~"  # the load's core was the limit, not the proxy: requests/s says little
    if figures.get("hit_ratio", 1.0) < 0.99:
        marks += f" h{figures['hit_ratio'] * 100:.0f}%"
    return f"{figures['cpu_us']:.1f} ({figures['rps'] / 1000:.1f}){marks}"


def latency_table(outcome: Outcome, peers: tuple[str, ...]) -> Table:
    """p50 / p99 in µs."""
    medians = outcome.medians()
    table = Table(title="latency µs, p50 / p99", title_justify="left")
    table.add_column("case")
    shown = ("direct", *peers)
    for peer in shown:
        table.add_column(peer, justify="right")
    for case in _cases((Kind.LOAD, Kind.TLS, Kind.HANDSHAKE, Kind.LATENCY, Kind.SLOW), medians, outcome):
        cells = []
        for peer in shown:
            half, tail = (_figure(medians, case.name, peer, name) for name in ("p50_us", "p99_us"))
            cells.append(DASH if half is None or tail is None else f"{half:,.0f} / {tail:,.0f}")
        table.add_row(case.title, *cells)
    return table


OTHERS = (
    ("latency", "added_us", "added at 1 connection, µs"),
    ("idle", "bytes_each", "bytes of a kept connection"),
    ("tls-idle", "bytes_each", "the same over TLS"),
    ("h2-idle", "bytes_each", "the same over TLS, HTTP/2"),
    ("big", "down_growth_mib", "download: growth, MiB"),
    ("big", "up_growth_mib", "upload: growth, MiB"),
    ("big", "down_mib_s", "download: MiB/s"),
    ("big", "up_mib_s", "upload: MiB/s"),
    ("slow-cached", "hit_ratio", "50 ms origin: hit ratio of the cacheable"),
)


def other_table(outcome: Outcome, peers: tuple[str, ...]) -> Table:
    """Memory, added latency, hit ratio."""
    medians = outcome.medians()
    table = Table(title="memory, latency added, hits", title_justify="left")
    table.add_column("figure")
    for peer in peers:
        table.add_column(peer, justify="right")
    for case, metric, title in OTHERS:
        values = [_figure(medians, case, peer, metric) for peer in peers]
        if any(value is not None for value in values):
            table.add_row(
                title, *(f"{v:.3f}" if metric == "hit_ratio" and v is not None else _compact(v) for v in values)
            )
    return table


def judge(target: Target, medians: Medians) -> tuple[float | None, float | None, bool | None]:
    """(the gateway's figure, the bound, whether it holds); None where a figure is missing."""
    mine = _figure(medians, target.case, GATEWAY, target.metric)
    if target.reference.startswith("case:"):
        other = _figure(medians, target.reference.removeprefix("case:"), GATEWAY, target.metric)
    elif target.reference:
        other = _figure(medians, target.case, target.reference, target.metric)
    else:
        other = 1.0
    if mine is None or other is None:
        return mine, None, None
    bound = target.factor * other
    return mine, bound, mine >= bound if target.at_least else mine <= bound


def target_table(outcome: Outcome) -> Table:
    """Each target of the cases that this run had, with its bound in it."""
    medians = outcome.medians()
    table = Table(title="targets", title_justify="left")
    for name in ("case", "target", "gateway", "bound", ""):
        table.add_column(name, justify="left" if name in ("case", "target", "") else "right")
    for target in TARGETS:
        mine, bound, holds = judge(target, medians)
        if mine is None:
            continue
        sign = "≥" if target.at_least else "≤"
        text = f"{target.metric} {sign} {target.factor:g}" + (f" × {target.reference}" if target.reference else "")
        if target.stretch:
            text += " (stretch)"
        table.add_row(target.case, text, _compact(mine), _compact(bound), _verdict(mine, bound, holds))
    return table


def _verdict(mine: float | None, bound: float | None, holds: bool | None) -> str:
    if mine is None or bound is None or holds is None:
        return DASH
    return "[green]holds[/]" if holds else f"[red]misses: {mine / bound:.2f} of the bound[/]"


def show(outcome: Outcome, peers: tuple[str, ...], console: Console) -> None:
    """Print everything that there are figures for."""
    for table in (load_table(outcome, peers), latency_table(outcome, peers), other_table(outcome, peers)):
        if table.row_count:
            console.print(table)
    if GATEWAY in peers:
        console.print(target_table(outcome))
    for case, notes in outcome.notes.items():
        for peer, note in notes.items():
            console.print(f"{case}, {peer}: {note}", style="yellow", markup=False, highlight=False)
    console.print("! errors   ~ the proxy's core was not full   h hit ratio under 99 %", style="dim")
