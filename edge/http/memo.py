"""A bounded memo of a pure function of bytes: what a browser or a backend repeats is worked out once.

One rule: it cannot be seen from outside, and it is bounded in bytes, whatever is asked of it. Two generations, the
older one dropped when the younger is full. A block is kept from its second time on: most of what comes once never
comes again, and would only push out what does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from edge.seen import SeenBefore

T = TypeVar("T")
BUDGET_BYTES = 16 * 1024 * 1024  # of both generations
LONGEST = 8 * 1024  # longer blocks are never kept
# What the facts of a block hold, measured: its bytes about five times, for each line its facts, tuples and index.
COST_BYTE, COST_LINE, COST_BLOCK = 5, 440, 1000


class Memo(Generic[T]):
    """`get` first, which is a dictionary's own; `slow` when it said None."""

    __slots__ = ("_budget", "_compute", "_cost", "_longest", "_old", "_seen", "_spent", "_young", "get")

    def __init__(
        self,
        compute: Callable[[bytes], T],
        budget: int = BUDGET_BYTES,
        longest: int = LONGEST,
        beside: Callable[[bytes], int] | None = None,
    ) -> None:
        """`beside`: how many bytes others come to remember on the facts of a block."""
        self._compute = compute
        self._cost = cost_of if beside is None else lambda block: cost_of(block) + beside(block)
        self._budget = budget // 2
        self._longest = longest
        self._young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}
        self._spent = 0  # by the younger generation
        self._seen = SeenBefore()
        self.get = self._young.get  # the common case without one more call

    def slow(self, block: bytes) -> T:
        """Look in the older generation, or compute; keep what comes again."""
        found = self._old.get(block)
        if found is None:
            found = self._compute(block)
            if len(block) > self._longest or not self._seen.came(hash(block)):
                return found
        cost = self._cost(block)
        if cost > self._budget:
            return found
        if self._spent + cost > self._budget:
            self._old, self._young, self._spent = self._young, {}, 0
            self.get = self._young.get
        self._young[block] = found
        self._spent += cost
        return found


def cost_of(block: bytes) -> int:
    """About how many bytes of memory a kept block and its facts take."""
    return COST_BLOCK + COST_BYTE * len(block) + COST_LINE * block.count(b"\n")
