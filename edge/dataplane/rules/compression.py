"""`compress`: which responses are coded for which clients, and what that does to their head.

Never: what is coded already, `no-transform`, a part, a status without content, what is small, a request for a range, a
client of HTTP/1.0. Whatever could have been coded says `Vary: Accept-Encoding`, also where it is not; a coded response
has a weak ETag and tells no length, no digest and no ranges of the body that it was made from.

One rule: a body is never taken apart. Its bytes as the origin sent them are what is stored; codings are made from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol, TypeVar

from edge.dataplane.rules.asked import Asked
from edge.dataplane.rules.body_coder import BodyCoder, Sending
from edge.dataplane.rules.codings import Coder, load, stream, whole
from edge.dataplane.rules.headers import without
from edge.http.fields import vary_names
from edge.http.message import Fields

T = TypeVar("T")
NO_CONTENT = frozenset((204, 205, 206, 304))
NOT_OF_THE_CODED = (
    b"accept-ranges",
    b"content-digest",
    b"content-length",
    b"content-md5",
    b"digest",
    b"repr-digest",
)
REMEMBERED = 1024  # values of Accept-Encoding and Content-Type
LONGEST = 256  # bytes of such a value; longer ones are read each time
QUICK_LEVEL = 5  # above it, whole bodies are coded in a thread
RUNNING = 256  # bodies that are coded as they come, in each worker; more go as they are
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
VARY = b"Vary: Accept-Encoding\r\n"


class Begun(NamedTuple):
    """How a response goes on: its lines, its length where that is known, and what codes its body."""

    wire: bytes
    length: int | None
    coder: Coder | None


class Receiving(Asked, Sending, Protocol):
    """What compression needs of an exchange."""

    @property
    def is_http11(self) -> bool: ...
    def open(self, status: int, wire: bytes, length: int | None, bodiless: bool) -> bytes: ...
    def begin(self, wire: bytes, lines: bytes, has_date: bool) -> None: ...
    def body(self, data: bytes) -> None: ...


class Compression:
    """`compress` of a route."""

    def __init__(self, codings: Iterable[str], types: Iterable[str], smallest: int, level: int | None) -> None:
        self.codings = tuple(codings)
        self._types = tuple(each.lower() for each in types)
        self._smallest = smallest
        self.level = level
        self.is_quick = level is None or level <= QUICK_LEVEL
        self._choices: dict[bytes, str | None] = {}
        self._fitting: dict[bytes, bool] = {}
        self._running = 0
        load(self.codings)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def choose(self, accept: bytes | None) -> str | None:
        """The coding for a client that sent this Accept-Encoding; None: as it is."""
        if not accept:
            return None
        try:
            return self._choices[accept]
        except KeyError:
            return remember(self._choices, accept, self._best(weights(accept)))

    def _best(self, given: dict[bytes, float]) -> str | None:
        others = given.get(b"*", 0.0)
        least = given.get(b"identity", 0.0)
        best, most = None, 0.0
        for name in self.codings:
            weight = given.get(name.encode(), given.get(b"x-gzip", others) if name == "gzip" else others)
            if weight > most:
                best, most = name, weight
        return best if most >= least else None

    def suits(self, status: int, fields: Fields, length: int | None) -> bool:
        """Whether a response can be compressed at all."""
        if status < 200 or status in NO_CONTENT or (length is not None and length < self._smallest):
            return False
        if (
            b"content-encoding" in fields
            or b"content-range" in fields
            or b"no-transform" in (fields.joined(b"cache-control") or b"").lower()
        ):
            return False
        return self._fits(fields.joined(b"content-type") or b"")

    def _fits(self, content_type: bytes) -> bool:
        known = self._fitting.get(content_type)
        if known is None:
            text = content_type.partition(b";")[0].strip().lower().decode("latin-1")
            known = any(fnmatchcase(text, each) for each in self._types)
            remember(self._fitting, content_type, known)
        return known

    # -- responses as they come ----------------------------------------------------------------------------------------

    def start(
        self,
        exchange: Receiving,
        status: int,
        head: tuple[bytes, Fields, bool],
        length: int | None,
        bodiless: bool,
        alone: bool = True,
    ) -> None:
        """Write the head of a response whose body comes in pieces: (lines, fields, has a Date). Where the body is
        coded, it goes through the exchange's coder from here on."""
        wire, fields, has_date = head
        begun = self._begun(exchange, status, wire, fields, length, alone)
        exchange.begin(exchange.open(status, begun.wire, begun.length, bodiless), b"", has_date)
        if not bodiless and begun.coder is not None:
            BodyCoder(exchange, begun.coder)

    def _begun(
        self, asked: Receiving, status: int, wire: bytes, fields: Fields, length: int | None, alone: bool
    ) -> Begun:
        told = length if asked.method != b"HEAD" else told_length(fields)
        if not self.suits(status, fields, told):
            return Begun(same_tag(asked.block.fields, status, wire, fields), length, None)
        coding = self.wanted(asked) if alone else None
        if coding is None or self._running >= RUNNING:
            return Begun(varied(wire, fields), length, None)
        coded = coded_head(wire, fields, coding)
        if asked.method == b"HEAD":
            return Begun(coded, None, None)
        self._running += 1
        asked.at_end(self._ended)
        return Begun(coded, None, stream(coding, self.level, length is None))

    def _ended(self) -> None:
        self._running -= 1

    def wanted(self, asked: Receiving) -> str | None:
        """The coding for this request; None: uncompressed."""
        fields = asked.block.fields
        if b"range" in fields or b"if-match" in fields or not asked.is_http11:
            return None
        return self.choose(fields.joined(b"accept-encoding"))

    def whole(self, coding: str, data: bytes) -> bytes:
        """Code a whole body."""
        return whole(coding, self.level, data)

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`."""
        coding = self.choose(asked.block.fields.joined(b"accept-encoding"))
        return f"{coding or 'no coding'} for this Accept-Encoding, of {', '.join(self.codings)}"


def remember(known: dict[bytes, T], value: bytes, found: T) -> T:
    """Keep what was worked out of a value, within bounds: others choose what the values are, and how long."""
    if len(value) <= LONGEST:
        if len(known) >= REMEMBERED:
            known.clear()
        known[value] = found
    return found


# -- heads -------------------------------------------------------------------------------------------------------------


def weights(accept: bytes) -> dict[bytes, float]:
    """An Accept-Encoding by coding; what breaks the grammar counts as not accepted."""
    found: dict[bytes, float] = {}
    for member in accept.split(b",")[:32]:
        name, *parameters = (part.strip(b" \t") for part in member.lower().split(b";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition(b"=")
            if key.strip() == b"q":
                text = value.strip().decode("latin-1")
                weight = float(text) if _is_weight(text) else 0.0
        if name:
            found[name] = weight
    return found


def _is_weight(text: str) -> bool:
    return _WEIGHT.fullmatch(text) is not None


def told_length(fields: Fields) -> int | None:
    """Content-Length of an answer to HEAD, which says how long the body would be."""
    text = fields.joined(b"content-length") or b""
    return int(text) if text.isdigit() else None


def varied(wire: bytes, fields: Fields) -> bytes:
    """The field lines with Accept-Encoding added to Vary."""
    names = vary_names(fields)
    return wire if names is None or b"accept-encoding" in names else wire + VARY


def weak(tag: bytes) -> bytes:
    """The weak form of an ETag: the same meaning, but other bytes."""
    return tag if tag.startswith(b"W/") else b"W/" + tag


def coded_head(wire: bytes, fields: Fields, coding: str) -> bytes:
    """A status line and lines as the coded form has them; the length is for its writer to say."""
    tag = fields.joined(b"etag")
    lines = without(wire, (*NOT_OF_THE_CODED, b"etag") if tag else NOT_OF_THE_CODED)
    tagged = b"ETag: %b\r\n" % weak(tag) if tag else b""
    return b"%bContent-Encoding: %b\r\n%b" % (varied(lines, fields), coding.encode(), tagged)


def same_tag(request: Fields, status: int, wire: bytes, fields: Fields) -> bytes:
    """The lines of a 304 with the tag in the form that the client has."""
    tag = fields.joined(b"etag") if status == 304 else None
    if not tag or tag.startswith(b"W/"):
        return wire
    has = [each.strip(b" \t") for each in (request.joined(b"if-none-match") or b"").split(b",")]
    if tag in has or weak(tag) not in has:
        return wire
    return without(wire, (b"etag",)) + b"ETag: %b\r\n" % weak(tag)
