"""`POST /v1/simulate`: what an operator supposes, rehearsed on a copy of the live view; shares before and after.

One rule: it only reads. The rehearsal itself is `balance.simulate`'s and runs in a thread, for it takes a while.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from edge.balance.simulate import Hypothesis, Shares, Simulation, simulate
from edge.control.admin.errors import Refusal, missing
from edge.control.admin.request_values import real
from edge.control.supervisor import Supervisor

ASKED_REQUESTS = 1000


async def rehearse(supervisor: Supervisor, body: dict[str, Any]) -> dict[str, Any]:
    """`lose`: regions; `down`: pool/backend; `slow`: pool/backend → ms; `capacity`: region → percent."""
    routing = supervisor.routing
    lose = _names(body, "lose", set(routing.membership.regions), "region")
    known = {f"{pool}/{identity}" for pool, identity in routing.membership.backends}
    down = _names(body, "down", known, "backend")
    slow = _numbers(body, "slow", known, "backend", 600_000.0)
    capacity = _numbers(body, "capacity", set(routing.membership.regions), "region", 100.0)
    if not (lose or down or slow or capacity):
        raise Refusal("nothing to suppose: give lose, down, slow or capacity")
    now = monotonic()
    pools = []
    refused: list[str] = []
    for pool in routing.pools.values():
        own = f"{pool.name}/"
        what = Hypothesis(
            frozenset(lose),
            frozenset(name.removeprefix(own) for name in down if name.startswith(own)),
            {name.removeprefix(own): ms / 1000 for name, ms in slow.items() if name.startswith(own)},
            {region: percent / 100 for region, percent in capacity.items()},
        )
        snapshot = routing.snapshot(pool, supervisor.routes, now)
        found = await asyncio.to_thread(simulate, snapshot, what, ASKED_REQUESTS)
        pools.append(_pool(pool.name, found))
        refused += [f"route {name}: no region that may serve it is left" for name in found.refused_routes]
    return {"pools": pools, "refused": refused}


def _pool(name: str, found: Simulation) -> dict[str, Any]:
    return {
        "name": name,
        "regions": _rows(found, "regions"),
        "backends": _rows(found, "backends"),
        "unserved": {"before": found.before.refused, "after": found.after.refused},
        "settled_after_s": found.settled_after_s,
    }


def _rows(found: Simulation, what: str) -> list[dict[str, Any]]:
    def of(shares: Shares) -> dict[str, float]:
        return dict(getattr(shares, what))

    before, after = of(found.before), of(found.after)
    return [
        {"name": name, "before": before.get(name, 0.0), "after": after.get(name, 0.0)}
        for name in dict.fromkeys((*before, *after))
    ]


def _names(body: dict[str, Any], key: str, known: set[str], what: str) -> list[str]:
    found = body.get(key) or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise Refusal(f"{key}: must be a list of names")
    for name in found:
        _check(key, name, known, what)
    return found


def _numbers(body: dict[str, Any], key: str, known: set[str], what: str, high: float) -> dict[str, float]:
    found = body.get(key) or {}
    if not isinstance(found, dict):
        raise Refusal(f"{key}: must be an object of names and numbers")
    numbers = {}
    for name in found:
        _check(key, name, known, what)
        value = real(found, name, 0.0, high)
        if value is not None:
            numbers[name] = value
    return numbers


def _check(key: str, name: str, known: set[str], what: str) -> None:
    if name not in known:
        raise Refusal(f"{key}: {missing(what, name, sorted(known)).detail}")
