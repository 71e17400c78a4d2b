"""Where the response of an exchange comes from, as the exchange sees it.

    Fetching    a fetch of its own from a backend (`upstream.fetch.Fetch`)
    Delivering  anything else: a fill that it shares, a stored body, an application's decision that is awaited

One rule: an exchange pauses, resumes and leaves its source; nothing else of it is an exchange's business.
"""

from __future__ import annotations

from typing import Protocol

from edge.dataplane.core.route import Route
from edge.errors import EdgeError
from edge.ports import Connection


class Fetching(Protocol):
    """A fetch from a backend, as its exchange sees it."""

    @property
    def route(self) -> Route: ...
    @property
    def connection(self) -> Connection | None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cancel(self, error: EdgeError) -> None: ...
    def tunnel_over(self) -> None: ...


class Delivering(Protocol):
    """What serves a stored or shared body: it is told when the client takes more, and when it leaves."""

    def resumed(self) -> None: ...
    def leave(self, error: EdgeError) -> None: ...
