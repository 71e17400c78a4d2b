"""What answers bytes that are no request: a problem document as well, where aiohttp would write a line of text.

One rule: it only changes how an error before any endpoint looks; the connection ends after it, as it does anyhow.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from edge.control.admin.json import problem


class ProblemHandler(RequestHandler):  # its `handle_error` is a hook
    """aiohttp's handler of one connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be read."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun; there can be no second one")
        detail = (message or "").strip().partition("\n")[0].rstrip(":") or "this is no HTTP request"
        answer = problem(status, detail[:300])
        answer.force_close()
        return answer


def handler_of(server: web.Server) -> RequestHandler:
    """A connection's handler, as the server itself would make it."""
    return ProblemHandler(server, loop=server._loop, **server._kwargs)
