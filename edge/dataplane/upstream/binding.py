"""Backend connections that are one client's: where NTLM or Negotiate tied an identity to the connection.

    a request carries such credentials, or an answer asks for them ─► its connection is bound to the client connection
      ─► further requests of that client connection go there, past the store ─► the client leaves: so does it

One rule: a bound connection never carries anybody else's request: it is in no pool, and where several clients share
one client connection (behind a trusted proxy) it is given up as soon as another one asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.balance.backend import Backend
from edge.dataplane.core.bound import Bound
from edge.ports import Connection

if TYPE_CHECKING:
    from edge.dataplane.upstream.attempting import Attempting


def bind(fetch: Attempting, backend: Backend) -> None:
    """Bind the connection of this attempt to its client; if the client is gone, close it."""
    connection, downstream, client = fetch.connection, fetch.exchange.downstream, fetch.exchange.client_text()
    if connection is None:
        return
    connection.link.bind(connection)
    held = downstream.bound
    if held is not None and held.connection is connection:
        return
    if held is not None:
        held.end()
    downstream.bound = Bound(backend, connection, client)
    if downstream.is_gone:
        downstream.let_go()


def resume(fetch: Attempting, now: float) -> tuple[Backend, Connection] | None:
    """The backend and connection that are bound to this client, if they can still serve this pool."""
    downstream, route = fetch.exchange.downstream, fetch.route
    held = downstream.bound
    if held is None:
        return None
    backend = held.backend
    if held.client != fetch.exchange.client_text():
        downstream.let_go()
        return None
    inside = route.fence is None or backend.region in route.fence
    if fetch.pool.pool.get(backend.id) is not backend or not inside:
        return None  # another pool's; it may be asked for again
    if backend.is_in(now) and held.connection.link.take_bound(held.connection):
        return backend, held.connection
    downstream.let_go()
    return None
