"""An application that runs in the worker: an aiohttp `web.Application`, or a coroutine that answers requests.

aiohttp's own server reads the request that the gateway's strict grammar has read before, over a memory transport, and
its answer goes through the gateway's reader like any backend's. One rule: an application that cannot run is one clear
line; what it does wrong with a request is its guard's (`app_guard`).
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from aiohttp import web

from edge.adapters.app_faults import Faults, Tell
from edge.adapters.app_guard import Guard, View
from edge.adapters.app_handler import AppHandler
from edge.errors import EdgeError

MAX_LINE = 64 * 1024  # the gateway's own limits are stricter and come first
MAX_FIELDS = 512
STARTUP_S = 30.0


class AppUnusable(EdgeError):
    """The application cannot be imported, or did not start; one clear line."""


def load(name: str, folders: Sequence[str]) -> web.Application:
    """The application that `module:attribute` names. Raises AppUnusable."""
    return as_application(find(name, folders), name)


def find(name: str, folders: Sequence[str]) -> object:
    """The object that `module:attribute` names, searched in `folders` first. Raises AppUnusable."""
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except BaseException as error:  # an import runs the application's own code: it may raise anything, SystemExit too
        if isinstance(error, KeyboardInterrupt):
            raise
        raise AppUnusable(f"{name}: {where(error)}{type(error).__name__}: {error}") from error
    try:
        for word in attribute.split("."):
            found = getattr(found, word)
    except AttributeError:
        file = getattr(sys.modules[module_name], "__file__", None)  # a library's module may have that name
        raise AppUnusable(f"{name}: {module_name} has no {attribute}{f' (it is {file})' if file else ''}") from None
    return found


def as_application(found: object, name: str) -> web.Application:
    """The application for that object. Raises AppUnusable."""
    if isinstance(found, web.Application):
        return found
    if inspect.iscoroutinefunction(found):
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", found)
        return application
    if inspect.isfunction(found):
        try:
            made: object = found()
        except Exception as error:
            raise AppUnusable(f"{name}: {where(error)}{type(error).__name__}: {error}") from error
        if isinstance(made, web.Application):
            return made
        raise AppUnusable(f"{name}: must make a web.Application, but returned {type(made).__name__}")
    kinds = "an aiohttp web.Application, a coroutine function or a function that makes one"
    raise AppUnusable(f"{name}: must be {kinds}, got {type(found).__name__}")


def files_of(name: str) -> list[str]:
    """The files of the application's code: its file, or its package's folder with a slash at the end."""
    package = sys.modules.get(name.partition(":")[0].partition(".")[0])
    folders = [f"{folder}/" for folder in getattr(package, "__path__", ())]
    file = getattr(package, "__file__", None)
    return folders or ([file] if file else [])


def where(error: BaseException) -> str:
    """File and line that raised the error, where that is not this file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError) or len(frames) < 2:
        return ""
    return f"{frames[-1].filename}:{frames[-1].lineno}: "


class AppServer:
    """One application of one worker. `view` gives what `edge.sdk.edge()` is, from the connection's sink."""

    def __init__(self, name: str, application: web.Application, view: Callable[[Faults], View], tell: Tell) -> None:
        if application.frozen:
            raise AppUnusable(f"{name}: has run already, and can but once; name a function that makes it")
        self.name = name
        self.faults = Faults(name, tell)
        self._view = view
        self._context = copy_context()
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
                server = self._runner.server
                assert server is not None
                self._context = copy_context()  # with what the application's start set
                server.request_handler = Guard(self.faults, self._view(self.faults), server.request_handler).around
        except TimeoutError:
            raise AppUnusable(f"{self.name}: did not start within {STARTUP_S:g} s") from None
        except Exception as error:
            raise AppUnusable(f"{self.name}: start failed: {where(error)}{type(error).__name__}: {error}") from error

    async def stop(self) -> None:
        """Run the application's clean-up; its connections end."""
        try:
            await self._runner.cleanup()
        except Exception as error:
            self.faults.raised(error, "")

    def protocol(self) -> asyncio.Protocol:
        """The server's side of a new connection. Raises RuntimeError before `start` and after `stop`."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the application does not run")
        return AppHandler(server, asyncio.get_running_loop(), self._context, **server._kwargs)


def _quiet() -> logging.Logger:
    """aiohttp tells of what the guard has told already."""
    logger = logging.getLogger("edge.app")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
