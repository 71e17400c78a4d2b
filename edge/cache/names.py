"""Names as an operator lists them, where `*` stands for any text: cookie names, query arguments.

One rule: only `*` is special, so `items[]` and `page.size` are names and nothing else; and a look-up costs no more than
the length of the name, whatever a client sends, because parts are found from left to right and never again.
"""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Exact names and globs; `name in names`."""

    __slots__ = ("_exact", "_globs")

    def __init__(self, patterns: Iterable[bytes]) -> None:
        given = tuple(patterns)
        self._exact = frozenset(pattern for pattern in given if b"*" not in pattern)
        self._globs = tuple(tuple(pattern.split(b"*")) for pattern in given if b"*" in pattern)

    def __bool__(self) -> bool:
        return bool(self._exact or self._globs)

    def __contains__(self, name: bytes) -> bool:
        return name in self._exact or any(_fits(name, parts) for parts in self._globs)

    def meet(self, names: Iterable[bytes]) -> bool:
        """Whether any of these names is in the list."""
        return any(name in self for name in names) if self._globs else not self._exact.isdisjoint(names)


def _fits(name: bytes, parts: tuple[bytes, ...]) -> bool:
    """Whether a name has these parts in this order, the first at its start and the last at its end."""
    first, *middle, last = parts
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
