"""Endpoints about recovery points: what there is, take, verify, drill, hold, release; and how well the state is kept.

Long work answers with JSON lines when asked for `application/x-ndjson`: one for each step, the last one the result.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from edge.control.admin.errors import Conflict, Refusal, missing
from edge.control.admin.json import CHANGE_KEYS, SUPERVISOR, answer, body_of, change_of
from edge.control.admin.paging import page
from edge.control.admin.request_values import text_of
from edge.control.admin.steps import LINES, in_steps
from edge.control.recovery import Recovery
from edge.control.registry import Change

KINDS = ("full", "differential", "incremental")


def routes() -> list[web.RouteDef]:
    """The endpoints."""
    return [
        web.get("/v1/recovery", status),
        web.get("/v1/snapshots", listed),
        web.post("/v1/snapshots", taken),
        web.get("/v1/snapshots/{id}", one),
        web.post("/v1/snapshots/{id}/verify", verified),
        web.post("/v1/snapshots/{id}/drill", drilled),
        web.post("/v1/snapshots/{id}/hold", held),
        web.post("/v1/snapshots/{id}/release", released),
    ]


def _recovery(request: web.Request) -> Recovery:
    found = request.app[SUPERVISOR].recovery
    if not isinstance(found, Recovery) or request.app[SUPERVISOR].running.config.snapshots is None:
        raise Conflict("the configuration has no [snapshots]: no recovery points are taken")
    return found


async def status(request: web.Request) -> web.Response:
    """RPO and RTO with their targets, ages, alerts, and the job that runs."""
    recovery = _recovery(request)
    return answer({**recovery.status, "sidecar_restarts": recovery.restarts})


async def listed(request: web.Request) -> web.Response:
    """All points, the newest first."""
    rows = (await _recovery(request).ask({"what": "list"}))["points"]
    return page(request, "points", rows, lambda row: row["id"])


async def one(request: web.Request) -> web.Response:
    """Answer with one recovery point."""
    wanted, rows = request.match_info["id"], (await _recovery(request).ask({"what": "list"}))["points"]
    found = next((row for row in rows if row["id"] == wanted), None)
    if found is None:
        raise missing("point", wanted, [row["id"] for row in rows])
    return answer(found)


async def taken(request: web.Request) -> web.StreamResponse:
    """Take a point; its facts."""
    body = await body_of(request, ("kind", *CHANGE_KEYS))
    kind = body.get("kind", "full")
    if kind not in KINDS:
        raise Refusal(f"kind: one of {', '.join(KINDS)}")
    change = change_of(request, body)
    _noted(request, "take", kind, change)
    return await _worked(request, {"what": "take", "kind": kind, "why": f"{change.actor} {change.reason}".strip()})


async def verified(request: web.Request) -> web.StreamResponse:
    """Verify a point; `read_data`: every byte."""
    body = await body_of(request, ("read_data", *CHANGE_KEYS))
    _noted(request, "verify", request.match_info["id"], change_of(request, body))
    asked = {"what": "verify", "point": request.match_info["id"], "read_data": body.get("read_data", True) is True}
    return await _worked(request, asked)


async def drilled(request: web.Request) -> web.StreamResponse:
    """Drill a point, and answer with the result."""
    change = change_of(request, await body_of(request, CHANGE_KEYS))
    _noted(request, "drill", request.match_info["id"], change)
    return await _worked(request, {"what": "drill", "point": request.match_info["id"]})


async def held(request: web.Request) -> web.StreamResponse:
    """Keep a point until it is released."""
    return await _marked(request, "hold")


async def released(request: web.Request) -> web.StreamResponse:
    """End the hold of a point: the keep rules apply again."""
    return await _marked(request, "release")


def _noted(request: web.Request, what: str, name: str, change: Change) -> None:
    """In the audit, before the work is begun."""
    _recovery(request)  # where there are no points nothing was done
    request.app[SUPERVISOR].state_store.note(what, name, change, "snapshot")


async def _marked(request: web.Request, what: str) -> web.StreamResponse:
    body = await body_of(request, CHANGE_KEYS)
    _noted(request, what, request.match_info["id"], change_of(request, body))
    asked = {"what": what, "point": request.match_info["id"], "reason": text_of(body, "reason")}
    return await _worked(request, asked)


async def _worked(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
    """The sidecar's answer, with its steps for whoever wants them."""
    recovery = _recovery(request)
    if LINES not in request.headers.get("Accept", ""):
        return answer(await recovery.ask(asked))
    return await in_steps(request, lambda told: recovery.ask(asked, told))
