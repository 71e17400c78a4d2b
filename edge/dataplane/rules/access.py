"""Who may ask: `allow` and `deny` by the client's address, after the trusted-proxy rules.

One rule: `deny` wins; with `allow`, whoever is in none of its networks is refused, also who has no address.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from edge.errors import Denied
from edge.http.forwarding import Networks

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked
    from edge.dataplane.rules.steps import StepExchange

Network = IPv4Network | IPv6Network


class Access:
    """`allow` and `deny` of a route."""

    name = "access"

    def __init__(self, allow: Iterable[Network], deny: Iterable[Network]) -> None:
        self._listed = tuple(allow)
        self._allow, self._deny = Networks(self._listed), Networks(deny)

    def apply(self, exchange: StepExchange) -> None:
        """Raises Denied (403) when the client's address may not use the route."""
        if self.refuses(exchange.client_text()):
            exchange.reason = "denied"
            raise Denied("client address")

    def refuses(self, client: str) -> bool:
        """Whether a client address is denied."""
        return client in self._deny or bool(self._listed and client not in self._allow)

    def explain(self, asked: Asked) -> str:
        """What the rule does with this request, for `edge explain`."""
        client = asked.client_text()
        if not client:
            return "allow and deny: give a client to see"
        return f"{client} is refused (403)" if self.refuses(client) else f"{client} may pass"
