"""An origin that takes 50 ms for each answer: /…/c/… may be cached for a day, /…/n/… never; /count tells both.

One rule: it waits by timer, so that any number of requests wait side by side and its own speed plays no part.
"""

from __future__ import annotations

import asyncio
import sys

from bench.plain_origin import PlainOrigin
from bench.processes import LOOPBACK

DELAY_S = 0.05
BODY = b"x" * 1024


def _answer(cache_control: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nCache-Control: %b\r\nContent-Length: %d\r\n\r\n%b" % (cache_control, len(body), body)


CACHED, UNCACHED = _answer(b"max-age=86400", BODY), _answer(b"no-store", BODY)
counted = {"c": 0, "n": 0}


class SlowOrigin(PlainOrigin):
    """One connection, which counts what it is asked for."""

    def asked(self, target: bytes) -> None:
        if target == b"/count":
            self.send(_answer(b"no-store", b"%d %d" % (counted["c"], counted["n"])))
            return
        kind = "c" if b"/c/" in target else "n"
        counted[kind] += 1
        asyncio.get_running_loop().call_later(DELAY_S, self.send, CACHED if kind == "c" else UNCACHED)


async def serve(port: int) -> None:
    """Listen until the process is ended."""
    server = await asyncio.get_running_loop().create_server(SlowOrigin, LOOPBACK, port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
