"""An A/B test: each visitor is given a variant once and keeps it by a cookie; each variant is a pool of its own.

curl -c jar -b jar http://127.0.0.1:8080/
"""

from __future__ import annotations

import secrets

from aiohttp import web

from edge.sdk import edge

WEIGHTS = {"a": 90, "b": 10}
COOKIE = "variant"


def draw() -> str:
    """A variant, by weight."""
    at = secrets.randbelow(sum(WEIGHTS.values()))
    for variant, weight in WEIGHTS.items():
        if at < weight:
            return variant
        at -= weight
    raise AssertionError


async def page(request: web.Request) -> web.StreamResponse:
    known = request.cookies.get(COOKIE)
    variant = known if known in WEIGHTS else draw()
    edge().count(f"variant_{variant}")
    async with await edge().fetch(request.path_qs, host=f"{variant}.internal") as answer:
        response = web.Response(status=answer.status, headers=answer.fields, body=await answer.read())
    if known != variant:
        response.set_cookie(COOKIE, variant, max_age=30 * 86400, httponly=True, samesite="Lax")
    response.headers["Cache-Control"] = "private, no-store"  # the pools' answers are stored, this one is the visitor's
    return response


app = web.Application()
app.router.add_get("/{path:.*}", page)
