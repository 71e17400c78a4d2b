"""The dashboard's files and the OpenAPI document."""

from __future__ import annotations

from functools import cache

import orjson
from aiohttp import web

from edge.control.admin.errors import NotFound
from edge.control.admin.openapi import document
from edge.control.dashboard import HEADERS, INDEX, assets


def routes() -> list[web.RouteDef]:
    """The endpoints."""
    return [
        web.get("/", dashboard),
        web.get("/dashboard/{file:.+}", dashboard),
        web.get("/v1/openapi.json", openapi),
    ]


async def dashboard(request: web.Request) -> web.Response:
    """Answer with the page or one of its files; 304 where the browser has it."""
    name = request.match_info.get("file", INDEX)
    found = assets().get(name)
    if found is None:
        raise NotFound(f"there is nothing at {request.path}")
    tag = f'"{found.etag}"'
    headers = {**HEADERS, "ETag": tag}
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = found.content_type
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=found.zipped, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(body=found.body, headers=headers)


@cache
def _document() -> bytes:
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2) + b"\n"


async def openapi(request: web.Request) -> web.Response:
    """What this API can do, as OpenAPI 3.1."""
    return web.Response(body=_document(), content_type="application/json", headers={"Cache-Control": "no-cache"})
