"""What waits to be written to the disk tier, and how look-ups see it over what is written.

One rule: whatever is asked of it costs by what it names, not by how much waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic

from edge.adapters.disk_rows import Addition
from edge.cache.purge import Purge, PurgeKind, base_of
from edge.cache.stored import Stored

Pending = dict[bytes, dict[bytes, Addition | None]]  # by key and variant; None: removed


class Purges:
    """Waiting purges by URL and tag, with their times; each kept once and found by what it names."""

    __slots__ = ("_named", "times")

    def __init__(self, purges: Iterable[tuple[Purge, float]] = ()) -> None:
        self.times: dict[Purge, float] = {}
        self._named: dict[tuple[PurgeKind, bytes], list[tuple[Purge, float]]] = {}
        for purge, at in purges:
            self.add(purge, at)

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[tuple[Purge, float]]:
        return iter(self.times.items())

    def add(self, purge: Purge, at: float) -> None:
        """Add a purge; one that waits already covers it, since both hold for everything in the index."""
        if purge not in self.times:
            self.times[purge] = at
            self._named.setdefault((purge.kind, purge.value), []).append((purge, at))

    def left_of(self, stored: Stored) -> Stored | None:
        """What these purges leave of a response in the index: itself, a stale version, or None."""
        left = _after(stored, self._named.get((PurgeKind.URL, base_of(stored.key)), ()))
        for tag in stored.tags:
            left = left and _after(left, self._named.get((PurgeKind.TAG, tag), ()))
        return left


@dataclass(slots=True)
class Waiting:
    """The contents of the next batch, indexed so that a key or a purge is found without a scan."""

    responses: Pending = field(default_factory=dict)
    removed: set[tuple[int, int, int, int]] = field(default_factory=set)
    purges: Purges = field(default_factory=Purges)
    used: set[tuple[int, int]] = field(default_factory=set)
    forsaken: list[str] = field(default_factory=list)  # temporary files that are not wanted
    _keys: dict[bytes, set[bytes]] = field(default_factory=dict)  # by URL, where rules added something to it
    _tagged: dict[bytes, set[tuple[bytes, bytes]]] = field(default_factory=dict)  # key and variant, by tag
    bytes: int = 0
    since: float = 0.0  # when the oldest response came; 0: there is none

    def __bool__(self) -> bool:
        return bool(self.responses or self.removed or self.purges or self.used or self.forsaken)

    def put(self, put: Addition) -> None:
        """Add a response; a complete one replaces its parts."""
        stored = put.stored
        if not self.since:
            self.since = monotonic()
        self.bytes += stored.size_bytes + len(put.record)
        places = self.responses.get(stored.key)
        if places is None and put.plain is not None:  # it has no name but its key
            self.responses[stored.key] = {b"": put}
            return
        key, variant = stored.key, stored.variant
        if places is None:
            places = self.responses[key] = {}
        elif stored.part is None:
            parts = stored.choice + b"\n#"
            for each in [each for each in places if each.startswith(parts)]:
                del places[each]
        places[variant] = put
        if b" " in key:
            self._keys.setdefault(base_of(key), set()).add(key)
        for tag in stored.tags:
            self._tagged.setdefault(tag, set()).add((key, variant))

    def named(self, purge: Purge, now: float) -> Iterator[Addition]:
        """The usable waiting responses that a purge by URL or tag names."""
        if purge.kind is PurgeKind.URL:
            keys = (purge.value, *self._keys.get(purge.value, ()))
            puts = (put for key in keys for put in self.responses.get(key, _NOTHING).values())
        else:
            tagged = self._tagged.get(purge.value, ())
            puts = (self.responses.get(key, _NOTHING).get(variant) for key, variant in tagged)
        for put in puts:
            if put is None or put.stored.keep_until <= now:
                continue
            if purge.kind is PurgeKind.URL or purge.value in put.stored.tags:
                yield put


_NOTHING: dict[bytes, Addition | None] = {}


def left_of(stored: Stored, purges: Iterable[tuple[Purge, float]]) -> Stored | None:
    """What purges by URL and tag leave of a response: itself, a stale version, or None."""
    base = base_of(stored.key)
    names = [
        (purge, at)
        for purge, at in purges
        if (purge.value == base if purge.kind is PurgeKind.URL else purge.value in stored.tags)
    ]
    return _after(stored, names)


def _after(stored: Stored, purges: Iterable[tuple[Purge, float]]) -> Stored | None:
    """The response after each of these purges, all of which name it."""
    for purge, at in purges:
        if not purge.soft:
            return None
        stored = stored.expired(at)
    return stored


def overlay(
    found: dict[bytes, Stored], pending: Pending, key: bytes, admitted: Callable[[Stored, int], Stored | None]
) -> None:
    """Combine what was found on disk with what waits to be written."""
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
