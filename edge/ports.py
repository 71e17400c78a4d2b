"""What the data path needs from outside, as Protocols: each is a contract that real parts and test fakes both keep.

Nothing here has behaviour. What implements one of these lives in `adapters` or `dataplane`; `app` wires them.
"""

from __future__ import annotations

from typing import Protocol

from edge.errors import UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.message import Line


class ResponseSink(Protocol):
    """Who receives one upstream response. Calls come in this order, on the loop, never re-entrantly from `send`:

    `on_ready`? (`on_interim`)* (`on_head` (`on_data`)* `on_end`)? `on_failed`?: after `on_end` or `on_failed` nothing
    more comes. When `on_head` has `done`, `on_end` is not called: the body given with it is all there is.
    """

    def on_interim(self, facts: ResponseFacts) -> None:
        """A 1xx response other than 101."""

    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The final head. `length` is the body's size in bytes, None when only its end will tell."""

    def on_data(self, data: bytes) -> None:
        """More of the body; never empty."""

    def on_end(self, trailers: list[Line]) -> None:
        """The response is whole."""

    def on_failed(self, error: UpstreamError) -> None:
        """The attempt ended without a whole response; the connection is gone already."""

    def on_pause(self) -> None:
        """The upstream does not take more of the request body for now."""

    def on_resume(self) -> None:
        """The upstream takes the request body again."""


class Connector(Protocol):
    """Who waits for a new upstream connection."""

    def on_connected(self, connection: object) -> None:
        """A connection is ready; the receiver must send on it or give it back at once."""

    def on_failed(self, error: UpstreamError) -> None:
        """No connection could be made; nothing was sent."""


class Clock(Protocol):
    """Time for code that must not read it."""

    def __call__(self) -> float:
        """Seconds."""
