"""`[snapshots]` and this machine: what would keep points from being taken, or from being worth anything.

One rule: the repository itself is not asked: it may be slow, and is the sidecar's to complain about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

from edge.adapters.config_files import ENCODING
from edge.adapters.key_file import key_of
from edge.config.loader import Config
from edge.config.positions import Path as KeyPath
from edge.config.schedule import Schedule
from edge.errors import RunbookFailed, WrongKey
from edge.recovery.runbook import read_runbook
from edge.recovery.schedule import next_due

Finding = tuple[KeyPath, str, bool]  # key, what is wrong, whether nothing works
PASSWORD = re.compile(r"://[^/\s\"'@]*:[^/\s\"'@$]+@|_password\s*=\s*[\"']+[^\s\"'$]")


def snapshot_findings(config: Config, text: str) -> Iterator[Finding]:
    """What is wrong with `[snapshots]`."""
    values = config.snapshots
    if values is None:
        return
    key = values.encryption_key_file
    if key is not None:
        try:
            key_of(key)
        except WrongKey as error:
            yield ("snapshots", "encryption_key_file"), error.detail, True
        if find_spec("cryptography") is None:
            yield ("snapshots", "encryption_key_file"), "needs a package: pip install 'streamgate[crypto]'", True
    elif PASSWORD.search(text):
        yield ("snapshots",), "the file holds a password: give encryption_key_file, or no point is taken", True
    if values.repository.startswith("s3:") and find_spec("obstore") is None:
        yield ("snapshots", "repository"), "needs a package: pip install 'streamgate[s3]'", True
    yield from _place(config, values.repository)
    yield from _runbooks(values.runbooks)
    if values.incremental is not None:
        apart = _apart(values.incremental, ZoneInfo(values.timezone)) + values.jitter
        if apart > values.targets.rpo:
            words = (
                f"targets.rpo is {values.targets.rpo:g} s, and points are up to {apart:g} s apart: it will be missed"
            )
            yield ("snapshots", "targets"), words, False


def _place(config: Config, repository: str) -> Iterator[Finding]:
    if not repository.startswith("file:"):
        return
    folder = Path(repository.removeprefix("file:").removeprefix("//")).absolute()
    state = Path(config.state.path).absolute()
    if folder == state or state in folder.parents:
        words = f"{folder} is inside state.path: what takes the state takes the points with it"
        yield ("snapshots", "repository"), words, False
    if folder.exists() and not folder.is_dir():
        yield ("snapshots", "repository"), f"{folder} is no directory", True


def _runbooks(folder: str | None) -> Iterator[Finding]:
    if folder is None:
        return
    if not Path(folder).is_dir():
        yield ("snapshots", "runbooks"), f"{folder} is no directory", True
        return
    for path in sorted(Path(folder).glob("*.toml")):
        try:
            read_runbook(path.read_text(ENCODING), str(path))
        except (RunbookFailed, OSError, UnicodeDecodeError) as error:
            yield ("snapshots", "runbooks"), str(error), True


def _apart(schedule: Schedule, zone: ZoneInfo) -> float:
    """The longest time between two of the next runs."""
    at = datetime(2026, 1, 1, tzinfo=zone).timestamp()
    longest = 0.0
    for _ in range(60):
        following = next_due(schedule, at, at, zone)
        longest, at = max(longest, following - at), following
    return longest
