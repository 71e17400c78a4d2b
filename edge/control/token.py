"""The admin API's bearer token: made on first start and readable by its owner alone.

One rule: the token is never logged, shown or put on a command line.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from edge.errors import ConfigError


def token_of(path: Path) -> str:
    """The token in the file; a new one when there is no file. Raises ConfigError when it cannot be read or is empty."""
    try:
        return _made(path)
    except FileExistsError:
        pass  # it is read below
    except OSError as error:
        raise ConfigError([f"{path}: cannot make the admin token: {error.strerror}"]) from None
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot read the admin token: {error}"]) from None
    if len(token) < 16:
        raise ConfigError([f"{path}: the admin token is shorter than 16 characters; remove the file to make a new one"])
    return token


def _made(path: Path) -> str:
    """A new token, durable before it is used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return token
