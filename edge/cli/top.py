"""`edge top`: the gateway live in a terminal of 60 to 200 columns.

    head      rate, hit rate, bandwidth, first byte, errors, and the last minute as a line of blocks
    regions   tiers of the store            two columns from 110 on, one below
    backends  routes, URLs, events

One rule: what does not fit is left out from the end, by importance; nothing wraps. A terminal that is too low shows
fewer rows of each table, and says how many there are.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.cli.client import admin_options, clock, connect, console, facts_of, safe, size

BLOCKS = "▁▂▃▄▅▆▇█"
SHOWN_S = 60
RECENT_S = 10
WIDE = 110  # columns from which there are two tables beside each other
GOOD, WARN, BAD, DIM = "green", "yellow", "bold red", "dim"
TONES = {
    **dict.fromkeys(("active", "healthy", "ready"), GOOD),
    **dict.fromkeys(("draining", "degraded", "starting", "unknown"), WARN),
    **dict.fromkeys(("inactive", "unhealthy", "dead"), BAD),
}


class Seen(NamedTuple):
    """What one look at the gateway found."""

    status: dict[str, Any]
    series: dict[str, Any]
    cache: dict[str, Any]
    hottest: dict[str, Any]


@click.command()
@admin_options
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds.")
@click.option("--count", type=click.IntRange(1), help="End after so many refreshes.")
def top(config: Path | None, admin: str | None, token_file: Path | None, interval: float, count: int | None) -> None:
    """Show traffic, regions and backends live, until Ctrl-C."""
    gateway = connect(config, admin, token_file)

    def look() -> Seen:
        return Seen(
            gateway.get("/v1/status"),
            gateway.get("/v1/series", {"step": "1"}),
            gateway.get("/v1/cache"),
            gateway.get("/v1/cache/top", {"limit": "20"}),
        )

    def drawn() -> RenderableType:
        columns, rows = shutil.get_terminal_size((160, 60))
        return view(seen, columns, rows if sys.stdout.isatty() else 60)

    seen, shown = look(), 0
    with Live(drawn(), console=console(width=None), screen=sys.stdout.isatty(), auto_refresh=False) as live:
        while True:
            live.update(drawn(), refresh=True)
            shown += 1
            if count is not None and shown >= count:
                return
            time.sleep(interval)
            seen = look()


# -- the whole ---------------------------------------------------------------------------------------------------------


def view(seen: Seen, columns: int, rows: int) -> RenderableType:
    """Everything, for a terminal of this size."""
    head = _head(seen, columns)
    left = max(6, rows - len(head) - 2)
    regions, backends = _regions(seen), _backends(seen)
    routes, urls, events = _routes(seen), _urls(seen), _events(seen)
    tiers = _tiers(seen)
    if columns < WIDE:
        parts = [regions, backends, tiers, routes, urls, events]
        return Group(*head, *_stacked(parts, columns, left))
    half = (columns - 3) // 2
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(width=half)
    grid.add_column(width=half)
    one = Group(*_stacked([regions, backends, events], half, left))
    grid.add_row(one, Group(*_stacked([tiers, routes, urls], half, left)))
    return Group(*head, grid)


class UncutTable(NamedTuple):
    """A table before it is cut to size: columns by importance (title, width, whether a number), rows of cells."""

    title: str
    columns: Sequence[tuple[str, int, bool]]
    rows: Sequence[Sequence[str | Text]]
    least: int = 2  # rows that it keeps when there is little room


def _stacked(parts: Sequence[UncutTable], columns: int, rows: int) -> list[RenderableType]:
    """Tables one below the other: each gets its least, then the first ones what they want."""
    parts = [part for part in parts if part.rows]
    frame = 3  # title, header, a line between
    given = [min(len(part.rows), part.least) for part in parts]
    while parts and sum(given) + frame * len(parts) > rows:
        parts, given = parts[:-1], given[:-1]
    spare = rows - sum(given) - frame * len(parts)
    for at, part in enumerate(parts):
        more = min(spare, len(part.rows) - given[at])
        given[at] += more
        spare -= more
    return [_table(part, columns, many) for part, many in zip(parts, given, strict=True)]


def _table(part: UncutTable, columns: int, many: int) -> RenderableType:
    fitting, used = 0, 0
    for _, width, _ in part.columns:
        if used + width > columns:
            break
        used += width + 2
        fitting += 1
    found = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at, (title, width, number) in enumerate(part.columns[:fitting]):
        wide = {"min_width": width} if at else {"min_width": width, "max_width": max(width, width + columns - used)}
        found.add_column(title, justify="right" if number else "left", no_wrap=True, overflow="ellipsis", **wide)  # type: ignore[arg-type]
    for row in part.rows[:many]:
        found.add_row(*(cell if isinstance(cell, Text) else Text(safe(cell)) for cell in row[:fitting]))
    cut = f" ({many} of {len(part.rows)})" if many < len(part.rows) else ""
    return Group(Text(f"{part.title}{cut}", style="bold cyan"), found, "")


# -- parts -------------------------------------------------------------------------------------------------------------


def _protocols(counted: list[dict[str, Any]]) -> str:
    """Which part of all requests since the start came by HTTP/2, and by TLS."""
    total = sum(each["requests"] for each in counted)
    modern = sum(each["requests"] for each in counted if each["protocol"] == "HTTP/2.0")
    secure = sum(each["requests"] for each in counted if each["tls"])
    return f"{_percent(modern, total)} HTTP/2  {_percent(secure, total)} TLS" if total else ""


def _head(seen: Seen, columns: int) -> list[RenderableType]:
    status, rows = seen.status, _rows(seen.series)
    ready = "ready" if status["ready"] else status["readiness"]
    alive = sum(1 for worker in status["workers"] if worker["state"] == "ready")
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("StreamGate Edge ", "bold").append(ready, TONES.get(ready, WARN))
    line.append(f"  up {span(status['uptime_s'])}  {alive}/{len(status['workers'])} workers", DIM)
    line.append(f"  {status['requests']['connections']} connections", DIM)
    if shares := _protocols(status["requests"]["protocols"]):
        line.append(f"  {shares}", DIM)
    recent = rows[-RECENT_S:]
    many = len(recent) or 1
    mean = {name: sum(row[name] for row in recent) / many for name in MEANS}
    facts = [
        ("requests/s", f"{mean['requests']:.1f}"),
        ("hits", _percent(mean["hits"], mean["eligible"])),
        ("out", f"{size(mean['bytes_out'])}/s"),
        ("origin", f"{size(mean['origin_in'])}/s"),
        *((name, _ms(_middle(row[f"{name}_ms"] for row in recent))) for name in ("p50", "p90", "p99")),
        ("5xx", _percent(mean["server_errors"], mean["requests"])),
        ("4xx", _percent(mean["client_errors"], mean["requests"])),
    ]
    numbers = Text(no_wrap=True, overflow="ellipsis")
    for name, value in facts:
        if len(numbers) + len(name) + len(value) + 3 > columns:
            break
        numbers.append(f"{name} ", DIM).append(f"{value}  ", "bold")
    return [line, numbers, spark([row["requests"] for row in rows[-SHOWN_S:]], columns), ""]


MEANS = ("requests", "hits", "eligible", "bytes_out", "origin_in", "server_errors", "client_errors")


def spark(values: Sequence[float], columns: int) -> Text:
    """A line of blocks, the newest value to the right, and what its highest means."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return Text("no requests in the last minute", DIM)
    note = f" {highest:.0f}/s in the last minute at most"
    wide = min(len(values), max(10, columns - len(note)))
    drawn = "".join(BLOCKS[min(7, int(value / highest * 7.999))] for value in values[-wide:])
    return Text(drawn, "cyan", no_wrap=True).append(note[: max(0, columns - wide)], DIM)


