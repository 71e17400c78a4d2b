"""A bounded memory in two generations: what is used again stays, what is not goes with the older one.

One rule: it cannot be seen from outside, and what it holds is bounded in bytes, whatever comes. A thing is kept from
its second time on, as in `http.memo`: most of what comes once never comes again.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from edge.seen import SeenBefore

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Generations(Generic[K, V]):
    """`get` first, which is a dictionary's own; `older` when it said None; `keep` what had to be worked out."""

    __slots__ = ("_budget", "_old", "_seen", "_spent", "_young", "get", "turns")

    def __init__(self, budget: int) -> None:
        self._budget = budget // 2
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}
        self._spent = 0  # by the younger generation
        self._seen = SeenBefore()
        self.turns = 0  # how often the older one went
        self.get = self._young.get  # the common case without one more call

    def older(self, key: K) -> V | None:
        """What the older generation has; it is young again."""
        found = self._old.get(key)
        if found is None:
            return None
        self._put(key, *found)
        return found[0]

    def keep(self, key: K, mark: int, value: V, cost: int) -> None:
        """Keep this, of so many bytes, if something with this mark came before."""
        if cost <= self._budget and self._seen.came(mark):
            self._put(key, value, cost)

    def _put(self, key: K, value: V, cost: int) -> None:
        if self._spent + cost > self._budget:
            self._turn(self._young)
        self._young[key] = (value, cost)
        self._spent += cost

    def _turn(self, old: dict[K, tuple[V, int]]) -> None:
        self._old, self._young, self._spent = old, {}, 0
        self.get = self._young.get
        self.turns += 1

    def clear(self) -> None:
        """Forget everything."""
        self._turn({})

    @property
    def spent(self) -> int:
        """Bytes that the younger generation holds, for tests."""
        return self._spent

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
