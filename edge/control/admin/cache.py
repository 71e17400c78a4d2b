"""Endpoints about requests and stored responses: cache, purge, warm, explain, connections."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import orjson
from aiohttp import web

from edge.cache.prefetch import parse_warm_list
from edge.cache.purge import Purge
from edge.cache.purge_request import parse_purge
from edge.config.listening import spoken
from edge.control.admin.errors import Refusal
from edge.control.admin.json import CHANGE_KEYS, SUPERVISOR, answer, change_of, number, read_body
from edge.control.admin.steps import in_steps
from edge.control.admin.views import Views
from edge.errors import BadRequest
from edge.frames import FrameKind

PURGES_MAX = 1000
CONNECTIONS_MAX = 10_000
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


def routes() -> list[web.RouteDef]:
    """The endpoints."""

    return [
        web.get("/v1/cache", cache),
        web.post("/v1/purge", purge),
        web.post("/v1/warm", warm),
        web.get("/v1/explain", explain),
        web.get("/v1/connections", connections),
    ]


async def cache(request: web.Request) -> web.Response:
    """Hit rates, offload and bandwidth by time window and route, and the contents of the tiers."""
    return answer(Views(request.app[SUPERVISOR]).cache())


async def purge(request: web.Request) -> web.Response:
    """Make stored responses unusable; the answer comes when it is durable and every worker did it.

    `items`: many at once; all are read before the first is done, and all are durable or none is.
    """
    try:
        body = orjson.loads(await read_body(request))
    except orjson.JSONDecodeError:
        raise Refusal("purge: expected a JSON object") from None
    given = body if isinstance(body, dict) else {}
    change = change_of(request, given)
    asked = {key: value for key, value in given.items() if key not in CHANGE_KEYS} if given else body
    supervisor = request.app[SUPERVISOR]
    if "items" not in given:
        return answer(await supervisor.purge(parse_purge(asked), change))
    return answer({"purges": await supervisor.purge_many(_purges(asked), change)})


def _purges(asked: dict[str, Any]) -> list[Purge]:
    """Each of `items`, with the `soft` of all where it has none of its own."""
    items, soft = asked.pop("items"), asked.pop("soft", False)
    if asked:
        raise Refusal(f"purge: {next(iter(asked))[:60]!r} does not go with items")
    if not isinstance(items, list) or not 1 <= len(items) <= PURGES_MAX:
        raise Refusal(f"purge: items must be a list of 1 to {PURGES_MAX}")
    found = []
    for at, item in enumerate(items):
        try:
            found.append(parse_purge({"soft": soft, **item} if isinstance(item, dict) else item))
        except BadRequest as error:
            raise Refusal(f"items[{at}]: {error.detail}") from None
    return found


async def warm(request: web.Request) -> web.StreamResponse:
    """Fetch a list into the store; one JSON line for each step, the last one says `finished`."""
    urls = await _urls(request)
    supervisor = request.app[SUPERVISOR]
    supervisor.state_store.note("warm", f"{len(urls)} URLs", change_of(request, {}), "cache")
    return await in_steps(
        request, lambda told: supervisor.workers.ask_one(FrameKind.WARM, {"urls": urls}, told, timeout_s=None)
    )


async def _urls(request: web.Request) -> list[str]:
    """The list: JSON `{"urls": […]}`, a JSON list, or a URL on each line."""
    try:
        text = (await read_body(request)).decode()
    except UnicodeDecodeError as error:
        raise Refusal(f"warm list: not UTF-8 text: {error.reason} at byte {error.start}") from None
    if text.lstrip().startswith("{"):
        try:
            found = orjson.loads(text).get("urls")
        except orjson.JSONDecodeError as error:
            raise Refusal(f"warm list: not JSON: {error}") from None
        text = orjson.dumps(found if isinstance(found, list) else []).decode()
    return parse_warm_list(text)


async def explain(request: web.Request) -> web.Response:
    """How a request would be decided: `?url=`, `client=`, `method=`, `header=Name: value` (may be repeated)."""
    url = request.query.get("url", "")
    if not url:
        raise Refusal("url: is missing")
    client = request.query.get("client")
    if client is not None:
        try:
            ip_address(client)
        except ValueError:
            raise Refusal(f"client: not an address: {client[:60]!r}") from None
    method = request.query.get("method", "GET").upper()
    if method not in METHODS:
        raise Refusal(f"method: one of {', '.join(METHODS)}")
    headers = [_header(line) for line in request.query.getall("header", [])]
    asked = {"what": "explain", "url": url, "client": client, "method": method, "headers": headers}
    supervisor = request.app[SUPERVISOR]
    found = await supervisor.workers.ask_one(FrameKind.ASK, asked)
    listeners = spoken(supervisor.running.config.listen, url.partition("://")[0].lower())
    last = None if supervisor.reloading is None else supervisor.reloading.status
    needs = {"needs": last["needs"]} if last and last["needs"] else {}
    return answer({**found, "listeners": listeners, **needs})


def _header(line: str) -> list[str]:
    name, colon, value = line.partition(":")
    name = name.strip()
    if not colon or not name or not line.isprintable() or " " in name:
        raise Refusal(f"header: expected 'Name: value', got {line[:60]!r}")
    return [name, value.strip()]


async def connections(request: web.Request) -> web.Response:
    """Every open connection, at most `?limit=` of each worker, and what each backend holds over all of them."""
    limit = number(request, "limit", CONNECTIONS_MAX, 1, CONNECTIONS_MAX)
    return answer(await request.app[SUPERVISOR].connections(limit))
