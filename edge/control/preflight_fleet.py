"""`[fleet]` and `cache.shared`, and this machine: the files that they name are opened. No server is asked."""

from __future__ import annotations

from collections.abc import Iterator

from edge.config.fleet import Server
from edge.config.loader import Config
from edge.config.positions import Path as KeyPath
from edge.errors import ConfigError

Finding = tuple[KeyPath, str, bool]  # key, what is wrong, whether nothing works


def fleet_findings(config: Config) -> Iterator[Finding]:
    """What is wrong with `[fleet]` and `cache.shared`."""
    shared, fleet = config.cache.shared, config.fleet
    if shared is None and fleet is None:
        return
    from edge.adapters.fleet_server import seal_key  # not cheap, and few need it
    from edge.adapters.redis_client import Link

    places: list[tuple[KeyPath, Server | None]] = [(("cache", "shared"), shared), (("fleet",), fleet)]
    if fleet is not None:
        try:
            seal_key(fleet.key_file)
        except ConfigError as error:
            yield ("fleet", "key_file"), error.problems[0].removeprefix("fleet.key_file: "), True
    for path, server in places:
        try:
            if server is not None:
                Link.of("", server, 0.0)
        except ConfigError as error:
            key, _, why = error.problems[0].partition(": ")
            yield (*path, *key.removeprefix(".").split(".")), why, True
