"""How the body of a response is delimited, once its head is out."""

from __future__ import annotations

NOT_STARTED, LENGTH, CHUNKED, CLOSE, NO_BODY = range(5)  # CHUNKED: the protocol's own way to say where it ends
