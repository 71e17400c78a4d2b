"""Purges on their way into the stream, and the wait until every machine has carried them out.

    operator's, in step      published ─► comes back through the stream like anybody's ─► carried out here ─► the others
    operator's, not in step  carried out here alone, kept in the journal ─► published when in step again ─► the others,
                             if all that takes no longer than a purge may wait
    unsafe requests'         carried out by the worker ─► queue ─► published, nobody waits

What is in the stream and not known to be applied everywhere is sent again when the server is another process or has
another stream: it may have been lost (`cache.fleet.unconfirmed`).

One rule: "applied on N of N" counts every machine that may still serve what was stored (`cache.fleet.machines`); where
that cannot be known, the answer says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex
from time import monotonic
from typing import Any

from edge.cache.fleet.machines import SILENT_S, Machine, Machines
from edge.cache.fleet.purges import UNREADABLE, FleetPurge
from edge.cache.fleet.stream import StreamPlace
from edge.cache.fleet.unconfirmed import Sent, Unconfirmed
from edge.cache.purge import Purge
from edge.control.fleet.host import FleetHost, FleetServer, FleetSettings
from edge.errors import FleetAway

ASK_MIN_S, ASK_MAX_S = 0.001, 0.02  # between looks at how far the others are
APPLY_S = 5.0  # how long an own purge may take to come back from the stream and be carried out
MOST_UNSENT = 4096  # invalidations that wait; beyond, everything is distrusted everywhere


class PurgeSender:
    """Puts the purges of one machine into the stream, and waits for the others."""

    def __init__(self, settings: FleetSettings, server: FleetServer, machines: Machines, host: FleetHost) -> None:
        self._settings = settings
        self._server = server
        self._machines = machines
        self._host = host
        self._waiting: dict[Purge, None] = {}  # invalidations, in order
        self._mine: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._unconfirmed = Unconfirmed()
        self._own_sent: Sent | None = None  # of what was purged here alone, the last that is in the stream
        self._own_number = 0
        self._sent_own = asyncio.Condition()
        self.wake = asyncio.Event()

    # -- operators -----------------------------------------------------------------------------------------------------

    async def purge(
        self, place: StreamPlace, run: str, purges: Sequence[Purge], actor: str, reason: str
    ) -> list[dict[str, Any]]:
        """Put purges into the stream, wait until they are carried out here, then for the others.

        Raises FleetAway where one may not be in the stream: carry them out here, and keep them to be sent.
        """
        marks = [token_hex(8) for _ in purges]
        position = 0
        for mark in marks:
            self._mine[mark] = asyncio.get_running_loop().create_future()
        done = asyncio.gather(*(self._mine[mark] for mark in marks))
        try:
            for mark, purge in zip(marks, purges, strict=True):
                position = (await self._publish(place.history, run, mark, purge, True, actor, reason)).position
            async with asyncio.timeout(APPLY_S):
                answers = await done
        except TimeoutError:
            raise FleetAway("the stream's purges are not carried out here") from None
        finally:
            done.cancel()
            for mark in marks:
                self._mine.pop(mark, None)
        machines = await self._acknowledged(place.history, run, position)
        return [{**answer, "machines": machines} for answer in answers]

    def carried_out(self, mark: str, answer: dict[str, Any]) -> None:
        """An entry of the stream has been applied here."""
        waiting = self._mine.get(mark)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def afterwards(self, number: int, wait_s: float) -> dict[str, Any]:
        """As after `purge`, of purges that were carried out here alone, up to this number of the journal: if they come
        into the stream soon."""
        self.wake.set()
        try:
            async with asyncio.timeout(wait_s), self._sent_own:
                await self._sent_own.wait_for(lambda: self._own_number >= number)
        except TimeoutError:
            return self._alone()
        sent = self._own_sent
        assert sent is not None
        return await self._acknowledged(sent.history, sent.run, sent.position)

    async def _acknowledged(self, history: str, run: str, position: int) -> dict[str, Any]:
        until, wait_s = monotonic() + self._settings.ack_timeout_s, ASK_MIN_S
        while True:
            try:
                beat = await self._server.beat("", {})
                heard_at = monotonic()
                self._machines.see(beat.machines, beat.time, heard_at)
                self._machines.history_is(beat.history_age_s, heard_at)
            except FleetAway:
                pass  # as far as it was known
            now = monotonic()
            done, late = self._machines.waiting(history, run, position, now)
            awaited = [machine for machine in late if self._machines.silent_s(machine.id, now) <= SILENT_S]
            if now >= until or not (awaited or self._machines.may_grow):
                return shown(done, late, self._machines.sure and await self._confirmed())
            await asyncio.sleep(wait_s)
            wait_s = min(ASK_MAX_S, wait_s * 2)

    async def _confirmed(self) -> bool:
        """Machines that we do not know cannot have come to another primary before we heard from all that we know."""
        try:
            await self._server.confirmed()
        except FleetAway:
            return False
        return True

    def _alone(self) -> dict[str, Any]:
        """As after `purge`, where only this machine has carried it out."""
        own = self._settings.identity
        others = [machine.name for machine, _ in self._machines.all(monotonic()) if machine.id != own]
        return {"applied": 1, "of": 1 + len(others), "late": others, "sent": False, "sure": False}

    # -- what is sent later --------------------------------------------------------------------------------------------

    def invalidated(self, purge: Purge) -> None:
        """An unsafe request made something invalid here: the others are to follow."""
        if len(self._waiting) >= MOST_UNSENT:
            self._waiting = {UNREADABLE: None}
        self._waiting[purge] = None
        self.wake.set()

    def look(self, now: float) -> None:
        """It was heard how far the machines are."""
        self._unconfirmed.look(self._machines, now)

    async def send_unsent(self, place: StreamPlace, run: str) -> bool:
        """Send what was purged or made invalid here alone, and what may have been lost; whether there was something.
        Nothing is waited for where there was not. Raises FleetAway, HistoryChanged."""
        history = place.history
        found = bool(self._waiting)
        while (lost := self._unconfirmed.of_another(history, run)) is not None:
            found = True
            await self._publish(history, run, token_hex(8), lost.purge, lost.lasting, lost.actor, lost.reason)
            self._unconfirmed.sent_again(lost)
        while lasting := self._host.unsent():
            found = True
            for each in lasting:
                sent = await self._publish(history, run, token_hex(8), each.purge, True, each.actor, each.reason)
                self._host.sent(each.number)
                async with self._sent_own:
                    self._own_sent, self._own_number = sent, each.number
                    self._sent_own.notify_all()
        while self._waiting:
            purge = next(iter(self._waiting))
            await self._publish(history, run, token_hex(8), purge, False)
            self._waiting.pop(purge, None)
        return found

    async def _publish(
        self, history: str, run: str, mark: str, purge: Purge, lasting: bool, actor: str = "", reason: str = ""
    ) -> Sent:
        asked = FleetPurge(purge, lasting, self._settings.identity, actor, reason)
        position = await self._server.publish(history, run, mark, asked.dumps(self._settings.key))
        sent = Sent(purge, lasting, actor, reason, history, run, position)
        self._unconfirmed.add(sent)
        return sent


def shown(done: list[Machine], late: list[Machine], sure: bool) -> dict[str, Any]:
    """What became of a purge on the machines, as an answer tells it."""
    return {
        "applied": len(done),
        "of": len(done) + len(late),
        "late": [machine.name for machine in late],
        "sent": True,
        "sure": sure,
    }
