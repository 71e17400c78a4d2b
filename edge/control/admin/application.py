"""The admin API: who may ask, how an error looks, and the endpoints about the gateway as a whole.

    /healthz /readyz              open        this file
    /metrics                      by setting  this file
    /v1/status config                         this file
    / dashboard openapi.json                  pages (the page itself is open, what it shows is not)
    /v1/events series audit cache/top         live
    /v1/cache purge warm explain connections  cache
    /v1/certificates                          certificates
    /v1/regions pools simulate                regions
    /v1/snapshots recovery                    snapshots

One rule: every answer is JSON; an error is a problem (RFC 9457) whose `detail` is one clear line, whatever was asked.
What changes something is answered only after the journal has it and every live worker applied it (`Supervisor` sees to
it).
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from aiohttp import web

from edge import __version__
from edge.control.access import Access, Unauthenticated
from edge.control.admin import cache, certificates, fleet, live, pages, regions, reload, snapshots
from edge.control.admin.errors import TooMany
from edge.control.admin.exposition import content_type, families
from edge.control.admin.handler import handler_of
from edge.control.admin.json import BODY_S, SUPERVISOR, TOKEN, answer, problem
from edge.control.admin.pace import KeyedRateLimit, address_key
from edge.control.admin.views import Views
from edge.control.admin.vitals import Vitals
from edge.control.admin_connections import AdminConnections
from edge.control.link import LinkLost, Refused
from edge.control.supervisor import Supervisor
from edge.errors import EdgeError

MAX_BODY_BYTES = 8 * 1024 * 1024  # a warm list is the largest thing that anyone sends
TURN_S = 0.002  # after which making a scrape's text lets others go on
RATE = 200  # requests a second of one asker, twice as many at once
CONNECTIONS: web.AppKey[AdminConnections] = web.AppKey("connections", AdminConnections)
VITALS: web.AppKey[Vitals] = web.AppKey("vitals", Vitals)
_QUIET = logging.getLogger("edge.admin")  # aiohttp's tracebacks of what clients send; what is ours is an event
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False
Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Checks who asks, calls the endpoint, and turns exceptions of both into problem documents."""

    def __init__(self, supervisor: Supervisor, access: Access, rate: int) -> None:
        self._supervisor = supervisor
        self._access = access
        self._pace = KeyedRateLimit(rate, 2 * rate)

    @web.middleware
    async def answer(self, request: web.Request, handler: Endpoint) -> web.StreamResponse:
        """Answer one request, count it, and say how long it took."""
        connections = request.app.get(CONNECTIONS)
        if connections is not None:
            connections.begin(request.transport)
        began = perf_counter()
        try:
            try:
                self._admit(request)
                answered = await handler(request)
            except Exception as error:
                answered = refused(request, error)
        finally:
            if connections is not None:
                connections.end(request.transport)
        counts = self._supervisor.admin_answers
        counts[answered.status] = counts.get(answered.status, 0) + 1
        if not answered.prepared:
            answered.headers["Server-Timing"] = f"app;dur={(perf_counter() - began) * 1000:.2f}"
        return answered

    def _admit(self, request: web.Request) -> None:
        """Raises Denied or TooMany. Whoever floods without a token does not use up what a token may."""
        asker = address_key(request.remote)
        try:
            token = self._access.check(request.method, request.path, request.headers)
            if token is not None:
                request[TOKEN] = token
                asker = f"{token.name} {asker}"
        finally:
            if wait := self._pace.wait(asker):
                raise TooMany(wait) from None


def admin_app(supervisor: Supervisor, access: Access, body_s: float = 30.0, rate: int = RATE) -> web.Application:
    """The whole API. `rate`: requests a second of one token, or of one address without a known one."""
    app = web.Application(middlewares=[Guard(supervisor, access, rate).answer], client_max_size=MAX_BODY_BYTES)
    app[SUPERVISOR] = supervisor
    app[BODY_S] = body_s
    app[VITALS] = Vitals(supervisor)
    app.on_response_prepare.append(_signed)
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get("/v1/status", status),
            web.get("/v1/config", config),
        ]
    )
    for part in (pages, live, cache, certificates, fleet, regions, snapshots, reload):
        app.add_routes(part.routes())
    return app


