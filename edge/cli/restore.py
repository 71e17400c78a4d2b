"""`edge restore` and `edge drill`.

One rule: a restore that did not say where goes to the configured places, and only while no gateway uses them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from edge.adapters.key_file import key_of
from edge.cli.client import CommandFailed, console, json_option, say, size, table
from edge.cli.recovery import Where, cache_of, warm_of
from edge.cli.repository import RepositoryOptions, checked_config, named, own_state, repository_options
from edge.cli.state import FILES, LocalState, accepted, newest_config
from edge.errors import DrillFailed
from edge.recovery.points import Point
from edge.recovery.table import Entry
from edge.sidecar.restore import Restored, Target, chosen, restore
from edge.sidecar.shown import when
from edge.sidecar.take import Work


@click.command("restore")
@click.option("--point", help="Which point; left out: the newest sound one.")
@click.option("--at", metavar="TIME", help="The newest point that is not younger, as 2026-11-27T04:00:00Z.")
@click.option("--to", type=click.Path(path_type=Path), help="A new state directory; left out: the configured one.")
@click.option("--all", "whole", is_flag=True, help="Bring every cached body before this ends, not while it serves.")
@json_option
@repository_options
def restore_command(
    options: RepositoryOptions, point: str | None, at: str | None, to: Path | None, whole: bool, as_json: bool
) -> None:
    """Restore the state from a recovery point. The gateway must not run; what was there before is kept beside it.

    Cached bodies follow while the gateway serves where [snapshots] names the repository; else they are written first.
    """
    if point is not None and at is not None:
        raise click.UsageError("give --point or --at, not both")
    work = options.work()

    def choose(points: dict[str, Point]) -> Point:
        return chosen(points, None if point is None else named(points, point).id, _time(at))

    if to is None and options.config is None:
        if options.path.exists():
            raise CommandFailed(
                f"{options.path} cannot be used (`edge check`): mend it, move it away, or give --to DIR"
            )
        options = _machine(options, work, choose)
    found = _restored(options, work, choose, to, whole)
    problems = accepted(found.state, found.rebuilt)
    if as_json:
        say(restored_view(found, problems))
    else:
        _tell(found, problems)


def _restored(
    options: RepositoryOptions, work: Work, choose: Callable[[dict[str, Point]], Point], to: Path | None, whole: bool
) -> Restored:
    encrypted, warm = work.vault.sealer.encrypted, warm_of(options.config)
    if to is not None:
        survivor = Path(options.config.state.path) if options.config is not None else None
        target = Target(to, to / "cache" if warm is not None else None, survivor=survivor)
        return restore(work, LocalState(to, encrypted), warm, choose, target)
    assert options.config is not None
    state, cache = Path(options.config.state.path), cache_of(options.config)
    there, later = state.exists(), not whole and _brought_later(options)
    lock = own_state(options.config)
    if lock is None:
        raise CommandFailed(f"{state}: a gateway runs with this state directory: stop it, or restore with --to DIR")
    with lock:
        if not there:  # the lock made it: there is nothing to keep, and no survivor
            target = Target(state, cache, replace=True, later=later)
            found = restore(work, LocalState(state, encrypted), warm, choose, target)
            for path in found.kept:
                shutil.rmtree(path)
            found.kept = []
            return found
        target = Target(state, cache, replace=True, survivor=state, later=later)
        return restore(work, LocalState(state, encrypted), warm, choose, target)


def _brought_later(options: RepositoryOptions) -> bool:
    """Whether the gateway will have a sidecar that can bring bodies: one with this repository."""
    values = None if options.config is None else options.config.snapshots
    return values is not None and Where.of(values) == options.where


def _machine(options: RepositoryOptions, work: Work, choose: Callable[[dict[str, Point]], Point]) -> RepositoryOptions:
    """On a machine without a configuration: put the point's own, and the files that it names, where they belong.

    Nothing that is there is written over.
    """
    points = work.vault.points()
    table, places = work.vault.table(points, choose(points).id)

    def read(entry: Entry) -> bytes:
        return work.vault.body(entry.blob, places[entry.blob]) if entry.blob else entry.data

    text, included = newest_config(table, read)
    if text is None:
        raise CommandFailed("the point holds no configuration: give one with -c, or --to DIR for the state alone")
    home = options.path.absolute().parent
    put = {options.path: text.encode(), **{home / name: value.encode() for name, value in included.items()}}
    for name, entry in table.items():
        if name.startswith(FILES):
            put[home / name.removeprefix(FILES)] = read(entry)  # an absolute path stays one
    for path, data in put.items():
        if path.exists():
            click.echo(f"edge: {path} is there and stays as it is", err=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)
        click.echo(f"{path}: from the point", err=True)
    return replace(options, config=checked_config(replace(options, config=None)))


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("expected a time such as 2026-11-27T04:00:00Z", param_hint="--at") from None
    return found.timestamp()  # without an offset: local time, as the clock on the wall shows it


def restored_view(found: Restored, problems: list[str]) -> dict[str, Any]:
    """What a restore did, as plain values."""
    return {
        "point": found.point.id,
        "taken_at": when(found.point.taken_at),
        "state": str(found.state),
        "history": found.rebuilt.history,
        "sequence": found.rebuilt.sequence,
        "purges_replayed": found.rebuilt.purges_replayed,
        "purge_gap": found.rebuilt.gap,
        "bodies": found.bodies,
        "awaited_bytes": found.awaited_bytes,
        "kept": [str(path) for path in found.kept],
        "left_out": list(found.point.left_out),
        "config_problems": problems,
        "seconds": round(found.seconds, 3),
    }


def _tell(found: Restored, problems: list[str]) -> None:
    click.echo(f"{found.state}: restored from {found.point.id} in {found.seconds:.1f} s")
    if found.rebuilt.purges_replayed:
        click.echo(f"replayed {found.rebuilt.purges_replayed} purges that are younger than the point")
    if found.rebuilt.gap:
        click.echo("no journal survived: purges after the point may be unknown; cached bodies are revalidated first")
    if found.awaited_bytes:
        click.echo(f"cached bodies ({size(found.awaited_bytes)}) follow from the repository while the gateway runs")
    for path in found.kept:
        click.echo(f"the old one is kept: {path}")
    for line in found.point.left_out:
        click.echo(f"edge: not in the point: {line}", err=True)
    for line in problems:
        click.echo(f"edge: the restored configuration: {line}", err=True)


@click.command("drill")
@click.option("--point", help="Which point; left out: the newest sound one.")
@json_option
@repository_options
def drill_command(options: RepositoryOptions, point: str | None, as_json: bool) -> None:
    """Prove that a point can be restored. A second gateway boots from it; damaged copies must be refused."""
    from edge.cli.drill import run_drill  # not cheap, and not needed for other commands

    work = options.work()
    points = work.vault.points()
    found = chosen(points, None if point is None else named(points, point).id, None)
    values = None if options.config is None else options.config.snapshots
    state = Path(tempfile.gettempdir()) / "edge-drill" if options.config is None else Path(options.config.state.path)
    result = run_drill(work, found, values, state, key_of(options.where.key_file))
    if as_json:
        say(result.view())
    else:
        rows = [[each["step"], "ok" if each["ok"] else "FAILED", each["seconds"]] for each in result.steps]
        click.echo(f"drill of {result.point}")
        console().print(table("", ["step", "", "seconds"], rows))
        for line in result.notes:
            click.echo(f"  {line}")
        click.echo(f"rto {_seconds(result.rto_s)}, rpo {_seconds(result.rpo_s)}, {result.seconds:.1f} s in all")
    if not result.passed:
        raise DrillFailed(f"{result.point}: {'; '.join(result.problems)}")


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} s"


COMMANDS = (restore_command, drill_command)
