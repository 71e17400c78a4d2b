"""One request and its response: the one mutable object that the stages pass along, and the one writer of responses.

One rule: a response begins once and ends once. After its head is out, a failure aborts the connection: there is never a
second answer inside a body and never a clean end of a short one. `finish` runs exactly once whatever came.
Attributes have class-level defaults and no slots: a hit touches only the few that it needs, which is cheaper.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from edge.cache.stored import AT_ONCE_BYTES, Stored
from edge.dataplane.core.body_mode import CHUNKED, CLOSE, LENGTH, NO_BODY, NOT_STARTED
from edge.dataplane.core.downstream import WRITE_TOGETHER, Http1Downstream
from edge.dataplane.core.error_response import error_response, status_line
from edge.dataplane.core.layout import RulePlaces, settle_layout
from edge.dataplane.core.passing import Passage, ended, passed, paused, resumed
from edge.dataplane.core.route import Route
from edge.dataplane.core.sources import Delivering, Fetching
from edge.dataplane.core.traced import Traced
from edge.dataplane.core.upload import Upload
from edge.errors import ClientError, ClientGone, ClientSlow, EdgeError, ResponseInvalid
from edge.http.chunked import chunk, last_chunk
from edge.http.forwarding import ForwardedIdentity, port_of
from edge.http.grammar import BY_LENGTH, Framing, RequestHeaders, ResponseFacts
from edge.http.message import Line

if TYPE_CHECKING:
    from edge.cache.index import Group, Node

_LAST = frozenset((400, 408, 413, 414, 417, 431, 501, 505))  # of the client's errors, those that end its connection


class Exchange(RulePlaces):
    """What is known of one request while it runs, and what is written of its response."""

    version = b"HTTP/1.1"
    route: Route | None = None
    upload: Upload | None = None
    client: str | None = None  # the client's address as trusted proxies told it; known before the route is
    told: ForwardedIdentity | None = None  # all that they told
    fetched_as = b""  # the method that its backend sees, where that is not its own
    status = 0
    attempts = 0
    mode = NOT_STARTED
    bytes_out = 0  # body bytes, without framing
    at_once = AT_ONCE_BYTES  # of a stored body; more goes as the client takes it
    from_store = False
    verdict = "bypass"
    reason = ""
    error = ""
    cache_status = b"Cache-Status: edge; fwd=bypass\r\n"
    key: bytes | None = None  # in the store
    asked_disk = False
    asked_others = False
    ended = False
    from_disk: tuple[Stored, ...] = ()  # what the disk had for the key that memory had not
    found: Node[Stored] | Group[Stored] | None = None  # what the store has for the key
    hedge = ""  # whether a second attempt beside a silent one "won" or "lost"
    served_by = b'","region":"'  # the backend's id and region as the log writes them
    head_at = 0.0  # when the backend's response head came
    counted = True  # in log and meters; the gateway's own fetches are not a client's
    invited = False  # 100 Continue was sent
    must_switch = False  # to its client any success means that the protocol was switched
    expected: int | None = None
    request_id = b""
    traced: Traced | None = None
    _at_end: tuple[Callable[[], None], ...] = ()

    def __init__(
        self, downstream: Http1Downstream, method: bytes, target: bytes, is_http11: bool, block: RequestHeaders
    ) -> None:
        self.downstream = downstream
        self.fetch: Fetching | None = None
        self.follower: Delivering | None = None  # where it stands in a fill that it shares
        self.coder: Passage | None = None  # what its body goes through
        self.pace: Passage | None = None  # what holds its body back
        self.worker = downstream.worker
        self.method = method
        self.target = target
        self.is_http11 = is_http11  # HTTP/1.1 when true, else 1.0
        self.block = block
        self.host = block.host  # lower case, as received: routes and backends see it
        self.scheme = downstream.scheme  # the client's own, also behind a trusted proxy
        self.apart, self.identity, self.told_lines, self.changes, self.granted = b"", b"", b"", (), ()
        self.keep = (is_http11 and not block.close) or (not is_http11 and block.keep_alive)
        self.started_at = monotonic()

    def make_upload(self, length: int | None) -> Upload:
        """The reader of the request's body."""
        return Upload(self, length)

    def interim(self, facts: ResponseFacts) -> None:
        """Forward a 1xx, unless the client cannot understand it (RFC 9110 15.2)."""
        if self.is_http11 and self.mode == NOT_STARTED and facts.status != 100:
            self.downstream.transport.write(facts.wire + b"\r\n")

    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """Begin the response with what a backend sent; end it too when `done`."""
        self.head_at = monotonic()
        if facts.status == 101:
            if facts.upgrade == self.block.upgrade:
                self.downstream.switch(self, facts, body)
            else:
                self.fail(ResponseInvalid("switched to a protocol that nobody asked for"))
            return
        route = self.route
        if route is not None and route.bodies is not None:
            route.bodies.head(self, facts, length, body, done)
            return
        if length is not None and facts.framing is BY_LENGTH and self.method != b"HEAD":  # what `open` would do
            self.status, self.mode, self.expected = facts.status, LENGTH, length
            bare = route is None or route.delivery is None  # `whole` would be one more call for each request
            head = facts.wire + self.own_lines(facts.has_date) if bare else self.whole(facts.wire, facts.has_date)
        else:
            bodiless = facts.framing is Framing.NONE
            head = self.whole(self.open(facts.status, facts.wire, length, bodiless), facts.has_date)
        transport = self.downstream.transport
        self.bytes_out = len(body)
        if body and self.mode == CHUNKED:
            body = chunk(body)
        if len(body) < WRITE_TOGETHER:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        if done:
            self.finish()

    def open(self, status: int, wire: bytes, length: int | None, bodiless: bool) -> bytes:
        """Begin a response of `length` bytes (None: its end will tell): `wire` with framing where that is missing."""
        self.status = status
        self.expected = length
        if bodiless or self.method == b"HEAD":
            self.mode = NO_BODY
        elif length is not None:
            self.mode = LENGTH
        elif self.is_http11:
            self.mode = CHUNKED
            return wire + b"Transfer-Encoding: chunked\r\n"
        else:
            self.mode = CLOSE
            self.keep = False
        return wire

    def whole(self, wire: bytes, has_date: bool, lines: bytes = b"") -> bytes:
        """A response's whole head: the gateway's own lines put to it, the route's header rules applied."""
        route, own = self.route, lines + self.own_lines(has_date)
        if route is None or route.delivery is None:
            return wire + own
        return route.delivery.head(self, wire, own, self.served_by.rpartition(b'"')[2])

    def own_lines(self, has_date: bool) -> bytes:
        """What the gateway adds to every head, the empty line included; decides whether the connection is kept."""
        status = self.cache_status
        if self.worker.limits.return_id:
            status += b"X-Request-Id: %b\r\n" % self.own_id()
        if self.upload is not None and not self.upload.done:
            self.keep = False  # an early answer: what is left of the body is nobody's
        if not self.keep or self.worker.draining:
            self.keep = False
            connection = b"Connection: close\r\n\r\n"
        else:
            connection = b"\r\n" if self.is_http11 else b"Connection: keep-alive\r\n\r\n"
        return status + connection if has_date else self.worker.date_line + status + connection

    def begin(self, wire: bytes, lines: bytes, has_date: bool) -> None:
        """Write the head of a response whose body follows: `wire` as `open` gave it, and further lines."""
        self.downstream.transport.write(self.whole(wire, has_date, lines))

    def respond(self, wire: bytes, lines: bytes, chunks: tuple[bytes, ...], length: int) -> None:
        """Write a whole response, Date among its lines; for HEAD without its body."""
        head = self.whole(wire, True, lines)
        transport = self.downstream.transport
        if not chunks or self.method == b"HEAD":
            transport.write(head)
        elif length < WRITE_TOGETHER and len(chunks) == 1:
            transport.write(head + chunks[0])
        else:
            transport.writelines((head, *chunks))

    def body(self, data: bytes | bytearray) -> None:
        """Write a piece of the body after coding and pacing; the caller obeys `downstream.paused`."""
        if self.coder is None and self.pace is None:
            self.send(data)
        else:
            passed(self, data)

    def send(self, data: bytes | bytearray) -> None:
        """A piece of the body as its client gets it."""
        self.bytes_out += len(data)
        if self.mode == CHUNKED:
            data = chunk(data)
        self.downstream.transport.write(data)

    def end(self, trailers: list[Line] | None = None) -> None:
        """End the response, which is complete."""
        if (self.coder is not None or self.pace is not None) and not ended(self, trailers):
            return
        if self.mode == CHUNKED:
            self.downstream.transport.write(last_chunk(trailers or []))
        elif self.mode == LENGTH and self.expected is not None and self.bytes_out != self.expected:
            self.broken(EdgeError("body and length disagree"))  # never let a short body look whole
            return
        self.finish()

    def data(self, data: bytes) -> None:
        """A fetch's body piece for this exchange alone; a slow client holds the backend back."""
        self.body(data)
        if self.downstream.paused and self.fetch is not None:
            self.fetch.pause()

    @property
    def begun(self) -> bool:
        """Whether the final response's head has been sent."""
        return self.mode != NOT_STARTED

    @property
    def owed(self) -> bool:
        """Whether the client may still be sending its request while it reads this answer."""
        unread = self.upload is not None and not self.upload.done
        return self.mode != CLOSE and (unread or self.status in _LAST)

    @property
    def routed(self) -> Route:
        """The route; call it only after routing."""
        assert self.route is not None
        return self.route

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client asks for a protocol that its route tunnels."""
        route = self.route
        return self.is_http11 and route is not None and self.block.upgrade in route.upgrades

    def identify(self) -> bytes:
        """The X-Request-Id line (the client's, if well-formed), and a W3C traceparent, not sampled, where none came."""
        given = self.block.request_id
        own = self.own_id() if self.request_id or given is not None else self.worker.next_id()
        self.request_id = own
        if self.block.trace:
            return b"X-Request-Id: %b\r\n" % own
        trace = own if own is not given else self.worker.next_id()
        return b"X-Request-Id: %b\r\ntraceparent: 00-%b-%b-00\r\n" % (own, trace, trace[16:])

    def own_id(self) -> bytes:
        """The request's id, the same from its first attempt to the log."""
        if not self.request_id:
            given, worker = self.block.request_id, self.worker
            self.request_id = worker.next_id() if given is None else worker.id_of(self.downstream, given)
        return self.request_id

    def invite_body(self) -> None:
        """Answer `Expect: 100-continue`: the backend is ready for the body (RFC 9110 10.1.1)."""
        upload = self.upload
        waits = upload is not None and not upload.received and self.mode == NOT_STARTED
        if waits and self.is_http11 and not self.invited:
            self.invited = True
            self.downstream.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def authority(self) -> bytes:
        """Host and port for the key, as the client asked for them: the scheme's default port says nothing."""
        told, host = self.told, self.host or b""
        if told is not None:
            host = told.host or host
            if told.port and host and not port_of(host):
                host = b"%b:%b" % (host, told.port)
        return host.removesuffix(b":80" if self.scheme == b"http" else b":443")

    @property
    def behind(self) -> bytes:
        """The Host as it came, where the key's authority is another one: what a backend sees is in the key too."""
        host = self.host or b""
        return host if self.told is not None and self.told.host not in (b"", host) else b""

    def regions(self) -> tuple[str, ...] | None:
        """The regions that suit the client's place, best first; None where its route does not ask."""
        route, geography = self.routed, self.worker.geography
        if not route.by_place or geography is None:
            return None
        return geography.decide(self.downstream, self.client, route.wish).order

    def client_text(self) -> str:
        """The client's address, after the trusted-proxy rules."""
        return self.client or self.downstream.peer

    def country(self) -> str:
        """The ISO code of the client's country; empty when unknown."""
        place = None if (found := self.worker.geography) is None else found.places.place(self.client_text())
        return "" if place is None else place.country or ""

    def at_end(self, what: Callable[[], None]) -> None:
        """Call `what` when the exchange is over, however it ends."""
        self._at_end = (*self._at_end, what)

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """End with an answer of our own; `lines` without framing."""
        self.status, self.mode = status, LENGTH
        self.cache_status = b""  # the cache had no part in it
        sized = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % len(body)
        if self.method == b"HEAD":
            body = b""
        self.bytes_out = len(body)
        told = b"%b%b%b" % (self.worker.date_line, lines, sized)
        self.respond(status_line(status), told, (body,) if body else (), len(body))
        self.finish()

    def failed(self, error: EdgeError) -> None:
        """The fetch failed: answer with its error."""
        self.fetch = None
        self.fail(error)

    def fail(self, error: EdgeError) -> None:
        """End with an error: an answer if nothing was sent yet, else abort the connection."""
        if self.ended:
            return
        if self.mode != NOT_STARTED:
            self.broken(error)
            return
        self.error = error.proxy_status
        self._release(error)
        if isinstance(error, ClientError) and error.status in _LAST:
            self.keep = False  # where the next request starts is not known, or not wanted
        lines, body = error_response(error, self.worker.date_line)
        if self.route is not None and self.route.bodies is not None:
            lines, body = self.route.bodies.error(error.status, lines, body)
        self.status = error.status
        self.mode = LENGTH
        self.bytes_out = 0 if self.method == b"HEAD" else len(body)
        self.respond(status_line(error.status), b"%bContent-Length: %d\r\n" % (lines, len(body)), (body,), len(body))
        self.finish()

    def broken(self, error: EdgeError) -> None:
        """The body breaks off after the head was sent: abort the connection."""
        self.error = error.proxy_status
        self.keep = False
        self._release(error)
        self.downstream.abort(reset=self.mode == CLOSE)
        self.finish()

    def client_gone(self, error: ClientGone) -> None:
        """The client left: free its backend at once, unless others share the fill."""
        self.error = error.proxy_status
        if self.mode == NOT_STARTED:
            self.status = error.status
        self._release(error)
        self.finish()

    def _release(self, error: EdgeError) -> None:
        fetch, self.fetch = self.fetch, None
        if fetch is not None:
            fetch.cancel(error)
        follower, self.follower = self.follower, None
        if follower is not None:
            follower.leave(error)

    def client_paused(self) -> None:
        """The client reads slowly: pause the source."""
        if self.coder is not None or self.pace is not None:
            paused(self)
        if self.fetch is not None:
            self.fetch.pause()

    def client_resumed(self) -> None:
        """The client accepts more: resume the source."""
        if (self.coder is not None or self.pace is not None) and not resumed(self):
            return
        if self.follower is not None:
            self.follower.resumed()
        elif self.fetch is not None:
            self.fetch.resume()

    def upload_late(self, now: float) -> None:
        """The deadline of the request body passed: 408."""
        if self.upload is not None and not self.upload.done:
            self.fail(ClientSlow("request body not in time"))

    def finish(self) -> None:
        """Stage 9, exactly once: count, log, let the connection go on."""
        if self.ended:
            return
        self.ended = True
        self.fetch = None
        if self.upload is not None:
            self.upload.close()
        for what in self._at_end:
            what()
        if self.counted:
            self.worker.finished(self)
        self.downstream.exchange_ended(self.keep)


settle_layout(Exchange)
