"""The admin API's endpoints about the configuration as a whole: load it again, what was accepted, go back.

One rule: whoever gets an error may rely on nothing having changed; a mistake in the file is answered with its lines.
"""

from __future__ import annotations

import asyncio
from difflib import unified_diff
from pathlib import Path

from aiohttp import web

from edge.control.admin.errors import NotFound, Refusal, Unavailable
from edge.control.admin.json import CHANGE_KEYS, SUPERVISOR, answer, body_of, change_of, number, number_of, problem
from edge.control.admin.paging import numbered
from edge.control.journal import Revision
from edge.control.reloading import NotAccepted
from edge.control.supervisor import Reloads, Supervisor
from edge.control.written_back import write_back

MOST = 1000


def routes() -> list[web.RouteDef]:
    """The endpoints."""
    return [
        web.post("/v1/reload", reload),
        web.post("/v1/upgrade", upgrade),
        web.get("/v1/config/history", history),
        web.get("/v1/config/history/{id}", revision),
        web.get("/v1/config/diff", diff),
        web.post("/v1/config/rollback", rollback),
    ]


def _reloads(request: web.Request) -> Reloads:
    found = request.app[SUPERVISOR].reloading
    if found is None:
        raise Unavailable("this gateway cannot load its configuration again")
    return found


async def reload(request: web.Request) -> web.Response:
    """Load the configuration file again; with `dry_run` only tell what that would change."""
    body = await body_of(request, (*CHANGE_KEYS, "dry_run"))
    dry_run = body.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise Refusal("dry_run: must be true or false")
    try:
        return answer(await _reloads(request).reload(change_of(request, body), None, dry_run))
    except NotAccepted as error:
        return _mistakes(error)


async def upgrade(request: web.Request) -> web.Response:
    """Start the program that is installed now on the same sockets, and hand over when it is ready."""
    body = await body_of(request, CHANGE_KEYS)
    found = request.app[SUPERVISOR].upgrading
    if found is None:
        raise Unavailable("this gateway cannot be upgraded while it runs")
    return answer(await found.upgrade(change_of(request, body)))


async def rollback(request: web.Request) -> web.Response:
    """Go back to an accepted revision and write it into the file; without `revision` the one before."""
    body = await body_of(request, (*CHANGE_KEYS, "revision", "dry_run"))
    supervisor = request.app[SUPERVISOR]
    wanted = body.get("revision")
    if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int)):
        raise Refusal("revision: must be a number; see GET /v1/config/history")
    found = _before(supervisor, None) if wanted is None else _of(supervisor, wanted)
    dry_run = bool(body.get("dry_run", False))
    try:
        done = await _reloads(request).reload(change_of(request, body), found, dry_run)
    except NotAccepted as error:
        return _mistakes(error)
    if not dry_run:
        done["file"] = await asyncio.to_thread(write_back, found, Path(supervisor.running.filename))
    return answer({**done, "restored": found.id})


async def history(request: web.Request) -> web.Response:
    """The accepted revisions, the newest first; `?limit=`, `?after=`."""
    supervisor = request.app[SUPERVISOR]
    limit, after = number(request, "limit", 100, 1, MOST), number(request, "after", 0, 0, 2**53)
    found = supervisor.state_store.revisions(limit + 1, after - 1 if after else None)
    newest = supervisor.state_store.revisions(1)
    running = newest[0].id if newest and newest[0].hash == supervisor.running.hash else None
    rows = [{"id": each.id, "at": each.at, "hash": each.hash, "running": each.id == running} for each in found]
    return numbered("revisions", rows, limit)


async def revision(request: web.Request) -> web.Response:
    """One revision with its text. The text is the operator's own: it may hold what he would not show."""
    found = _of(request.app[SUPERVISOR], number_of("revision", request.match_info["id"], 0, 2**53))
    return answer({"id": found.id, "at": found.at, "hash": found.hash, "text": found.text, "files": found.files})


async def diff(request: web.Request) -> web.Response:
    """Two revisions as a unified diff; `?from=`, `?to=`: left out, the one before, and the newest."""
    supervisor = request.app[SUPERVISOR]
    newest = supervisor.state_store.revisions(1)
    if not newest:
        raise NotFound("no revision was accepted yet")
    new = _of(supervisor, number(request, "to", 0, 0, 2**53)) if "to" in request.query else newest[0]
    given = "from" in request.query
    old = _of(supervisor, number(request, "from", 0, 0, 2**53)) if given else _before(supervisor, new.id)
    lines = _compared(old.text, new.text, f"revision {old.id}", f"revision {new.id}")
    for name in sorted({*old.files, *new.files}):
        names = (f"revision {old.id} {name}", f"revision {new.id} {name}")
        lines += _compared(old.files.get(name, ""), new.files.get(name, ""), *names)
    return answer({"from": old.id, "to": new.id, "lines": lines})


def _compared(old: str, new: str, old_name: str, new_name: str) -> list[str]:
    return list(unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, lineterm=""))


def _of(supervisor: Supervisor, wanted: int) -> Revision:
    found = supervisor.state_store.revisions(1, wanted)
    if not found or found[0].id != wanted:
        raise NotFound(f"there is no revision {wanted}; `edge config history` lists them")
    return found[0]


def _before(supervisor: Supervisor, wanted: int | None) -> Revision:
    """The one before that, or before the newest."""
    known = supervisor.state_store.revisions(2, wanted)
    if len(known) < 2:
        raise NotFound("there is no revision before this one")
    return known[1]


def _mistakes(error: NotAccepted) -> web.Response:
    return problem(error.status, error.detail, more={"problems": error.problems})
