"""GraphQL queries come as POST, which no cache stores. Here a query becomes a GET that is named by its content.

    POST /graphql ─► GET cached.internal/<hash of the query> ─► (stored? a hit) ─► POST graphql.internal/graphql

Mutations, large queries and whatever is sent with a credential go straight to the origin.
"""

from __future__ import annotations

import base64
import binascii
import json
from hashlib import sha256
from typing import Any

from aiohttp import web

from edge.sdk import edge

TTL_S = 30
LONGEST = 4096  # a query travels in a field line of the inner request
QUERY = "X-GraphQL-Query"
JSON = {"Content-Type": "application/json"}


def named(body: bytes) -> str:
    """A query's name in the cache."""
    return sha256(body).hexdigest()


def canonical(body: bytes) -> bytes | None:
    """The same bytes for the same query; None for what is not to be stored."""
    try:
        asked: Any = json.loads(body)
    except ValueError:
        return None
    query = asked.get("query") if isinstance(asked, dict) else None
    if not isinstance(query, str) or not query.lstrip().startswith(("query", "{")) or "mutation" in query:
        return None
    found = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
    return found if len(found) <= LONGEST else None


async def graphql(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    query = None if {"Authorization", "Cookie"} & set(request.headers) else canonical(body)
    if query is None:
        sent = {
            name: request.headers[name]
            for name in ("Content-Type", "Authorization", "Cookie")
            if name in request.headers
        }
        inner = edge().fetch("/graphql", host="graphql.internal", method="POST", headers=sent, body=body)
    else:
        text = base64.b64encode(query).decode()
        inner = edge().fetch(f"/stored/{named(query)}", host="cached.internal", headers={QUERY: text})
    async with await inner as answer:
        return await answer.relay(request)


async def stored(request: web.Request) -> web.Response:
    """What the inner GET asks. A query that is not the one that its name stands for would poison the cache."""
    try:
        query = base64.b64decode(request.headers.get(QUERY, ""), validate=True)
    except binascii.Error:
        raise web.HTTPBadRequest from None
    if named(query) != request.match_info["name"]:
        raise web.HTTPBadRequest
    async with await edge().fetch(
        "/graphql", host="graphql.internal", method="POST", headers=JSON, body=query
    ) as answer:
        body = await answer.read()
        good = answer.status == 200 and "errors" not in json.loads(body)
    headers = {"Cache-Control": f"max-age={TTL_S}" if good else "no-store", **JSON}
    return web.Response(status=answer.status, body=body, headers=headers)


app = web.Application()
app.add_routes([web.post("/graphql", graphql), web.get("/stored/{name}", stored)])
