"""The link of a backend as one of its connections sees it.

One rule: a connection knows its link by this alone, for the link makes the connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.ports import Link, Timeouts


class Owner(Link, Protocol):
    """The link that a connection belongs to (`backend_link.BackendLink`)."""

    timeouts: Timeouts
    limits: Limits
    memo: Memo[ResponseFacts]
    interim_max: int
    chunk_line_bytes: int
    trailer_bytes: int
    later: Callable[[Callable[[], None]], object]

    def forget(self, connection: Any) -> None: ...
    def hint(self, connection: Any, seconds: float) -> None: ...
