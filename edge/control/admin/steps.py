"""Long work as JSON lines: one for each step, the last one says `finished` and has the result or the error.

One rule: the work does not wait for whoever asked. Who reads too slowly misses steps, who leaves ends nothing that
others carry out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from edge.errors import EdgeError

LINES = "application/x-ndjson"
STEPS_KEPT = 1000

Step = dict[str, Any]
Work = Callable[[Callable[[Step], None]], Awaitable[Step]]  # given whom to tell of its steps


async def in_steps(request: web.Request, begin: Work) -> web.StreamResponse:
    """Begin the work and answer with its steps as they come."""
    steps: asyncio.Queue[Step] = asyncio.Queue(STEPS_KEPT)

    def told(step: Step) -> None:
        if steps.full():
            steps.get_nowait()  # the newest step matters most
        steps.put_nowait(step)

    work = asyncio.ensure_future(begin(told))
    response = web.StreamResponse(headers={"Content-Type": LINES, "Cache-Control": "no-store"})
    try:
        await response.prepare(request)
        while not (work.done() and steps.empty()):
            upcoming = asyncio.ensure_future(steps.get())
            await asyncio.wait((upcoming, work), return_when=asyncio.FIRST_COMPLETED)
            if upcoming.done():
                await response.write(orjson.dumps(upcoming.result()) + b"\n")
            else:
                upcoming.cancel()
        await response.write(orjson.dumps(_last(work)) + b"\n")
    except ConnectionResetError:
        pass  # whoever asked left; what was begun goes on where it is done
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return response


def _last(work: asyncio.Future[Step]) -> Step:
    error = work.exception()
    if error is None:
        return {"finished": True, **work.result()}
    if isinstance(error, EdgeError):
        return {"finished": False, "detail": error.detail, "status": error.status}
    raise error
