"""The files that rules of routes name, opened as a worker would open them.

One rule: as in `preflight`, nothing is changed; what cannot be read is an error at the key that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.config.loader import Config
from edge.config.positions import Path as KeyPath


def rule_findings(config: Config, filename: str) -> Iterator[tuple[KeyPath, str]]:
    """(key, what is wrong) of each."""
    folder = Path(filename).parent
    for at, route in enumerate(config.routes):
        if route.respond is not None and route.respond.file is not None:
            yield from _unread(folder / route.respond.file, ("routes", at, "respond", "file"))


def _unread(path: Path, key: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    try:
        path.read_bytes()
    except OSError as error:
        yield key, f"{path}: {error.strerror}"
