"""Bytes from outside as text for people and logs: nothing that comes in can forge a line.

One rule: the result is valid inside a JSON string, whatever the bytes are.
"""

from __future__ import annotations

import orjson


def quote(raw: bytes) -> bytes:
    """Bytes as the inside of a JSON string: quotes, backslashes and control bytes escaped, obs-text as Latin-1."""
    if raw.isascii() and b'"' not in raw and b"\\" not in raw and raw.decode("ascii").isprintable():
        return raw
    return orjson.dumps(raw.decode("latin-1"))[1:-1]
