"""What an operator's change did to the membership, as events: the difference of two values.

One rule: an event is worked out from what was and what is, never from who asked for it, so that no way to change
something (API, command, a time that is over) can forget to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edge.control.membership import BackendEntry, Membership, RegionEntry


class By(NamedTuple):
    """The actor of a change and the reason given."""

    actor: str
    reason: str


Told = tuple[str, dict[str, Any]]  # kind and facts


def changes(old: Membership, new: Membership, by: By | None = None) -> Iterator[Told]:
    """An event for each region and backend that was added, removed or changed."""
    for name in _names(old.regions, new.regions):
        yield from _told("region", {"region": name}, old.regions.get(name), new.regions.get(name), by)
    for key in _names(old.backends, new.backends):
        facts = {"pool": key[0], "backend": key[1]}
        yield from _told("backend", facts, old.backends.get(key), new.backends.get(key), by)


def _names(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> list[Any]:
    return list(dict.fromkeys([*old, *new]))


def _told(
    what: str,
    facts: dict[str, Any],
    old: RegionEntry | BackendEntry | None,
    new: RegionEntry | BackendEntry | None,
    by: By | None,
) -> Iterator[Told]:
    who = {} if by is None else {"actor": by.actor, "reason": by.reason}
    if old is None or new is None:
        yield f"{what}.{'added' if old is None else 'removed'}", {**facts, **who}
        return
    if old.spec != new.spec:
        yield f"{what}.changed", {**facts, **who}
    if old.admin is not new.admin:
        yield f"{what}.admin", {**facts, "was": old.admin.value, "is": new.admin.value, **who}
