"""Bytes from outside as text for people and logs: nothing that comes in can forge a line.

One rule: the result is valid inside a JSON string, whatever the bytes are.
"""

from __future__ import annotations

import orjson


def quote(raw: bytes) -> bytes:
    """Bytes as the inside of a JSON string: quotes, backslashes and control bytes escaped, obs-text as Latin-1."""
    if raw.isascii() and b'"' not in raw and b"\\" not in raw and raw.decode("ascii").isprintable():
        return raw
    return quote_text(raw.decode("latin-1"))


def quote_text(text: str) -> bytes:
    """The same for text; C1 control characters too, which a terminal may obey."""
    return orjson.dumps(text)[1:-1].decode().translate(_CONTROLS).encode()


_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
