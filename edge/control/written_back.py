"""A revision put back into the configuration's files, after a rollback.

One rule: each file is whole, the old one or the new one; what was there is kept beside it. A file that the revision
does not include is put aside, for it would be included again at the next reload.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.adapters.config_files import ENCODING, matching, patterns_of
from edge.adapters.durable_file import put
from edge.control.journal import Revision

KEPT = ".replaced"
NEW_MODE = 0o644  # of a file that was not there: as an editor would make it


def write_back(revision: Revision, path: Path) -> dict[str, Any]:
    """Where that fails, `error` says which file still holds something else. Blocking."""
    done: dict[str, Any] = {"written": False, "kept": None}
    at = path
    try:
        for name in matching(path.parent, patterns_of(revision.text)):
            at = path.parent / name
            if name not in revision.files:
                at.replace(at.with_name(at.name + KEPT))
        at = path.parent
        put_included(revision.files, path.parent)
        at = path
        done["written"], done["kept"] = _write(path, revision.text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        done["error"] = f"{at} still holds another configuration: {why}"
    return done


def put_included(files: Mapping[str, str], folder: Path) -> None:
    """Included files as they were. Raises OSError, UnicodeDecodeError."""
    for name, text in files.items():
        _write(folder / name, text)


def _write(path: Path, text: str) -> tuple[bool, str | None]:
    """Whether it had to be written, and where what was there is. Raises OSError, UnicodeDecodeError."""
    kept = path.with_name(path.name + KEPT)
    before = path.read_text(ENCODING) if path.exists() else None
    if before == text:
        return False, None
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = NEW_MODE if before is None else path.stat().st_mode & 0o777
    if before is not None:
        put(kept, before.encode(), mode)
    put(path, text.encode(), mode)
    return True, None if before is None else str(kept)