def _regions(seen: Seen) -> UncutTable:
    flows = {
        name: sum(all_[-RECENT_S:]) / (len(all_[-RECENT_S:]) or 1) for name, all_ in seen.series["regions"].items()
    }
    total = sum(flows.values())
    rows = []
    for region in seen.status["regions"]:
        flow = flows.get(region["name"], 0.0)
        share = (
            f"{region['share']:g} %" if region["ramping"] is None else f"{region['share']:g} % ↑{region['ramping']:.0f}"
        )
        state = _word(region["admin"] if region["admin"] != "active" else region["health"])
        part = flow / total if total else 0.0
        bar = Text("█" * round(part * 10), "cyan").append("░" * (10 - round(part * 10)), DIM)
        rows.append([region["name"], state, share, bar, f"{flow:.1f}", region["pool"], str(region["tier"])])
    return UncutTable(
        "Regions",
        [
            ("region", 10, False),
            ("state", 9, False),
            ("share", 8, True),
            ("flow", 10, False),
            ("req/s", 7, True),
            ("pool", 8, False),
            ("tier", 4, True),
        ],
        rows,
        least=3,
    )


def _backends(seen: Seen) -> UncutTable:
    rows = []
    for each in sorted(seen.status["backends"], key=lambda found: (_rank(found), -found["in_flight"])):
        word = each["admin"] if each["admin"] != "active" else "ejected" if each["ejected"] else each["health"]
        errors = sum(each["errors"].values()) + each["status"].get("5xx", 0)
        rows.append(
            [
                each["id"],
                _word(word),
                str(each["in_flight"]),
                _ms(each["p50_ms"]),
                _ms(each["p99_ms"]),
                str(each["attempts"]),
                Text(str(errors), BAD if errors else DIM),
                each["region"],
                each["pool"],
                _ms(each["probe_ms"]),
            ]
        )
    return UncutTable(
        "Backends",
        [
            ("backend", 18, False),
            ("state", 9, False),
            ("flight", 6, True),
            ("p50", 7, True),
            ("p99", 7, True),
            ("requests", 8, True),
            ("errors", 6, True),
            ("region", 8, False),
            ("pool", 6, False),
            ("probe", 7, True),
        ],
        rows,
        least=4,
    )


