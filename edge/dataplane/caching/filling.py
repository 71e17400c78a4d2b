"""A fill as its helpers see it: what keeps the body while it streams, and what a head makes of what is stored.

One rule: `fill.Fill` is the only one of its kind and stands above them; they know it by this alone.
"""

from __future__ import annotations

from typing import Protocol

from edge.cache.flights import Flight, Outcome
from edge.cache.policy import Decision
from edge.cache.rules import Rules
from edge.cache.stored import Stored
from edge.dataplane.caching.pieces import Stream
from edge.http.message import RequestHead


class Filling(Stream, Protocol):
    """A fetch for the store's sake."""

    rules: Rules
    request: RequestHead
    decision: Decision
    flight: Flight | None  # while others may join it
    variants: tuple[Stored, ...]  # what the look-up had before it
    probe: Stored | None  # the response as look-ups see it, without a body
    seq: int  # of the purge log when the request was sent

    def settle(self, outcome: Outcome) -> None: ...
