"""Two HTTP/2 clients: one that keeps the rules and checks the other side's (`h2`), one that sends any frames.

One rule: whatever the gateway sends passes `h2`'s own judgement, or is read frame by frame; nothing is skipped.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from kit.ports import LOOPBACK
from kit.waiting import WAIT_S
from kit.wire import Wire

Lines = list[tuple[bytes, bytes]]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def read_some(wire: Wire) -> bytes:
    """What came, waiting for it when there is nothing; empty at the end."""
    if not wire.buffer:
        await wire.more()
    return wire.take(len(wire.buffer))


def request_head(
    path: bytes = b"/",
    method: bytes = b"GET",
    host: bytes = b"a",
    scheme: bytes = b"http",
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> Lines:
    """The fields of a usual request."""
    return [(b":method", method), (b":scheme", scheme), (b":authority", host), (b":path", path), *extra]


async def _wire(port: int, tls: ssl.SSLContext | None) -> Wire:
    loop = asyncio.get_running_loop()
    name = "a.test" if tls is not None else None
    return (await loop.create_connection(Wire, LOOPBACK, port, ssl=tls, server_hostname=name))[1]


@dataclass(slots=True)
class Answer:
    """What came on one stream."""

    status: int = 0
    fields: Lines = field(default_factory=list)
    body: bytes = b""
    trailers: Lines = field(default_factory=list)
    interim: list[tuple[int, Lines]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None  # the code

    def get(self, name: bytes) -> bytes | None:
        """The lines of a lower-case name joined; None when absent."""
        found = [value for key, value in self.fields if key == name]
        return b", ".join(found) if found else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Http2Client:
    """A client that keeps the rules. `take` says how many bytes of bodies it gives credit for; None: all."""

    def __init__(self, wire: Wire, take: int | None = None, window: int = 65535) -> None:
        self.wire = wire
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
            },
        )
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []  # (last stream, code)
        self.pongs = 0
        self.take = take

    @classmethod
    async def connect(
        cls, port: int, tls: ssl.SSLContext | None = None, take: int | None = None, window: int = 65535
    ) -> Http2Client:
        """Open a connection and say hello."""
        return cls.over(await _wire(port, tls), take, window)

    @classmethod
    def over(cls, wire: Wire, take: int | None = None, window: int = 65535) -> Http2Client:
        """Say hello on a connection that is there."""
        self = cls(wire, take, window)
        self.connection.initiate_connection()
        self.flush()
        return self

    def flush(self) -> None:
        """Send what the protocol wants sent."""
        data = self.connection.data_to_send()
        if data and self.wire.transport is not None:
            self.wire.transport.write(data)

    def ask(self, fields: Lines, ends: bool = True) -> int:
        """Open a stream; its number."""
        number = self.connection.get_next_available_stream_id()
        self.answers[number] = Answer()
        self.connection.send_headers(number, fields, end_stream=ends)
        self.flush()
        return int(number)

    def upload(self, stream: int, data: bytes, ends: bool = False) -> None:
        """A piece of a body."""
        self.connection.send_data(stream, data, end_stream=ends)
        self.flush()

    async def upload_all(self, stream: int, data: bytes, ends: bool = True) -> None:
        """A whole body, as the windows allow."""
        at = 0
        while at < len(data):
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if room <= 0:
                await self.more()
                continue
            self.connection.send_data(stream, data[at : at + room])
            at += room
            self.flush()
        if ends:
            self.connection.end_stream(stream)
            self.flush()

    async def more(self) -> None:
        """Wait for bytes and take in what they say."""
        data = await read_some(self.wire)
        assert data, f"the connection ended: {self.goaways}"
        for event in self.connection.receive_data(data):
            self._event(event)
        self.flush()

    def _event(self, event: h2.events.Event) -> None:
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0)
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append((event.last_stream_id or 0, int(event.error_code or 0)))
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        if answer is None:
            return
        if isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append(_split(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            answer.status, answer.fields = _split(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            size = event.flow_controlled_length
            if size and self.take is None:
                self.connection.acknowledge_received_data(size, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code)

    async def until(self, fact: Callable[[], object]) -> None:
        """Take in what comes until this is true."""
        async with asyncio.timeout(WAIT_S):
            while not fact():
                await self.more()

    async def ping(self) -> None:
        """Wait until the other side has read all that was sent, and what it said before is here."""
        before = self.pongs
        self.connection.ping(b"barrier!")
        self.flush()
        await self.until(lambda: self.pongs > before)

    async def answer(self, stream: int) -> Answer:
        """The whole answer of a stream, or its reset."""
        answer = self.answers[stream]
        await self.until(lambda: answer.over)
        return answer

    async def get(self, path: bytes, **head: object) -> Answer:
        """Ask and wait."""
        return await self.answer(self.ask(request_head(path, **head)))  # type: ignore[arg-type]

    async def close(self) -> None:
        """Leave."""
        await self.wire.close()


def _split(headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, Lines]:
    lines = [(bytes(name), bytes(value)) for name, value in headers]
    return int(dict(lines)[b":status"]), [line for line in lines if line[0] != b":status"]


class FrameClient:
    """A client that sends any bytes, and reads frames. Nothing is answered by itself."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.frames: list[Frame] = []
        self._rest = b""

    @classmethod
    async def connect(cls, port: int, hello: bool = True, tls: ssl.SSLContext | None = None) -> FrameClient:
        """Open a connection; `hello`: with the preface and empty settings."""
        self = cls(await _wire(port, tls))
        if hello:
            await self.send(PREFACE, SettingsFrame(0))
        return self

    async def send(self, *parts: bytes | Frame) -> None:
        """Send bytes and frames in one write."""
        await self.wire.send(b"".join([part if isinstance(part, bytes) else part.serialize() for part in parts]))

    async def more(self) -> bool:
        """Wait for frames; False when the connection ended."""
        data = await read_some(self.wire)
        self._rest += data
        while len(self._rest) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._rest[:9]))
            if len(self._rest) < 9 + length:
                break
            frame.parse_body(memoryview(self._rest[9 : 9 + length]))
            self._rest = self._rest[9 + length :]
            self.frames.append(frame)
        return bool(data)

    async def until(self, fact: Callable[[], object]) -> None:
        """Read until this is true."""
        async with asyncio.timeout(WAIT_S):
            while not fact():
                if not await self.more():
                    raise AssertionError(f"the connection ended after {self.frames}")

    async def until_end(self) -> GoAwayFrame | None:
        """Read until the connection ends; the last GOAWAY."""
        async with asyncio.timeout(WAIT_S):
            while self.goaway is None and await self.more():
                pass
        return self.goaway

    @property
    def goaway(self) -> GoAwayFrame | None:
        """The last one that came."""
        found = [frame for frame in self.frames if isinstance(frame, GoAwayFrame)]
        return found[-1] if found else None

    def resets(self, stream: int) -> list[int]:
        """The codes with which a stream was reset."""
        return [f.error_code for f in self.frames if isinstance(f, RstStreamFrame) and f.stream_id == stream]

    def head(self, stream: int, fields: Lines | None = None, ends: bool = True) -> HeadersFrame:
        """A usual request in one frame."""
        flags = ["END_HEADERS", *(["END_STREAM"] if ends else [])]
        return HeadersFrame(stream, self.encoder.encode(fields or request_head()), flags=flags)

    def ended(self, stream: int) -> bool:
        """Whether the answer on a stream is whole."""
        return any(f.stream_id == stream and "END_STREAM" in f.flags for f in self.frames)

    def of(self, kind: type[Frame], stream: int) -> list[Frame]:
        """The frames of a kind that came on a stream."""
        return [frame for frame in self.frames if isinstance(frame, kind) and frame.stream_id == stream]

    async def close(self) -> None:
        """Leave."""
        await self.wire.close()
