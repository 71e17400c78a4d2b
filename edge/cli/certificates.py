"""`edge certificate`: what the TLS listeners show, how long it lasts, and which hosts it leaves out."""

from __future__ import annotations

from pathlib import Path

import click

from edge.cli.client import admin_options, connect, console, json_option, safe, say, table


@click.group()
def certificate() -> None:
    """Certificates of the TLS listeners."""


@certificate.command("list")
@admin_options
@json_option
def list_(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """Every certificate as its files are now: names, days left, whether the key fits; hosts of routes without one."""
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
        ]
        for each in found["certificates"]
    ]
    console().print(table("", ["listener", "certificate", "names", "issuer", "days left", "usable"], rows))
    for each in found["uncovered"]:
        click.echo(safe(f"no certificate covers {each['host']} (route {each['route']})"))


COMMANDS: tuple[click.Command, ...] = (certificate,)
