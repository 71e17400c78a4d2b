"""What a route changes in a response on its way to the client: header lines.

One rule: it acts when a head is written and never before: what is stored and what other clients get is not touched.
"""

from __future__ import annotations

from typing import Protocol

from edge.dataplane.rules.asked import LookupResult
from edge.dataplane.rules.headers import HeaderEdit, without


class Delivered(LookupResult, Protocol):
    """An exchange, as far as its response is changed."""

    @property
    def limit_lines(self) -> bytes: ...


class Delivery:
    """What is asked where a route has such rules."""

    __slots__ = ("_edit",)

    def __init__(self, edit: HeaderEdit | None) -> None:
        self._edit = edit

    def explain(self, asked: LookupResult) -> list[dict[str, str]]:
        """For people."""
        return [] if self._edit is None else [{"rule": "response_headers", "does": self._edit.explain(asked)}]

    def head(self, asked: Delivered, head: bytes, region: bytes) -> bytes:
        """A whole response head, its empty line included, as this client gets it."""
        edit, lines = self._edit, head[:-2]
        if edit is None:
            return b"%b%b\r\n" % (lines, asked.limit_lines)
        if edit.gone:
            lines = without(lines, edit.gone)
        return b"%b%b%b\r\n" % (lines, asked.limit_lines, edit.lines(asked, region))
