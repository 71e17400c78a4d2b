"""aiohttp's server protocol, with one task for each request and nothing that waits between requests.

    bytes ─► aiohttp's parser ─► a task: the handler, its answer ─► the next request, if its bytes are here

aiohttp's own keeps a task for each connection, which starts one for each request and is woken before and after it. A
connection in memory needs no such keeper: its idle deadline is the gateway's.

One rule: each request runs in a fresh copy of the context in which the application was started, whoever asked it, so
no context variable of one request is seen by another.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context
from typing import Any

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR, PayloadAccessError, RequestHandler, _ErrInfo


class AppHandler(RequestHandler):
    """The server's side of one connection; the names with an underscore are its parent's."""

    __slots__ = "_context"

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, context: Context, **settings: Any) -> None:
        super().__init__(server, loop=loop, **settings)
        self._context = context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        BaseProtocol.connection_made(self, transport)  # not its parent's: no task, no timer, no socket's option
        assert self._manager is not None
        self._manager.connection_made(self, transport)  # type: ignore[arg-type]  # it has the methods

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages and self._task_handler is None and self._manager is not None:
            self._begin()

    def _begin(self) -> None:
        self._task_handler = self._loop.create_task(self._serve(), context=self._context.copy())

    async def _serve(self) -> None:
        """One request, as `RequestHandler.start` does all of a connection."""
        keeps = False
        try:
            keeps = await self._answered()
        except ConnectionError:  # who asked has left, or the guard has broken off: both know
            pass
        except Exception as error:  # the guard has told of what the application did
            self.log_exception("after an answer", exc_info=error)
        finally:
            self._task_handler = None
            if not keeps:
                self.force_close()
        if self._messages and keeps:
            self._begin()

    async def _answered(self) -> bool:
        """Answer the oldest request; whether the connection may carry another."""
        message, payload = self._messages.popleft()
        manager, factory, handler = self._manager, self._request_factory, self._request_handler
        parser, task = self._parser, self._task_handler
        assert manager is not None and factory is not None and handler is not None  # or the task was cancelled
        assert parser is not None and task is not None
        parser.message_consumed()
        if self._buffer_paused:
            self._resume_reading_if_drained()
        manager.requests_count += 1
        answered = True
        if isinstance(message, _ErrInfo):
            handler, message, answered = self._make_error_handler(message), ERROR, False
        request = factory(message, payload, self, StreamWriter(self, self._loop), task)
        self._request_in_progress, self._current_request = True, request
        try:
            answer = await handler(request)
        finally:
            self._request_in_progress = False
            self._current_request = request._task = None  # type: ignore[assignment]  # no cycle
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)
        if answered and not self._upgraded:  # the guard has sent the answer
            request._finish()
        else:
            await self.finish_response(request, answer, None)
        self._keepalive = keeps = bool(answer.keep_alive)
        if payload is not EMPTY_PAYLOAD:
            if not payload.is_eof():
                keeps = await self._leave_out(payload) and keeps
            payload.set_exception(PayloadAccessError())
        return keeps and not (self._close or self._force_close)

    async def _leave_out(self, payload: StreamReader) -> bool:
        """Read what the handler did not want of a body, for a while; whether that was all of it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof() and not self._force_close:
                    await payload.readany()
        return payload.is_eof()
