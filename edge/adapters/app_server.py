"""An application that runs in the worker: an aiohttp `web.Application`, or a coroutine that answers requests.

aiohttp's own server reads the request that the gateway's strict grammar has read before, over a memory transport, and
its answer goes through the gateway's reader like any backend's. One rule: what an application does wrong is its own
request's failure: an exception is a 500 that names the request id, its traceback goes to the events, never to a client.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from edge.adapters.memory_link import CONNECTION
from edge.errors import EdgeError
from edge.sdk import CURRENT, Edge, FetchLoop

MAX_LINE = 64 * 1024  # the gateway's own limits are stricter and come first
MAX_FIELDS = 512
STARTUP_S = 30.0
TRACE_LINES = 40

Tell = Callable[[str, dict[str, Any]], None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_BEGUN: web.RequestKey[bool] = web.RequestKey("edge.begun", bool)


class AppUnusable(EdgeError):
    """The application cannot be imported, or did not start; one clear line."""


def load(name: str, folders: Sequence[str]) -> web.Application:
    """The application that `module:attribute` names, looked for in `folders` first. Raises AppUnusable."""
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for word in attribute.split("."):
            found = getattr(found, word)
    except AttributeError:
        raise AppUnusable(f"{name}: {module_name} has no {attribute}") from None
    except BaseException as error:  # an import runs the application's own code: it may raise anything, SystemExit too
        if isinstance(error, KeyboardInterrupt):
            raise
        raise AppUnusable(f"{name}: {_where(error)}{type(error).__name__}: {error}") from error
    if isinstance(found, web.Application):
        return found
    if inspect.iscoroutinefunction(found):
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", found)
        return application
    raise AppUnusable(f"{name}: must be an aiohttp web.Application or a coroutine function, got {type(found).__name__}")


def _where(error: BaseException) -> str:
    """The place in a file that raised it, when it is not this one."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError) or len(frames) < 2:
        return ""
    return f"{frames[-1].filename}:{frames[-1].lineno}: "


class AppServer:
    """One application of one worker. `view` gives what `edge.sdk.edge()` is, from the connection's sink."""

    def __init__(self, name: str, application: web.Application, view: Callable[[Any, str], Edge], tell: Tell) -> None:
        self.name = name
        self._view = view
        self._tell = tell
        application.middlewares.insert(0, self._guard)
        application.on_response_prepare.append(self._begun)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=_quiet(),
            handler_cancellation=True,  # a client that leaves ends the work that was for it
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_FIELDS,
        )

    async def start(self) -> None:
        """Run the application's start. Raises AppUnusable."""
        try:
            async with asyncio.timeout(STARTUP_S):
                await self._runner.setup()
        except TimeoutError:
            raise AppUnusable(f"{self.name}: did not start within {STARTUP_S:g} s") from None
        except Exception as error:
            raise AppUnusable(f"{self.name}: start failed: {_where(error)}{type(error).__name__}: {error}") from error

    async def stop(self) -> None:
        """Run the application's clean-up; its connections end."""
        try:
            await self._runner.cleanup()
        except Exception as error:
            self._raised(error, "")

    def protocol(self) -> asyncio.Protocol:
        """The server's side of a new connection. Raises RuntimeError before `start` and after `stop`."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the application does not run")
        return server()

    # -- each request ----------------------------------------------------------------------------------------------

    @property
    def _guard(self) -> Any:
        """The outermost middleware."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            transport = request.transport
            connection = None if transport is None else transport.get_extra_info(CONNECTION)
            seen = self._view(None if connection is None else connection.sink, self.name)
            CURRENT.set(seen)
            try:
                answer: Any = await handler(request)
                if not isinstance(answer, web.StreamResponse):
                    raise TypeError(f"the handler returned {type(answer).__name__}, which is no response")
            except web.HTTPException:
                raise
            except FetchLoop as error:
                if request.get(_BEGUN):
                    raise
                return web.Response(status=508, text=f"{error}, request {seen.request_id}\n")
            except Exception as error:
                self._raised(error, seen.request_id)
                if request.get(_BEGUN):
                    raise  # a head is out: the connection ends, so that no cut body looks whole
                return web.Response(status=500, text=f"internal error, request {seen.request_id}\n")
            return answer

        return guard

    @staticmethod
    async def _begun(request: web.Request, response: web.StreamResponse) -> None:
        request[_BEGUN] = True

    def _raised(self, error: Exception, request_id: str) -> None:
        trace = "".join(traceback.format_exception(error, limit=-TRACE_LINES))
        self._tell(
            "app.error", {"app": self.name, "request": request_id, "evidence": repr(error)[:200], "trace": trace}
        )


def _quiet() -> logging.Logger:
    """aiohttp tells of what the guard has told already."""
    logger = logging.getLogger("edge.app")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
