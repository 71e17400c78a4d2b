"""The worker processes: start them, replace one that dies, tell all of them something and know that each did it.

    STARTING ─ first frame sent ─► (builds) ─ READY frame ─► READY ─ DRAIN ─► DRAINING ─► gone
        └──────────────── dies at any time ──► backoff ──► STARTING, unless the gateway stops
    renew: a second worker for each place ─► all READY ─► those before them DRAIN         (new code of applications)
    resize: workers for new places; those of places that are no more DRAIN

One rule: a worker that is alive has applied all that was told before `tell` returned. The first frame carries the state
of its moment and the link keeps the order, so a worker that starts meanwhile misses nothing; one that does not answer
in time is killed and replaced, because it might go on serving what was purged.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import count
from time import monotonic
from typing import Any

from edge.control.link import Answer, Link, LinkLost, Progress, Refused
from edge.control.slots import Child, Hooks, Slot, State
from edge.frames import Frame, FrameKind, ack

ANSWER_S = 5.0  # how long a worker may take to apply what it is told
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 5.0
READ_OUT_S = 0.5
DYING_S = 0.1  # a process that ends closes its link a moment before it is gone
STEADY_S = 10.0  # a worker that lived this long did not fail at its start


class Workers:
    """All workers of one gateway."""

    def __init__(self, spawn: Callable[[int], Awaitable[Child]], number: int, hooks: Hooks) -> None:
        self.slots = [Slot(index, index) for index in range(number)]
        self._stop = asyncio.Event()
        self._spawn = spawn
        self._hooks = hooks
        self._keepers: list[asyncio.Task[None]] = []
        # Workers of the program before this one, while they end.
        self.elsewhere: Callable[[FrameKind, dict[str, Any]], Coroutine[Any, Any, None]] | None = None

    @property
    def live(self) -> list[Slot]:
        """The workers that have a process and were told the state."""
        return [slot for slot in self.slots if slot.child is not None and slot.child.link.closed is None]

    @property
    def holding(self) -> list[Slot]:
        """The workers that hold a place; the others drain."""
        return [slot for slot in self.slots if not slot.retired]

    @property
    def ready(self) -> bool:
        """Whether every worker listens, except those that are joining."""
        return all(slot.state is State.READY for slot in self.holding if not slot.joining)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all workers; returns before they are ready."""
        self._keepers = [asyncio.create_task(self._keep(slot), name=f"worker-{slot.index}") for slot in self.slots]

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until every worker listens; False when the time ran out."""
        try:
            async with asyncio.timeout(timeout_s):
                for slot in self.slots:
                    await slot.ready.wait()
        except TimeoutError:
            return False
        return True

    async def renew(self, number: int, timeout_s: float, grace_s: float) -> None:
        """New workers, so many, in all places; those before them let nobody in any more, and end their requests.

        Raises Refused when one of them does not start: then none takes over, and those before serve on.
        """
        before = self.holding
        keepers = self._join(range(number), trial=True)
        fresh = [slot for slot in self.slots if slot.trial]
        await _settled(fresh, timeout_s)  # who is not ready then has failed
        failed = next((slot for slot in fresh if slot.state is not State.READY), None)
        gone = fresh if failed is not None else before
        leaving = [self._retire(slot, None if failed is not None else grace_s) for slot in gone]
        for slot in fresh:
            slot.trial = slot.joining = False
        if failed is not None:
            await asyncio.gather(*keepers)
            raise Refused(failed.last_words or f"the new worker was not ready within {timeout_s:g} s")
        await _left(leaving)

    async def resize(self, number: int, timeout_s: float, grace_s: float) -> None:
        """Change the number of workers: surplus ones drain, new ones are started and awaited for `timeout_s`."""
        leaving = [self._retire(slot, grace_s) for slot in self.holding if slot.place >= number]
        there = {slot.place for slot in self.holding}
        self._join([place for place in range(number) if place not in there])
        fresh = [slot for slot in self.slots if slot.joining]
        await _settled(fresh, timeout_s)
        for slot in fresh:
            slot.joining = False
        await _left(leaving)

    def _join(self, places: Iterable[int], trial: bool = False) -> list[asyncio.Task[None]]:
        """Start workers beside those that serve, with numbers that nobody has."""
        free = (index for index in count() if all(slot.index != index for slot in self.slots))
        keepers = []
        for place in places:
            slot = Slot(next(free), place, trial=trial, joining=True)
            self.slots = [*self.slots, slot]
            keepers.append(asyncio.create_task(self._keep(slot), name=f"worker-{slot.index}"))
        self._keepers += keepers
        return keepers

    @staticmethod
    def _retire(slot: Slot, grace_s: float | None) -> Answer | None:
        """Nobody follows it: it ends at once, or its requests within the grace time; then its answer when it lets
        nobody in any more."""
        slot.retired, child = True, slot.child
        if child is None:
            return None
        if grace_s is None:
            child.signal(signal.SIGKILL)
            return None
        slot.state = State.DRAINING
        asyncio.get_running_loop().call_later(grace_s + 2.0, child.signal, signal.SIGKILL)
        return child.link.ask(FrameKind.DRAIN, {"grace_s": grace_s})

    async def drain(self, grace_s: float) -> None:
        """Let every worker finish its exchanges and end; after the grace time and a margin they are killed."""
        self._stop.set()
        for slot in self.live:
            slot.state = State.DRAINING
            assert slot.child is not None
            slot.child.link.send(Frame(FrameKind.DRAIN, {"grace_s": grace_s}))
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=grace_s + 2.0)
        await self.kill()

    async def kill(self) -> None:
        """End every worker at once."""
        self._stop.set()
        self.signal_all(signal.SIGKILL)
        await asyncio.gather(*self._keepers)
        self._keepers = []

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every worker."""
        for slot in self.slots:
            if slot.child is not None:
                slot.child.signal(number)

    # -- telling ---------------------------------------------------------------------------------------------------

    def send_all(self, frame: Frame) -> None:
        """Send a frame to every worker, without waiting."""
        for slot in self.live:
            assert slot.child is not None
            slot.child.link.send(frame)

    def pass_on(self, index: int, invalidated: Frame) -> None:
        """What a worker has invalidated goes in the others; where it waits for that (`id`), it hears of the end."""
        others = [slot for slot in self.live if slot.index != index]
        if not invalidated.id:
            for slot in others:
                assert slot.child is not None
                slot.child.link.send(Frame(FrameKind.PURGE, invalidated.body))
            return
        own = next((slot.child for slot in self.live if slot.index == index), None)
        work = asyncio.gather(
            *(self.ask(slot, FrameKind.PURGE, invalidated.body, ANSWER_S) for slot in others), return_exceptions=True
        )
        if own is not None:
            work.add_done_callback(lambda _: own.link.send(ack(invalidated)))

    async def tell(
        self,
        kind: FrameKind,
        body: dict[str, Any],
        timeout_s: float = ANSWER_S,
        besides: Callable[[Slot], dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """Tell every worker and wait until each has done it. Raises Refused when one could not.

        `besides` gives what is one's own, such as the names of sockets that it hands over; OSError: it is gone.
        """
        told = self.holding if kind is FrameKind.PREPARE else self.slots  # who drains serves by what it has
        slots = [slot for slot in told if slot.child is not None]
        asked = []
        for slot in slots:
            try:
                own = besides(slot) if besides is not None else {}
            except OSError:
                continue  # its successor starts from the new state
            asked.append(self.ask(slot, kind, {**body, **own}, timeout_s))
        if kind is FrameKind.PURGE and self.elsewhere is not None:
            asked.append(self.elsewhere(kind, body))
        found = await asyncio.gather(*asked, return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if isinstance(each, dict)]

    async def ask_one(
        self,
        kind: FrameKind,
        body: dict[str, Any],
        on_progress: Progress | None = None,
        timeout_s: float | None = ANSWER_S,
    ) -> dict[str, Any]:
        """Ask the first worker that is ready. Raises LinkLost when there is none or it dies, Refused, TimeoutError."""
        for slot in self.slots:
            if slot.state is State.READY and slot.child is not None:
                async with asyncio.timeout(timeout_s):
                    return await slot.child.link.ask(kind, body, on_progress)
        raise LinkLost("no worker is ready")

    async def ask(self, slot: Slot, kind: FrameKind, body: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """One worker's answer; None when it is gone, for its successor starts from the new state.

        A process whose link has ended may still serve from the old state: it is ended before anybody says "done".
        """
        child, over = slot.child, slot.over
        assert child is not None
        try:
            async with asyncio.timeout(timeout_s):
                return await child.link.ask(kind, body)
        except LinkLost:
            child.signal(signal.SIGKILL)
            await over.wait()
            return None
        except TimeoutError:
            self._hooks.event("worker.hung", {"worker": slot.index, "pid": child.pid, "frame": kind.value})
            child.signal(signal.SIGKILL)
            child.link.end("no answer in time")
            await over.wait()
            return None
        except Refused as error:
            raise Refused(f"worker {slot.index}: {error.detail}") from None

    # -- one place -------------------------------------------------------------------------------------------------

    async def _keep(self, slot: Slot) -> None:
        """Keep one place filled until the gateway stops."""
        backoff_s = BACKOFF_MIN_S
        while not self._stop.is_set() and not slot.retired:
            slot.started_at = monotonic()
            code = await self._live_once(slot)
            if self._stop.is_set() or slot.trial or slot.retired:
                break
            if monotonic() - slot.started_at > STEADY_S:
                backoff_s = BACKOFF_MIN_S
            slot.restarts += 1
            self._hooks.event("worker.died", {"worker": slot.index, "code": code, "again_in_s": backoff_s})
            try:
                async with asyncio.timeout(backoff_s):
                    await self._stop.wait()
            except TimeoutError:
                pass  # the backoff is over
            backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
        slot.settled.set()
        if slot.retired or slot.trial:
            self.slots = [each for each in self.slots if each is not slot]
            self._keepers = [each for each in self._keepers if each is not asyncio.current_task()]

    async def _live_once(self, slot: Slot) -> int:
        """One worker from start to end; its exit code."""
        try:
            child = await self._spawn(slot.index)
        except OSError as error:
            self._hooks.event("worker.not_started", {"worker": slot.index, "error": str(error)})
            return -1
        slot.child, slot.state, slot.over = child, State.STARTING, asyncio.Event()
        child.link.on_frame = lambda frame: self._frame(slot, frame)
        child.link.on_closed = lambda reason: self._cut_off(slot, child, reason)
        first, sockets = self._hooks.first(slot)
        try:
            child.hand(sockets)
            child.link.send(first)
        except OSError:
            child.signal(signal.SIGKILL)  # it is as good as gone
        if self._stop.is_set():
            child.signal(signal.SIGKILL)  # the gateway ended while it was started
        try:
            code = await child.wait()
            await _read_out(child.link)
            return code
        finally:
            slot.child, slot.state = None, State.GONE
            slot.ready.clear()
            slot.over.set()
            slot.settled.set()
            child.link.end("the worker ended")
            self._hooks.gone(slot.index)

    def _cut_off(self, slot: Slot, child: Child, reason: str) -> None:
        """Its link has ended. A worker that cannot be told anything is no worker: it ends now, and another takes its
        place; one that drains ends by itself and closes its link first."""
        if slot.child is not child or slot.state is State.DRAINING:
            return
        slot.state = State.GONE
        slot.ready.clear()
        asyncio.get_running_loop().call_later(DYING_S, self._end_cut_off, slot, child, reason)

    def _end_cut_off(self, slot: Slot, child: Child, reason: str) -> None:
        if slot.child is child:  # it lives on
            self._hooks.event("worker.link_lost", {"worker": slot.index, "pid": child.pid, "evidence": reason})
            child.signal(signal.SIGKILL)

    def _frame(self, slot: Slot, frame: Frame) -> None:
        if frame.kind is FrameKind.READY and slot.state is State.STARTING:
            slot.state = State.READY
            slot.ready.set()
            slot.settled.set()
            slot.code = str(frame.body.get("code", ""))
            pid = slot.child.pid if slot.child is not None else 0
            self._hooks.event("worker.ready", {"worker": slot.index, "pid": pid})
        elif frame.kind is FrameKind.EVENT and frame.body.get("kind") == "worker.cannot_start":
            slot.last_words = str(frame.body.get("evidence", ""))
        self._hooks.frame(slot.index, frame)


async def _read_out(link: Link) -> None:
    """What a worker said last, such as its counts, is still on its way when it has ended."""
    try:
        async with asyncio.timeout(READ_OUT_S):
            await link.ended.wait()
    except TimeoutError:
        pass  # a child of its own holds the socket open; nothing more is to come


async def _settled(slots: list[Slot], timeout_s: float) -> None:
    """Until each is ready or has ended once, or the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            for slot in slots:
                await slot.settled.wait()
    except TimeoutError:
        pass  # the slots tell


async def _left(leaving: Iterable[Answer | None]) -> None:
    """Until those that end let nobody in any more. Who does not say so in time has its grace time all the same."""
    asked = [answer for answer in leaving if answer is not None]
    if asked:
        await asyncio.wait([asyncio.gather(*asked, return_exceptions=True)], timeout=ANSWER_S)
