"""This machine's part in its fleet, from the configuration."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from edge import __version__
from edge.config.loader import Config, fleet_of
from edge.control.fleet.host import FleetSettings
from edge.control.fleet.machine import MachineHost
from edge.control.fleet.member import Fleet
from edge.control.state_store import JournalStateStore

if TYPE_CHECKING:
    from edge.control.supervisor import Supervisor


def open_fleet(config: Config, supervisor: Supervisor, store: JournalStateStore) -> Fleet | None:
    """None where there is no fleet. Raises ConfigError."""
    values = fleet_of(config)
    if values is None:
        return None
    from edge.adapters.fleet_server import RedisFleetServer, seal_key  # not cheap: a start waits for it
    from edge.adapters.redis_client import Link
    from edge.adapters.redis_scripts import ANSWER_S

    settings = FleetSettings(
        name=values.name or socket.gethostname(),
        identity=store.history,
        region=values.region or "",
        version=__version__,
        max_blind_s=values.max_blind,
        ack_timeout_s=values.ack_timeout,
        key=seal_key(values.key_file),
    )
    key = "cache.shared" if config.fleet is None else "fleet"
    link = Link.of(key, values.url, values.ca_file, ANSWER_S)
    server = RedisFleetServer(link, values.namespace, values.keep)
    return Fleet(settings, server, MachineHost(supervisor, store), store.place())
