"""An upgrade: a new program takes over the sockets, the locks and the journal of the one that runs.

    old ─ journal closed ─► new program (sockets, locks) ─► its workers listen ─► "ready" ─► old drains, ends
                                  └─ ends, or is not ready in time ─► journal open again, old goes on

One rule: at every moment somebody accepts on every socket, and what was acknowledged is known to whoever accepts. The
journal has one writer: the old program writes nothing from before the new one reads it until that has failed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import orjson

from edge.control.admin.errors import Refusal, Unavailable
from edge.control.detached import Detached
from edge.control.link import Link, LinkLost, Refused, connect
from edge.control.listeners import Bound
from edge.control.registry import Change
from edge.control.supervisor import Supervisor
from edge.control.workers import Workers
from edge.frames import Frame, FrameKind, ack

VARIABLE = "EDGE_SUCCESSION"
READY = b"ready"
READY_S = 60.0
PASSED_ON_S = 5.0
SAID_BYTES = 4096


class NotUpgraded(Refusal):
    """The new program did not become ready; the old one goes on."""

    status: ClassVar[int] = 500


class Successor:
    """The new program's side of an upgrade."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._channel = socket.socket(fileno=found["channel"])
        os.set_inheritable(found["channel"], False)
        self.sockets: list[tuple[str, int]] = [(name, number) for name, number in found["sockets"]]  # by address
        self.files: list[str] = found.get("files", [])  # of those, Unix sockets that it made
        self.state_lock: int = found["state_lock"]
        self.tier_lock: int | None = found["tier_lock"]
        for number in (self.state_lock, *([self.tier_lock] if self.tier_lock is not None else [])):
            os.set_inheritable(number, False)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> Successor | None:
        """The successor that this process was started as, or None. Removes the variable: it is not for children."""
        text = (os.environ if environment is None else environment).pop(VARIABLE, None)
        return None if text is None else cls(orjson.loads(text))

    def ready(self) -> bool:
        """Tell the old program to end. False when it has ended already."""
        return self._say(READY)

    def failed(self, why: str) -> None:
        """Tell the old program why this one cannot start."""
        self._say(why.encode()[:SAID_BYTES])
        self._channel.close()

    async def outlive(self, workers: Workers) -> None:
        """Wait until the old program and its workers have ended. Until then purges are passed on to those workers."""
        link = await connect(self._channel)

        async def too(kind: FrameKind, body: dict[str, Any]) -> None:
            try:
                async with asyncio.timeout(PASSED_ON_S):
                    await link.ask(kind, body)
            except (LinkLost, TimeoutError):
                pass  # it has ended, or is not able to serve either

        workers.elsewhere = too
        try:
            await link.ended.wait()
        finally:
            workers.elsewhere = None
            link.end("the predecessor has ended")

    def _say(self, data: bytes) -> bool:
        try:
            self._channel.sendall(data)
        except OSError:
            return False
        return True


class Freezing(Protocol):
    """The journal, as an upgrade needs it."""

    def freeze(self, why: str | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a successor inherits. `environment` is added to the old program's own."""

    sockets: Callable[[], Sequence[Bound]]
    files: Callable[[], list[str]]  # of those, the names of Unix sockets that are ours to remove
    state_lock: int
    tier_lock: int | None
    environment: Callable[[], dict[str, str]]


class Upgrading:
    """The old program's side of an upgrade. `lock` keeps reloads out meanwhile; `handed_over` is called when the new
    program is ready.
    """

    def __init__(self, supervisor: Supervisor, journal: Freezing, belongings: Belongings, lock: asyncio.Lock) -> None:
        self._all = supervisor
        self._journal = journal
        self._belongings = belongings
        self._one = lock
        self.handed_over: Callable[[int], None] = lambda pid: None
        self.refused = ""  # why this program cannot be replaced while it runs
        self._process: Detached | None = None
        self._link: Link | None = None
        self._work: set[asyncio.Task[None]] = set()

    async def upgrade(self, change: Change) -> dict[str, Any]:
        """Start the program that is installed now, and hand over to it. Raises NotUpgraded, Unavailable."""
        if self.refused:
            raise NotUpgraded(self.refused)
        async with self._one:
            if self._all.stopping:
                raise Unavailable("the gateway stops")
            if not self._all.workers.ready:
                raise Unavailable("not every worker is ready")
            self._all.events.add("gateway.upgrading", {"actor": change.actor})
            self._journal.freeze("an upgrade is under way: ask again in a moment")
            try:
                pid = await self._start()
            except NotUpgraded as error:
                self._journal.freeze(None)
                self._all.events.add("gateway.upgrade_failed", {"actor": change.actor, "evidence": error.detail})
                raise
            except BaseException:
                self._journal.freeze(None)
                raise
            self._all.events.add("gateway.upgraded", {"actor": change.actor, "pid": pid})
            self._all.stopping = True
            self.handed_over(pid)
            return {"pid": pid, "before": os.getpid()}

    async def _start(self) -> int:
        """The new program, until it is ready. Raises NotUpgraded."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                process = self._process = await self._spawn(theirs)
            async with asyncio.timeout(READY_S):
                said = await asyncio.get_running_loop().sock_recv(ours, len(READY))
                if said not in (READY, b""):
                    said += await asyncio.get_running_loop().sock_recv(ours, SAID_BYTES)
        except BaseException as error:
            ours.close()
            await self.end()
            if isinstance(error, TimeoutError):
                raise NotUpgraded(f"the new program was not ready within {READY_S:g} s") from None
            raise
        if said == READY:
            self._link = await connect(ours, self._passed_on)  # its end tells the new program that this one has ended
            process.close()
            return process.pid
        ours.close()
        await self.end()
        why = said.decode(errors="replace") or "it ended before it said why"
        raise NotUpgraded(f"the new program did not start: {why}")

    def _passed_on(self, frame: Frame) -> None:
        """The new program purges: requests that end here are not to be answered by what it named."""
        if frame.kind is FrameKind.PURGE:
            task = asyncio.create_task(self._purge(frame), name="purge-passed-on")
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _purge(self, frame: Frame) -> None:
        assert self._link is not None
        try:
            await self._all.workers.tell(frame.kind, frame.body)
        except Refused as error:
            self._link.send(ack(frame, error=error.detail))
        else:
            self._link.send(ack(frame))

    async def _spawn(self, theirs: socket.socket) -> Detached:
        have = self._belongings
        sockets = [(name, each.fileno()) for name, each in have.sockets()]
        given = {
            "channel": theirs.fileno(),
            "sockets": sockets,
            "files": have.files(),
            "state_lock": have.state_lock,
            "tier_lock": have.tier_lock,
        }
        locks = [each for each in (have.state_lock, have.tier_lock) if each is not None]
        try:
            return await Detached.start(
                sys.orig_argv,
                [theirs.fileno(), *(number for _, number in sockets), *locks],
                {**os.environ, **have.environment(), VARIABLE: orjson.dumps(given).decode()},
            )
        except OSError as error:
            raise NotUpgraded(f"{sys.orig_argv[0]}: {error.strerror}") from None

    async def end(self) -> None:
        """End a new program that did not become ready."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.send_signal(signal.SIGTERM):
                async with asyncio.timeout(5.0):
                    await process.wait()
        except TimeoutError:
            if process.send_signal(signal.SIGKILL):
                await process.wait()
        finally:
            process.close()
