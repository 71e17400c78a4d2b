"""What a server of certificates asks for to see that a name leads here (ACME's HTTP-01, RFC 8555 8.3).

One rule: only tokens that the gateway itself asked for are answered, on every listener and for every host, before
routes and their rules; any other below that path is a request like all others, so that a backend may have its own.
"""

from __future__ import annotations

from edge.dataplane.rules.answers import CHALLENGES
from edge.dataplane.rules.steps import StepExchange


def answer_challenge(exchange: StepExchange) -> bool:
    """Answer a request for an ACME challenge; False if it is none."""
    if not exchange.target.startswith(CHALLENGES) or exchange.method not in (b"GET", b"HEAD"):
        return False
    text = exchange.worker.tokens.get(exchange.target[len(CHALLENGES) :])
    if text is None:
        return False
    exchange.reply(200, b"Content-Type: application/octet-stream\r\nCache-Control: no-store\r\n", text)
    return True
