"""Answers that a route gives by itself: `redirect` and `respond`.

One rule: a Location leads where the operator wrote. What a client sends fills places in it, but can neither begin a
line nor turn a path into another host (`//elsewhere`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge.dataplane.rules.headers import HeaderEdit
from edge.dataplane.rules.template import Template
from edge.errors import BadRequest
from edge.http.forwarding import port_of

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked
    from edge.dataplane.rules.steps import StepExchange

_SLASHES = re.compile(rb"[/\\]{2,}")
TEXT = "text/plain; charset=utf-8"


class Redirect:
    """`redirect` of a route."""

    name = "redirect"

    def __init__(self, to: str, status: int) -> None:
        self._to = Template(to)
        self._status = status
        self._within = to.startswith(("/", "{path}", "{uri}"))  # a path of the same host

    def location(self, asked: Asked) -> bytes | None:
        """The Location value; None when the request asks for that URL already."""
        location = self._to.fill(asked)
        if self._within:
            location = _SLASHES.sub(b"/", location[:2]) + location[2:] if location[:1] in b"/\\" else b"/" + location
            while location[1:2] in (b"/", b"\\"):
                location = b"/" + location[2:]
            return None if location == asked.target else location
        here = b"%b://%b%b" % (asked.scheme, asked.authority, asked.target)
        return None if location == here else location

    def apply(self, exchange: StepExchange) -> bool:
        """Answer with the redirect, unless the client is there already."""
        location = self.location(exchange)
        if location is None:
            return False
        exchange.reason = "redirect"
        exchange.reply(self._status, b"Location: %b\r\n" % location, b"")
        return True

    def explain(self, asked: Asked) -> str:
        """What the rule does with this request, for `edge explain`."""
        location = self.location(asked)
        return "is there already: goes on" if location is None else f"{self._status} to {location.decode('latin-1')}"


CHALLENGES = b"/.well-known/acme-challenge/"  # asked for over plain HTTP (RFC 8555 8.3)


def https_location(asked: Asked, port: int) -> bytes | None:
    """Where `redirect_http` sends a request; None where it may stay: it came by TLS, or is a challenge. Raises
    BadRequest for one that names no host: it could be sent nowhere, and is not to be served."""
    authority, target = asked.authority, asked.target
    if asked.scheme != b"http" or target.startswith(CHALLENGES):
        return None
    if not authority:
        raise BadRequest("no Host, which could be asked over HTTPS")
    host = authority.removesuffix(b":" + port_of(authority)) if port_of(authority) else authority
    return b"https://%b%b%b" % (host, b"" if port == 443 else b":%d" % port, b"/" if target == b"*" else target)


def sent_to_https(exchange: StepExchange, port: int) -> bool:
    """Whether a request was answered with a 308; what the gateway asks itself is not."""
    location = None if exchange.downstream.asked_by else https_location(exchange, port)
    if location is None:
        return False
    exchange.reason = "redirect"
    exchange.reply(308, b"Location: %b\r\n" % location, b"")
    return True


class Respond:
    """`respond` of a route: a fixed answer."""

    name = "respond"

    def __init__(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        self._status = status
        self._body = body
        given = {name.lower() for name in headers}
        own = {} if not body or "content-type" in given else {"Content-Type": content_type}
        self._lines = HeaderEdit({**own, **headers}, {}, ())

    def apply(self, exchange: StepExchange) -> bool:
        """Send the fixed answer."""
        exchange.reason = "respond"
        exchange.reply(self._status, self._lines.lines(exchange), self._body)
        return True

    def explain(self, asked: Asked) -> str:
        """What the rule answers, for `edge explain`."""
        return f"{self._status} with {len(self._body)} bytes"
