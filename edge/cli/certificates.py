"""`edge certificate`: what the TLS listeners show, how long it lasts, and which hosts it leaves out."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.client import admin_options, connect, console, date, json_option, safe, say, table
from edge.cli.regions import actor


@click.group()
def certificate() -> None:
    """List and renew the certificates of TLS listeners."""


@certificate.command("list")
@admin_options
@json_option
def list_(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """List the certificates of the TLS listeners. Names, days left, whether the key fits; and hosts of routes
    that none covers."""
    found = connect(config, admin, token_file).get("/v1/certificates")
    if as_json:
        say(found)
        return
    rows = [
        [
            each["listener"],
            each["certificate"],
            ", ".join(each["names"]) or None,
            each["issuer"] or None,
            each["days_left"],
            "yes" if each["key_fits"] else each["problem"],
            None if each["acme"] is None else date(each["acme"]["next_at"]) or "now",
        ]
        for each in found["certificates"]
    ]
    columns = ["listener", "certificate", "names", "issuer", "days left", "usable", "asked for next"]
    console().print(table("", columns, rows))
    for each in found["certificates"]:
        acme = each["acme"]
        if acme is not None and acme["failures"]:
            failed = f"{', '.join(each['names'])}: failed {acme['failures']} times, {date(acme['failed_at'])}"
            click.echo(safe(f"{failed}: {acme['error']}"))
    for each in found["uncovered"]:
        click.echo(safe(f"no certificate covers {each['host']} (route {each['route']})"))


@certificate.command()
@admin_options
@json_option
@click.argument("names", nargs=-1)
def renew(
    config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, names: tuple[str, ...]
) -> None:
    """Ask for new certificates now (ACME). Of these names, or of all."""
    way = connect(config, admin, token_file)
    found = way.call("POST", "/v1/certificates/renew", {"names": list(names), "actor": actor()}, timeout_s=None)
    if as_json:
        say(found)
        return
    for each in found["renewed"]:
        click.echo(safe(f"{each['name']}: renewed ({each['directory']})"))


COMMANDS: tuple[click.Command, ...] = (certificate,)
