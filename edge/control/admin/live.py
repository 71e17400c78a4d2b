"""Endpoints about what happens: events as they come, the last minutes as rows, the audit, what is asked for most.

One rule: whoever listens or asks here costs the gateway a bounded amount: so many listeners, so many rows, and nothing
on a request's way.
"""

from __future__ import annotations

import re
from time import monotonic

import orjson
from aiohttp import web

from edge.control.admin.errors import NotFound, Refusal, Unavailable
from edge.control.admin.json import SUPERVISOR, answer, number, number_of, times
from edge.control.admin.paging import MOST, numbered
from edge.control.series import STEPS

STILL_HERE_S = 15.0
RETRY_MS = 2000
_SECONDS = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)
NUMBERS_MAX = 2**53  # what JSON's readers can hold


def routes() -> list[web.RouteDef]:
    """The endpoints."""
    return [
        web.get("/v1/events", events),
        web.get("/v1/events/{id}", one_event),
        web.get("/v1/series", series),
        web.get("/v1/audit", audit),
        web.get("/v1/audit/{id}", one_audit),
        web.get("/v1/cache/top", hottest),
    ]


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events: those kept after `Last-Event-ID` or `?after=`, then new ones. `?follow=0`: a page of JSON.

    `?kind=` takes those whose kind begins so. An id of an earlier life of the gateway, or one that is no longer
    kept, is answered with all that is kept; the first event then tells how many are `lost` (null: nobody knows).
    """
    found = request.app[SUPERVISOR].events
    kind = request.query.get("kind", "")
    last = request.headers.get("Last-Event-ID", "")
    after = number_of("Last-Event-ID", last, 0, NUMBERS_MAX) if last else number(request, "after", 0, 0, NUMBERS_MAX)
    if request.query.get("follow") == "0":
        limit = number(request, "limit", 1000, 1, MOST)
        kept = [each for each in found.recent if each["id"] > after and each["kind"].startswith(kind)]
        return numbered("events", kept, limit)
    if found.full:
        raise Unavailable("too many listeners")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    await response.write(b"retry: %d\n\n" % RETRY_MS)
    listener = found.listen(after)
    try:
        while not found.closed:
            event = await listener.next(STILL_HERE_S)
            if event is None:
                await response.write(b": still here\n\n")  # finds out whether the listener is
            elif event["kind"].startswith(kind):
                head = b"id: %d\nevent: %b\ndata: " % (event["id"], event["kind"].encode())
                await response.write(head + orjson.dumps(times(event)) + b"\n\n")
    except ConnectionResetError:
        pass  # the listener left
    finally:
        listener.leave()
    return response


async def one_event(request: web.Request) -> web.Response:
    """One event that is still kept."""
    wanted = number_of("id", request.match_info["id"], 0, NUMBERS_MAX)
    found = next((each for each in request.app[SUPERVISOR].events.recent if each["id"] == wanted), None)
    if found is None:
        raise NotFound(f"there is no event {wanted} (any more)")
    return answer(found)


async def series(request: web.Request) -> web.Response:
    """The last minutes as rows; `?step=` 1 or 10 seconds, `?after=`: rows later than this time (epoch seconds)."""
    step = number(request, "step", 1, STEPS[0], STEPS[-1])
    if step not in STEPS:
        raise Refusal(f"step: one of {', '.join(map(str, STEPS))}")
    after = _seconds(request.query.get("after", "0"))
    return answer(request.app[SUPERVISOR].totals.series.rows(step, after, monotonic()))


def _seconds(raw: str) -> float:
    """A time as epoch seconds."""
    if not _SECONDS.fullmatch(raw):
        raise Refusal("after: must be a number of seconds since 1970")
    return float(raw)


async def audit(request: web.Request) -> web.Response:
    """Who changed what, newest first; `?limit=` and `?after=` (an id: those before it in time)."""
    limit = number(request, "limit", 100, 1, MOST)
    after = number(request, "after", 0, 0, NUMBERS_MAX)
    return numbered("audit", request.app[SUPERVISOR].state_store.audit(limit + 1, after or None), limit)


async def one_audit(request: web.Request) -> web.Response:
    """One line of the audit."""
    wanted = number_of("id", request.match_info["id"], 0, NUMBERS_MAX - 1)
    rows = request.app[SUPERVISOR].state_store.audit(1, wanted + 1)
    if not rows or rows[0]["id"] != wanted:
        raise NotFound(f"there is no audit line {wanted} (any more)")
    return answer(rows[0])


async def hottest(request: web.Request) -> web.Response:
    """What is asked for most, by a sample of the access log; `?limit=`."""
    limit = number(request, "limit", 20, 1, 100)
    return answer(await request.app[SUPERVISOR].hottest(limit))
