"""What a route changes in a response on its way to the client: its header lines.

One rule: it acts when a head is written and never before: what is stored and what other clients get is not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.dataplane.rules.asked import Asked
from edge.dataplane.rules.headers import HeaderEdit
from edge.dataplane.rules.locations import Locations
from edge.dataplane.rules.shares import Affinity


class Delivered(Asked, Protocol):
    """What header rules need of an exchange."""

    @property
    def told_lines(self) -> bytes: ...
    @property
    def served_by(self) -> bytes: ...
    @property
    def head_at(self) -> float: ...


class Delivery:
    """The response rules of a route."""

    __slots__ = ("_before", "_edit", "_is_same", "_whole", "affinity", "locations")

    def __init__(
        self, edit: HeaderEdit | None, affinity: Affinity | None = None, locations: Locations | None = None
    ) -> None:
        self.affinity = affinity
        self.locations = locations
        self._edit = edit
        self._is_same = edit is not None and not edit.varies and affinity is None and locations is None
        self._before: tuple[bytes, bytes, bytes] | None = None  # what the last head was made of, and it
        self._whole = b""

    def explain(self, asked: Asked) -> list[dict[str, str]]:
        """What the rules do, for `edge explain`."""
        return [] if self._edit is None else [{"rule": "response_headers", "does": self._edit.explain(asked)}]

    @property
    def dress(self) -> Callable[[bytes], bytes] | None:
        """What makes the head of a hit, where that needs no more than the stored lines; None: there is nothing to do,
        or more than that (`is_plain`)."""
        return self._edit.dressed if self._edit is not None and self._edit.is_fixed else None

    @property
    def is_plain(self) -> bool:
        """Whether a hit needs no more than the stored lines."""
        return self._edit is None or self._edit.is_fixed

    def head(self, asked: Delivered, wire: bytes, own: bytes, region: bytes) -> bytes:
        """A whole response head as this client gets it: `wire` came from an origin or the store, `own` are
        lines made for this request, the empty one at their end."""
        came = (wire, own, asked.told_lines)
        if self._is_same and came == self._before:
            return self._whole
        whole = self._made(asked, *came, region)
        if self._is_same:
            self._before, self._whole = came, whole
        return whole

    def _made(self, asked: Delivered, wire: bytes, own: bytes, told: bytes, region: bytes) -> bytes:
        edit, lines = self._edit, own[:-2]
        if self.locations is not None:
            wire = self.locations.head(asked, wire)
        if self.affinity is not None and asked.head_at:
            told += self.affinity.lines(asked, asked.served_by.partition(b'"')[0])
        if edit is None:
            return b"%b%b%b\r\n" % (wire, told, lines)
        if edit.gone:
            wire, lines = edit.kept(wire), edit.kept_of_own(lines)
        return b"%b%b%b%b\r\n" % (wire, edit.lines(asked, region), told, lines)
