"""Putting a new directory in the place of an old one, at one instant, and keeping the old one.

    build   .<name>.restoring-<random>/  with a file UNFINISHED in it
    switch  exchange of the two names (renameat2), or one rename where there was nothing
    after   the old directory, which has the temporary name now, becomes <name>.before-<time>; UNFINISHED is removed

One rule: at every instant the name leads to the old directory, whole, or to the new one, whole. What a kill leaves is
told apart by UNFINISHED: a temporary directory with it is a restore that did not come to its end, one without it is
the old state.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Collection
from itertools import count
from pathlib import Path
from secrets import token_hex

from edge.adapters.durable_file import sync
from edge.errors import RestoreRefused

UNFINISHED = ".unfinished-restore"
_EXCHANGE = 2
_AT_FDCWD = -100


def begin(target: Path) -> Path:
    """A new empty directory beside the target, to be filled."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.parent / f"{_prefix(target)}{token_hex(4)}"
    fresh.mkdir(mode=0o700)
    (fresh / UNFINISHED).touch()
    return fresh


def tidy(target: Path, stamp: str) -> list[Path]:
    """Clean up after killed restores: delete unfinished directories, and give replaced ones their names, which are
    returned.
    """
    found = []
    for path in sorted(target.parent.glob(f"{_prefix(target)}*")):
        if (path / UNFINISHED).exists() or not any(path.iterdir()):
            shutil.rmtree(path)
        else:
            kept = _kept_name(target, stamp)
            os.rename(path, kept)
            found.append(kept)
    (target / UNFINISHED).unlink(missing_ok=True)
    return found


def carry_over(old: Path, fresh: Path, without: Collection[str], restored: Path | None = None) -> None:
    """Link into the new directory what the old one has beside what is restored."""
    for path in sorted(old.rglob("*")):
        name = path.relative_to(old)
        if any(name.parts[0] == word or name.parts[0].startswith(f"{word}-") for word in without):
            continue
        if restored is not None and (path == restored or restored in path.parents):
            continue
        there = fresh / name
        if path.is_dir() and not path.is_symlink():
            there.mkdir(mode=path.stat().st_mode & 0o7777, exist_ok=True)
        elif (path.is_file() or path.is_symlink()) and not there.exists():
            _link(path, there)


def _link(path: Path, there: Path) -> None:
    try:
        os.link(path, there, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(path, there, follow_symlinks=False)


def sync_tree(folder: Path, without: Path | None = None) -> None:
    """All that is below is durable, but for what is below `without`."""
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(base) / name != without]
        for name in names:
            path = Path(base) / name
            if path.is_file() and not path.is_symlink():
                sync(path)
        sync(Path(base))


def finish(fresh: Path, target: Path, stamp: str) -> Path | None:
    """Switch; where the old directory is now, if there was one. The new one must be durable."""
    if target.is_dir() and any(target.iterdir()):
        exchange(fresh, target)
        kept: Path | None = _kept_name(target, stamp)
        os.rename(fresh, kept or fresh)
    elif target.exists() and not target.is_dir():
        raise RestoreRefused(f"{target} is no directory: give another one with --to")
    else:
        kept = None
        os.rename(fresh, target)  # over an empty directory too
    sync(target.parent)
    (target / UNFINISHED).unlink(missing_ok=True)
    sync(target)
    return kept


def exchange(one: Path, other: Path) -> None:
    """Swap two names at one instant."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    code = errno.ENOSYS
    if rename is not None:
        if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
    raise RestoreRefused(
        f"{other}: cannot be switched at one instant here ({os.strerror(code)}): restore with --to a new directory, "
        f"and give its name in the configuration"
    )


def _kept_name(target: Path, stamp: str) -> Path:
    """A name for the old directory that nothing has."""
    first = target.with_name(f"{target.name}.before-{stamp}")
    others = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return first if not first.exists() else next(path for path in others if not path.exists())


def _prefix(target: Path) -> str:
    return f".{target.name}.restoring-"
