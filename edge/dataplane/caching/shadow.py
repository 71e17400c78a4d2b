"""Sending the copy of a request to a shadow pool (`rules.mirror`).

One rule: it is an exchange of nobody's: not counted, not logged, never retried, and nothing it does reaches the client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.dataplane.caching.refresh import BackgroundClient
from edge.dataplane.core.exchange import Exchange
from edge.dataplane.core.upload import Upload
from edge.dataplane.upstream.fetch import forward
from edge.dataplane.upstream.request_head import forwarding_lines
from edge.errors import outcome_of

if TYPE_CHECKING:
    from edge.dataplane.core.route import Route


def send_copy(exchange: Exchange, route: Route, body: bytes | None, done: Callable[[], None]) -> None:
    """Send the same request, with the whole body, to the route's pool; `done` is called when that is over."""
    nobody = BackgroundClient(exchange.worker, exchange.scheme, lambda _: done())
    copy = Exchange(nobody, exchange.method, exchange.target, True, exchange.block)  # type: ignore[arg-type]
    copy.host, copy.told, copy.client = exchange.host, exchange.told, exchange.client_text()
    copy.identity, copy.granted, copy.changes = exchange.identity, exchange.granted, exchange.changes
    copy.route, copy.counted = route, False
    nobody.exchange = copy
    nobody.forward_lines = (exchange.host or b"", forwarding_lines(exchange))
    if body is not None:
        copy.upload = upload = Upload(copy, len(body))
        upload.limit = len(body)
        upload.feed(body)
    try:
        forward(copy)
    except Exception as error:  # a client's request must not end for it
        copy.fail(outcome_of(error, exchange.worker.report_bug))
