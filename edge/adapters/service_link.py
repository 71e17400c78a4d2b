"""Connections to a service that a rule asks (`auth.forward`, a key set): a link of its own, outside every pool.

One rule: it is a backend like any other to the bytes: the same strict grammar, bounds and deadlines.
"""

from __future__ import annotations

from ssl import SSLContext

from edge.adapters.backend_link import BackendLink, Peer, response_memo
from edge.adapters.tls import client_context
from edge.http.grammar import Limits
from edge.ports import Timeouts

LIMITS = Limits(16 * 1024, 100, 32 * 1024)


def service_link(scheme: str, host: str, port: int) -> BackendLink:
    """The connections to one service; https is checked against the system's certificates."""
    secure: SSLContext | None = client_context(None, None, None, True) if scheme == "https" else None
    return BackendLink(Peer(host, port, secure), Timeouts(), LIMITS, response_memo(LIMITS))
