"""`edge snapshot …`: recovery points from the command line.

One rule: `take` is done by the gateway while one runs (it knows more), else here; everything else needs the repository
alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import orjson

from edge.adapters.key_file import key_of
from edge.cli.client import CommandFailed, connect, console, json_option, say, size, table
from edge.cli.recovery import rules_of, state_of, warm_of
from edge.cli.repository import RepositoryOptions, named, own_state, progress, repository_options
from edge.errors import VerifyFailed
from edge.recovery.points import PointKind, newest_first
from edge.sidecar.prune import prune
from edge.sidecar.shown import files_view, point_view, pruned_view, verified_view
from edge.sidecar.source import with_warm
from edge.sidecar.take import Work, take
from edge.sidecar.verify import Portion, Verified, verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def snapshot() -> None:
    """Take, list, verify and expire recovery points."""


@snapshot.command("take")
@click.option(
    "--kind", type=click.Choice([kind.value for kind in PointKind]), default="full", show_default=True,
    help="What it holds: all, what changed since the last full one, or since the last of any kind.",
)  # fmt: skip
@json_option
@repository_options
def take_command(options: RepositoryOptions, kind: str, as_json: bool) -> None:
    """Take a point now and print its id."""
    if options.config is None and not options.remote:
        if options.path.exists():
            raise CommandFailed(f"{options.path} cannot be used: `edge check` names its mistakes")
        raise CommandFailed(f"{options.path}: no such file: the state to take is the one that a configuration names")
    lock = None if options.config is None else own_state(options.config)
    if lock is None or options.config is None:
        found = _by_gateway(options, {"kind": kind, "actor": "cli"})
    else:
        with lock:
            work = options.work(make=True)
            state = state_of(options.config, str(options.path), work.vault.sealer.encrypted)
            warm = warm_of(options.config)
            found = point_view(take(work, PointKind(kind), lambda: with_warm(state.capture({}), warm)).point)
    if as_json:
        say(found)
        return
    if found["promoted"]:
        click.echo(f"edge: taken as a full point: {found['promoted']}", err=True)
    for line in found["left_out"]:
        click.echo(f"edge: left out: {line}", err=True)
    click.echo(found["id"])


def _by_gateway(options: RepositoryOptions, body: dict[str, Any]) -> dict[str, Any]:
    """Let the gateway that runs take the point."""
    last: dict[str, Any] = {}
    config = None if options.remote else options.path
    for line in connect(config, options.admin, options.token_file).lines("POST", "/v1/snapshots", body):
        last = orjson.loads(line)
        if "phase" in last:
            progress(last["phase"], last["done"], last["whole"])
    if last.get("finished") is not True:
        raise CommandFailed(str(last.get("detail") or "the gateway broke off"))
    return last


@snapshot.command("list")
@json_option
@repository_options
def list_command(options: RepositoryOptions, as_json: bool) -> None:
    """List all points, the newest first."""
    if options.remote:
        points = connect(None, options.admin, options.token_file).get("/v1/snapshots")["points"]
    else:
        points = [point_view(point) for point in newest_first(options.work().vault.points().values())]
    if as_json:
        say({"points": points})
        return
    rows = [
        [
            *(p["id"], p["kind"], p["status"], size(p["bytes"]), len(p["needs"]), p["sequence"]["to"]),
            *(p["verified_at"], p["drilled_at"], p["hold"]),
        ]
        for p in points
    ]
    names = ["id", "kind", "status", "size", "needs", "sequence", "verified", "drilled", "hold"]
    console().print(table("", names, rows))
    for p in points:
        if p["corrupt"]:
            click.echo(f"{p['id']}: {p['corrupt']}", err=True)


@snapshot.command("show")
@click.argument("point")
@json_option
@repository_options
def show_command(options: RepositoryOptions, point: str, as_json: bool) -> None:
    """Show one point, its files and the points that it needs."""
    points = options.work().vault.points()
    found = named(points, point)
    view = {**point_view(found), "files": files_view(found)}
    if as_json:
        say(view)
        return
    rows = [[name, value] for name, value in view.items() if name != "files"]
    console().print(table("", ["", found.id], rows))


def _part(text: str | None) -> Portion | None:
    """`--read-data`, `--read-data=2/7`."""
    if text is None:
        return None
    number, _, of = (text or "1/1").partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise click.BadParameter("expected n/t, such as 2/7", param_hint="--read-data")
    return Portion(int(number), int(of))


@snapshot.command("verify")
@click.argument("point", required=False)
@click.option("--read-data", is_flag=False, flag_value="1/1", metavar="[n/t]", help="Read all data, or an n-th of t.")
@click.option("--load", is_flag=True, help="Restore each to an empty directory, and open it as a start would.")
@json_option
@repository_options
def verify_command(
    options: RepositoryOptions, point: str | None, read_data: str | None, load: bool, as_json: bool
) -> None:
    """Verify points byte by byte. One point with what it needs, or all; ends with a non-zero code when
    a byte is wrong."""
    work = options.work()
    wanted = None if point is None else [named(work.vault.points(), point).id]
    found = verify(work, wanted, _part(read_data))
    if load:
        _load(options, work, found)
    if as_json:
        say(verified_view(found))
    else:
        for name in found.points:
            click.echo(f"{name}: {found.problems.get(name, 'ok')}", err=name in found.problems)
    if found.problems:
        raise VerifyFailed(f"{len(found.problems)} of {len(found.points)} points are damaged: take a full point now")


def _load(options: RepositoryOptions, work: Work, found: Verified) -> None:
    """Depth 3 of those that nothing is wrong with so far."""
    from edge.cli.drill import load_point  # not cheap, and not needed for other commands

    points = work.vault.points()
    state = options.state or Path(tempfile.gettempdir()) / "edge-verify"
    for name in found.points:
        if name not in found.problems:
            problems = load_point(work, points[name], state, key_of(options.where.key_file))
            found.problems |= {name: problems[0]} if problems else {}


@snapshot.command("prune")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and why.")
@json_option
@repository_options
def prune_command(options: RepositoryOptions, dry_run: bool, as_json: bool) -> None:
    """Expire the points that no rule of snapshots.keep keeps."""
    values = options.config.snapshots if options.config is not None else None
    if values is None:
        raise CommandFailed("pruning needs a configuration with [snapshots], whose keep says what stays: give -c FILE")
    pruned = prune(options.work(), rules_of(values.keep), ZoneInfo(values.timezone), dry_run)
    if as_json:
        say(pruned_view(pruned, dry_run))
        return
    rows = [[each.point.id, "keep" if each.keep else "remove", each.reasons] for each in pruned.decisions]
    console().print(table("", ["point", "", "reasons"], rows))
    if not dry_run:
        click.echo(f"{len(pruned.removed_points)} points, {pruned.removed_files} files, {size(pruned.removed_bytes)}")
    if pruned.note:
        click.echo(f"edge: {pruned.note}", err=True)


@snapshot.command("hold")
@click.argument("point")
@click.option("--reason", default="", help="Why it must stay.")
@repository_options
def hold_command(options: RepositoryOptions, point: str, reason: str) -> None:
    """Keep a point until it is released."""
    _noted(options, point, "hold", {"reason": reason})


@snapshot.command("release")
@click.argument("point")
@repository_options
def release_command(options: RepositoryOptions, point: str) -> None:
    """End the hold of a point: the keep rules apply again."""
    _noted(options, point, "release", {})


def _noted(options: RepositoryOptions, point: str, what: str, facts: dict[str, Any]) -> None:
    work = options.work()
    found = named(work.vault.points(), point)
    work.vault.note(found.id, work.wall(), what, facts)
    click.echo(found.id)


COMMANDS = (snapshot,)
