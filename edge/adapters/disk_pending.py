"""What waits to be written to the disk tier, and how look-ups see it over what is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic

from edge.cache.purge import Kind, Purge, base_of
from edge.cache.stored import Stored


@dataclass(slots=True)
class Put:
    """A response to be written. `seq` is the worker's sequence when it was asked for, `number` the journal's then."""

    stored: Stored
    seq: int
    temp: str | None = None
    at: float = field(default_factory=monotonic)

    @property
    def bytes(self) -> int:
        """What it holds of memory while it waits."""
        return self.stored.size_bytes


Pending = dict[bytes, dict[bytes, Put | None]]  # by key and variant; None: removed


@dataclass(slots=True)
class Waiting:
    """What the next batch is made of."""

    responses: Pending = field(default_factory=dict)
    bytes: int = 0
    removed: set[tuple[int, int, int, int]] = field(default_factory=set)
    purges: list[tuple[Purge, float]] = field(default_factory=list)
    used: set[tuple[int, int]] = field(default_factory=set)
    forsaken: list[str] = field(default_factory=list)  # temporary files that are not wanted

    def __bool__(self) -> bool:
        return bool(self.responses or self.removed or self.purges or self.used or self.forsaken)


def named(pending: Iterable[Waiting], purge: Purge, now: float) -> Iterator[Put]:
    """What waits, is of use still, and is named by a purge by URL or tag."""
    value, by_url = purge.value, purge.kind is Kind.URL
    for waiting in pending:
        for key, places in waiting.responses.items():
            if by_url and not (key.startswith(value) and base_of(key) == value):
                continue
            for put in places.values():
                if put is not None and put.stored.keep_until > now and (by_url or value in put.stored.tags):
                    yield put


def overlay(
    found: dict[bytes, Stored], pending: Pending, key: bytes, admitted: Callable[[Stored, int], Stored | None]
) -> None:
    """Put what waits to be written over what the disk has."""
    for variant, put in pending.get(key, {}).items():
        found.pop(variant, None)
        if put is None:
            continue
        stored = admitted(put.stored, put.seq)
        if stored is None:
            continue
        if stored.part is None:
            for part in [each for each, one in found.items() if one.part is not None and one.choice == variant]:
                del found[part]
        found[variant] = stored
