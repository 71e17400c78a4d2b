"""The file with the key of an encrypted repository.

One rule: a key that others may read is none; the text of an error never holds any of it.
"""

from __future__ import annotations

import stat
from pathlib import Path

from edge.errors import WrongKey
from edge.recovery.seal import KEY_BYTES


def key_of(path: str | None) -> bytes | None:
    """The key in a file. Raises WrongKey."""
    if path is None:
        return None
    try:
        mode = Path(path).stat().st_mode
        raw = Path(path).read_bytes()
    except OSError as error:
        raise WrongKey(
            f"{path}: {error.strerror}: it must hold the repository's key; a new one is made with "
            f"`(umask 077; openssl rand -hex 32 > {path})`"
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise WrongKey(f"{path}: others may read the key: chmod 600 {path}")
    text = raw.strip()
    if len(raw) == KEY_BYTES:
        return raw
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise WrongKey(f"{path}: must hold {KEY_BYTES} bytes, as {2 * KEY_BYTES} hex digits: openssl rand -hex 32")
    return key
