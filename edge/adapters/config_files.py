"""The configuration's files: the one that is named, those that it includes, and the environment.

One rule: what is read is all that a configuration is; whoever gets it needs no file any more to understand it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from glob import has_magic
from pathlib import Path

from edge.config.sources import INCLUDE, Sources
from edge.errors import ConfigError

ENCODING = "utf-8-sig"  # some editors put a mark before the text, which is no part of it


def sources_of(path: Path, text: str | None = None) -> Sources:
    """A configuration as it is on the disk; `text` in place of the main file's. Raises OSError, UnicodeDecodeError for
    the main file, ConfigError for what it includes."""
    if text is None:
        text = path.read_text(ENCODING)
    problems: list[str] = []
    files = {}
    for pattern in patterns_of(text):
        names = matching(path.parent, [pattern])
        if not names and not has_magic(pattern):
            problems.append(f"{path}: {INCLUDE}: {pattern}: no such file")
        for name in names:
            try:
                files[name] = (path.parent / name).read_text(ENCODING)
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{path.parent / name}: {why_unread(error)}")
    if problems:
        raise ConfigError(problems)
    return Sources(str(path), text, files, os.environ)


def why_unread(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: {error.reason} at byte {error.start}"
    return error.strerror or str(error)


def patterns_of(text: str) -> list[str]:
    """What a file includes; nothing where that cannot be read, which whoever loads it tells."""
    if INCLUDE not in text and "\\" not in text:  # which may hide the word; to read a long file takes a while
        return []
    try:
        found = tomllib.loads(text).get(INCLUDE, [])
    except (ValueError, RecursionError):
        return []
    return [each for each in found if isinstance(each, str) and each] if isinstance(found, list) else []


def matching(folder: Path, patterns: Iterable[str]) -> list[str]:
    """The files that patterns name, as seen from a folder, in order."""
    found: set[str] = set()
    for pattern in patterns:
        base = Path(pattern)
        root = Path(base.anchor) if base.is_absolute() else folder
        names = root.glob(str(base.relative_to(base.anchor)))
        found.update(
            str(each) if base.is_absolute() else str(each.relative_to(folder)) for each in names if each.is_file()
        )
    return sorted(found)
