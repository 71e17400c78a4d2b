"""Endpoints about regions, pools and backends: show, register, change their state, rehearse."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from edge.balance.health import Admin
from edge.control.admin.errors import Refusal
from edge.control.admin.json import CHANGE_KEYS, SUPERVISOR, answer, body_of, change_of
from edge.control.admin.paging import page
from edge.control.admin.request_values import text_of
from edge.control.admin.views import Views
from edge.control.registry import BACKEND_KEYS, REGION_KEYS
from edge.control.rehearse import rehearse


def routes() -> list[web.RouteDef]:
    """The endpoints."""

    region, backend = "/v1/regions/{name}", "/v1/pools/{pool}/backends/{id}"
    return [
        web.get("/v1/regions", regions),
        web.get(region, one_region),
        web.put(region, put_region),
        web.delete(region, delete_region),
        web.post(f"{region}/state", region_state),
        web.post(f"{region}/failback", failback),
        web.get("/v1/pools", pools),
        web.get("/v1/pools/{pool}", one_pool),
        web.get("/v1/pools/{pool}/backends", backends),
        web.put("/v1/pools/{pool}/backends", put_backend),
        web.get(backend, one_backend),
        web.put(backend, put_backend),
        web.delete(backend, delete_backend),
        web.post(f"{backend}/state", backend_state),
        web.post("/v1/simulate", simulate),
    ]


def _state(body: dict[str, Any]) -> Admin:
    word = text_of(body, "state", required=True)
    try:
        return Admin(word)
    except ValueError:
        raise Refusal(f"state: one of {', '.join(each.value for each in Admin)}, got {word!r}") from None


# -- regions -----------------------------------------------------------------------------------------------------------


async def regions(request: web.Request) -> web.Response:
    """Answer with all regions, a page at a time."""
    return page(request, "regions", Views(request.app[SUPERVISOR]).regions(), lambda row: row["name"])


async def one_region(request: web.Request) -> web.Response:
    """Answer with one region."""
    return answer(Views(request.app[SUPERVISOR]).region(request.match_info["name"]))


async def put_region(request: web.Request) -> web.Response:
    """Register a region, or change one that was registered at run time."""
    name = request.match_info["name"]
    body = await body_of(request, (*REGION_KEYS, *CHANGE_KEYS))
    created = await request.app[SUPERVISOR].registry.put_region(name, body, change_of(request, body))
    return answer(Views(request.app[SUPERVISOR]).region(name), 201 if created else 200)


async def delete_region(request: web.Request) -> web.Response:
    """Remove a region that was registered at run time."""
    name = request.match_info["name"]
    await request.app[SUPERVISOR].registry.remove_region(name, change_of(request, {}))
    return answer({"removed": name})


async def region_state(request: web.Request) -> web.Response:
    """Activate, drain or deactivate."""
    name = request.match_info["name"]
    body = await body_of(request, ("state", *CHANGE_KEYS))
    await request.app[SUPERVISOR].registry.set_region_state(name, _state(body), change_of(request, body))
    return answer(Views(request.app[SUPERVISOR]).region(name))


async def failback(request: web.Request) -> web.Response:
    """Let pools that switched away from this region come back to it (failback = "manual", or frozen)."""
    name = request.match_info["name"]
    body = await body_of(request, CHANGE_KEYS)
    return answer({"pools": await request.app[SUPERVISOR].registry.ask_failback(name, change_of(request, body))})


# -- pools and backends ------------------------------------------------------------------------------------------------


async def pools(request: web.Request) -> web.Response:
    """All pools with their backends."""
    return page(request, "pools", Views(request.app[SUPERVISOR]).pools(), lambda row: row["name"])


async def one_pool(request: web.Request) -> web.Response:
    """Answer with one pool."""
    return answer(Views(request.app[SUPERVISOR]).pool(request.match_info["pool"]))


async def backends(request: web.Request) -> web.Response:
    """Answer with the backends of a pool, a page at a time."""
    rows = Views(request.app[SUPERVISOR]).pool(request.match_info["pool"])["backends"]
    return page(request, "backends", rows, lambda row: row["id"])


async def one_backend(request: web.Request) -> web.Response:
    """Answer with one backend."""
    return answer(Views(request.app[SUPERVISOR]).backend(request.match_info["pool"], request.match_info["id"]))


async def put_backend(request: web.Request) -> web.Response:
    """Register a backend, or change one that was registered at run time. Without an id: host and port of the URL."""
    pool, identity = request.match_info["pool"], request.match_info.get("id")
    body = await body_of(request, (*BACKEND_KEYS, *CHANGE_KEYS))
    identity, created = await request.app[SUPERVISOR].registry.put_backend(
        pool, identity, body, change_of(request, body)
    )
    return answer(Views(request.app[SUPERVISOR]).backend(pool, identity), 201 if created else 200)


async def delete_backend(request: web.Request) -> web.Response:
    """Remove a backend that was registered at run time."""
    pool, identity = request.match_info["pool"], request.match_info["id"]
    await request.app[SUPERVISOR].registry.remove_backend((pool, identity), change_of(request, {}))
    return answer({"removed": identity})


async def backend_state(request: web.Request) -> web.Response:
    """Activate, drain or deactivate."""
    pool, identity = request.match_info["pool"], request.match_info["id"]
    body = await body_of(request, ("state", *CHANGE_KEYS))
    await request.app[SUPERVISOR].registry.set_backend_state((pool, identity), _state(body), change_of(request, body))
    return answer(Views(request.app[SUPERVISOR]).backend(pool, identity))


async def simulate(request: web.Request) -> web.Response:
    """Rehearse against the live view: `lose` (regions), `down` (pool/backend), `slow` (pool/backend: ms), `capacity`
    (region: percent)."""
    body = await body_of(request, ("lose", "down", "slow", "capacity"))
    return answer(await rehearse(request.app[SUPERVISOR], body))
