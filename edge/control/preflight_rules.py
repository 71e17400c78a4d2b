"""The files that rules of routes name, opened as a worker would open them.

One rule: as in `preflight`, nothing is changed; what cannot be read is an error at the key that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from edge.config.loader import Config
from edge.config.positions import Path as KeyPath


def rule_findings(config: Config) -> Iterator[tuple[KeyPath, str, bool]]:
    """(key, what is wrong, whether the gateway cannot start) of each."""
    for at, route in enumerate(config.routes):
        if route.respond is not None and route.respond.file is not None:
            yield from _unread(Path(route.respond.file), ("routes", at, "respond", "file"))
        for statuses, path in route.error_pages.items():
            for key, why, _ in _unread(Path(path), ("routes", at, "error_pages", statuses)):
                yield key, f"{why}: errors are answered plainly", False
        auth = route.auth
        if auth is not None and auth.basic is not None:
            yield from _unread(Path(auth.basic), ("routes", at, "auth", "basic"), passwords)
        if auth is not None and auth.jwt is not None and "://" not in auth.jwt.jwks:
            yield from _unread(Path(auth.jwt.jwks), ("routes", at, "auth", "jwt", "jwks"), key_set)


def passwords(text: str, name: str) -> None:
    """Raises ValueError for a line that cannot be used."""
    from edge.dataplane.rules.passwords import PasswordFile

    PasswordFile(text, name)


def key_set(text: str, name: str) -> None:
    """Check a JSON Web Key Set. Raises ValueError when it has no usable key."""
    from edge.dataplane.rules.tokens import parsed

    if not parsed(text.encode(), shared=True):
        raise ValueError(f"{name}: has no key that can be used")


def _unread(
    path: Path, key: KeyPath, judge: Callable[[str, str], object] = lambda text, name: None
) -> Iterator[tuple[KeyPath, str, bool]]:
    try:
        judge(path.read_bytes().decode("utf-8", "replace"), str(path))
    except OSError as error:
        yield key, f"{path}: {error.strerror}", True
    except ValueError as error:
        yield key, str(error), True
