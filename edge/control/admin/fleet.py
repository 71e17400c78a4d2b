"""The machines of the fleet, as this one sees them."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edge.cache.fleet.machines import SILENT_S, Machine
from edge.control.admin.errors import NotFound
from edge.control.admin.json import SUPERVISOR, answer
from edge.control.fleet.opinions import Opinions

if TYPE_CHECKING:
    from edge.control.fleet.member import Fleet


def routes() -> list[web.RouteDef]:
    """The endpoint."""
    return [web.get("/v1/fleet", fleet)]


async def fleet(request: web.Request) -> web.Response:
    """Where this machine stands in the purge stream, and every machine that was heard of."""
    supervisor = request.app[SUPERVISOR]
    if supervisor.fleet is None:
        raise NotFound("there is no fleet: the configuration has neither [fleet] nor cache.shared")
    store = supervisor.totals.store()
    shared = {name.removeprefix("shared_"): value for name, value in store.items() if name.startswith("shared_")}
    return answer({**shown(supervisor.fleet), "shared": shared or None})


def shown(fleet: Fleet) -> dict[str, Any]:
    """The fleet as plain values."""
    follower, place = fleet.follower, fleet.follower.place
    return {
        "name": fleet.settings.name,
        "id": fleet.settings.identity,
        "in_step": fleet.in_step,
        "blind": follower.blind,
        "catching_up": follower.catching_up,
        "trouble": fleet.trouble,
        "history": "" if place is None else place.history,
        "run": follower.run,
        "position": 0 if place is None else place.position,
        "lag": fleet.lag,
        "clock_offset_s": round(fleet.offset_s, 3) or 0.0,
        "max_blind_s": fleet.settings.max_blind_s,
        "sure": fleet.machines.sure,
        "states": None if fleet.states is None else {"number": fleet.states.number, "owed": fleet.states.owed},
        "disputes": None if fleet.opinions is None else _disputes(fleet.opinions),
        "machines": [_machine(fleet, *each) for each in fleet.machines.all(monotonic())],
    }


def _disputes(opinions: Opinions) -> list[dict[str, Any]]:
    """Backends of which the machines say something else than this one's own probes."""
    return [
        {"pool": key[0], "backend": key[1], "believed": word.health.value, "up": word.up, "down": word.down}
        for key, word in opinions.disputes.items()
    ]


def _machine(fleet: Fleet, machine: Machine, silent_s: float) -> dict[str, Any]:
    place, facts = fleet.follower.place, machine.facts
    same = place is not None and machine.history == place.history
    return {
        "id": machine.id,
        "name": machine.name,
        "self": machine.id == fleet.settings.identity,
        "state": _state(machine, silent_s, same),
        "position": machine.position,
        "lag": max(0, place.position + fleet.lag - machine.position) if same and place is not None else None,
        "heard_s": round(silent_s, 3),
        "version": str(facts.get("version", ""))[:40],
        "region": str(facts.get("region", ""))[:100],
        "states": facts["states"] if isinstance(facts.get("states"), int) else None,
        "workers": _number(facts.get("workers")),
        "requests_per_second": _number(facts.get("requests_per_second")),
        "in_flight": _number(facts.get("in_flight")),
        "clock_offset_s": _number(facts.get("clock_offset_s")),
        "max_blind_s": machine.max_blind_s,
    }


def _state(machine: Machine, silent_s: float, same: bool) -> str:
    if silent_s > SILENT_S:
        return "silent"
    return "in step" if same and machine.facts.get("in_step") is True and machine.position >= 0 else "joining"


def _number(found: object) -> float:
    return found if isinstance(found, int | float) and not isinstance(found, bool) else 0.0
