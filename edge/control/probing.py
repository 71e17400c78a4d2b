"""STUB until probes.py is there: no backend is probed; each counts as healthy."""

from __future__ import annotations

from edge.balance.health import Health
from edge.config import Config
from edge.control.supervisor import Supervisor


class Probing:
    def __init__(self, config: Config, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def start(self) -> None:
        routing = self._supervisor.routing
        for key in routing.membership.backends:
            routing.set_health(key, Health.HEALTHY, "not probed")

    async def stop(self) -> None: ...