def refused(request: web.Request, error: Exception) -> web.Response:
    """The problem document for an exception."""
    if isinstance(error, Unauthenticated):
        return problem(401, error.detail, {"WWW-Authenticate": 'Bearer realm="edge"'})
    if isinstance(error, Refused):
        return problem(400, error.detail)
    if isinstance(error, LinkLost | TimeoutError):
        return problem(503, str(error) or "no worker answered in time")
    if isinstance(error, TooMany):
        return problem(error.status, error.detail, {"Retry-After": str(math.ceil(error.wait_s))})
    if isinstance(error, EdgeError):
        return problem(error.status, error.detail)
    if isinstance(error, web.HTTPException):
        return problem(error.status, _line_for(request, error), _allow(error))
    if isinstance(error, ConnectionError):
        raise error  # nobody is there to be told
    said = f"{type(error).__name__}: {error}"
    request.app[SUPERVISOR].events.add("bug", {"where": f"{request.method} {request.path}", "error": said})
    return problem(500, f"a bug in the gateway: {type(error).__name__}; its events tell more")


async def _signed(request: web.Request, response: web.StreamResponse) -> None:
    """What answers, so that a command can tell it from some other server."""
    response.headers["Edge-Version"] = __version__
    response.headers["Server"] = "streamgate-edge"
    response.headers["X-Content-Type-Options"] = "nosniff"


async def start_admin(
    app: web.Application,
    host: str,
    port: int,
    most: int,
    head_s: float,
    sock: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
    path: Path | None = None,
    succeeds: bool = False,
) -> web.AppRunner:
    """Listen for at most so many connections, on a socket or an address, and at `path` on a Unix socket.

    `succeeds`: the program before this one may listen there still. Raises OSError when something cannot be had.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0, logger=_QUIET)
    app[CONNECTIONS] = connections = AdminConnections(lambda: _handler(runner), most, head_s)
    app.on_shutdown.append(_shut)
    await runner.setup()
    try:
        await connections.listen(host, port, sock, tls)
        if path is not None:
            await connections.listen_unix(path, succeeds)
    except OSError:
        await runner.cleanup()
        raise
    return runner


def leave(runner: web.AppRunner) -> None:
    """Stop accepting; requests that are here are answered."""
    runner.app[CONNECTIONS].leave_listener()


def _handler(runner: web.AppRunner) -> asyncio.Protocol:
    assert runner.server is not None  # there is one from `setup` to `cleanup`
    return handler_of(runner.server)


async def _shut(app: web.Application) -> None:
    app[CONNECTIONS].close()


# -- endpoints ---------------------------------------------------------------------------------------------------------


async def healthz(request: web.Request) -> web.Response:
    """200 while the supervisor's event loop runs."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """200 while every worker listens and the gateway does not stop, else 503."""
    ready, why = request.app[SUPERVISOR].readiness()
    return web.Response(text=f"{why}\n", status=200 if ready else 503)


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text, or OpenMetrics if the client accepts it."""
    supervisor = request.app[SUPERVISOR]
    shown, vitals = Views(supervisor), request.app[VITALS]
    wanted = content_type(request.headers.get("Accept", ""))
    counted = supervisor.running.config.metrics
    parts, began = [], perf_counter()
    buckets = (counted.buckets, counted.total)
    for part in families(supervisor.totals, lambda: [*shown.gauges(), *vitals.gauges()], wanted, buckets):
        parts.append(part)
        if perf_counter() - began > TURN_S:
            await asyncio.sleep(0)
            began = perf_counter()
    return web.Response(body="".join(parts).encode(), headers={"Content-Type": wanted, "Vary": "Accept"})


async def status(request: web.Request) -> web.Response:
    """Workers, backends, regions, routes, and the outcome of the last reload."""
    return answer(Views(request.app[SUPERVISOR]).status())


async def config(request: web.Request) -> web.Response:
    """The running configuration, secrets hidden."""
    return answer(Views(request.app[SUPERVISOR]).config())


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
