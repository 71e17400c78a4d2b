"""Purges: durable first, then in force in every worker and tier, then answered.

One rule: one request at a time, so that numbers arrive in order. Of many purges in one request all are durable, or none
is; they are told to the workers in their order and awaited together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from edge.cache.purge import STAMPED, Purge, PurgeLog
from edge.control.admin.errors import NotApplied
from edge.control.events import Events
from edge.control.link import Refused
from edge.control.registry import Change
from edge.control.workers import Workers
from edge.errors import EdgeError
from edge.frames import Kind, unpacked

TOGETHER = 128  # told before the first of them is awaited


class Tier(Protocol):
    """The machine's disk tier; its calls block."""

    def purge(self, purges: Sequence[Purge], at: float, number: int) -> set[tuple[int, int]]: ...
    def stats(self) -> dict[str, int]: ...


class Book(Protocol):
    """Where purges are durable."""

    def purge_many(self, purges: Sequence[Purge], change: Change) -> list[int]: ...
    def save_purge_log(self, purge_log: PurgeLog) -> None: ...


class Purging:
    """All purges of one gateway. `tier` gives the disk tier, where there is one."""

    def __init__(
        self, book: Book, purge_log: PurgeLog, workers: Workers, events: Events, tier: Callable[[], Tier | None]
    ) -> None:
        self._book = book
        self._log = purge_log
        self._workers = workers
        self._events = events
        self._tier = tier
        self._one = asyncio.Lock()

    async def purge(self, purges: Sequence[Purge], change: Change) -> list[dict[str, Any]]:
        """What became of each. Raises NotApplied when a worker or the disk could not follow."""
        done = []
        async with self._one:
            numbers = self._book.purge_many(purges, change)
            for purge, number in zip(purges, numbers, strict=True):
                self._log.record(purge, time.time(), number)
            self._book.save_purge_log(self._log)
            for at in range(0, len(purges), TOGETHER):
                part = list(zip(purges, numbers, strict=True))[at : at + TOGETHER]
                done += await asyncio.gather(*(self._apply(purge, number) for purge, number in part))
        for found in done:
            facts = {"purge": found["id"], "what": found["kind"], "value": found["value"], "count": found["count"]}
            self._events.add("purge", {**facts, "soft": found["soft"], "actor": change.actor})
        return done

    async def _apply(self, purge: Purge, number: int) -> dict[str, Any]:
        """In force everywhere."""
        shown, tier = purge.to_dict(), self._tier()
        try:
            answers = await self._workers.tell(Kind.PURGE, {"purge": shown, "number": number})
        except Refused as error:
            raise NotApplied(f"purge {number} is durable, but not applied: {error.detail}") from None
        counts = [answer["count"] for answer in answers]
        if tier is not None:
            counts = await self._purge_tier(tier, purge, number, answers)
        return {
            "id": number,
            "kind": shown["kind"],
            "value": shown["value"],
            "soft": purge.soft,
            "count": None if any(count is None for count in counts) else sum(counts),
            "workers": len(answers),
        }

    async def _purge_tier(
        self, tier: Tier, purge: Purge, number: int, answers: list[dict[str, Any]]
    ) -> list[int | None]:
        """Out of the disk tier too, under every key that workers know the URL by; how many in all, each once."""
        keys = {key for answer in answers for key in answer.get("keys", ())}
        named = [replace(purge, value=key.encode("latin-1")) for key in sorted(keys)] or [purge]
        try:
            found = await asyncio.to_thread(tier.purge, named, time.time(), number)
        except EdgeError as error:
            raise NotApplied(f"purge {number} is durable, but not applied on disk: {error.detail}") from None
        if purge.kind in STAMPED:
            return [None]
        for answer in answers:
            marks = unpacked(answer.get("marks", ""))
            found.update(zip(marks[::2], marks[1::2], strict=True))
        return [len(found) + sum(answer.get("more", 0) for answer in answers)]
