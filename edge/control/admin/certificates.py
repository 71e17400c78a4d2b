"""The certificates of the listeners, for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

from aiohttp import web

from edge.config.loader import Config
from edge.control.admin.errors import Refusal, Unavailable
from edge.control.admin.json import CHANGE_KEYS, SUPERVISOR, answer, body_of, change_of
from edge.control.certificates import CertificateFacts, certificates, shown_names, uncovered


def routes() -> list[web.RouteDef]:
    """The endpoints."""
    return [web.get("/v1/certificates", listed), web.post("/v1/certificates/renew", renewed)]


async def listed(request: web.Request) -> web.Response:
    """Every certificate, read from its files now, and the hosts of routes that none covers."""
    supervisor = request.app[SUPERVISOR]
    rows = supervisor.issuing.rows if supervisor.issuing is not None else []
    return answer(await asyncio.to_thread(shown, supervisor.running.config, rows))


async def renewed(request: web.Request) -> web.Response:
    """Ask for new certificates by ACME, of these names or of all; answered when every worker shows them."""
    supervisor = request.app[SUPERVISOR]
    body = await body_of(request, ("names", *CHANGE_KEYS))
    names = body.get("names", [])
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise Refusal("names: must be a list of host names")
    change = change_of(request, body)
    if supervisor.issuing is None:
        raise Unavailable("this gateway gets no certificates by itself")
    wanted = [name.lower() for name in names]
    supervisor.issuing.check(wanted)
    for name in wanted or ["*"]:
        supervisor.state_store.note("renew", name, change, "certificate")
    return answer(await supervisor.issuing.renew(wanted))


def shown(config: Config, rows: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The certificates of a configuration as plain values. `rows` are the issuer's."""
    by_file = {row["file"]: row for row in rows}
    found, now = certificates(config), time()
    missing = uncovered(config, shown_names(found)) if config.listen.https else ()
    return {
        "certificates": [{**_row(each, now), "acme": _renewal(by_file.get(each.cert))} for each in found],
        "uncovered": [{"route": config.routes[number].name, "host": host} for number, host in missing],
    }


def _renewal(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What becomes of a certificate that is got by ACME."""
    if row is None:
        return None
    return {key: row[key] for key in ("directory", "self_signed", "next_at", "failures", "failed_at", "error")}


def _row(facts: CertificateFacts, now: float) -> dict[str, Any]:
    left = facts.days_left(now)
    return {
        "listener": facts.listener,
        "certificate": facts.cert,
        "key": facts.key,
        "names": list(facts.names),
        "issuer": facts.issuer,
        "expires_at": facts.ends_at,
        "days_left": None if left is None else round(left, 2),
        "key_fits": not facts.problem,
        "problem": facts.problem,
    }
