"""`auth.forward`: a service of the operator's says who may pass, request by request.

It is asked by GET with the client's own fields and what the gateway asserts of it, and `X-Forwarded-Method` and
`X-Forwarded-Uri`. 2xx lets the request go on, with the fields that `copied` names taken from the answer; any other
answer is the client's (a login page, 401, 403).

One rule: fail closed. No answer in time, a broken one or a 5xx is 503, and a field that `copied` names never comes from
a client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from edge.dataplane.rules.authentication import admit, identity
from edge.dataplane.rules.headers import without
from edge.dataplane.rules.service import Question, Reply, Service
from edge.dataplane.rules.steps import Waiting
from edge.errors import EdgeError, NoBackend

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked
    from edge.dataplane.rules.steps import StepExchange

_NOT_ASKED = (  # what would make the answer another one than to the question whether
    b"accept-encoding",
    b"host",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"range",
    b"x-forwarded-method",
    b"x-forwarded-uri",
)
_PASSED_ON = frozenset((b"location", b"www-authenticate", b"set-cookie", b"content-type", b"cache-control"))


class Asking(Waiting):
    """A request that waits for the authentication service."""

    question: Question | None = None

    def leave(self, error: EdgeError) -> None:
        """The client left: cancel the question."""
        if self.question is not None:
            self.question.cancel()


class ForwardAuth:
    """`auth.forward` of a route."""

    name = "auth"

    def __init__(self, service: Service, copy: Iterable[str], forwarding: Callable[[Any], bytes]) -> None:
        self.service = service
        self._copy = tuple((name, name.lower().encode()) for name in copy)
        self._forwarding = forwarding

    def take_over(self, lived: ForwardAuth) -> None:
        """Keep the connections after a reload."""
        if self.service.is_like(lived.service):
            self.service = lived.service

    def apply(self, exchange: StepExchange) -> Waiting:
        """Ask the service; the request waits for its answer."""
        waiting = Asking(exchange)
        waiting.question = self.service.ask(self._head(exchange), partial(self._answered, waiting))
        return waiting

    def _head(self, exchange: Any) -> bytes:
        lines = without(exchange.block.forward, _NOT_ASKED)
        service = self.service
        return b"GET %b HTTP/1.1\r\nHost: %b\r\n%b%bX-Forwarded-Method: %b\r\nX-Forwarded-Uri: %b\r\n%b\r\n" % (
            service.target,
            service.host,
            lines,
            self._forwarding(exchange),
            exchange.method,
            exchange.target,
            exchange.identify(),
        )

    def _answered(self, waiting: Waiting, reply: Reply | None) -> None:
        exchange = waiting.exchange
        if reply is None or reply.status >= 500:
            exchange.reason = "auth-unavailable"
            waiting.resume(NoBackend("the authentication service gave no answer"))
        elif reply.status // 100 == 2:
            told = tuple(
                (name.encode(), value) for name, key in self._copy if (value := reply.fields.joined(key)) is not None
            )
            presented = [exchange.block.fields.joined(each) or b"" for each in (b"authorization", b"cookie")]
            name = next((value for _, value in told), b"")
            admit(exchange, identity(name, told, b"\n".join(presented)))
            waiting.resume()
        else:
            waiting.answer(partial(self._pass_on, exchange, reply))

    def _pass_on(self, exchange: StepExchange, reply: Reply) -> None:
        exchange.reason = "unauthorized"
        lines = b"".join([b"%b: %b\r\n" % line for key, line in reply.fields.keyed() if key in _PASSED_ON])
        exchange.reply(reply.status, lines, reply.body)

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`; the service is not asked."""
        return f"asks {self.service.host.decode()}{self.service.target.decode()}"
