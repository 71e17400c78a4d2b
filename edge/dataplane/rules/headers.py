"""Header rules: lines of a head set, added and removed, as bytes.

One rule: a head stays a head. Names are found as whole lines, in any case, and every filled-in value is one line
(`template`). What is stored is never touched: requests are changed on their way out, responses on their way in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge.dataplane.rules.template import Template
from edge.http.memo import Memo
from edge.http.message import Fields
from edge.http.text import quote

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked


KNOWN_BYTES = 4 * 1024 * 1024  # of lines that came before
DRESSED_BYTES = 8 * 1024 * 1024  # of heads of stored responses
GATEWAYS = frozenset((b"age", b"cache-status"))  # lines of a hit that are not stored


class Removal:
    """Removes lines with these lower-case names; remembers the last input."""

    __slots__ = ("_budget", "_known", "_own", "gone")

    def __init__(self, gone: Iterable[bytes], budget: int = KNOWN_BYTES) -> None:
        self.gone = tuple(sorted(gone))
        self._budget = budget
        self._known: Memo[bytes] | None = None  # lines that came before, without those that go
        self._own = (b"", b"")  # the gateway's lines that came last, and what is kept of them: mostly the same ones

    def kept(self, lines: bytes) -> bytes:
        """Lines without those that go. Clients and origins send the same ones again and again."""
        known = self._known
        if known is None:
            known = self._known = Memo(lambda lines: without(lines, self.gone), self._budget)
        found = known.get(lines)
        return known.slow(lines) if found is None else found

    def kept_of_own(self, lines: bytes) -> bytes:
        """As `kept`, for lines that the gateway made for one response."""
        came, found = self._own
        if came != lines:
            found = without(lines, self.gone)
            self._own = (lines, found)
        return found


class HeaderEdit(Removal):
    """`set`, `add` and `remove` of one direction."""

    __slots__ = ("_added", "_dressed", "_fixed")

    def __init__(self, to_set: Mapping[str, str], to_add: Mapping[str, str], to_remove: Iterable[str]) -> None:
        super().__init__({name.lower().encode() for name in (*to_set, *to_remove)})
        lines = [(name.encode(), Template(text)) for name, text in [*to_set.items(), *to_add.items()]]
        self._fixed = b"".join(b"%b: %b\r\n" % (name, each.fixed) for name, each in lines if each.fixed is not None)
        self._dressed = Memo(lambda wire: without(wire, self.gone) + self._fixed, DRESSED_BYTES)
        self._added = tuple((name, each) for name, each in lines if each.fixed is None)

    @property
    def varies(self) -> bool:
        """Whether what it adds differs between requests in more than what a client sent under these names."""
        return bool(self._added)

    def seen(self, asked: Asked, fields: Fields) -> Fields:
        """A request's fields as an origin sees those whose values are filled in: what it may vary by. A region is not
        known before a backend is, so such a value is like no other."""
        names = {name.lower() for name, _ in self._added}
        filled = [(name, each.fill(asked, asked.own_id()).strip(b" \t")) for name, each in self._added]
        return fields.without(names).plus(*((name, value) for name, value in filled if value))

    @property
    def is_fixed(self) -> bool:
        """Whether a stored head always becomes the same one, and what the gateway puts to it stays."""
        return not self._added and GATEWAYS.isdisjoint(self.gone)

    def dressed(self, wire: bytes) -> bytes:
        """A stored head with fixed lines set, added and removed; remembered, for it is written again and again."""
        found = self._dressed.get(wire)
        return self._dressed.slow(wire) if found is None else found

    def lines(self, asked: Asked, region: bytes = b"") -> bytes:
        """The lines that are set and added. A value that turns out empty makes no line."""
        found = self._fixed
        for name, template in self._added:
            value = template.fill(asked, region).strip(b" \t")
            if value:
                found += b"%b: %b\r\n" % (name, value)
        return found

    def explain(self, asked: Asked) -> str:
        """The fields that are set, for `edge explain`; the region is only known with a backend."""
        gone = [f"remove {name.decode()}" for name in self.gone]
        return "; ".join([*gone, *(shown(line) for line in self.lines(asked, b"<region>").split(b"\r\n") if line)])


def shown(raw: bytes) -> str:
    """Bytes as printable text."""
    return quote(raw).decode()


def without(lines: bytes, names: Iterable[bytes]) -> bytes:
    """Lines (each with its CRLF) without those of these lower-case names."""
    low = b"\r\n" + lines.lower()
    for name in names:
        sought = b"\r\n%b:" % name
        at = low.find(sought)
        while at >= 0:
            end = low.find(b"\r\n", at + 2)
            lines = lines[:at] + lines[end:]
            low = low[:at] + low[end:]
            at = low.find(sought, at)
    return lines
