"""Commands that look at a running gateway from nearer: events, audit, connections, its configuration, the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge.cli.client import (
    Admin,
    admin_options,
    connect,
    console,
    date,
    facts_of,
    json_option,
    one_line,
    percent,
    safe,
    say,
    size,
    table,
)
from edge.cli.reload import CONFIG_COMMANDS


@click.command()
@admin_options
@json_option
@click.option("--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
def events(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, follow: bool) -> None:
    """Show recent events, one a line, the oldest first."""
    gateway = connect(config, admin, token_file)
    if follow:
        for event in _followed(gateway):
            click.echo(one_line(event) if as_json else _line(event))
        return
    found = gateway.get("/v1/events", {"follow": "0"})
    if as_json:
        say(found)
        return
    for event in found["events"]:
        click.echo(_line(event))


def _followed(gateway: Admin) -> Any:
    """The events of the stream, as they come."""
    for line in gateway.lines("GET", "/v1/events"):
        name, _, data = line.partition(b": ")
        if name == b"data":
            yield gateway.parsed(data)


def _line(event: dict[str, Any]) -> str:
    return safe(f"{date(event['time'])} {event['kind']}  {facts_of(event)}")


@click.command()
@admin_options
@json_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many at most.")
def audit(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, limit: int) -> None:
    """Show who changed what, the newest first."""
    found = connect(config, admin, token_file).get("/v1/audit", {"limit": limit})
    if as_json:
        say(found)
        return
    rows = [
        [row["id"], date(row["at"]), row["actor"], row["action"], row["target"], (row["detail"] or {}).get("reason")]
        for row in found["audit"]
    ]
    console().print(table("", ["id", "at", "actor", "action", "target", "reason"], rows))


@click.command()
@admin_options
@json_option
def connections(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """Show open client connections and requests at backends."""
    found = connect(config, admin, token_file).get("/v1/connections")
    if as_json:
        say(found)
        return
    out = console()
    columns = ["client", "state", "route", "method", "path", "status", "age s", "in", "out"]
    rows = [
        [
            *(row.get(key) for key in columns[:5]), row.get("status") or None, row.get("age_s"),
            size(row.get("bytes_in")), size(row.get("bytes_out")),
        ]
        for row in found["clients"]
    ]  # fmt: skip
    out.print(table("Clients", columns, rows))
    if found["more"]:
        out.print(f"and {found['more']} more")
    out.print()
    keys = ["pool", "backend", "region", "in_flight", "open", "idle"]
    rows = [[row[key] for key in keys] for row in found["backends"]]
    out.print(table("Backends", [key.replace("_", " ") for key in keys], rows))


@click.group("config")
def config_group() -> None:
    """Show, compare and roll back configurations."""


@config_group.command("show")
@admin_options
@json_option
def config_show(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """Show the running configuration. Defaults included, secrets hidden; one key a line."""
    found = connect(config, admin, token_file).get("/v1/config")
    if as_json:
        say(found)
        return
    click.echo(safe(f"# {found['file']} ({found['hash'][:12]}), loaded {date(found['loaded_at'])}"))
    for key, value in _flat(found["config"]):
        click.echo(safe(f"{key} = {one_line(value)}"))


for each in CONFIG_COMMANDS:
    config_group.add_command(each)


def _flat(value: Any, prefix: str = "") -> Any:
    """Each value with its dotted key."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for at, item in enumerate(value):
            yield from _flat(item, f"{prefix}[{at}]")
    elif value is not None:
        yield prefix, value


@click.group()
def cache() -> None:
    """Show hit rates, what is stored, and what is asked for most."""


@cache.command("show")
@admin_options
@json_option
def cache_show(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """Show hit rates and what is stored. Hit rate, offload and bytes by time window and route."""
    found = connect(config, admin, token_file).get("/v1/cache")
    if as_json:
        say(found)
        return
    out = console()
    columns = ["route", "window", "requests", "hit rate", "by bytes", "offload", "origin", "out", "saved"]
    rows = [
        [
            name, window, each["requests"], percent(each["hit_rate"]), percent(each["byte_hit_rate"]),
            percent(each["offload"]), each["origin_requests"], size(each["client_out"]), size(each["saved_bytes"]),
        ]
        for name, report in (("all", found["total"]), *sorted(found["routes"].items()))
        for window, each in report.items()
        if isinstance(each, dict) and "requests" in each
    ]  # fmt: skip
    out.print(table("Requests", columns, rows))
    out.print()
    out.print(table("Stores", ["what", "value"], [[key, value] for key, value in sorted(found["store"].items())]))


@cache.command("top")
@admin_options
@json_option
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many at most.")
def cache_top(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, limit: int) -> None:
    """Show what is asked for most. From a sample of the last minute of the access log."""
    found = connect(config, admin, token_file).get("/v1/cache/top", {"limit": limit})
    if as_json:
        say(found)
        return
    columns = ["url", "route", "requests/s", "part", "from the store", "errors", "bytes/s"]
    rows = [
        [
            row["url"], row["route"], row["requests_per_s"], percent(row["share"]), percent(row["hit_rate"]),
            percent(row["error_rate"]), size(row["bytes_per_s"]),
        ]
        for row in found["objects"]
    ]  # fmt: skip
    console().print(table(f"{found['sampled']} requests of {found['window_s']:g} s looked at", columns, rows))


COMMANDS: tuple[click.Command, ...] = (events, audit, connections, config_group, cache)
