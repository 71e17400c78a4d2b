"""This machine's part in its fleet, from the configuration."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from edge import __version__
from edge.config.loader import Config, fleet_of
from edge.control.fleet.believing import SupervisorBeliever
from edge.control.fleet.host import FleetSettings
from edge.control.fleet.limits import FleetLimits
from edge.control.fleet.machine import MachineHost
from edge.control.fleet.member import Fleet
from edge.control.fleet.opinions import Opinions
from edge.control.fleet.shared_changes import ChangesHost, TellingStore
from edge.control.fleet.states import States
from edge.control.state_store import JournalStateStore

if TYPE_CHECKING:
    from edge.control.supervisor import Supervisor


def open_fleet(config: Config, supervisor: Supervisor, store: JournalStateStore) -> Fleet | None:
    """None where there is no fleet. Raises ConfigError."""
    values = fleet_of(config)
    if values is None:
        return None
    from edge.adapters.fleet_limits import RedisLimitsServer
    from edge.adapters.fleet_server import RedisFleetServer, seal_key  # not cheap: a start waits for it
    from edge.adapters.fleet_states import RedisStatesServer
    from edge.adapters.redis_client import Link
    from edge.adapters.redis_scripts import ANSWER_S

    settings = FleetSettings(
        name=values.name or socket.gethostname(),
        identity=store.history,
        region=values.region or "",
        version=__version__,
        max_blind_s=values.max_blind,
        ack_timeout_s=values.ack_timeout,
        catch_up_s=values.catch_up,
        key=seal_key(values.key_file),
    )
    key = "cache.shared" if config.fleet is None else "fleet"
    link = Link.of(key, values, ANSWER_S)
    server = RedisFleetServer(link, values.namespace, values.keep)
    host = MachineHost(supervisor, store)
    fleet = Fleet(settings, server, host, store.place())
    if "states" in values.share:
        there = RedisStatesServer(link, values.namespace)
        fleet.states = States(there, ChangesHost(supervisor, store), fleet.machines, settings.key, fleet.hurry)
        supervisor.registry.ledger = TellingStore(store, settings.name, fleet.states.changed)
    if "health" in values.share:
        believer = SupervisorBeliever(supervisor)
        fleet.opinions = Opinions(settings.identity, fleet.machines, believer, fleet.hurry)
    if "rate_limits" in values.share:
        fleet.limits = FleetLimits(RedisLimitsServer(link, values.namespace), host.tell, settings.key)
    return fleet
