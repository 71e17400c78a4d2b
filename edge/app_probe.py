"""A probe of an application, inside its worker: its path is asked as a request that is nobody's.

One rule: it goes to the application itself, past routes, cache and limits, and leaves no connection behind.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from edge.adapters.app_link import AppLink
from edge.adapters.memory_link import CONNECTION
from edge.adapters.memory_transport import join
from edge.dataplane.caching.refresh import BackgroundClient, background
from edge.dataplane.client.onward import Answer
from edge.http.message import Fields, RequestHead
from edge.sdk import FetchError

if TYPE_CHECKING:
    from edge.dataplane.worker.worker import Worker

BODY_CHARS = 64 * 1024


class ProbeAnswer(Answer):
    """Who waits for it, as the application's guard sees it: `exchange` is nobody's request."""

    backend = None

    def __init__(self, connection: Any, exchange: Any) -> None:
        super().__init__(connection)
        self.exchange = exchange


async def ask(link: AppLink, worker: Worker, path: str, host: str, timeout_s: float) -> dict[str, Any]:
    """Status, the beginning of the body and the seconds to the head; or `error`, in words."""
    authority = host.encode("latin-1", "replace")
    request = RequestHead(b"GET", b"http", authority, path.encode("latin-1", "replace"), Fields())
    route = worker.router.routes[0]
    exchange = background(route, request, worker.no_block, BackgroundClient(worker, b"http"))
    connection = link.new_connection()
    began = monotonic()
    try:
        join(connection, link.make(), server_extra={CONNECTION: connection})
        answer = ProbeAnswer(connection, exchange)
        head = b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: streamgate-probe\r\nConnection: close\r\n\r\n"
        async with asyncio.timeout(timeout_s):
            await answer.ask(head % (request.target, authority), False, b"")
            seconds = monotonic() - began
            body = await answer.read()
    except TimeoutError:
        return {"error": f"timed out after {timeout_s:g} s"}
    except (FetchError, RuntimeError) as error:
        return {"error": str(error)}
    finally:
        connection.cancel()
    return {"status": answer.status, "seconds": seconds, "body": body.decode("latin-1")[:BODY_CHARS]}
