"""A scripted origin: it records every request as raw bytes and answers exactly what its script says.

A script is a sequence of steps; bytes are sent as they are. Which script answers a request is chosen by its target
once its head is in. The body is read before the first step unless the script holds `Step.BODY`, which says where.
After a script the connection is kept for the next request, unless the script ended it.

One rule: tests wait on counters (`wait_for("requests", 3)`), never on time. Counters: `connections`, `closed`,
`heads`, `requests` (whole ones), `responses` (scripts that ran to their end), `gone` (the peer left inside a script),
`partial_heads` and `partial_bodies` (it ended before they were whole), `malformed` (not HTTP/1.1), `bytes`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from kit.message import Body, Framing, Line, Malformed, framing_of, read_body, split_head, values
from kit.ports import LOOPBACK
from kit.waiting import WAIT_S
from kit.wire import Wire

OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
OK = OK_HEAD + b"ok"
SILENCE_S = 60.0
TURNS_OF_AN_ACCEPT = 5  # of the loop: from the system's queue to a connection


class Step(Enum):
    """What a script can do besides sending."""

    BODY = "read the request's body here"
    CLOSE = "close cleanly"
    RESET = "close with RST"
    HALF_CLOSE = "send FIN and go on reading"
    SILENCE = "do nothing until the peer leaves"


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait until `origin.release(name)`, or until the peer leaves."""

    name: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """Send `data` again and again, `times` at most, with the transport's backpressure, until the peer leaves."""

    data: bytes
    times: int


Action = bytes | Step | Pause | Repeat
Script = Sequence[Action]


@dataclass(slots=True)
class Received:
    """One request as it arrived. `body` is None until it is whole; `connection` numbers from 1."""

    connection: int
    raw_head: bytes
    method: bytes
    target: bytes
    version: bytes
    fields: tuple[Line, ...]
    body: Body | None = None

    def get(self, name: bytes) -> bytes | None:
        """The lines of a lower-case name joined with `, `; None when absent."""
        found = values(self.fields, name)
        return b", ".join(found) if found else None


