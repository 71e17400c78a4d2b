"""What a route makes of response bodies on their way to a client: pages in place of errors, then codings.

One rule: the fetch goes on to its end whatever the client gets instead, so that its connection can be used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edge.dataplane.rules.compression import Compression, Receiving
from edge.dataplane.rules.headers import without
from edge.http.grammar import Framing, ResponseFacts
from edge.http.message import Fields, Line

_OF_THE_BODY = (
    b"accept-ranges",
    b"content-digest",
    b"content-encoding",
    b"content-language",
    b"content-length",
    b"content-location",
    b"content-md5",
    b"content-range",
    b"content-type",
    b"digest",
    b"etag",
    b"last-modified",
    b"repr-digest",
)


class Page(NamedTuple):
    """A page that is sent in place of an error's body."""

    content_type: bytes
    body: bytes


class _Dropped:
    """A coder that discards the body."""

    __slots__ = ()

    def body(self, data: bytes | bytearray) -> None:
        """Discard it."""

    def may_end(self, trailers: list[Line] | None) -> bool:
        """Nothing follows."""
        return True

    def paused(self) -> None:
        """There is nothing to hold back."""

    def resumed(self) -> bool:
        """The source may go on."""
        return True


_DROPPED = _Dropped()


class Bodies:
    """`error_pages` and `compress` of a route."""

    __slots__ = ("_pages", "compression")

    def __init__(self, pages: Mapping[int, Page], compression: Compression | None) -> None:
        self._pages = dict(pages)
        self.compression = compression

    def page(self, status: int) -> Page | None:
        """The page for a status; None if the route has none."""
        return self._pages.get(status)

    def error(self, status: int, lines: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Field lines and body of an error that the gateway answers itself."""
        page = self._pages.get(status)
        if page is None:
            return lines, body
        return without(lines, (b"content-type",)) + b"Content-Type: %b\r\n" % page.content_type, page.body

    def head(self, exchange: Receiving, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """As `Exchange.head`, where a route has any of this."""
        head, bodiless = (facts.wire, facts.fields, facts.has_date), facts.framing is Framing.NONE
        self.start(exchange, facts.status, head, length, bodiless)
        if body:
            exchange.body(body)
        if done:
            exchange.end()

    def start(
        self,
        exchange: Receiving,
        status: int,
        head: tuple[bytes, Fields, bool],
        length: int | None,
        bodiless: bool,
        alone: bool = True,
    ) -> None:
        """Write the head of a response whose body comes in pieces: (lines, fields, has a Date)."""
        page = self._pages.get(status)
        if page is not None:
            self._instead(exchange, status, head, page)
        elif self.compression is not None:
            self.compression.start(exchange, status, head, length, bodiless, alone)
        else:
            exchange.begin(exchange.open(status, head[0], length, bodiless), b"", head[2])

    def _instead(self, exchange: Receiving, status: int, head: tuple[bytes, Fields, bool], page: Page) -> None:
        """The page; what the origin sends is read and dropped."""
        size, wire = len(page.body), without(head[0], _OF_THE_BODY)
        wire += b"Content-Type: %b\r\nContent-Length: %d\r\n" % (page.content_type, size)
        exchange.begin(exchange.open(status, wire, size, False), b"", head[2])
        if page.body and exchange.method != b"HEAD":
            exchange.body(page.body)
        exchange.coder = _DROPPED
