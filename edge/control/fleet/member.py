"""This machine in its fleet: it follows the purge stream, says how far it is, and waits for the others.

    start ─► beat (registers) ─► what was missed ─► own purges that were not sent ─► in step ─► read, apply, beat …
               ▲                                                                      │ server away, entries missing
               └── requests are held back ◄── the server answers ◄── again and again ◄┘

Before the others hear of a machine again, every worker of it holds back what would be looked up, until all that was
missed is applied. Without the server the machine serves on, purges for itself, and sends that when the server is back.

One rule: a position is told only after everything up to it is durable and in every worker. Who may believe what stands
in `cache.fleet` (README there); this file talks, applies and tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex
from time import monotonic, time
from typing import Any

from edge.cache.fleet.machines import Machines
from edge.cache.fleet.purges import FleetPurge
from edge.cache.fleet.stream import Entry, Follower, Head, Lost, StreamPlace, Todo
from edge.cache.purge import Purge
from edge.control.fleet.host import Arrived, Companion, FleetHost, FleetServer, FleetSettings
from edge.control.fleet.limits import FleetLimits
from edge.control.fleet.looking import Looks
from edge.control.fleet.opinions import Opinions
from edge.control.fleet.recent import Recent
from edge.control.fleet.sending import PurgeSender
from edge.control.fleet.states import States
from edge.errors import EdgeError, FleetAway

BEAT_S = 1.0
AGAIN_MIN_S, AGAIN_MAX_S = 0.02, 0.1  # between looks whether the server is back: so long may what was purged be served
AGAIN_BLIND_S = 2.0  # as AGAIN_MAX_S, where everything is validated
START_S = 3.0  # how long a start waits for the server
TOGETHER = 256  # entries that become durable with one change of the journal
SKEW_S = 2.0  # between the server's clock and ours: told


class Fleet:
    """This machine's membership. `start` it before the workers, `stop` it after them."""

    def __init__(
        self, settings: FleetSettings, server: FleetServer, host: FleetHost, place: StreamPlace | None
    ) -> None:
        self.settings = settings
        self.machines = Machines(settings.max_blind_s)
        self.sending = PurgeSender(settings, server, self.machines, host)
        self.follower = Follower(place, settings.max_blind_s, monotonic(), settings.catch_up_s)
        self.offset_s = 0.0
        self.lag = 0  # entries that are in the stream and not applied here
        self.trouble = ""  # why it is not in step
        self._server = server
        self._host = host
        self._kept = place
        self._joined = False  # in step, and what was purged here alone is in the stream
        self._may_ack = False  # workers of an earlier run may still serve
        self._owed = False  # everything has to be distrusted, and could not be yet
        self._recent = Recent()
        self._skewed = self._stopped = False
        self._cut_at = monotonic()
        self._beat_now = asyncio.Event()
        self.states: States | None = None  # set before `start`, where the fleet shares them
        self.opinions: Opinions | None = None
        self.limits: FleetLimits | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def companions(self) -> list[Companion]:
        """What is shared besides purges."""
        return [each for each in (self.states, self.opinions, self.limits) if each is not None]

    @property
    def in_step(self) -> bool:
        """Whether all that is in the stream is applied here, and all that was purged here is in the stream."""
        return self._joined and self.follower.in_step

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Catch up before anything is served; without the server, distrust what earlier runs stored."""
        try:
            async with asyncio.timeout(START_S):
                await self._come_in_step()
        except (EdgeError, Lost, TimeoutError) as error:
            self._cut(error)
            await self._look_at_time()
        self._tasks = [
            asyncio.create_task(self._keep_on(), name="fleet"),
            asyncio.create_task(self._watch_time(), name="fleet-time"),
            asyncio.create_task(self._send_on(), name="fleet-send"),
            *(asyncio.create_task(each.run(), name="fleet-companion") for each in self.companions),
        ]

    def hurry(self) -> None:
        """Beat now: there is something that the others should know."""
        self._beat_now.set()

    def serving(self) -> None:
        """No worker of an earlier run is left: what this machine says holds for all that it serves."""
        self._may_ack = True
        self.hurry()

    async def stop(self, leave: bool = True) -> None:
        """Leave: nobody waits for this machine any more. Without `leave` another program goes on as this machine."""
        if self._stopped:
            return
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        try:
            if leave:
                await self._server.beat(self.settings.identity, {**self._told(), "left": True})
        except FleetAway:
            pass  # it is forgotten when it has been silent for long enough
        for companion in self.companions:
            await companion.close()
        await self._server.close()

    async def _keep_on(self) -> None:
        again_s = AGAIN_MIN_S
        while True:
            try:
                if not self.in_step:
                    await self._hold_back()
                    await self._come_in_step()
                again_s = AGAIN_MIN_S
                await self._follow()
            except Exception as error:
                if not isinstance(error, EdgeError | Lost):
                    self._host.event("bug", {"where": "fleet", "error": f"{type(error).__name__}: {error}"})
                self._cut(error)
            await asyncio.sleep(again_s)
            again_s = min(self._most_s(), again_s * 2)

    def _most_s(self) -> float:
        """From one look whether the server is back to the next."""
        return AGAIN_BLIND_S if self.follower.blind else AGAIN_MAX_S

    async def _hold_back(self) -> None:
        """Nothing that is stored is used from before the others hear of this machine again. Raises EdgeError."""
        await Looks(self._server.reached).answered(self._most_s)
        self.follower.back(monotonic())
        if self.follower.catching_up:
            await self._host.told(self.standing())

    def _cut(self, error: BaseException) -> None:
        was, self._joined = self._joined, False
        if was:
            self._cut_at = monotonic()
        self.follower.cut()
        why = error.detail if isinstance(error, EdgeError) else "no answer in time"
        if isinstance(error, Lost):
            why = "entries are missing in the stream"
        if was or why != self.trouble:
            self._host.event("fleet.cut_off", {"evidence": why})
        self.trouble = why
        self._tell()

    # -- coming into step ----------------------------------------------------------------------------------------------

    async def _come_in_step(self) -> None:
        """From whatever is known to everything that is in the stream. Raises FleetAway, HistoryChanged, EdgeError."""
        follower = self.follower
        sent = False
        while not (follower.in_step and sent):
            if self._owed:
                await self._distrust("what was owed")
            todo, head, sent_at = await self._beat()
            if todo is Todo.BEGIN:
                old = head.history
                self._host.event("fleet.new_history", {"evidence": "the server has lost the stream" if old else "none"})
                await self._server.begin(old, token_hex(8))
            elif todo is Todo.JOIN:
                await self._join(head, sent_at)
            elif todo is Todo.READ:
                try:
                    await self._catch_up()
                except Lost:
                    self._host.event("fleet.missed", {"evidence": "purges were missed that the stream does not hold"})
                    await self._join(head, sent_at)
            elif todo is Todo.CERTIFY:
                assert follower.place is not None
                await self._server.certify(follower.place, head.run)
            elif not sent:
                assert follower.place is not None
                self._tell()  # requests need not wait for what is sent
                sent = not await self.sending.send_unsent(follower.place, head.run)
        self.trouble = ""
        self._joined = True
        self._host.event("fleet.in_step", {"position": follower.place.position if follower.place else 0})
        self._tell()
        await self._beat()

    async def _join(self, head: Head, sent_at: float) -> None:
        await self._distrust("purges may have been missed" if self.follower.place else "first time in this fleet")
        retained = await self._server.read_all(head.run)
        whole, known = self.follower.join(head, sent_at, retained)
        self._load(whole, known)
        self._keep_place()

    async def _catch_up(self) -> int:
        """Read and apply what follows; how many entries. Raises Lost."""
        follower = self.follower
        if not self._recent.is_loaded:
            whole, known, after = follower.on_load(await self._server.read_all(follower.head.run))
            self._load(whole, known)
        else:
            after = follower.on_entries(await self._server.read(follower.head.run, follower.reads_from))
        for at in range(0, len(after), TOGETHER):
            await self._apply(after[at : at + TOGETHER])
        return len(after)

    def _load(self, whole: int, known: Sequence[Entry]) -> None:
        """What the workers have to know of the stream to judge what others stored."""
        self._recent.begin(whole)
        for entry in known:
            self._recent.add(entry, FleetPurge.loads(entry.payload, self.settings.key))
        self._host.tell({"load": self.load_body()})

    # -- following -----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Until something is wrong."""
        tasks = [asyncio.ensure_future(self._beats()), asyncio.ensure_future(self._reads())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        raise next(each for each in found if isinstance(each, Exception))

    async def _beats(self) -> None:
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._beat_now.wait()
            except TimeoutError:
                pass  # it is time
            self._beat_now.clear()
            todo, _, _ = await self._beat()
            if todo in (Todo.BEGIN, Todo.JOIN, Todo.CERTIFY) or not self.follower.in_step:
                raise FleetAway("another process of the server answers, or another stream")
            self._keep_place()
            self._tell()

    async def _reads(self) -> None:
        follower = self.follower
        while True:
            arrived = await self._server.arrived(follower.reads_from, BEAT_S)
            if arrived or self.lag:
                if not await self._catch_up() and arrived:
                    raise FleetAway("two processes of the server answer")
                await self._beat()

    async def _apply(self, entries: Sequence[Entry]) -> None:
        arrived = [Arrived(entry, FleetPurge.loads(entry.payload, self.settings.key)) for entry in entries]
        for each in arrived:
            if not each.asked.readable:
                self._host.event("fleet.garbled", {"position": each.entry.position})
        place = self.follower.place
        assert place is not None
        after = StreamPlace(place.history, entries[-1].position, entries[-1].mark)
        answers = await self._host.apply(arrived, after, lambda each: self._recent.add(each.entry, each.asked))
        self._kept = after
        self.follower.applied(entries)
        for each, answer in zip(arrived, answers, strict=True):
            self.sending.carried_out(each.entry.mark, answer)

    async def _beat(self) -> tuple[Todo, Head, float]:
        sent_at, clock = monotonic(), time()
        beat = await self._server.beat(self.settings.identity, self._told())
        now = monotonic()
        self.offset_s = beat.time - (clock + (now - sent_at) / 2)
        self.machines.see(beat.machines, beat.time, now)
        self.machines.history_is(beat.history_age_s, now)
        self.sending.look(now)
        self._look_at_clock()
        todo = self.follower.on_head(beat.head, sent_at)
        place = self.follower.place
        self.lag = max(0, beat.head.position - place.position) if place is not None else 0
        line = (place.history, self.follower.run) if place is not None and self.in_step else ("", "")
        for companion in self.companions:
            companion.look(line, now)
        return todo, beat.head, sent_at

    def _told(self) -> dict[str, Any]:
        """What the server is told of this machine."""
        place, settings = self.follower.place, self.settings
        ack = place is not None and self._may_ack
        return {
            **self._host.facts(),
            "name": settings.name,
            "version": settings.version,
            "region": settings.region,
            "max_blind_s": settings.max_blind_s,
            "history": place.history if place is not None else "",
            "run": self.follower.run,
            "position": place.position if place is not None and ack else -1,
            "in_step": self.in_step,
            "clock_offset_s": round(self.offset_s, 3) or 0.0,  # never -0
            **{name: value for each in self.companions for name, value in each.told().items()},
        }

    def _look_at_clock(self) -> None:
        skewed = abs(self.offset_s) > SKEW_S
        if skewed and not self._skewed:
            self._host.event("fleet.clock", {"offset_s": round(self.offset_s, 1)})
        self._skewed = skewed

    # -- purging -------------------------------------------------------------------------------------------------------

    async def purge(self, purges: Sequence[Purge], actor: str, reason: str) -> list[dict[str, Any]]:
        """See `PurgeSender.purge`; for a machine that is in step."""
        place = self.follower.place
        assert place is not None
        return await self.sending.purge(place, self.follower.run, purges, actor, reason)

    async def afterwards(self, number: int) -> dict[str, Any]:
        """What became of purges that were carried out here alone. Who has just lost the server waits a little: another
        one may be about to take over."""
        left_s = self.settings.ack_timeout_s - (0.0 if self.in_step else monotonic() - self._cut_at)
        return await self.sending.afterwards(number, max(0.0, left_s))

    def invalidated(self, purge: Purge) -> None:
        """An unsafe request made something invalid here."""
        self.sending.invalidated(purge)

    async def _send_on(self) -> None:
        while True:
            await self.sending.wake.wait()
            self.sending.wake.clear()
            place = self.follower.place
            if self.in_step and place is not None:
                try:
                    await self.sending.send_unsent(place, self.follower.run)
                except EdgeError:
                    pass  # the loop that keeps on finds out, and sends what is left

    # -- time ----------------------------------------------------------------------------------------------------------

    async def _watch_time(self) -> None:
        while True:
            await asyncio.sleep(min(0.25, max(0.01, self.follower.blind_at - monotonic())))
            try:
                await self._look_at_time()
            except Exception as error:
                self._host.event("bug", {"where": "fleet-time", "error": f"{type(error).__name__}: {error}"})

    async def _look_at_time(self) -> None:
        late = self.follower.catching_up
        if self.follower.on_time(monotonic()):
            evidence = "not caught up in time" if late else self.trouble
            self._host.event("fleet.blind", {"evidence": evidence, "max_blind_s": self.settings.max_blind_s})
            self._tell()  # first of all: each worker distrusts by itself, whatever the disk says
            try:
                await self._distrust("cut off from the fleet's purges")
            except EdgeError as error:  # workers do it by themselves; it is owed before the machine is in step again
                self._host.event("fleet.not_distrusted", {"evidence": error.detail})

    async def _distrust(self, why: str) -> None:
        self._owed = True
        await self._host.distrust(why)
        self._owed = False

    def _keep_place(self) -> None:
        place = self.follower.place
        if place is not None and place != self._kept:
            self._host.keep(place)
            self._kept = place

    # -- telling workers -----------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._host.tell(self.standing())

    def standing(self) -> dict[str, Any]:
        """Where this machine stands, for its workers."""
        follower, head = self.follower, self.follower.head
        history = follower.place.history if follower.place is not None else ""
        return {
            "in_step": self.in_step,
            "line": [history, follower.run, head.before, head.certified],
            "catching_up": follower.catching_up,
            "blind": follower.blind,
            "offset_s": self.offset_s,
            "lease_s": max(0.0, follower.blind_at - monotonic()),
            "max_blind_s": self.settings.max_blind_s,
            "limits": self.limits is not None,
        }

    def load_body(self) -> dict[str, Any]:
        """What the stream holds, for a worker that starts."""
        return self._recent.body(self.follower.place)
