"""The certificates of the listeners, for operators."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

from aiohttp import web

from edge.config.loader import Config
from edge.control.admin.json import SUPERVISOR, answer
from edge.control.certificates import CertificateFacts, certificates, shown_names, uncovered


def routes() -> list[web.RouteDef]:
    """The endpoint."""
    return [web.get("/v1/certificates", listed)]


async def listed(request: web.Request) -> web.Response:
    """Every certificate, and the hosts of routes that none covers; the files are read now."""
    return answer(await asyncio.to_thread(shown, request.app[SUPERVISOR].running.config))


def shown(config: Config) -> dict[str, Any]:
    """The certificates of a configuration."""
    found, now = certificates(config), time()
    missing = uncovered(config, shown_names(found)) if config.listen.https else ()
    return {
        "certificates": [_row(each, now) for each in found],
        "uncovered": [{"route": config.routes[number].name, "host": host} for number, host in missing],
    }


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
