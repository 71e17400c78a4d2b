"""Asking a service of the operator's beside the request: one request over a kept connection, one answer, bounded.

One rule: `then` hears exactly once, of an answer or of None; whatever is not a whole answer in time is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edge.errors import ConnectionLost, UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.message import Fields, Line
from edge.http.proxy_protocol import OWN
from edge.ports import Connection, Link, Timeouts

MAX_BODY = 256 * 1024


class Reply(NamedTuple):
    """A complete answer of the service."""

    status: int
    fields: Fields
    body: bytes


Then = Callable[[Reply | None], None]


class Service:
    """An HTTP service that a rule asks."""

    def __init__(self, link: Link, scheme: str, host: bytes, target: bytes, seconds: float) -> None:
        self.link = link
        self.scheme = scheme
        self.host = host
        self.target = target
        self.timeouts = Timeouts(connect=seconds, first_byte=seconds, head=seconds, body=seconds)
        self.failed = 0  # for people

    def is_like(self, other: Service) -> bool:
        """Whether `other` is the same service with the same settings."""
        mine, others = (self.scheme, self.host, self.target), (other.scheme, other.host, other.target)
        return mine == others and self.timeouts == other.timeouts

    def ask(self, head: bytes, then: Then) -> Question:
        """Send a request head without a body; `then` gets the Reply or the error."""
        question = Question(self, head, then)
        question.begin(self.link.take())
        return question

    def tick(self, now: float) -> None:
        """Expire the deadlines of connections."""
        self.link.tick(now)


class Question:
    """One request to the service (`ports.Connector`, `ports.ResponseSink`)."""

    __slots__ = ("_connection", "_head", "_pieces", "_reply", "_service", "_size", "_then")
    client = OWN

    def __init__(self, service: Service, head: bytes, then: Then) -> None:
        self._service = service
        self._head = head
        self._then: Then | None = then
        self._connection: Connection | None = None
        self._reply: tuple[int, Fields] | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self, connection: Connection | None) -> None:
        """Send the request over this connection, or a new one."""
        if connection is None:
            self._service.link.connect(self, self._service.timeouts.connect)
        else:
            self.on_connected(connection)

    def cancel(self) -> None:
        """Drop the question: the request that needed it is over."""
        connection, self._connection, self._then = self._connection, None, None
        if connection is not None:
            connection.cancel()

    def on_connected(self, connection: Connection) -> None:
        """A new connection is established: send the request."""
        if self._then is None:
            connection.link.give_back(connection)
            return
        self._connection = connection
        connection.send(self._head, self, self._service.timeouts, False, False)

    def on_interim(self, facts: ResponseFacts) -> None:
        """Ignored."""

    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The final head arrived."""
        self._reply = (facts.status, facts.fields)
        if body:
            self.on_data(body)
        if done and self._then is not None:
            self.on_end([])

    def on_data(self, data: bytes) -> None:
        """A piece of the body arrived."""
        self._size += len(data)
        self._pieces.append(data)
        if self._size > MAX_BODY:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.cancel()
            self._settle(None)

    def on_end(self, trailers: list[Line]) -> None:
        """The answer is complete."""
        self._connection = None
        if self._reply is not None:
            self._settle(Reply(*self._reply, b"".join(self._pieces)))

    def on_failed(self, error: UpstreamError) -> None:
        """The question failed; it is repeated once if a kept connection had been closed."""
        connection, self._connection = self._connection, None
        if isinstance(error, ConnectionLost) and connection is not None and connection.reused and self._reply is None:
            self._service.link.connect(self, self._service.timeouts.connect)
            return
        self._settle(None)

    def on_bug(self, error: Exception) -> None:
        """A callback raised: the question failed."""
        self._settle(None)

    def on_pause(self) -> None:
        """Does not occur: a question has no body."""

    def on_resume(self) -> None:
        """Does not occur, as `on_pause`."""

    def _settle(self, reply: Reply | None) -> None:
        then, self._then = self._then, None
        if then is not None:
            self._service.failed += reply is None
            then(reply)
