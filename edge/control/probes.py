"""Active probes: ask each backend now and then whether it is well. What the answers mean, `balance.health` decides.

    one task for each target:   wait for a slot ─► connect ─► ask ─► read ─► close ─► tell ─► sleep ─┐
                                └──────────────────────────────────────────────────────────────────┘

One rule: a target costs at most one socket at a time, all targets together at most `limit`, and a probe at most its
timeout and MEMORY_BYTES, whatever the other side does. Each probe has a connection of its own, so that a kept one
cannot hide a listener that is gone, and reads with the grammar that live traffic is read with: a backend whose answers
the gateway would refuse is not well. Evidence names what was seen, never the bytes that came.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import NamedTuple

from edge.adapters.dialing import is_path, within
from edge.errors import ResponseInvalid
from edge.http.chunked import ChunkedReader
from edge.http.grammar import Framing, Limits, ResponseFacts, response_head
from edge.http.proxy_protocol import Version, header_of

HEAD_BYTES = 16 * 1024
BODY_BYTES = 64 * 1024  # of the body, what is looked at; a longer one is judged by its beginning
MEMORY_BYTES = 2 * HEAD_BYTES + BODY_BYTES + HEAD_BYTES  # the reader's buffer, the body, one piece more
INTERIM_MAX = 8
MIN_DELAY_S = 0.02  # whatever is asked for: a probe is never a loop without rest
FALLBACK_S = 5.0  # until the next probe, if nobody can say
LIMITS = Limits(head_bytes=HEAD_BYTES)

OnResult = Callable[[Hashable, bool, float, str], None]  # id, ok, seconds, evidence
NextDelay = Callable[[Hashable, float], float]  # id, monotonic now -> seconds


class ProbeKind(Enum):
    """What a probe does."""

    HTTP = "http"  # ask and look at the answer
    TCP = "tcp"  # connect, no more; also where the backend speaks TLS
    # An application is asked by its workers: see `ProbeTarget.ask`.


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """One backend and how to ask it. Two targets that are equal are one: `update` leaves its task alone."""

    id: Hashable
    host: str
    port: int
    timeout_s: float  # for all of a probe; below the interval
    kind: ProbeKind = ProbeKind.HTTP
    authority: bytes = b""  # the Host field; empty: host and port
    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()  # further fields, or others in place of the usual ones
    expect: frozenset[int] = field(default=frozenset(range(200, 300)), repr=False)
    body: str = ""  # text that the body must hold
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy_protocol: Version | None = None  # begin with a header that says that we speak for ourselves
    ask: Callable[[ProbeTarget], Awaitable[ProbeResult]] | None = field(default=None, repr=False, compare=False)

    @property
    def is_ours(self) -> bool:
        """Whether each machine of a fleet has its own backend under this name."""
        return self.ask is not None

    def same_address(self, other: ProbeTarget) -> bool:
        """Whether both have one address, so that what is known of one holds for the other."""
        return (self.host, self.port) == (other.host, other.port)


class ProbeResult(NamedTuple):
    """The result of one probe. `latency_s` is from request to head (TCP: until connected); of a failure, its whole
    time.
    """

    ok: bool
    latency_s: float
    evidence: str


class _Unwell(Exception):
    """The probe failed; its text is the evidence."""


async def probe(target: ProbeTarget) -> ProbeResult:
    """Ask once. Raises nothing but CancelledError, and leaves nothing open."""
    if target.ask is not None:
        return await target.ask(target)
    started = monotonic()
    stage = [""]
    try:
        latency_s, evidence = await within(target.timeout_s, lambda: _attempt(target, stage))
        return ProbeResult(True, latency_s, evidence)
    except TimeoutError:
        evidence = f"timed out after {target.timeout_s:g} s while {stage[0]}"
    except _Unwell as error:
        evidence = str(error)
    except ResponseInvalid as error:
        evidence = f"invalid answer: {error.detail}"
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot take
        evidence = _why(error)
    return ProbeResult(False, monotonic() - started, evidence)


async def _attempt(target: ProbeTarget, stage: list[str]) -> tuple[float, str]:
    """Latency and evidence of a success. `stage` holds what is being done, for the evidence of a timeout."""
    started, stage[0] = monotonic(), "connecting"
    tls = target.tls if target.kind is ProbeKind.HTTP else None
    name = (target.server_name or target.host) if tls is not None else None
    first = header_of(target.proxy_protocol, None) if target.proxy_protocol is not None else b""
    if is_path(target.host):
        reader, writer = await asyncio.open_unix_connection(target.host, limit=HEAD_BYTES)
    else:
        secure = (None, None) if first else (tls, name)
        reader, writer = await asyncio.open_connection(
            target.host, target.port, ssl=secure[0], server_hostname=secure[1], limit=HEAD_BYTES
        )
    try:
        if first:
            writer.write(first)
            if tls is not None:
                await writer.start_tls(tls, server_hostname=name)
        if target.kind is ProbeKind.TCP:
            took_s = monotonic() - started
            return took_s, f"connected in {took_s * 1000:.1f} ms"
        sent = monotonic()
        writer.write(_request(target))
        stage[0] = "waiting for the head"
        facts = await _head(reader)
        took_s = monotonic() - sent
        if facts.status not in target.expect:
            raise _Unwell(f"status {facts.status}")
        stage[0] = "reading the body"
        _judge(b"" if target.method == "HEAD" else await _body(reader, facts), target.body)
        return took_s, f"status {facts.status} in {took_s * 1000:.1f} ms"
    finally:
        writer.transport.abort()  # never lingers: a TLS peer that does not say goodbye would keep the socket


def _request(target: ProbeTarget) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    authority = target.authority or f"{host}:{target.port}".encode()
    own = {"user-agent": ("User-Agent", "streamgate-probe"), "accept": ("Accept", "*/*")}
    own.update({name.lower(): (name, value) for name, value in target.headers})
    lines = "".join(f"{name}: {value}\r\n" for name, value in own.values()).encode("latin-1", "replace")
    first = f"{target.method} {target.path} HTTP/1.1\r\n".encode()
    return b"%bHost: %b\r\n%bConnection: close\r\n\r\n" % (first, authority, lines)


async def _head(reader: asyncio.StreamReader) -> ResponseFacts:
    for _ in range(INTERIM_MAX + 1):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise _Unwell("closed within the head" if error.partial else "closed without an answer") from None
        except asyncio.LimitOverrunError:
            raise ResponseInvalid("head too large") from None
        facts = response_head(head, LIMITS)
        if facts.status >= 200 or facts.status == 101:
            return facts
    raise ResponseInvalid("too many interim answers")


async def _body(reader: asyncio.StreamReader, facts: ResponseFacts) -> bytes:
    """The body, or its first BODY_BYTES. Raises if it ends early."""
    found = bytearray()
    chunks = ChunkedReader() if facts.framing is Framing.CHUNKED else None
    wanted = facts.length or 0 if facts.framing in (Framing.LENGTH, Framing.NONE) else BODY_BYTES
    if facts.framing is Framing.NONE:
        return b""
    while len(found) < min(wanted, BODY_BYTES):
        data = await reader.read(HEAD_BYTES)
        if not data and facts.framing is Framing.CLOSE:
            break
        if not data:
            raise _Unwell("closed in the middle of the body")
        if chunks is None:
            found += data
            continue
        try:
            for piece in chunks.feed(data)[0]:
                found += piece
        except ValueError as error:
            raise ResponseInvalid(str(error)) from None
        if chunks.done:
            break
    return bytes(found[: min(wanted, BODY_BYTES)])


def judged(target: ProbeTarget, status: int, body: bytes, seconds: float) -> ProbeResult:
    """The result for an answer that came another way."""
    if status not in target.expect:
        return ProbeResult(False, seconds, f"status {status}")
    try:
        _judge(body, target.body)
    except _Unwell as error:
        return ProbeResult(False, seconds, str(error))
    return ProbeResult(True, seconds, f"status {status} in {seconds * 1000:.1f} ms")


def _judge(body: bytes, text: str) -> None:
    if text and text.encode() not in body:
        where = "body" if len(body) < BODY_BYTES else f"first {BODY_BYTES // 1024} KiB of the body"
        raise _Unwell(f"{where} without {text!r}")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'closed in the handshake'}"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "name not resolved"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return f"connection failed: {getattr(error, 'strerror', None) or type(error).__name__}"


@dataclass(slots=True, eq=False)
class _Watch:
    """A probed target with its task and the event that ends its sleep."""

    target: ProbeTarget
    hurry: asyncio.Event
    task: asyncio.Task[None] | None = None


class Prober:
    """Owns one task for each target. Made on a running loop; `close` ends all.

    `on_result` and `next_delay` are called on the loop; the first probe of a target starts at once.
    """

    def __init__(
        self, targets: Iterable[ProbeTarget], on_result: OnResult, next_delay: NextDelay, limit: int = 64
    ) -> None:
        self._on_result = on_result
        self._next_delay = next_delay
        self._slots = asyncio.Semaphore(limit)
        self._watches: dict[Hashable, _Watch] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.running = 0  # probes that hold a slot now
        self.update(targets)

    def update(self, targets: Iterable[ProbeTarget]) -> None:
        """Probe these targets from now on. A changed one is asked at once; a removed one reports nothing any more."""
        wanted = {target.id: target for target in targets}
        for identity, watch in list(self._watches.items()):
            if wanted.get(identity) != watch.target:
                self._end(self._watches.pop(identity))
        for identity, target in wanted.items():
            if identity not in self._watches and not self._closed:
                watch = self._watches[identity] = _Watch(target, asyncio.Event())
                watch.task = asyncio.create_task(self._run(watch), name=f"probe-{identity}")

    def hurry(self, identity: Hashable) -> None:
        """Ask for the next delay again, and wait no longer than that."""
        watch = self._watches.get(identity)
        if watch is not None:
            watch.hurry.set()

    async def close(self) -> None:
        """Stop all probes; nothing is reported afterwards."""
        self._closed = True
        self.update(())
        while self._ending:
            await asyncio.wait(self._ending)

    def _end(self, watch: _Watch) -> None:
        task = watch.task
        if task is not None and not task.done():
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _run(self, watch: _Watch) -> None:
        identity = watch.target.id
        while True:
            async with self._slots:
                self.running += 1
                try:
                    answer = await probe(watch.target)
                finally:
                    self.running -= 1
            try:
                self._on_result(identity, *answer)
            except Exception:  # a bug there must not end the watch on this backend
                logging.getLogger("edge.probes").exception("the result of probe %s was not taken", identity)
            await self._rest(watch)

    async def _rest(self, watch: _Watch) -> None:
        """Sleep until the next probe is due; the bell may bring that forward."""
        due = self._due(watch)
        while (left_s := due - monotonic()) > 0:
            watch.hurry.clear()
            try:
                async with asyncio.timeout(left_s):
                    await watch.hurry.wait()
            except TimeoutError:
                return
            due = min(due, self._due(watch))

    def _due(self, watch: _Watch) -> float:
        now = monotonic()
        try:
            delay_s = self._next_delay(watch.target.id, now)
        except Exception:  # as above
            logging.getLogger("edge.probes").exception("no delay for probe %s", watch.target.id)
            delay_s = FALLBACK_S
        return now + max(MIN_DELAY_S, delay_s)
