"""`edge purge`: one or many at once, from options and from a file.

One rule: what cannot be read is said before anything is purged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from edge.cli.client import Admin, CommandFailed, admin_options, connect, counted, is_utf8, json_option, safe, say
from edge.cli.fleet import told
from edge.cli.regions import actor

KINDS = ("url", "tag", "prefix", "host")
TOGETHER = 1000  # what the API takes at once


@click.command()
@admin_options
@json_option
@click.option("--url", multiple=True, help="One URL, all its variants; may be repeated, as the others may.")
@click.option("--tag", multiple=True, help="Everything with this tag (Surrogate-Key, Cache-Tag, Cache-Groups).")
@click.option("--prefix", multiple=True, help="A host and path prefix, by segments.")
@click.option("--host", multiple=True, help="Everything of a host.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option(
    "--file",
    type=click.File("r", encoding="utf-8"),
    help="A URL on each line, or `tag NAME`, `prefix HOST/PATH`, `host NAME`; - is standard input.",
)
@click.option("--soft", is_flag=True, help="Mark as stale instead of removing.")
@click.option("--reason", default="", help="Why; for the audit.")
def purge(
    config: Path | None, admin: str | None, token_file: Path | None, as_json: bool, url: tuple[str, ...],
    tag: tuple[str, ...], prefix: tuple[str, ...], host: tuple[str, ...], everything: bool, file: Any, soft: bool,
    reason: str,
) -> None:  # fmt: skip
    """Remove stored responses, or mark them stale. In every worker, and on every machine of a fleet."""
    named = zip(KINDS, (url, tag, prefix, host), strict=True)
    items: list[dict[str, Any]] = [{kind: value} for kind, values in named for value in values]
    items += _read(file) if file is not None else []
    if everything == bool(items):
        raise click.UsageError("give --url, --tag, --prefix, --host or --file, or --all alone")
    gateway, more = connect(config, admin, token_file), {"soft": soft, "actor": actor(), "reason": reason}
    if everything or len(items) == 1:
        found = gateway.call("POST", "/v1/purge", {**(items[0] if items else {"all": True}), **more})
        if as_json:
            say(found)
        else:
            _told(found, soft)
        _on_machines([found], as_json)
        return
    done = list(_many(gateway, items, more))
    if as_json:
        say({"purges": done})
        _on_machines(done, as_json)
        return
    for each in done[:20]:
        _told(each, soft)
    if len(done) > 20:
        click.echo(f"and {len(done) - 20} more, the last one is purge {done[-1]['id']}")
    _on_machines(done, as_json)


def _many(gateway: Admin, items: list[dict[str, Any]], more: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for at in range(0, len(items), TOGETHER):
        found = gateway.call("POST", "/v1/purge", {"items": items[at : at + TOGETHER], **more})
        yield from found["purges"]


def _told(found: dict[str, Any], soft: bool) -> None:
    count = "" if found["count"] is None else f", {counted(found['count'], 'stored response')}"
    what = " ".join(part for part in (found["kind"], found["value"], "(soft)" if soft else "") if part)
    click.echo(safe(f"purge {found['id']}: {what}{count}"))


def _on_machines(done: list[dict[str, Any]], as_json: bool) -> None:
    """How many of a fleet's machines have applied all of them. Raises CommandFailed where one is late."""
    found = [each["machines"] for each in done if "machines" in each]
    if not found:
        return
    worst = max(found, key=lambda machines: len(machines["late"]))
    if not as_json:
        click.echo(safe(told(worst)))
    if worst["late"]:
        raise CommandFailed(
            "not on every machine yet; who is late uses what it has for fleet.max_blind at most, then validates it"
        )


def _read(file: Iterable[str]) -> list[dict[str, Any]]:
    """The items of a file; a line that begins with # is passed over."""
    name, found = getattr(file, "name", "-"), []
    try:
        lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{name}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        kind, _, value = line.partition(" ")
        item = {kind: value.strip()} if kind in KINDS and value.strip() else {"url": line}
        if not is_utf8(line) or ("url" in item and "://" not in item["url"]):
            raise CommandFailed(
                f"{name}: line {number}: expected a URL, or tag, prefix or host and a value: {line[:60]!r}"
            )
        found.append(item)
    if not found:
        raise CommandFailed(f"{name}: nothing to purge in it")
    return found


COMMANDS: tuple[click.Command, ...] = (purge,)
