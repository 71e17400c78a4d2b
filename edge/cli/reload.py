"""Commands that change the running configuration: `reload`, and `config history | diff | rollback`.

One rule: what would change, or did, is shown key by key; a file with mistakes is answered with all of them, and nothing
has changed then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge.cli.client import admin_options, connect, console, date, json_option, one_line, safe, say, table

UPGRADE_S = 90.0
MOST_SHOWN, WIDEST = 40, 160


@click.command()
@admin_options
@json_option
@click.option("--dry-run", is_flag=True, help="Change nothing; tell what would change, and where traffic would go.")
def reload(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, dry_run: bool) -> None:
    """Reload the configuration file. No request or connection is lost; a mistake changes nothing."""
    found = connect(config, admin, token_file).call("POST", "/v1/reload", {"dry_run": dry_run})
    if as_json:
        say(found)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    changes = found["changes"]
    verb = "applied" if found["applied"] else "would change"
    for each in changes[:MOST_SHOWN]:
        click.echo(safe(f"  {each['key']}: {brief(each['was'])} → {brief(each['is'])}"))
    if len(changes) > MOST_SHOWN:
        click.echo(f"  and {len(changes) - MOST_SHOWN} more")
    for line in found["warnings"]:
        click.echo(safe(f"{line} (warning)"), err=True)
    for line in not_in_force(found["needs"]):
        click.echo(safe(line), err=True)
    if "forecast" in found:
        _show_forecast(found["forecast"])
    count = f"{len(changes)} key{'' if len(changes) == 1 else 's'}"
    if found["applied"]:
        click.echo(f"{verb}: {count}, revision {found['revision']}, in {found['took_ms']:g} ms")
    else:
        click.echo(f"{verb}: {count}")


def not_in_force(needs: dict[str, list[str]]) -> list[str]:
    """What the file says and a reload did not take on, and what does."""
    ways = {"upgrade": "`edge upgrade`", "restart": "a restart"}
    return [f"not in force until {ways[way]}: {', '.join(keys)}" for way, keys in needs.items()]


def _show_forecast(found: dict[str, Any]) -> None:
    rows = [
        [pool["name"], region["name"], region["before"], region["after"]]
        for pool in found["pools"]
        for region in pool["regions"]
        if region["before"] != region["after"]
    ]
    if rows:
        console().print(table("Shares of traffic, in percent", ["pool", "region", "before", "after"], rows))
    for line in found["refused"]:
        click.echo(safe(line), err=True)


def brief(value: Any) -> str:
    """A value on one line, cut where it is long."""
    if value is None:
        return "–"
    text = one_line(value)
    return text if len(text) <= WIDEST else f"{text[:WIDEST]}…"


@click.command("history")
@admin_options
@json_option
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
def history(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, limit: int) -> None:
    """List the accepted configurations, the newest first."""
    found = connect(config, admin, token_file).get("/v1/config/history", {"limit": limit})
    if as_json:
        say(found)
        return
    rows = [
        [each["id"], date(each["at"]), each["hash"][:12], "running" if each["running"] else ""]
        for each in found["revisions"]
    ]
    console().print(table("", ["revision", "accepted", "hash", ""], rows))


@click.command("diff")
@admin_options
@json_option
@click.argument("old", type=int, required=False)
@click.argument("new", type=int, required=False)
def diff(
    config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, old: int | None, new: int | None
) -> None:
    """Compare two revisions. Without arguments: the running one and the one before it."""
    found = connect(config, admin, token_file).get("/v1/config/diff", {"from": old, "to": new})
    if as_json:
        say(found)
        return
    for line in found["lines"]:
        click.echo(safe(line))


@click.command("rollback")
@admin_options
@json_option
@click.argument("revision", type=int, required=False)
@click.option("--dry-run", is_flag=True, help="Change nothing; tell what would change.")
def rollback(
    config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, revision: int | None, dry_run: bool
) -> None:
    """Go back to an earlier revision. Without REVISION: the one before. It is also written
    into the configuration file."""
    gateway = connect(config, admin, token_file)
    found = gateway.call("POST", "/v1/config/rollback", {"revision": revision, "dry_run": dry_run})
    if as_json:
        say(found)
        return
    _show(found)
    file = found.get("file", {})
    if "error" in file:
        click.echo(safe(file["error"]), err=True)
    elif file.get("kept"):
        click.echo(safe(f"the file holds revision {found['restored']}; what it held is in {file['kept']}"))


@click.command()
@admin_options
@json_option
def upgrade(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """Replace the running program without closing its sockets. The newly installed program starts, then the old one
    ends its requests."""
    found = connect(config, admin, token_file).call("POST", "/v1/upgrade", {}, timeout_s=UPGRADE_S)
    if as_json:
        say(found)
        return
    click.echo(f"upgraded: process {found['before']} hands over to {found['pid']}")


COMMANDS: tuple[click.Command, ...] = (reload, upgrade)
CONFIG_COMMANDS: tuple[click.Command, ...] = (history, diff, rollback)
