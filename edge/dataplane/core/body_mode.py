"""How the body of a response is delimited, once its head is out."""

from __future__ import annotations

from typing import Final

NOT_STARTED: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2  # the protocol's own way to say where it ends
CLOSE: Final = 3
NO_BODY: Final = 4
