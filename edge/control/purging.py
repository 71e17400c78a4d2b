"""Purges carried out on this machine: durable first, then in every worker, then out of the disk tier.

One rule: several at once are one change of the journal, reach every worker in the order of their numbers, and leave the
disk tier in that order too, many of them in one transaction. When `carry_out` has returned, nothing that they name is
served; when it raises, they are durable and may be carried out again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from edge.cache.fleet.stream import StreamPlace
from edge.cache.purge import STAMPED, Numbered, Purge, PurgeLog
from edge.control.admin.errors import NotApplied
from edge.control.events import Events
from edge.control.link import Refused
from edge.control.registry import Change
from edge.control.workers import Workers
from edge.errors import EdgeError
from edge.frames import FrameKind, unpacked

TOGETHER = 128  # told before the first of them is awaited, and one step of the disk tier

Part = Sequence[tuple["Order", int | None]]  # with the journal's numbers
Answers = Sequence[dict[str, Any]]  # of workers, to one purge


class Tier(Protocol):
    """The machine's disk tier; its methods block."""

    def purge(self, purges: Sequence[Numbered], at: float) -> list[set[tuple[int, int]]]: ...
    def stats(self) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class Order:
    """A purge to carry out. Without `lasting` it is the invalidation by an unsafe request on another machine."""

    purge: Purge
    change: Change
    lasting: bool = True
    position: int | None = None  # in the fleet's stream; None: it is not in there
    own: bool = False  # and has to come there, once the server is back


class PurgeStore(Protocol):
    """Records purges durably."""

    def record_purges(self, orders: Sequence[Order], place: StreamPlace | None) -> list[int | None]: ...
    def save_purge_log(self, purge_log: PurgeLog) -> None: ...


class Purging:
    """Carries out purges on this machine: recorded, then in all tiers and workers."""

    def __init__(
        self,
        store: PurgeStore,
        purge_log: PurgeLog,
        workers: Workers,
        tier: Callable[[], Tier | None],
        events: Events,
    ) -> None:
        self._store = store
        self._purge_log = purge_log
        self._workers = workers
        self._tier = tier
        self._events = events
        self._turn = asyncio.Lock()

    async def carry_out(
        self,
        orders: Sequence[Order],
        place: StreamPlace | None = None,
        recorded: Callable[[int], None] = lambda index: None,
    ) -> list[dict[str, Any]]:
        """What became of each. One call at a time, so that numbers arrive in order; `place` is made durable with them.

        `recorded` is told the index of an order when a worker that starts from then on knows it. Raises NotApplied.
        """
        async with self._turn:
            now = time.time()
            numbers = self._store.record_purges(orders, place)
            for index, (order, number) in enumerate(zip(orders, numbers, strict=True)):
                if number is not None:
                    self._purge_log.record(order.purge, now, number)
                recorded(index)
            self._store.save_purge_log(self._purge_log)
            done: list[dict[str, Any]] = []
            numbered = list(zip(orders, numbers, strict=True))
            for at in range(0, len(orders), TOGETHER):
                done += await self._apply(numbered[at : at + TOGETHER])
        for order, found in zip(orders, done, strict=True):
            if order.lasting:
                facts = {"purge": found["id"], "what": found["kind"], "value": found["value"], "count": found["count"]}
                self._events.add("purge", {**facts, "soft": found["soft"], "actor": order.change.actor})
        return done

    async def _apply(self, part: Part) -> list[dict[str, Any]]:
        """Put a recorded purge in force everywhere."""
        told = await asyncio.gather(*(self._tell(order, number) for order, number in part))
        tier, counts = self._tier(), [counted(answers) for answers in told]
        if tier is not None:
            counts = await self._purge_tier(tier, part, told, counts)
        return [
            shown(order.purge, number, count, len(answers))
            for (order, number), answers, count in zip(part, told, counts, strict=True)
        ]

    async def _tell(self, order: Order, number: int | None) -> list[dict[str, Any]]:
        body = {"purge": order.purge.to_dict(), "number": number, "position": order.position}
        try:
            return await self._workers.tell(FrameKind.PURGE, body)
        except Refused as error:
            raise NotApplied(f"purge {number} is durable, but not applied: {error.detail}") from None

    @staticmethod
    async def _purge_tier(
        tier: Tier, part: Part, told: Sequence[Answers], counts: Sequence[int | None]
    ) -> list[int | None]:
        """Out of the disk tier too, under every key that workers know a URL by; the counts then, each response once."""
        named = [
            Numbered(number, named_by(order.purge, answers))
            for (order, number), answers in zip(part, told, strict=True)
            if number is not None
        ]
        try:
            on_disk = await asyncio.to_thread(tier.purge, named, time.time()) if named else []
        except EdgeError as error:
            numbers = f"{named[0].number} to {named[-1].number}" if len(named) > 1 else f"{named[0].number}"
            raise NotApplied(f"purge {numbers} is durable, but not applied on disk: {error.detail}") from None
        found = {each.number: touched for each, touched in zip(named, on_disk, strict=True)}
        return [
            count if number is None else together(order.purge, answers, found[number])
            for (order, number), answers, count in zip(part, told, counts, strict=True)
        ]


def named_by(purge: Purge, answers: Answers) -> list[Purge]:
    """A purge under every key that the workers know it by."""
    keys = {key for answer in answers for key in answer.get("keys", ())}
    return [replace(purge, value=key.encode("latin-1")) for key in sorted(keys)] or [purge]


def counted(answers: Answers) -> int | None:
    """How many responses it touched in the workers' memory; None where nobody counts."""
    counts: list[int | None] = [answer["count"] for answer in answers]
    return None if None in counts else sum(count for count in counts if count is not None)


def together(purge: Purge, answers: Answers, on_disk: set[tuple[int, int]]) -> int | None:
    """How many it touched in memory and on the disk, each once."""
    if purge.kind in STAMPED:
        return None
    found = set(on_disk)
    for answer in answers:
        marks = unpacked(answer.get("marks", ""))
        found.update(zip(marks[::2], marks[1::2], strict=True))
    return len(found) + sum(int(answer.get("more", 0)) for answer in answers)


def shown(purge: Purge, number: int | None, count: int | None, workers: int) -> dict[str, Any]:
    """For the answer to an operator."""
    what = purge.to_dict()
    return {
        "id": number,
        "kind": what["kind"],
        "value": what["value"],
        "soft": purge.soft,
        "count": count,
        "workers": workers,
    }
