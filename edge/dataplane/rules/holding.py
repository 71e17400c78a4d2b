"""Requests that wait while this machine catches up with its fleet.

One rule: what would be looked up waits, whether it is stored or not, for others may have purged it meanwhile. It ends
when the machine is in step, or when everything is validated before use instead (`Store.go_blind`), which is soon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.dataplane.rules.steps import Waiting


class Holding:
    """The waiting requests of one worker, from when the fleet's server answers again."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []

    def wait(self, exchange: Any, then: Callable[[], None]) -> None:
        """Hold a request back; it is forgotten if its client leaves."""
        waiting = Waiting(exchange)
        waiting.go_on = then
        self._waiting.append(waiting)

    def end(self) -> None:
        """Let all of them go on, in order of arrival."""
        for waiting in self._waiting:
            waiting.resume()
