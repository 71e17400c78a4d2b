"""`[fleet]` and `cache.shared`, and this machine: the files that they name are opened. No server is asked."""

from __future__ import annotations

from collections.abc import Iterator

from edge.config.loader import Config
from edge.config.positions import Path as KeyPath
from edge.errors import ConfigError

Finding = tuple[KeyPath, str, bool]  # key, what is wrong, whether nothing works


def fleet_findings(config: Config) -> Iterator[Finding]:
    """What is wrong."""
    shared, fleet = config.cache.shared, config.fleet
    if shared is None and fleet is None:
        return
    from edge.adapters.fleet_server import seal_key  # not cheap, and few need it
    from edge.adapters.redis_client import Link

    places: list[tuple[KeyPath, str, str | None]] = []
    if shared is not None:
        places.append((("cache", "shared", "ca_file"), shared.url, shared.ca_file))
    if fleet is not None:
        places.append((("fleet", "ca_file"), fleet.url, fleet.ca_file))
        try:
            seal_key(fleet.key_file)
        except ConfigError as error:
            yield ("fleet", "key_file"), error.problems[0].removeprefix("fleet.key_file: "), True
    for path, url, ca_file in places:
        try:
            Link.of("", url, ca_file, 0.0)
        except ConfigError as error:
            yield path, error.problems[0].removeprefix(".ca_file: "), True
