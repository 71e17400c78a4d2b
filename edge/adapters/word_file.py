"""Files that hold a secret which a setting names. One rule: what stands in them is never echoed."""

from __future__ import annotations

from pathlib import Path

from edge.adapters.tls import unreadable
from edge.errors import ConfigError


def secret_in(key: str, path: str) -> str:
    """The one line of a file that a setting names. Raises ConfigError."""
    if (why := unreadable(path)) is None:
        try:
            found = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            found = ""
        if found and not any(character.isspace() for character in found):
            return found
        why = "must hold one word"
    raise ConfigError([f"{key}: {path}: {why}"])
