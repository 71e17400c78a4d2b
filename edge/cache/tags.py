"""Which nodes carry which tag, and which keys belong to one URL. One rule: what was added is removed with its node.

A tag or URL with a single member (most of them) maps straight to it; a set is made for the second one. A purge takes a
name's whole set in one step, however large it is; who is removed meanwhile leaves that set as well.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

M = TypeVar("M", bound=Hashable)


class MultiMap(Generic[M]):
    """Names to their members, in O(1) per membership both ways."""

    __slots__ = ("_members", "_taken")

    def __init__(self) -> None:
        self._members: dict[bytes, Any] = {}  # a member, or a set of several
        self._taken: dict[bytes, list[set[M]]] = {}  # what purges are at work on

    def add(self, name: bytes, member: M) -> None:
        """Add one membership."""
        found = self._members.setdefault(name, member)
        if type(found) is set:
            found.add(member)
        elif found != member:
            self._members[name] = {found, member}

    def remove(self, name: bytes, member: M) -> None:
        """Take one membership away; the name goes with the last one."""
        found = self._members.get(name)
        if type(found) is set:
            found.discard(member)
            if len(found) == 1:
                self._members[name] = found.pop()
        elif found == member and found is not None:
            del self._members[name]
        if self._taken:
            for taken in self._taken.get(name, ()):
                taken.discard(member)

    def of(self, name: bytes) -> tuple[M, ...]:
        """A copy of a name's members; none of those that were taken."""
        found = self._members.get(name)
        if found is None:
            return ()
        return tuple(found) if type(found) is set else (found,)

    def take(self, name: bytes) -> set[M]:
        """A name's members, which it has no longer; `let_go` when the set is of no more use."""
        found = self._members.pop(name, None)
        taken: set[M] = found if type(found) is set else set() if found is None else {found}
        self._taken.setdefault(name, []).append(taken)
        return taken

    def let_go(self, name: bytes, taken: set[M]) -> None:
        """The end of one `take`."""
        sets = [each for each in self._taken[name] if each is not taken]
        if sets:
            self._taken[name] = sets
        else:
            del self._taken[name]

    def __len__(self) -> int:
        """Names in use."""
        return len(self._members)