class ScriptedOrigin:
    """Listen with `start`, end with `stop`; `port` is stable for the object's life."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: list[Received] = []
        self.problems: list[str] = []
        self.counters: Counter[str] = Counter()
        self.announced = False  # each connection begins with a PROXY header
        self.announcements: dict[int, bytes] = {}  # by connection
        self.default: Script = (OK,)
        self._routes: dict[bytes, Script] = {}
        self._next: deque[Script] = deque()
        self._pauses: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()  # set, and replaced, at each count
        self._tasks: dict[asyncio.Task[None], Wire] = {}
        self._on_accept: Script = ()
        self._numbers = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on loopback."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Wire(self._accepted), LOOPBACK, self.port, backlog=1024)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def start_unix(self, path: Path) -> None:
        """Listen on a Unix socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Wire(self._accepted), str(path), backlog=1024)

    async def stop(self) -> None:
        """Stop listening and end every connection; what was recorded stays."""
        if self._server is None:
            return
        server, self._server = self._server, None
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(TURNS_OF_AN_ACCEPT):  # asyncio leaves a socket open that it accepted before the server's end
            await asyncio.sleep(0)
        server.close()
        running = dict(self._tasks)
        for task, wire in running.items():
            task.cancel()
            if wire.transport is not None:
                wire.transport.abort()  # a task that is cancelled before its first step closes nothing
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    # -- scripting

    def route(self, target: str | bytes, *script: Action) -> None:
        """Answer this exact target with `script`, each time."""
        self._routes[target.encode() if isinstance(target, str) else target] = script

    def enqueue(self, *script: Action) -> None:
        """Answer the next request with `script`, once, whatever its target; a queue."""
        self._next.append(script)

    def on_accept(self, *script: Action) -> None:
        """Run `script` on each new connection before anything is read (a reset, unasked bytes)."""
        self._on_accept = script

    def release(self, name: str) -> None:
        """Let every present and later `Pause(name)` go on."""
        self._pause(name).set()

    def forget(self) -> None:
        """Drop records, counters and scripts; connections stay open."""
        self.requests.clear()
        self.problems.clear()
        self.counters.clear()
        self._routes.clear()
        self._next.clear()
        self._pauses.clear()
        self._on_accept = ()
        self.default = (OK,)

    # -- waiting

    async def wait_for(self, counter: str, at_least: int, wait_s: float = WAIT_S) -> None:
        """Wait until a counter has reached a figure; the failure names what was there instead."""
        try:
            async with asyncio.timeout(wait_s):
                while self.counters[counter] < at_least:
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{counter} never reached {at_least}: {dict(self.counters)}") from None

    @property
    def open_connections(self) -> int:
        """Connections accepted and not yet ended by either side."""
        return len(self._tasks)

    def targets(self) -> list[bytes]:
        """The targets of the whole requests, in order of their heads."""
        return [request.target for request in self.requests if request.body is not None]

    # -- serving

    def _pause(self, name: str) -> asyncio.Event:
        return self._pauses.setdefault(name, asyncio.Event())

    def _count(self, counter: str, by: int = 1) -> None:
        self.counters[counter] += by
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _accepted(self, wire: Wire) -> None:
        self._numbers += 1
        task = asyncio.get_running_loop().create_task(
            self._connection(wire, self._numbers), name=f"origin-{self.port}-{self._numbers}"
        )
        self._tasks[task] = wire
        task.add_done_callback(lambda ended: self._tasks.pop(ended, None))

    async def _connection(self, wire: Wire, number: int) -> None:
        self._count("connections")
        try:
            if self.announced:
                self.announcements[number] = await self._announcement(wire)
            if await self._run(wire, self._on_accept, None):
                while await self._exchange(wire, number):
                    pass
        except Malformed as problem:
            self.problems.append(str(problem))
            self._count("malformed")
        finally:
            if wire.transport is not None:
                wire.transport.abort() if wire.was_reset else wire.transport.close()
            self._count("bytes", wire.received_bytes)
            self._count("closed")

    async def _announcement(self, wire: Wire) -> bytes:
        start = await wire.exactly(12, SILENCE_S) or b""
        if start.startswith(b"PROXY "):
            return start + (await wire.until(b"\r\n", SILENCE_S) or b"")
        start += await wire.exactly(4, SILENCE_S) or b""
        return start + (await wire.exactly(int.from_bytes(start[14:16], "big"), SILENCE_S) or b"")

    async def _exchange(self, wire: Wire, number: int) -> bool:
        raw = await wire.until(b"\r\n\r\n", SILENCE_S)
        if raw is None:
            if wire.buffer:
                self._count("partial_heads")
            return False
        start, fields = split_head(raw)
        parts = start.split(b" ")
        if len(parts) != 3:
            raise Malformed(f"not a request line: {start[:80]!r}")
        request = Received(number, raw, parts[0], parts[1], parts[2], fields)
        self.requests.append(request)
        self._count("heads")
        script = self._script_for(request)
        if Step.BODY not in script and not await self._read_body(wire, request):
            return False
        if not await self._run(wire, script, request):
            return False
        self._count("responses")
        return True

    def _script_for(self, request: Received) -> Script:
        if self._next:
            return self._next.popleft()
        script = self._routes.get(request.target, self.default)
        return (OK_HEAD,) if request.method == b"HEAD" and script == (OK,) else script

    async def _read_body(self, wire: Wire, request: Received) -> bool:
        framing, length = framing_of(request.fields, absent=Framing.NONE)
        body = await read_body(wire, framing, length, SILENCE_S)
        if not body.complete:
            self._count("partial_bodies")
            return False
        request.body = body
        self._count("requests")
        return True

    async def _run(self, wire: Wire, script: Script, request: Received | None) -> bool:
        """Run the steps; False when the connection is over."""
        for action in script:
            if isinstance(action, bytes):
                if not await wire.send(action, SILENCE_S):
                    return self._gone()
            elif isinstance(action, Repeat):
                for _ in range(action.times):
                    if not await wire.send(action.data, SILENCE_S):
                        return self._gone()
            elif isinstance(action, Pause):
                if not await self._wait_or_leave(wire, self._pause(action.name)):
                    return self._gone()
            elif not await self._step(wire, action, request):
                return False
        return True

    async def _step(self, wire: Wire, step: Step, request: Received | None) -> bool:
        if step is Step.BODY:
            return request is not None and await self._read_body(wire, request)
        if step is Step.HALF_CLOSE:
            wire.half_close()
            return True
        if step is Step.RESET:
            wire.reset()
        elif step is Step.SILENCE:
            await self._wait_or_leave(wire, asyncio.Event())
            return self._gone()
        self._count("responses")
        return False

    def _gone(self) -> bool:
        self._count("gone")
        return False

    async def _wait_or_leave(self, wire: Wire, event: asyncio.Event) -> bool:
        """True when the event was set, False when the peer left first. Bytes that arrive meanwhile stay unread."""
        loop = asyncio.get_running_loop()
        go = loop.create_task(event.wait(), name="origin-pause")
        leave = loop.create_task(wire.left(), name="origin-watch")
        try:
            await asyncio.wait((go, leave), timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
            return go.done()
        finally:
            for task in (go, leave):
                task.cancel()
            await asyncio.gather(go, leave, return_exceptions=True)
