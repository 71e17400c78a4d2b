"""A raw client: any bytes out, one strictly read response in.

One rule: the reader says how the response ended. `complete` is true only when its framing was satisfied; a
close-delimited body that ended in a reset is not complete. Interim (1xx) responses are kept apart, in order.
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from kit.message import Body, Framing, Line, Malformed, framing_of, read_body, split_head, values
from kit.ports import LOOPBACK
from kit.waiting import WAIT_S
from kit.wire import Wire

STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")


@dataclass(frozen=True, slots=True)
class Response:
    """One final response. `raw_head` is exactly what came; `closed` and `aborted`: the connection after it."""

    version: bytes
    status: int
    reason: bytes
    fields: tuple[Line, ...]
    body: Body
    raw_head: bytes = b""
    interim: tuple[Response, ...] = ()
    closed: bool = False
    aborted: bool = False

    def get(self, name: bytes) -> bytes | None:
        """The lines of a lower-case name joined with `, `; None when absent."""
        found = values(self.fields, name)
        return b", ".join(found) if found else None

    @property
    def complete(self) -> bool:
        """Whether the body's framing was satisfied."""
        return self.body.complete


class RawClient:
    """One client connection. `leftover` is what arrived and belongs to no response that was read."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    @classmethod
    async def connect(cls, port: int, host: str = LOOPBACK) -> RawClient:
        """Open a connection."""
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, host, port)
        return cls(wire)

    @classmethod
    async def connect_unix(cls, path: Path, sock: socket.socket | None = None) -> RawClient:
        """The same to a Unix socket, over a socket that is connected, if one is given."""
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_unix_connection(Wire, None if sock else str(path), sock=sock)
        return cls(wire)

    @property
    def leftover(self) -> bytes:
        return bytes(self.wire.buffer)

    async def send(self, data: bytes) -> bool:
        """Write bytes as they are; False when the peer has gone."""
        return await self.wire.send(data)

    async def read_head(self, wait_s: float = WAIT_S) -> Response | None:
        """The next head, interim or final, with an empty body; None when the peer ended before its first byte."""
        raw = await self.wire.until(b"\r\n\r\n", wait_s)
        if raw is None:
            if self.wire.buffer:
                raise Malformed(f"connection ended inside a head: {bytes(self.wire.buffer[:80])!r}")
            return None
        start, fields = split_head(raw)
        match = STATUS_LINE.fullmatch(start)
        if match is None:
            raise Malformed(f"not a status line: {start[:80]!r}")
        return Response(match[1], int(match[2]), match[3], fields, Body(Framing.NONE), raw)

    async def read_response(self, method: bytes = b"GET", wait_s: float = WAIT_S) -> Response | None:
        """The next final response, its body read by its framing; None when the peer ended without one."""
        interim: list[Response] = []
        while (head := await self.read_head(wait_s)) is not None:
            if 100 <= head.status < 200 and head.status != 101:
                interim.append(head)
                continue
            return await self._with_body(head, method, tuple(interim), wait_s)
        return None

    async def read_body(self, head: Response, method: bytes = b"GET", wait_s: float = WAIT_S) -> Response:
        """Finish a response whose head was read by `read_head`."""
        return await self._with_body(head, method, (), wait_s)

    async def _with_body(self, head: Response, method: bytes, interim: tuple[Response, ...], wait_s: float) -> Response:
        framing, length = framing_of(head.fields, absent=Framing.CLOSE)
        if method == b"HEAD" or head.status in (101, 204, 304) or (method == b"CONNECT" and head.status < 300):
            framing = Framing.NONE
        body = await read_body(self.wire, framing, length, wait_s)
        wire = self.wire
        return Response(
            head.version,
            head.status,
            head.reason,
            head.fields,
            body,
            head.raw_head,
            interim,
            wire.ended,
            wire.was_reset,
        )

    async def get(self, target: str, host: str = "a.example", wait_s: float = WAIT_S) -> Response:
        """One plain GET and its response."""
        return await self.ask(target, host=host, wait_s=wait_s)

    async def ask(
        self,
        target: str,
        *lines: str,
        method: str = "GET",
        host: str = "a.example",
        body: bytes = b"",
        wait_s: float = WAIT_S,
    ) -> Response:
        """One request with these further field lines, and its response."""
        own = (f"Host: {host}", f"Content-Length: {len(body)}") if body else (f"Host: {host}",)
        head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", *own, *lines))
        await self.send(f"{head}\r\n".encode() + body)
        response = await self.read_response(method.encode(), wait_s)
        assert response is not None, "the connection ended without a response"
        return response

    async def ended(self, wait_s: float = WAIT_S) -> bool:
        """Whether the peer ends within `wait_s` without sending anything more."""
        try:
            return not await self.wire.more(wait_s)
        except TimeoutError:
            return False

    def half_close(self) -> None:
        """FIN: no more request bytes."""
        self.wire.half_close()

    def reset(self) -> None:
        """RST."""
        self.wire.reset()

    async def close(self) -> None:
        """Close and wait until the socket is gone."""
        await self.wire.close()
