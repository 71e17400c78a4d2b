"""Text from outside, as a terminal may have it."""

from __future__ import annotations


def safe(text: str) -> str:
    """Text from outside for a terminal: control bytes (C1 too) and invisible characters as escapes; lines stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
