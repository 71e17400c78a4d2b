"""A chat room over WebSocket. Each worker has a room of its own, so this one runs with one.

Open http://127.0.0.1:8080/ in two windows.
"""

from __future__ import annotations

import asyncio

from aiohttp import WSCloseCode, WSMsgType, web

PATIENCE_S = 5.0
LONGEST = 2000
PAGE = """<!doctype html><meta charset="utf-8"><title>chat</title>
<ul id="said"></ul><form><input id="text" autofocus maxlength="500"></form><script>
const socket = new WebSocket(location.href.replace(/^http/, "ws") + "room");
socket.onmessage = event => said.appendChild(document.createElement("li")).textContent = event.data;
document.forms[0].onsubmit = event => { event.preventDefault(); socket.send(text.value); text.value = "" };
</script>
"""
ROOM: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("room", set)


async def page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def room(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(heartbeat=30, max_msg_size=LONGEST)
    await socket.prepare(request)
    here = request.app[ROOM]
    here.add(socket)
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await asyncio.gather(*(tell(other, message.data) for other in list(here)))
    finally:
        here.discard(socket)
    return socket


async def tell(socket: web.WebSocketResponse, text: str) -> None:
    """One listener; who takes nothing for a while is sent away, so that nobody else waits."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await socket.send_str(text)
    except (TimeoutError, ConnectionError):
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)


async def leave(app: web.Application) -> None:
    for socket in list(app[ROOM]):
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the gateway stops")


app = web.Application()
app[ROOM] = set()
app.add_routes([web.get("/", page), web.get("/room", room)])
app.on_shutdown.append(leave)
