"""Commands about a running gateway: status, explain, simulate, warm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from edge.cli.client import (
    CommandFailed,
    admin_options,
    connect,
    console,
    is_utf8,
    json_option,
    one_line,
    percent,
    safe,
    say,
    share_of,
    size,
    table,
    text,
)
from edge.cli.reload import not_in_force
from edge.cli.top import span


@click.command()
@admin_options
@json_option
def status(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """Show workers, backends, regions and routes."""
    found = connect(config, admin, token_file).get("/v1/status")
    if as_json:
        say(found)
        return
    out = console()
    ready = "ready" if found["ready"] else found["readiness"]
    out.print(f"StreamGate Edge {found['version']}, pid {found['pid']}, up {span(found['uptime_s'])}: {ready}")
    out.print(f"configuration {found['config']['file']} ({found['config']['hash'][:12]}), state in {found['state']}")
    if found["reload"] and not found["reload"]["ok"]:
        out.print("the last reload was refused: " + "; ".join(found["reload"]["problems"]), soft_wrap=True)
    for line in not_in_force(found["reload"]["needs"] if found["reload"] else {}):
        out.print(text(line), soft_wrap=True)
    out.print()
    for each in _status_tables(found):
        out.print(each)
        out.print()


def _status_tables(found: dict[str, Any]) -> list[Any]:
    requests = found["requests"]
    return [
        table(
            "Workers",
            ["worker", "pid", "state", "restarts", "connections"],
            [[w["index"], w["pid"], w["state"], w["restarts"], w["connections"]] for w in found["workers"]],
        ),
        table(
            "Backends",
            ["pool", "backend", "region", "admin", "health", "ejected", "in flight", "requests", "p50 ms", "p99 ms"],
            [
                [
                    b["pool"], b["id"], b["region"], b["admin"], b["health"], b["ejected"] or None, b["in_flight"],
                    b["requests"], b["p50_ms"], b["p99_ms"],
                ]
                for b in found["backends"]
            ],
        ),
        table(
            "Regions",
            ["pool", "region", "tier", "admin", "health", "share"],
            [
                [r["pool"], r["name"], r["tier"], r["admin"], r["health"], share_of(r["share"], r["ramping"])]
                for r in found["regions"]
            ],
        ),
        table(
            "Routes",
            ["route", "requests", "2xx", "3xx", "4xx", "5xx", "out", "hit rate 5m", "offload 5m",
             "first byte p50 ms", "p99 ms", "total p99 ms"],
            [
                [
                    name, m["requests"], *(m["status"].get(c, 0) for c in ("2xx", "3xx", "4xx", "5xx")),
                    size(m["bytes_out"]), percent(m["cache_5m"]["hit_rate"]), percent(m["cache_5m"]["offload"]),
                    m["p50_ms"], m["p99_ms"], m["total_p99_ms"],
                ]
                for name, m in requests["routes"].items()
            ],
        ),
    ]  # fmt: skip


@click.command()
@click.argument("url")
@admin_options
@json_option
@click.option("--client", metavar="IP", help="As if this address asked.")
@click.option("-H", "--header", multiple=True, metavar="'NAME: VALUE'", help="A request header; may be repeated.")
@click.option("-X", "--method", default="GET", show_default=True, help="The request's method.")
def explain(
    url: str, config: Path | None, admin: str | None, token_file: Path | None, as_json: bool,
    client: str | None, header: tuple[str, ...], method: str,
) -> None:  # fmt: skip
    """Show how a request would be decided, without sending it. Route, cache key and verdict with its reason, regions
    and backends."""
    query = {"url": url, "client": client, "header": list(header) or None, "method": method}
    found = connect(config, admin, token_file).get("/v1/explain", query)
    if as_json:
        say(found)
        return
    needs = found.pop("needs", {})
    _tree(console(), found)
    for line in not_in_force(needs):
        click.echo(safe(f"the configuration file says more than runs: {line}"), err=True)


def _tree(out: Console, found: dict[str, Any], indent: str = "") -> None:
    """A nested answer as indented lines, lists of objects as tables."""
    width = max((len(key) for key in found), default=0)
    for key, value in found.items():
        if isinstance(value, dict):
            out.print(f"{indent}{key}")
            _tree(out, value, indent + "  ")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            columns = list(dict.fromkeys(name for item in value for name in item))
            out.print(table(f"{indent}{key}", columns, [[item.get(name) for name in columns] for item in value]))
        else:
            out.print(f"{indent}{key:<{width}}  {text(value)}")


@click.command()
@admin_options
@json_option
@click.option("--lose", multiple=True, metavar="REGION", help="A region that is gone; may be repeated.")
@click.option("--down", multiple=True, metavar="POOL/BACKEND", help="A backend that is gone; may be repeated.")
@click.option("--slow", multiple=True, metavar="POOL/BACKEND=MS", help="A backend's latency; may be repeated.")
@click.option("--capacity", multiple=True, metavar="REGION=PERCENT", help="What is left of a region; may be repeated.")
def simulate(
    config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, lose: tuple[str, ...],
    down: tuple[str, ...], slow: tuple[str, ...], capacity: tuple[str, ...],
) -> None:  # fmt: skip
    """Show the shares of traffic after a loss. Supposes it of the live state, and changes nothing."""
    asked = {
        "lose": list(lose),
        "down": list(down),
        "slow": dict(map(_pair, slow)),
        "capacity": dict(map(_pair, capacity)),
    }
    found = connect(config, admin, token_file).call("POST", "/v1/simulate", asked)
    if as_json:
        say(found)
        return
    out = console()
    for pool in found["pools"]:
        for what in ("regions", "backends"):
            rows = [[row["name"], _share(row["before"]), _share(row["after"])] for row in pool[what]]
            out.print(table(f"{pool['name']}: {what}", ["name", "before", "after"], rows))
        out.print()
    for line in found.get("refused", []):
        out.print(f"refused: {line}")


def _pair(given: str) -> tuple[str, float]:
    name, _, value = given.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise click.UsageError(f"{given}: expected NAME=NUMBER") from None


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} %"


@click.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
@admin_options
@json_option
def warm(file: Any, config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """Fetch a list of URLs into the cache. FILE has one a line; - is standard input."""
    try:
        urls = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{file.name}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not all(map(is_utf8, urls)):  # standard input tells other bytes as lone surrogates
        raise CommandFailed(f"{file.name}: not UTF-8 text")
    if not urls:
        raise CommandFailed(f"{file.name}: no URLs in it")
    gateway = connect(config, admin, token_file)
    lines = (gateway.parsed(line) for line in gateway.lines("POST", "/v1/warm", {"urls": urls}))
    last = _warm_json(lines) if as_json else _warm_bar(lines, len(urls))
    if not last.get("finished"):
        raise CommandFailed(last.get("detail") or "the gateway broke off before the list was done")
    if not as_json:
        for each in last["failures"]:
            click.echo(safe(f"edge: {each['url']}: {each['reason']}"), err=True)
        click.echo(f"{last['stored']} of {len(urls)} stored, {last['failed']} failed")
    if last["failed"]:
        sys.exit(1)


def _warm_json(lines: Any) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for last in lines:
        click.echo(one_line(last))
    return last


def _warm_bar(lines: Any, total: int) -> dict[str, Any]:
    last: dict[str, Any] = {}
    url = TextColumn("{task.description}", markup=False)
    columns = (TextColumn("warm"), BarColumn(), MofNCompleteColumn(), url)
    with Progress(*columns, console=console(stderr=True, width=None)) as progress:
        task = progress.add_task("", total=total)
        for last in lines:
            progress.update(task, completed=last.get("done", 0), description=text(last.get("url", ""))[-60:])
    return last


COMMANDS: tuple[click.Command, ...] = (status, explain, simulate, warm)
