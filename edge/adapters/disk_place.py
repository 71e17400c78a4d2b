"""The disk tier's directory: whose it is, what it holds, and who may use it.

    <path>/edge-cache.json   that it is ours, its format, its salt and the purge history that it follows
    <path>/lock              held by the gateway that uses it, for as long as it runs
    <path>/store/            index.db │ segments/<id> │ bodies/<2 hex>/<hex>; whole, or moved aside whole

One rule: nothing that is not ours is touched, and nothing of ours is used that was made for another format or another
history of purges: it is moved aside to `store.aside` (the one before goes), with one line, and the tier starts empty.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from edge.adapters.durable_file import FRESH, put
from edge.errors import EdgeError

FORMAT = 2
FORMATS = (1, FORMAT)  # that are read and kept; the first named what has no variant by a hash, as it does others
MARK = "edge-cache.json"
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO in a file's place is damage, and nobody waits for it
LOCK, SETUP, STORE, ASIDE, DAMAGED = "lock", "setup.lock", "store", "store.aside", "damaged"
OURS = (LOCK, SETUP, MARK, STORE, ASIDE)
TURN = "turn"  # in the store: held by whoever changes it


class TierError(EdgeError):
    """The disk tier cannot be used; the message is one clear line."""


class TierInUse(TierError):
    """Another gateway uses the tier."""


@dataclass(frozen=True, slots=True)
class Place:
    """A checked tier directory. `said`: lines for the operator about how it was found."""

    path: Path
    salt: bytes
    said: str = ""
    format: int = FORMAT

    @classmethod
    def marked(cls, path: Path, said: str = "") -> Place:
        """The tier in a directory by its mark. Raises OSError, ValueError, KeyError."""
        found = orjson.loads((path / MARK).read_bytes())
        return cls(path, bytes.fromhex(found["salt"]), said, int(found["format"]))

    @property
    def store(self) -> Path:
        """The folder with index, segments and bodies."""
        return self.path / STORE

    @property
    def index(self) -> Path:
        """The path of the index."""
        return self.store / "index.db"

    def segment(self, number: int) -> Path:
        """The path of a segment."""
        return self.store / "segments" / str(number)

    def body(self, name: bytes) -> Path:
        """The path of a body, by its SHA-256."""
        text = name.hex()
        return self.store / "bodies" / text[:2] / text

    def temp(self, name: str) -> Path:
        """The path of a body while it is written."""
        return self.store / "temps" / name


def lock_tier(path: Path) -> int:
    """Lock the directory for this gateway until the descriptor is closed. Raises TierInUse, TierError."""
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise TierInUse(f"disk cache {path} is in use by another gateway") from None
    return lock


def locks(lock: int, path: Path) -> bool:
    """Whether the descriptor `lock` is the lock of the directory `path`."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path / LOCK))
    except OSError:
        return False


def prepare(path: Path, history: str = "") -> Place:
    """Create the directory or check an existing one. `history`: the journal whose purges it follows.

    Raises TierError where it cannot be used: not ours, or not writable.
    """
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)
        with held(path / SETUP):
            return _prepared(path, history)


def move_aside(place: Path) -> None:
    """Rename the store to `store.aside`, replacing an earlier one."""
    shutil.rmtree(place / ASIDE, ignore_errors=True)
    (place / STORE).rename(place / ASIDE)


def _prepared(path: Path, history: str) -> Place:
    found = _mark(path)
    said = ""
    if found is None:
        others = [name for name in os.listdir(path) if name not in OURS and not name.startswith(FRESH)]
        if others:
            raise TierError(f"disk cache {path} holds files that are not the gateway's, such as {sorted(others)[0]!r}")
    why = _why_not(path, found, history)
    if why is not None:
        if (path / STORE).exists():
            move_aside(path)
            said = f"disk cache {path} {why}: moved aside to {ASIDE}, starting empty"
        found = None
    if found is None:
        found = {"format": FORMAT, "salt": os.urandom(16).hex(), "history": history}
        put(path / MARK, orjson.dumps(found))
    elif history and not found.get("history"):
        found["history"] = history
        put(path / MARK, orjson.dumps(found))
    for name in ("segments", "bodies", "temps"):
        (path / STORE / name).mkdir(parents=True, exist_ok=True)
    if not os.access(path / STORE, os.W_OK | os.X_OK):
        raise TierError(f"disk cache {path} cannot be written to")
    return Place(path, bytes.fromhex(found["salt"]), said, found["format"])


def _why_not(path: Path, found: dict[str, Any] | None, history: str) -> str | None:
    if found is None:
        return "has lost its mark" if (path / STORE).exists() else None
    if found["format"] not in FORMATS:
        return f"is of format {found['format']}, this version writes {FORMAT}"
    if (path / STORE / DAMAGED).exists():
        return "is damaged"
    if history and found.get("history") and found["history"] != history:
        return "belongs to another history of purges"
    return None


def _mark(path: Path) -> dict[str, Any] | None:
    try:
        with os.fdopen(os.open(path / MARK, READ), "rb") as file:
            found = orjson.loads(file.read())
        bytes.fromhex(found["salt"])
        return {**found, "format": found["format"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` over all processes; the file is created if missing."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TierError(f"disk cache {path} cannot be used: {error.strerror or error}") from None
