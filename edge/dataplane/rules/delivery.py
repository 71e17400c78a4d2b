"""What a route changes in a response on its way to the client: its coding and its header lines.

One rule: it acts when a head is written and never before: what is stored and what other clients get is not touched.
"""

from __future__ import annotations

from typing import Protocol

from edge.dataplane.rules.asked import Asked
from edge.dataplane.rules.compression import Compression
from edge.dataplane.rules.headers import HeaderEdit, without


class Delivered(Asked, Protocol):
    """An exchange, as far as its response is changed."""

    @property
    def limit_lines(self) -> bytes: ...


class Delivery:
    """What is asked where a route has such rules."""

    __slots__ = ("_edit", "compression")

    def __init__(self, edit: HeaderEdit | None, compression: Compression | None = None) -> None:
        self.compression = compression
        self._edit = edit

    def explain(self, asked: Asked) -> list[dict[str, str]]:
        """For people."""
        rows = []
        if self.compression is not None:
            rows.append({"rule": "compress", "does": self.compression.explain(asked)})
        if self._edit is not None:
            rows.append({"rule": "response_headers", "does": self._edit.explain(asked)})
        return rows

    def head(self, asked: Delivered, wire: bytes, own: bytes, region: bytes) -> bytes:
        """A whole response head as this client gets it: `wire` came from an origin or the store, `own` are
        lines made for this request, the empty one at their end."""
        edit, lines = self._edit, own[:-2]
        if edit is None:
            return b"%b%b%b\r\n" % (wire, lines, asked.limit_lines)
        if edit.gone:
            wire, lines = edit.kept(wire), without(lines, edit.gone)
        return b"%b%b%b%b\r\n" % (wire, lines, asked.limit_lines, edit.lines(asked, region))
