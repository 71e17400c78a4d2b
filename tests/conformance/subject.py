"""What a corpus case is run against: a port, and the origin behind it.

One rule: a case learns nothing else about the server.
"""

from __future__ import annotations

from dataclasses import dataclass

from kit.origin import ScriptedOrigin


@dataclass(frozen=True, slots=True)
class Subject:
    """The server under test; `origin` is cleared of the case before."""

    port: int
    origin: ScriptedOrigin
