"""The admin API: who may ask, how an error looks, and the endpoints about the gateway as a whole.

    /healthz /readyz              open        this file
    /metrics                      by setting  this file
    /v1/status config events audit            this file
    /v1/cache purge warm explain connections  admin_cache
    /v1/regions pools simulate                admin_regions

One rule: every answer is JSON; an error is `{"error": one clear line}` with the status of its class. What changes
something is answered only after the journal has it and every live worker applied it (`Supervisor` sees to it).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from edge.control import admin_cache, admin_regions
from edge.control.admin_words import SUPERVISOR, answer, number
from edge.control.exposition import CONTENT_TYPE, exposition
from edge.control.link import LinkLost, Refused
from edge.control.refusals import Unavailable
from edge.control.shown import Shown
from edge.control.supervisor import Supervisor
from edge.control.token import allows
from edge.errors import EdgeError

MAX_BODY_BYTES = 8 * 1024 * 1024  # a warm list is the largest thing that anyone sends
STILL_HERE_S = 15.0
Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


def admin_app(supervisor: Supervisor, token: str, open_metrics: bool) -> web.Application:
    """The whole API."""
    opened = {"/healthz", "/readyz"} | ({"/metrics"} if open_metrics else set())

    @web.middleware
    async def guard(request: web.Request, handler: Endpoint) -> web.StreamResponse:
        """Authentication first, then the endpoint; whatever it raises becomes one clear line."""
        if request.path not in opened and not allows(request.headers.get("Authorization", ""), token):
            return answer({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": 'Bearer realm="edge"'})
        try:
            return await handler(request)
        except Refused as error:
            return answer({"error": error.detail}, 400)
        except (LinkLost, TimeoutError) as error:
            return answer({"error": str(error) or "no worker answered in time"}, 503)
        except EdgeError as error:
            return answer({"error": error.detail}, error.status)
        except web.HTTPException as error:
            return answer({"error": _line_for(request, error)}, error.status, _allow(error))

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app[SUPERVISOR] = supervisor
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get("/v1/status", status),
            web.get("/v1/config", config),
            web.get("/v1/events", events),
            web.get("/v1/audit", audit),
        ]
    )
    app.add_routes(admin_cache.routes())
    app.add_routes(admin_regions.routes())
    return app


async def start_admin(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Listen. Raises OSError when the address cannot be had."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


# -- endpoints ---------------------------------------------------------------------------------------------------------


async def healthz(request: web.Request) -> web.Response:
    """The supervisor's loop turns."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """Every worker listens, and the gateway does not stop."""
    ready, why = request.app[SUPERVISOR].readiness()
    return web.Response(text=f"{why}\n", status=200 if ready else 503)


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text."""
    supervisor = request.app[SUPERVISOR]
    return web.Response(
        body=exposition(supervisor.totals, Shown(supervisor).gauges), headers={"Content-Type": CONTENT_TYPE}
    )


async def status(request: web.Request) -> web.Response:
    """What the gateway is and does."""
    return answer(Shown(request.app[SUPERVISOR]).status())


async def config(request: web.Request) -> web.Response:
    """The running configuration, secrets hidden."""
    return answer(Shown(request.app[SUPERVISOR]).config())


async def audit(request: web.Request) -> web.Response:
    """Who changed what, newest first; `?limit=`."""
    limit = number(request, "limit", 100, 1, 10_000)
    return answer({"audit": request.app[SUPERVISOR].keeper.audit(limit)})


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events: those kept after `Last-Event-ID` or `?after=`, then new ones. `?follow=0` only the former."""
    found = request.app[SUPERVISOR].events
    last = request.headers.get("Last-Event-ID", "")
    after = int(last) if last.isascii() and last.isdigit() else number(request, "after", 0, 0, 2**63)
    if request.query.get("follow") == "0":
        return answer({"events": [event for event in found.recent if event["id"] > after]})
    if found.full:
        raise Unavailable("too many listeners")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    await response.write(b": events\n\n")
    listener = found.listen(after)
    try:
        while not found.closed:
            event = await listener.next(STILL_HERE_S)
            if event is None:
                await response.write(b": still here\n\n")  # finds out whether the listener is
            else:
                head = b"id: %d\nevent: %b\ndata: " % (event["id"], event["kind"].encode())
                await response.write(head + orjson.dumps(event) + b"\n\n")
    except ConnectionResetError:
        pass  # the listener left
    finally:
        listener.leave()
    return response


def _line_for(request: web.Request, error: web.HTTPException) -> str:
    known: dict[int, str] = {
        404: f"there is nothing at {request.path}",
        405: f"{request.method} is not possible at {request.path}",
        413: f"more than {MAX_BODY_BYTES} bytes",
    }
    return known.get(error.status, error.reason)


def _allow(error: web.HTTPException) -> dict[str, str]:
    allowed: Any = error.headers.get("Allow")
    return {"Allow": allowed} if allowed else {}
