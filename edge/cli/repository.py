"""What the commands about recovery points share: which repository is meant, progress, a point by its name.

One rule: whatever only needs the repository works with the repository alone, so that it works on a machine where there
is nothing else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.adapters.config_files import sources_of, why_unread
from edge.cli.client import DEFAULT_CONFIG, CommandFailed, size
from edge.cli.recovery import Where, open_work
from edge.config.loader import Config, load
from edge.config.paths import below, folder_of
from edge.errors import ConfigError
from edge.recovery.points import Point, closure
from edge.sidecar.take import Work

_HEADER = re.compile(r"\s*\[([a-z_.]+)\]")
_PAIR = re.compile(r"""\s*([a-z_.]+)\s*=\s*["']([^"']*)["']""")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """What the options say that all commands about recovery points share."""

    path: Path
    where: Where
    config: Config | None
    admin: str | None
    token_file: Path | None
    salvaged_state: Path | None = None  # of a file that is not accepted

    @property
    def remote(self) -> bool:
        """Whether only a gateway's admin listener is known."""
        return not self.where.repository

    @property
    def state(self) -> Path | None:
        """The state directory, as far as it is known."""
        return Path(self.config.state.path) if self.config is not None else self.salvaged_state

    def work(self, make: bool = False) -> Work:
        """The repository, open."""
        if not self.where.repository:
            raise CommandFailed("this needs the repository itself: give -c FILE or --repository")
        chain = self.config.snapshots.chain if self.config is not None and self.config.snapshots is not None else 48
        return open_work(self.where, make, progress=progress, longest_chain=chain)


def repository_options(command: Decorated) -> Decorated:
    """Give a command the options that say which repository is meant; they come as one argument, `options`."""

    def wrapped(
        path: Path | None,
        repository: str | None,
        endpoint: str | None,
        region: str | None,
        key_file: str | None,
        admin: str | None,
        token_file: Path | None,
        **others: Any,
    ) -> None:
        given = Where(repository, endpoint, region, key_file) if repository is not None else None
        command(_options(path, given, key_file, admin, token_file), **others)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    found: Any = wrapped
    for option in (
        click.option("--token-file", type=click.Path(path_type=Path), help="File with the admin token."),
        click.option("--admin", metavar="HOST:PORT", help="The gateway's admin listener."),
        click.option("--key-file", help="The repository's key; left out: snapshots.encryption_key_file."),
        click.option("--region", help="S3 region."),
        click.option("--endpoint", help="S3 endpoint."),
        click.option("--repository", metavar="URL", help="file:DIR or s3://BUCKET/PREFIX; left out: [snapshots]."),
        click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="The configuration file."),
    ):
        found = option(found)
    return found  # type: ignore[no-any-return]


def _options(
    path: Path | None, given: Where | None, key_file: str | None, admin: str | None, token_file: Path | None
) -> RepositoryOptions:
    file = path or Path(DEFAULT_CONFIG)
    try:
        config = _config(file) if file.is_file() else None
    except CommandFailed:
        where, state = salvaged(file.read_text(encoding="utf-8", errors="replace"), folder_of(str(file)))
        if given is None and where is None:
            raise
        return RepositoryOptions(file, given or where or Where(""), None, admin, token_file, state)
    if given is not None:
        return RepositoryOptions(file, given, config, admin, token_file)
    if config is None and admin is not None:
        return RepositoryOptions(file, Where(""), None, admin, token_file)
    if config is None:
        raise CommandFailed(f"{file}: no such file; give -c FILE, or --repository for a repository without one")
    if config.snapshots is None:
        raise CommandFailed(
            f'{file}: has no [snapshots]: give it a repository = "file:/mnt/backups", or give --repository'
        )
    where = Where.of(config.snapshots)
    if key_file is not None:
        where = Where(where.repository, where.endpoint, where.region, key_file)
    return RepositoryOptions(file, where, config, admin, token_file)


def salvaged(text: str, folder: str = "") -> tuple[Where | None, Path | None]:
    """Repository and state directory of a file that cannot be used: what would mend it must be found all the same."""
    section, found = "", dict[str, str]()
    for line in text.splitlines():
        if header := _HEADER.match(line):
            section = header[1]
        elif pair := _PAIR.match(line):
            found[f"{section}.{pair[1]}" if section else pair[1]] = pair[2]
    repository = found.get("snapshots.repository")
    if repository is not None and repository.startswith("file:"):
        repository = f"file:{below(folder, repository.removeprefix('file:').removeprefix('//'))}"
    endpoint, region, key = (found.get(f"snapshots.{name}") for name in ("endpoint", "region", "encryption_key_file"))
    where = None if repository is None else Where(repository, endpoint, region, key and below(folder, key))
    return where, Path(below(folder, found.get("state.path", "var")))


def checked_config(options: RepositoryOptions) -> Config:
    """The configuration as it is in its file. Raises CommandFailed."""
    return options.config if options.config is not None else _config(options.path)


def _config(path: Path) -> Config:
    try:
        return load(sources_of(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path}: {why_unread(error)}") from None
    except ConfigError as error:
        raise CommandFailed(f"{error.problems[0]} (`edge check` tells all)") from None


def progress(phase: str, done: int, whole: int) -> None:
    """Show how far long work is, on one line that is written over; nothing where nobody looks."""
    if sys.stderr.isatty():
        share = f"{100 * done / whole:3.0f} %" if whole else ""
        click.echo(f"\r{phase}: {share} {size(done) if whole > 10_000 else done}   ", err=True, nl=False)


def named(points: dict[str, Point], name: str) -> Point:
    """A point by its id or an unmistakable beginning or end of it."""
    near = [each for each in points if each.startswith(name) or each.endswith(name)]
    return points[near[0]] if len(near) == 1 else closure(points, name)[-1]


def own_state(config: Config) -> Any:
    """The state directory's lock; None while a gateway holds it."""
    from edge.control.instance import CannotStart, lock_state  # not cheap, and not needed for other commands

    try:
        return lock_state(Path(config.state.path))
    except CannotStart:
        return None
