"""A regular expression as an automaton, to see whether matching it can take exponential time.

One rule: it errs towards finding fault. Look-aheads and anchors match nothing of the text; groups are transparent.
A match is exponential only where a state can come back to itself on one and the same text in two ways: that is looked
for in the product of the automaton with itself.
"""

from __future__ import annotations

import re
from re import _constants as op  # type: ignore[attr-defined]  # what `re` itself is made of
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

ALL = frozenset(range(256))
CATEGORIES = {
    op.CATEGORY_DIGIT: rb"\d", op.CATEGORY_NOT_DIGIT: rb"\D", op.CATEGORY_SPACE: rb"\s",
    op.CATEGORY_NOT_SPACE: rb"\S", op.CATEGORY_WORD: rb"\w", op.CATEGORY_NOT_WORD: rb"\W",
}  # fmt: skip
UNROLLED = 3  # copies made of a bounded repeat


class Automaton:
    """States are numbers; `step[s]` are (bytes, next), `free[s]` the states reached without a byte."""

    def __init__(self, pattern: bytes | str, flags: int = 0) -> None:
        self.step: list[list[tuple[frozenset[int], int]]] = []
        self.free: list[list[int]] = []
        if isinstance(pattern, str):
            pattern, flags = pattern.encode("latin-1", "replace"), flags & ~re.UNICODE
        self._ignore_case = bool(flags & re.IGNORECASE)
        self._add(parser.parse(pattern, flags), self._state())

    def _state(self) -> int:
        self.step.append([])
        self.free.append([])
        return len(self.step) - 1

    def _add(self, items: Any, at: int) -> int:
        for code, value in items:
            at = self._item(code, value, at)
        return at

    def _item(self, code: Any, value: Any, at: int) -> int:
        if code in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            after = self._state()
            self.step[at].append((self._bytes(code, value), after))
            return after
        if code is op.SUBPATTERN:
            return self._add(value[3], at)
        if code is op.BRANCH:
            after = self._state()
            for branch in value[1]:
                start = self._state()
                self.free[at].append(start)
                self.free[self._add(branch, start)].append(after)
            return after
        if code in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self._repeat(*value, at)
        if code in (op.POSSESSIVE_REPEAT, op.ATOMIC_GROUP):
            return self._once(value if code is op.ATOMIC_GROUP else value[2], at)
        return at  # anchors and look-arounds

    def _repeat(self, low: int, high: Any, items: Any, at: int) -> int:
        for _ in range(min(low, UNROLLED)):
            at = self._add(items, at)
        if high is op.MAXREPEAT:
            start = self._state()
            self.free[at].append(start)
            self.free[self._add(items, start)].append(start)
            after = self._state()
            self.free[start].append(after)
            return after
        after = self._state()
        for _ in range(min(high - low, UNROLLED)):
            self.free[at].append(after)
            at = self._add(items, at)
        self.free[at].append(after)
        return after

    def _once(self, items: Any, at: int) -> int:
        """A part that is never tried in another way: what it takes is one step, but it must not run away inside."""
        inner = Automaton.__new__(Automaton)
        inner.step, inner.free, inner._ignore_case = [], [], self._ignore_case
        inner._add(items, inner._state())
        if inner.is_exponential():
            start = self._state()
            self.free[at].append(start)
            return self._add([(op.MAX_REPEAT, (0, op.MAXREPEAT, items))], start)
        after = self._state()
        self.step[at].append((ALL, after))
        self.free[at].append(after)
        return after

    def _bytes(self, code: Any, value: Any) -> frozenset[int]:
        if code is op.ANY:
            return ALL
        if code is op.IN:
            negated = value[0][0] is op.NEGATE
            found = frozenset().union(*(self._bytes(*item) for item in value if item[0] is not op.NEGATE))
            return ALL - found if negated else found
        if code is op.RANGE:
            return self._cased(frozenset(range(value[0], value[1] + 1)))
        if code is op.CATEGORY:
            known = re.compile(CATEGORIES[value])
            return frozenset(byte for byte in ALL if known.match(bytes([byte])))
        one = self._cased(frozenset((value,)))
        return ALL - one if code is op.NOT_LITERAL else one

    def _cased(self, found: frozenset[int]) -> frozenset[int]:
        if not self._ignore_case:
            return found
        return frozenset(byte for each in found for byte in (*bytes([each]).lower(), *bytes([each]).upper()))

    # -- the search

    def _ways(self, state: int) -> list[tuple[frozenset[int], int]]:
        """(bytes, next state) that can be taken from here, once for each free way to it; a free circle is one more."""
        found: list[tuple[frozenset[int], int]] = []

        def walk(at: int, seen: tuple[int, ...]) -> None:
            found.extend(self.step[at])
            for to in self.free[at]:
                if to not in seen:
                    walk(to, (*seen, to))
                else:
                    found.extend(self.step[to])

        walk(state, (state,))
        return found

    def is_exponential(self) -> bool:
        """Whether a state comes back to itself on one text in two ways."""
        starts = {to for steps in self.step for _, to in steps}
        ways = {state: self._ways(state) for state in starts}
        edges: dict[tuple[int, int], set[tuple[int, int]]] = {}
        twice: set[tuple[int, int]] = set()  # pairs of one state from which one byte leads on in two ways to one state
        for a in starts:
            for b in starts:
                out = edges.setdefault((a, b), set())
                for m, (first, x) in enumerate(ways[a]):
                    for n, (second, y) in enumerate(ways[b]):
                        if first & second:
                            out.add((x, y))
                            if a == b and x == y and m != n:
                                twice.add((a, x))
        for a, x in twice:
            if (a, a) in _reached(edges, (x, x)):
                return True
        for a in starts:
            for pair in _reached(edges, (a, a)):
                if pair[0] != pair[1] and (a, a) in _reached(edges, pair):
                    return True
        return False


def _reached(edges: dict[tuple[int, int], set[tuple[int, int]]], start: tuple[int, int]) -> set[tuple[int, int]]:
    """What can be reached, the start included."""
    found, todo = {start}, [start]
    while todo:
        for pair in edges[todo.pop()]:
            if pair not in found:
                found.add(pair)
                todo.append(pair)
    return found
