"""The application of `test_app_differential`: aiohttp's public behaviours, and the ecosystem around it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp_cors
import aiohttp_session
from aiohttp import WSMsgType, web

FILES = Path(__file__).parent
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GATEWAYS = ("x-forwarded", "x-real-ip", "forwarded", "via", "cdn-loop", "x-request-id", "traceparent", "connection")


async def asked(request: web.Request) -> web.Response:
    """What came, as the application sees it."""
    body = await request.read()
    fields = [[name, value] for name, value in request.headers.items() if not name.lower().startswith(GATEWAYS)]
    return web.json_response(
        {
            "method": request.method,
            "path": request.path,
            "raw": request.rel_url.raw_path,
            "path_qs": request.path_qs,
            "query": list(request.query.items()),
            "host": request.host,
            "fields": sorted(fields),
            "type": request.content_type,
            "charset": request.charset,
            "length": len(body),
            "digest": hashlib.sha256(body).hexdigest(),
            "cookies": dict(request.cookies),
            "match": dict(request.match_info),
        }
    )


async def parts(request: web.Request) -> web.Response:
    found: list[Any] = []
    async for part in await request.multipart():
        data = await part.read()
        found.append(
            [part.name, part.filename, part.headers.get("Content-Type"), len(data), data[:20].decode("latin-1")]
        )
    return web.json_response(found)


async def form(request: web.Request) -> web.Response:
    found = await request.post()
    return web.json_response(
        [[k, v if isinstance(v, str) else [v.filename, len(v.file.read())]] for k, v in found.items()]
    )


async def json_error(request: web.Request) -> web.Response:
    try:
        return web.json_response(await request.json())
    except json.JSONDecodeError as error:
        raise web.HTTPBadRequest(text=json.dumps({"error": error.msg}), content_type="application/json") from None


async def streamed(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"X-Kind": "streamed"})
    if "gzip" in request.query:
        response.enable_compression()
    if "length" in request.query:
        response.content_length = 50_000
    await response.prepare(request)
    for number in range(0 if request.method == "HEAD" else 50):
        await response.write(bytes([65 + number % 26]) * 1000)
        if number % 10 == 0:
            await asyncio.sleep(0)
    await response.write_eof()
    return response


async def compressed(request: web.Request) -> web.Response:
    response = web.Response(text="text " * 1000)
    response.enable_compression()
    return response


async def status(request: web.Request) -> web.Response:
    code = int(request.match_info["code"])
    return web.Response(status=code, reason="As It Is", headers=[("X-Two", "a"), ("X-Two", "b"), ("Vary", "Accept")])


async def raised(request: web.Request) -> web.Response:
    kinds: dict[str, Any] = {
        "found": lambda: web.HTTPFound("/elsewhere?a=b"),
        "see": lambda: web.HTTPSeeOther("https://www.example.com/ä"),
        "conflict": lambda: web.HTTPConflict(text="taken", headers={"X-By": "1"}),
        "method": lambda: web.HTTPMethodNotAllowed("GET", ["POST"]),
        "range": lambda: web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": "bytes */10"}),
        "not-modified": lambda: web.HTTPNotModified(headers={"ETag": '"a"'}),
        "none": lambda: web.HTTPNoContent(),
        "bug": lambda: ValueError("a secret"),
    }
    raise kinds[request.match_info["kind"]]()


async def cookies(request: web.Request) -> web.Response:
    response = web.json_response(dict(request.cookies))
    response.set_cookie("a", "1", httponly=True, samesite="Lax", max_age=60)
    response.set_cookie("b", "zwei, drei", path="/x", secure=True)
    response.del_cookie("c")
    return response


async def validated(request: web.Request) -> web.Response:
    if request.if_none_match and request.if_none_match[0].value == "v1":
        raise web.HTTPNotModified(headers={"ETag": '"v1"'})
    return web.Response(text="version 1", headers={"ETag": '"v1"'})


async def ignores_body(request: web.Request) -> web.Response:
    return web.Response(status=403, text="no")


async def whole(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


async def socket(request: web.Request) -> web.WebSocketResponse:
    found = web.WebSocketResponse(
        protocols=("chat", "other"), max_msg_size=100_000, autoping="noping" not in request.query
    )
    await found.prepare(request)
    async for message in found:
        if message.type is WSMsgType.PING:
            await found.send_str(f"ping {message.data!r}")
        elif message.type is WSMsgType.BINARY:
            await found.send_bytes(message.data[::-1])
        elif message.data.startswith("close "):
            await found.close(code=int(message.data[6:]), message=b"as asked")
        elif message.data == "raise":
            raise ValueError("a secret")
        elif message.data == "who":
            await found.send_json({"protocol": found.ws_protocol, "compress": bool(found.compress)})
        elif message.type is WSMsgType.TEXT:
            await found.send_str(message.data.upper())
    return found


async def visits(request: web.Request) -> web.Response:
    session = await aiohttp_session.get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    return web.json_response({"visits": session["visits"]})


async def leave(request: web.Request) -> web.Response:
    (await aiohttp_session.get_session(request)).invalidate()
    raise web.HTTPFound("/visits")


@web.middleware
async def marks(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A field on each answer; errors become JSON where that is asked for."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        if "application/json" not in request.headers.get("Accept", ""):
            raise
        return web.json_response({"status": error.status, "reason": error.reason}, status=error.status)
    if not response.prepared:
        response.headers["X-Marked"] = "yes"
    return response


async def late_mark(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Prepared"] = "yes"


def make() -> web.Application:
    """A fresh application: it runs once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries about aiohttp's newer ways
        application = web.Application(
            client_max_size=200_000,
            middlewares=[marks, web.normalize_path_middleware(), aiohttp_session.session_middleware(_storage())],
        )
    application.on_response_prepare.append(late_mark)
    router = application.router
    for handler in (
        parts,
        form,
        json_error,
        streamed,
        compressed,
        cookies,
        validated,
        ignores_body,
        whole,
        visits,
        leave,
    ):
        router.add_route("*", f"/{handler.__name__}", handler)
    router.add_get("/status/{code}", status)
    router.add_get("/raised/{kind}", raised)
    router.add_get("/socket", socket)
    router.add_get("/slash/", whole)
    router.add_static("/files", FILES)
    router.add_route("*", "/asked{tail:.*}", asked)
    mounted = web.Application(middlewares=[marks])
    mounted.router.add_get("/{name}", asked)
    application.add_subapp("/mounted/", mounted)
    _cors(application)
    return application


def _storage() -> Any:
    return aiohttp_session.SimpleCookieStorage()


def _cors(application: web.Application) -> None:
    options = aiohttp_cors.ResourceOptions(allow_credentials=True, expose_headers="*", allow_headers="*", max_age=60)
    cors = aiohttp_cors.setup(application, defaults={"http://trusted.example": options})
    resource = cors.add(application.router.add_resource("/shared"))
    cors.add(resource.add_route("GET", whole))
    cors.add(resource.add_route("PUT", whole))
