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
    """The request is wrong."""

    status: ClassVar[int] = 400


class NotFound(Refusal):
    """There is no such thing."""

    status = 404


class Conflict(Refusal):
    """It may not be done as things stand; the line says what would have to be given (`force`) or changed."""

    status = 409


class TooSlow(Refusal):
    """The request's body did not come in time."""

    status = 408


class Unavailable(Refusal):
    """Nobody can answer now."""

    status = 503


class TooMany(Refusal):
    """It asks too often."""

    status = 429

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many requests; wait a little")
        self.wait_s = wait_s


class NotApplied(Refusal):
    """It is durable, but a worker could not apply it."""

    status = 500


def missing(what: str, name: str, known: Iterable[str]) -> NotFound:
    """There is no such thing; the nearest that there is, or all of a few."""
    names = list(known)
    near = nearest(name, names)
    if near is not None:
        hint = f", did you mean {near}?"
    else:
        hint = f"; known: {', '.join(names[:20])}" if names else ""
    return NotFound(f"there is no {what} {name[:100]}{hint}")
