"""Why an administrative request was not carried out; each becomes a status and one clear line.

One rule: whoever gets one of these may rely on nothing having changed, in the journal or in a worker; `NotApplied` is
the one exception and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from edge.config.positions import nearest
from edge.errors import EdgeError


class Refusal(EdgeError):
    """The request is wrong; 400."""

    status: ClassVar[int] = 400


class NotFound(Refusal):
    """The thing that was named does not exist; 404."""

    status = 404


class Conflict(Refusal):
    """It may not be done in the present state. The line says what to give (`force`) or change; 409."""

    status = 409


class TooSlow(Refusal):
    """The request's body did not come in time; 408."""

    status = 408


class Unavailable(Refusal):
    """It cannot be answered now; 503."""

    status = 503


class TooMany(Refusal):
    """The client asks too often; 429."""

    status = 429

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many requests; wait a little")
        self.wait_s = wait_s


class NotApplied(Refusal):
    """The change is durable, but a worker could not apply it."""

    status = 500


def missing(what: str, name: str, known: Iterable[str]) -> NotFound:
    """A NotFound that suggests the nearest known name, or lists them when there are few."""
    names = list(known)
    near = nearest(name, names)
    if near is not None:
        hint = f", did you mean {near}?"
    else:
        hint = f"; known: {', '.join(names[:20])}" if names else ""
    return NotFound(f"there is no {what} {name[:100]}{hint}")
