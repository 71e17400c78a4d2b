"""Around all requests of an application: what a handler does wrong becomes one clear answer, one event, one count.

    raises, returns nothing, announces another length     500 with the request id; after its head: the connection ends
    takes longer than the time limit                      504; after its head: the connection ends
    asks for itself                                       508

One rule: no word of an exception reaches a client. Its traceback goes to the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import FrameType
from typing import Any

from aiohttp import hdrs, web

from edge.adapters.app_faults import LATE, LENGTH, LOOP, NO_RESPONSE, RAISED, Faults
from edge.adapters.app_link import AppConnection
from edge.adapters.loop_watchdog import Culprit
from edge.adapters.memory_link import CONNECTION
from edge.adapters.memory_transport import MemoryTransport
from edge.sdk import CURRENT, Edge, FetchLoop

Handler = Callable[[Any], Awaitable[web.StreamResponse]]  # of a request, routed or not
View = Callable[[Any], Edge]  # what a sink's request is for the application


class _Wrong(Exception):
    """What came back from a handler cannot be sent."""

    def __init__(self, fault: str, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class Guard:
    """Around all requests of one application; `handler` is the application's own way to answer one."""

    def __init__(self, faults: Faults, view: View, handler: Handler) -> None:
        self.faults = faults
        self._view = view
        self._handler = handler

    async def around(self, request: web.BaseRequest) -> web.StreamResponse:
        """Watch one request of the application."""
        server = request.transport
        connection = None if server is None else server.get_extra_info(CONNECTION)
        if connection is None or connection.sink is None:
            raise ConnectionResetError("who asked has left")
        assert isinstance(server, MemoryTransport) and isinstance(connection, AppConnection)
        faults = self.faults
        seen = self._view(connection.sink)
        CURRENT.set(seen)
        connection.begins(server, seen)
        faults.requests += 1
        faults.running += 1
        well = False
        try:
            limit = connection.app.time_limit
            answer = await (self._in_time(request, connection, limit) if limit else self._answer(request, connection))
            well = True
            return answer
        finally:
            faults.running -= 1
            connection.ends(well)

    async def _in_time(self, request: web.BaseRequest, connection: AppConnection, limit: float) -> web.StreamResponse:
        try:
            async with asyncio.timeout(limit) as scope:
                return await self._answer(request, connection)
        except TimeoutError:
            if not scope.expired():
                raise
        connection.told = True
        self.faults.add(LATE, connection.request_id, f"did not end within {limit:g} s")
        text = f"the application took too long, request {connection.request_id}\n"
        return await self._instead(request, 504, text)

    async def _answer(self, request: web.BaseRequest, connection: AppConnection) -> web.StreamResponse:
        """The handler's answer, sent."""
        try:
            try:
                answer: Any = await self._handler(request)
            except web.HTTPException as error:
                answer = error
            _check(request, answer)
            await answer.prepare(request)
            await answer.write_eof()
        except FetchLoop as error:
            connection.told = True
            self.faults.add(LOOP, connection.request_id, str(error))
            return await self._instead(request, 508, f"{error}, request {connection.request_id}\n")
        except Exception as error:
            server = request.transport
            if server is None or server.is_closing():  # nobody listens: who left, or what closed it, the link knows
                raise ConnectionResetError("the connection has ended") from error
            connection.told = True
            if isinstance(error, _Wrong):
                self.faults.add(error.fault, connection.request_id, str(error))
            else:
                self.faults.raised(error, connection.request_id)
            return await self._instead(request, 500, f"internal error, request {connection.request_id}\n")
        return answer  # type: ignore[no-any-return]

    @staticmethod
    async def _instead(request: web.BaseRequest, status: int, text: str) -> web.StreamResponse:
        """An answer of the gateway's; with a head out already, the end of the connection: no cut body looks whole."""
        if request.writer.output_size:
            raise ConnectionResetError("the answer broke off")
        answer = web.Response(status=status, text=text, headers={"Cache-Control": "no-store"})
        try:
            await answer.prepare(request)
            await answer.write_eof()
        except Exception as error:  # such as a signal of the application that raises at each answer
            raise ConnectionResetError("no answer can be made") from error
        return answer


def _check(request: web.BaseRequest, answer: Any) -> None:
    """Raises _Wrong for what must not be sent."""
    if type(answer) is not web.Response and not isinstance(answer, web.StreamResponse):  # asking an ABC takes longer
        raise _Wrong(NO_RESPONSE, f"the handler returned {type(answer).__name__}, which is no response")
    if answer.prepared:
        return
    if request.writer.output_size:
        raise _Wrong(RAISED, "a second answer after the head of the first")
    if hdrs.CONTENT_LENGTH in answer.headers and isinstance(answer, web.Response) and request.method != hdrs.METH_HEAD:
        body = answer.body
        if isinstance(body, bytes | bytearray) and answer.headers[hdrs.CONTENT_LENGTH] != str(len(body)):
            announced = answer.headers[hdrs.CONTENT_LENGTH]
            raise _Wrong(LENGTH, f"a body of {len(body)} bytes was announced as {announced}")


def culprit_of(frame: FrameType, files: Mapping[str, str]) -> Culprit | None:
    """Whose code a stack stands in: the application of the guard in it, or the one that a file in it belongs to.

    `files` are files, and folders that end with a slash, of applications: what they began beside requests counts too.
    """
    at = own = ""
    each: FrameType | None = frame
    while each is not None:
        code = each.f_code
        if code is Guard.around.__code__:
            guard, connection = each.f_locals["self"], each.f_locals.get("connection")
            return Culprit(guard.faults.app, getattr(connection, "request_id", ""), at or place_of(frame))
        if not own and (found := _owner(code.co_filename, files)):
            own, at = found, place_of(each)
        each = each.f_back
    return Culprit(own, "", at) if own else None


def _owner(filename: str, files: Mapping[str, str]) -> str:
    found = files.get(filename)
    if found is None:
        found = next((app for place, app in files.items() if place.endswith("/") and filename.startswith(place)), "")
    return found


def place_of(frame: FrameType) -> str:
    """A stack frame as one line."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