def _rank(backend: dict[str, Any]) -> int:
    """A sort key that brings unhealthy and ejected backends first, then those that are not active."""
    return 0 if backend["health"] == "unhealthy" or backend["ejected"] else 1 if backend["admin"] != "active" else 2


def _tiers(seen: Seen) -> UncutTable:
    cache = seen.cache
    store, disk, hits = cache["store"], cache.get("disk"), cache["total"]["lifetime"]["hits"]
    rows = []
    if store:
        rows.append(_tier("memory", store, hits - store.get("disk_hits", 0), hits))
    if disk:
        rows.append(_tier("disk", disk, disk.get("hits", 0), hits))
    columns = [
        ("tier", 8, False),
        ("used", 9, True),
        ("of", 9, True),
        ("full", 6, True),
        ("objects", 8, True),
        ("hits", 9, True),
        ("part", 6, True),
    ]
    return UncutTable("Store", columns, rows)


def _tier(name: str, found: dict[str, Any], hits: float, all_hits: float) -> list[str | Text]:
    used, budget = found.get("bytes", 0), found.get("budget_bytes", 0)
    full = _percent(used, budget)
    return [name, size(used) or "-", size(budget) or "-", full, f"{found.get('objects', 0):.0f}", f"{hits:.0f}",
            _percent(hits, all_hits)]  # fmt: skip


def _routes(seen: Seen) -> UncutTable:
    rows = []
    routes, seconds = seen.cache["routes"], min(60.0, max(1.0, seen.status["uptime_s"]))
    for name, each in sorted(routes.items(), key=lambda item: -item[1]["1m"]["requests"]):
        minute, numbers = each["1m"], seen.status["requests"]["routes"].get(name, {})
        rows.append(
            [
                name,
                f"{minute['requests'] / seconds:.1f}",
                _percent(minute["hits"], minute["eligible"]),
                _ms(numbers.get("p50_ms")),
                _ms(numbers.get("p99_ms")),
                f"{size(minute['client_out_per_s'])}/s",
                str(numbers.get("status", {}).get("5xx", 0)),
            ]
        )
    columns = [
        ("route", 14, False),
        ("req/s", 7, True),
        ("hits", 6, True),
        ("p50", 7, True),
        ("p99", 7, True),
        ("out", 11, True),
        ("5xx", 5, True),
    ]
    return UncutTable("Routes, last minute", columns, rows)


def _urls(seen: Seen) -> UncutTable:
    rows = [
        [each["url"], f"{each['requests_per_s']:.1f}", _percent(each["share"], 1), _percent(each["hit_rate"], 1),
         f"{size(each['bytes_per_s'])}/s"]
        for each in seen.hottest["objects"]
    ]  # fmt: skip
    columns = [("URL", 24, False), ("req/s", 7, True), ("part", 6, True), ("hits", 6, True), ("bytes", 11, True)]
    return UncutTable("Most requested, last minute", columns, rows, least=3)


def _events(seen: Seen) -> UncutTable:
    rows = [
        [Text(f"{clock(each['time'])} ", DIM).append(safe(each["kind"]), "bold").append(f" {safe(facts_of(each))}")]
        for each in reversed(seen.status["events"])
    ]
    return UncutTable("Events", [("newest first", 20, False)], rows, least=3)


# -- words and numbers -------------------------------------------------------------------------------------------------


def _rows(series: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(series["columns"], row, strict=True)) for row in series["rows"]]


def _word(word: str) -> Text:
    return Text(word, TONES.get(word, WARN))


def _percent(part: float | None, whole: float) -> str:
    return "-" if part is None or not whole else f"{part / whole * 100:.1f}%"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.1f}s" if value >= 1000 else f"{value:.0f}ms" if value >= 10 else f"{value:.1f}ms"


def _middle(values: Any) -> float | None:
    found = sorted(value for value in values if value is not None)
    return found[len(found) // 2] if found else None


def span(seconds: float) -> str:
    """A time in its two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")) if count]
    return " ".join(parts[:2]) or "0s"


COMMANDS: tuple[click.Command, ...] = (top,)
