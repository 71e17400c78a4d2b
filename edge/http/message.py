"""The words every other file shares about messages: field lines and heads, as bytes.

One rule: bytes stay bytes. Names keep the case they came in and values keep every octet (obs-text included,
RFC 9110 5.5); comparison is by the lower-cased name. Nothing here validates: `grammar` proves before it builds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Line = tuple[bytes, bytes]


class Fields:
    """Field lines of one head, in order, immutable. `lines` holds (name as received, value without outer OWS)."""

    __slots__ = ("_index", "_keys", "lines")

    def __init__(self, lines: Iterable[Line] = (), keys: Sequence[bytes] | None = None) -> None:
        """`keys` are the lower-case names of the lines, where the caller has them already."""
        self.lines: tuple[Line, ...] = tuple(lines)
        self._keys = keys
        self._index: dict[bytes, tuple[bytes, ...]] | None = None

    def keyed(self) -> Iterable[tuple[bytes, Line]]:
        """Each line with its lower-case name, in order."""
        if self._keys is None:
            self._keys = [name.lower() for name, _ in self.lines]
        return zip(self._keys, self.lines, strict=True)

    def _by_name(self) -> dict[bytes, tuple[bytes, ...]]:
        index: dict[bytes, tuple[bytes, ...]] = {}
        for key, (_, value) in self.keyed():
            index[key] = (*index[key], value) if key in index else (value,)
        self._index = index
        return index

    def get_all(self, name: bytes) -> tuple[bytes, ...]:
        """Every line's value for a lower-case name, in order; empty when absent."""
        index = self._index
        return (index if index is not None else self._by_name()).get(name, ())

    def joined(self, name: bytes) -> bytes | None:
        """The lines of a lower-case name joined with `, ` (RFC 9110 5.3); None when absent."""
        values = self.get_all(name)
        if not values:
            return None
        return values[0] if len(values) == 1 else b", ".join(values)

    def names(self) -> Iterable[bytes]:
        """The lower-case names present, each once."""
        index = self._index
        return (index if index is not None else self._by_name()).keys()

    def without(self, names: frozenset[bytes] | set[bytes]) -> Fields:
        """A copy without the lines whose lower-case name is in `names`."""
        return Fields([line for key, line in self.keyed() if key not in names])

    def plus(self, *lines: Line) -> Fields:
        """A copy with lines appended."""
        return Fields((*self.lines, *lines))

    def encode(self) -> bytes:
        """`Name: value CRLF` for each line; no empty line at the end."""
        return b"".join([b"%b: %b\r\n" % line for line in self.lines])

    def __contains__(self, name: object) -> bool:
        index = self._index
        return name in (index if index is not None else self._by_name())

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self.lines == other.lines

    def __hash__(self) -> int:
        return hash(self.lines)

    def __repr__(self) -> str:
        return f"Fields({list(self.lines)!r})"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A final or interim response head. `status` is any three digits; `is_http11` is the HTTP/1.x minor version.

    `misframed`: it came with content, or the framing of some, that its status forbids.
    """

    status: int
    reason: bytes
    fields: Fields
    is_http11: int = 1
    misframed: bool = False


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request as decisions see it: `authority` is lower-case host[:port], `target` is path and query as received.

    `behind` is the Host that a backend gets, where a trusted proxy told another authority; empty where it is the same.
    `apart` is what a route adds to the key, so that no other request of the same URI shares what is stored.
    """

    method: bytes
    scheme: bytes
    authority: bytes
    target: bytes
    fields: Fields
    behind: bytes = b""
    apart: bytes = b""
