"""Whether something came before, lately: known by its hash alone, in a table that never grows.

One rule: it may forget, and once in two thousand million times it may be wrong; so it decides about nothing but what is
worth to be remembered.
"""

from __future__ import annotations

from array import array

PLACES = 8192  # 4 bytes each; a later one takes the place of an earlier one


class SeenBefore:
    """Marks of what came. A mark is a hash of any size."""

    __slots__ = ("_tags",)

    def __init__(self) -> None:
        self._tags = array("I", bytes(4 * PLACES))

    def came(self, mark: int) -> bool:
        """Whether this mark came before; from now on it has."""
        place, tag = mark % PLACES, mark >> 16 & 0x7FFFFFFF | 1
        if self._tags[place] == tag:
            return True
        self._tags[place] = tag
        return False
