"""What is taken: the state at one instant, as a table and its bodies; and who can read and rebuild it.

The sidecar knows neither the journal nor the cache: `State` is the journal's side, `Warm` the cache's. Both are wired
in by `cli.recovery`.

One rule: everything in a `Captured` is of one log sequence number. The critical entries are; a warm entry may be gone
when its body is read, and is left out then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge.recovery.points import Point
from edge.recovery.table import Entry, Table

CACHE = "cache/"  # names of warm entries begin with it

ReadBody = Callable[[bytes], bytes | None]


@dataclass(slots=True)
class Captured:
    """The state at one instant. `body(id)` gives a body's bytes, or None when it is gone meanwhile."""

    history: str
    sequence: int
    taken_at: float
    table: Table
    body: ReadBody
    config_hash: str = ""
    schema_version: int = 0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The result of restoring a table."""

    history: str  # the new one
    sequence: int
    config: str | None = None  # the configuration's text
    config_name: str = "config.toml"
    purge_number: int = 0  # of the last purge
    purges_replayed: int = 0
    gap: bool = False  # purges between the point and the loss may be unknown
    facts: Mapping[str, Any] = field(default_factory=dict)


class State(Protocol):
    """The critical state in a directory."""

    def capture(self, extra: Mapping[str, bytes]) -> Captured:
        """The state now, with further entries by name. Never blocks the writer; raises JournalError."""

    def rebuild(
        self, point: Point, table: Table, body: Callable[[Entry], bytes], folder: Path, survivor: Path | None
    ) -> Rebuilt:
        """Make a state directory's content of a point's table, with the purges that a survivor knows beyond it."""

    def load(self, folder: Path, table: Table) -> None:
        """Open what was rebuilt as a start would, and compare it with the table. Raises RecoveryError."""

    def unsaved_since(self, history: str, sequence: int) -> float | None:
        """When the first change after a sequence number was made; None when there is none."""

    def now(self) -> tuple[str, int]:
        """The history and the sequence number as they are."""


class Warm(Protocol):
    """The cached responses of the disk tier."""

    def capture(self) -> Table:
        """Entries by name (`cache/…`); their bodies are read later."""

    def body(self, blob: bytes) -> bytes | None:
        """A body's bytes; None when it was evicted since."""

    def rebuild(
        self, entries: Table, bodies: Iterator[tuple[bytes, bytes]], folder: Path, number: int, distrust: bool
    ) -> int:
        """Make a disk tier in an empty directory; how many entries it has. `number`: the last purge of the journal.

        `distrust`: purges may be unknown, so nothing of it may be served before the origin has said that it is good.
        """

    def expect(self, entries: Table, folder: Path, number: int, distrust: bool, point: str) -> bool:
        """As `rebuild`, without the bodies, which are fetched later; False when not all have room."""

    def adopt(self, folder: Path, history: str) -> None:
        """Set the history of purges that the tier follows."""


class Awaiting(Protocol):
    """A restored cache whose bodies are still in the repository."""

    def point(self) -> str | None:
        """Which point they are of; None when nothing is awaited any more."""

    def wanted(self) -> Mapping[bytes, int]:
        """Bodies that are not there, with about their bytes."""

    def put(self, bodies: Sequence[tuple[bytes, bytes]]) -> None:
        """Store bodies whose SHA-256 was checked; those that nothing waits for any more are dropped."""

    def place(self, name: bytes, body: bytes) -> bool:
        """Store one body that a request waits for; False when the caller must be sent it. From any thread."""

    def lose(self, names: Iterable[bytes]) -> int:
        """Drop the responses whose bodies cannot be had; returns how many."""

    def end(self) -> None:
        """Nothing is awaited any more."""


def with_warm(captured: Captured, warm: Warm | None, awaited: ReadBody | None = None) -> Captured:
    """The critical state with the cached responses. Those come second: what was purged in between is not in them.

    `awaited` gives bodies that are not in the cache yet, after a restore.
    """
    if warm is None:
        return captured
    readers = [captured.body, warm.body, *([] if awaited is None else [awaited])]

    def read(blob: bytes) -> bytes | None:
        return next((found for reader in readers if (found := reader(blob)) is not None), None)

    captured.table |= warm.capture()
    captured.body = read
    return captured
