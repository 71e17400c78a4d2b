"""An origin that breaks its answers in every way that a soak wants: the path says how.

    /page/<n>      4 KiB, cacheable for an hour          /big/<n>      1 MiB, cacheable for an hour
    /private/<n>   16 KiB, no-store                      /short/<n>    says 64 KiB, sends half, then resets
    /chunk/<n>     a chunked body that breaks off        /trickle/<n>  32 KiB in 64 pieces
    /never/<n>     takes the request and says nothing    /garbage/<n>  no HTTP at all

One rule: it waits by timer and holds nothing that its connection does not need.
"""

from __future__ import annotations

import asyncio
import sys

from bench.plain_origin import PlainOrigin
from bench.processes import LOOPBACK

PAGE, BIG = b"p" * 4096, b"b" * (1 << 20)
CACHED, FORBIDDEN = b"Cache-Control: max-age=3600\r\n", b"Cache-Control: no-store\r\n"
PIECES, PIECE = 64, b"t" * 512


def whole(body: bytes, fields: bytes) -> bytes:
    """A complete answer."""
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)


class Origin(PlainOrigin):
    """One connection, whose answers break as their paths say."""

    def asked(self, target: bytes) -> None:
        kind, later = target.split(b"/")[1], asyncio.get_running_loop().call_later
        if kind in (b"page", b"healthz"):
            self.send(whole(PAGE, CACHED))
        elif kind == b"big":
            self.send(whole(BIG, CACHED))
        elif kind == b"private":
            self.send(whole(PAGE * 4, FORBIDDEN))
        elif kind == b"short":
            self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + PAGE * 8)
            later(0.02, self.abort)
        elif kind == b"chunk":
            self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n" + PAGE + b"\r\nzz\r\n")
        elif kind == b"trickle":
            self.send(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (CACHED, PIECES * len(PIECE)))
            self._trickle(PIECES)
        elif kind == b"garbage":
            self.send(b"\x00\x01 no HTTP\r\n\r\n")

    def _trickle(self, left: int) -> None:
        if left and self.send(PIECE):
            asyncio.get_running_loop().call_later(0.01, self._trickle, left - 1)


async def serve(port: int) -> None:
    """Listen until the process is ended."""
    await asyncio.get_running_loop().create_server(Origin, LOOPBACK, port, backlog=512)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
