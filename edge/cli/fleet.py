"""`edge fleet`: the machines that serve together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge.cli.client import admin_options, connect, console, json_option, safe, say, table


@click.command()
@admin_options
@json_option
def fleet(config: Path | None, admin: str | None, token_file: Path | None, as_json: bool) -> None:
    """Show the machines of the fleet. Who has applied all purges, and how far behind the others are."""
    found = connect(config, admin, token_file).get("/v1/fleet")
    if as_json:
        say(found)
        return
    click.echo(safe(f"{found['name']}: {standing(found)}"))
    if not found["sure"]:
        click.echo("the stream is young: a machine that has not come back to it is not in this list")
    columns = [
        "machine", "state", "position", "lag", "changes", "heard s", "clock s", "version", "region", "workers", "req/s",
    ]  # fmt: skip
    rows = [
        [
            f"{each['name']}{' *' if each['self'] else ''}", each["state"], each["position"], each["lag"],
            each["states"], each["heard_s"], each["clock_offset_s"], each["version"], each["region"] or None,
            each["workers"], each["requests_per_second"],
        ]
        for each in found["machines"]
    ]  # fmt: skip
    console().print(table("", columns, rows))
    for each in found["disputes"] or ():
        word = f"{each['up']} of {each['up'] + each['down']} machines reach it; believed here: {each['believed']}"
        click.echo(safe(f"backend {each['backend']} of {each['pool']}: {word}"))
    if found["states"] is not None and found["states"]["owed"]:
        click.echo(f"{found['states']['owed']} changes made here are not on the others yet")
    shared = found["shared"]
    if shared is not None:
        words = ("hits", "misses", "written", "dropped", "garbled", "errors")
        click.echo("shared tier: " + ", ".join(f"{shared.get(word, 0):g} {word}" for word in words))


def standing(found: dict[str, Any]) -> str:
    """Where the machine stands, in a line."""
    if found["in_step"]:
        return f"in step at purge {found['position']}"
    known = "everything stored is validated before use" if found["blind"] else "what is stored is used still"
    if found["catching_up"]:
        known = "requests wait until what was missed is applied"
    return f"not in step ({found['trouble'] or 'joining'}); {known}"


def told(machines: dict[str, Any]) -> str:
    """What became of a purge on the machines, in a line."""
    line = f"applied on {machines['applied']} of {machines['of']} machines"
    if machines["late"]:
        line += f"; not yet on {', '.join(machines['late'])}"
    if not machines["sent"]:
        line += "; the others hear of it when the fleet's server is back"
    elif not machines["sure"]:
        line += "; the purge stream is young, machines that have not come back to it are not counted"
    return line


COMMANDS: tuple[click.Command, ...] = (fleet,)
