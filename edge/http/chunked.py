"""The chunked coding, strictly (RFC 9112 7.1): one decoder for requests and responses, fed at any byte split.

One rule: CRLF ends every line, sizes are 1-16 hexadecimal digits, extensions are read within a limit and never passed
on, trailers obey the field grammar. Anything else raises ValueError and the message is refused. One call reads a
bounded number of lines, so that nobody's one-byte chunks hold the loop: while `more` is set the caller goes on later.
"""

from __future__ import annotations

import re

from edge.http.message import Line

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
# Fields that would change framing, routing or authority if a later hop merged them into the head (RFC 9110 6.5.1).
FORBIDDEN_TRAILERS = frozenset(
    b"transfer-encoding content-length host content-encoding content-type content-range trailer connection te "
    b"upgrade expect cache-control authorization set-cookie age date expires location vary".split()
)

LINES_A_FEED = 512  # about a third of a millisecond


class ChunkedReader:
    """Decoder of one message. `feed` gives the payload pieces and what follows the message; `done` ends it.

    `more`: there is more to read in what came already; feed nothing (`b""`) to go on.
    """

    __slots__ = (
        "_buffer",
        "_line_limit",
        "_lines_a_feed",
        "_remaining",
        "_state",
        "_trailer_limit",
        "_trailer_size",
        "done",
        "more",
        "trailers",
    )

    def __init__(self, line_limit: int = 4096, trailer_limit: int = 8192, lines_a_feed: int = LINES_A_FEED) -> None:
        self._buffer = b""
        self._lines_a_feed = lines_a_feed
        self.more = False
        self._line_limit = line_limit
        self._trailer_limit = trailer_limit
        self._trailer_size = 0
        self._remaining = 0
        self._state = 0  # 0 size line, 1 data, 2 CRLF after data, 3 trailers
        self.done = False
        self.trailers: list[Line] = []

    @property
    def announced(self) -> int:
        """Bytes of the current chunk that have not come yet."""
        return self._remaining

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Payload pieces in order, and the bytes after the message's end (empty until `done`). Raises ValueError."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        at, size, lines = 0, len(data), self._lines_a_feed
        self.more = False
        while at < size:
            if self._state == 1:
                piece = data[at : at + self._remaining]
                pieces.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._state = 2
                continue
            if self._state == 2:
                if size - at < 2:
                    if data[at : at + 1] != b"\r":
                        raise ValueError("chunk not ended by CRLF")
                    break
                if data[at : at + 2] != b"\r\n":
                    raise ValueError("chunk not ended by CRLF")
                at += 2
                self._state = 0
                continue
            if not lines:
                self.more = True
                break
            lines -= 1
            end = data.find(b"\n", at)
            limit = self._line_limit if self._state == 0 else self._trailer_limit - self._trailer_size
            if (end if end >= 0 else size) - at > limit:
                raise ValueError("chunk line or trailers too long")
            if end < 0:
                break
            if end == at or data[end - 1] != 13:
                raise ValueError("bare LF in chunked coding")
            line, at = data[at : end - 1], end + 1
            if self._state == 0:
                self._size_line(line)
            elif self._trailer_line(line):
                self.done = True
                return pieces, data[at:]
        self._buffer = data[at:]
        return pieces, b""

    def _size_line(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise ValueError("malformed chunk size")
        self._remaining = int(match[1], 16)
        self._state = 1 if self._remaining else 3

    def _trailer_line(self, line: bytes) -> bool:
        """Take one line of the trailer section; True at its end."""
        if not line:
            return True
        self._trailer_size += len(line) + 2
        match = _TRAILER.fullmatch(line)
        if match is None:
            raise ValueError("malformed trailer")
        if match[1].lower() not in FORBIDDEN_TRAILERS:
            self.trailers.append((match[1], match[2].rstrip(b" \t")))
        return False


def chunk(data: bytes | bytearray) -> bytes:
    """One chunk that carries `data`, which must not be empty."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


def last_chunk(trailers: list[Line]) -> bytes:
    """The end of a chunked message with its trailer section."""
    return b"0\r\n" + b"".join([b"%b: %b\r\n" % line for line in trailers]) + b"\r\n"
