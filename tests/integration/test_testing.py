"""`edge.testing`, as a test of somebody's application uses it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from aiohttp import web
from kit.waiting import WAIT_S, until

from edge.errors import ConfigError
from edge.sdk import edge
from edge.testing import Start, edge_gateway, gateway

__all__ = ["edge_gateway"]


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello", headers={"Cache-Control": "max-age=60"})


async def test_a_coroutine_is_stored_and_logged() -> None:
    async with gateway(hello) as found:
        for verdict in ("miss", "hit"):
            async with found.get("/x") as answer:
                assert verdict in answer.headers["Cache-Status"]
                assert await answer.text() == "hello"
        assert [line["verdict"] for line in found.log()] == ["miss", "hit"]
        assert found.faults() == []


async def test_it_shares_the_loop_and_objects_of_the_test(edge_gateway: Start) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request) -> web.Response:
        arrived.set()
        await go_on.wait()
        return web.Response(text="done")

    found = await edge_gateway(waits, route="cache = false")
    asked = asyncio.ensure_future(found.get("/"))
    await arrived.wait()
    assert not asked.done()
    go_on.set()
    async with await asked as answer:
        assert await answer.text() == "done"


async def test_origins_answer_subrequests(edge_gateway: Start) -> None:
    async def users(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path})

    async def page(request: web.Request) -> web.Response:
        async with await edge().fetch("/users/1", host="users.internal") as answer:
            return web.json_response(await answer.json())

    found = await edge_gateway(page, origins={"users.internal": users}, backend='time_limit = "1m"')
    async with found.get("/") as answer:
        assert await answer.json() == {"path": "/users/1"}
    assert [line["host"] for line in found.log()] == ["users.internal", f"127.0.0.1:{found.port}"]


async def test_faults_are_seen(edge_gateway: Start) -> None:
    async def raises(request: web.Request) -> web.Response:
        raise ValueError("why")

    found = await edge_gateway(raises)
    async with found.post("/", data=b"x") as answer:
        assert answer.status == 500
    fault = found.faults()[0]
    assert fault["fault"] == "raised" and "why" in fault["evidence"] and "in raises" in fault["trace"]


async def test_a_whole_configuration_and_a_websocket(edge_gateway: Start) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/echo", echo)
    text = """
listen.http = ["127.0.0.1:0"]
pools.p.backends = [{ app = "app:app" }]
routes = [{ path = "/echo", pool = "p" }]
"""
    found = await edge_gateway(application, config=text)
    async with found.ws_connect("/echo") as socket:
        await socket.send_str("a")
        assert await socket.receive_str(timeout=WAIT_S) == "a"
    async with found.get("/other") as answer:
        assert answer.status == 404


async def test_what_cannot_run_is_told_and_nothing_stays() -> None:
    with pytest.raises(ConfigError, match="no_such_module"):
        async with gateway("no_such_module:app"):
            pass
    with pytest.raises(ConfigError, match="must be an aiohttp"):
        async with gateway(5):
            pass

    with pytest.raises(ConfigError, match="must make a web"):
        async with gateway(lambda: 5):
            pass
    once = web.Application()
    async with gateway(once):
        pass
    with pytest.raises(ConfigError, match="has run already"):
        async with gateway(once):
            pass

    async def start(application: web.Application) -> None:
        raise ValueError("no database")

    application = web.Application()
    application.on_startup.append(start)
    with pytest.raises(ConfigError, match="no database"):
        async with gateway(application):
            pass
    await until(lambda: "watchdog" not in {thread.name for thread in threading.enumerate()})
