"""A reload: another configuration, checked, built in every worker, then served by all of them at once.

    read ─► check ─► open new listeners ─► PREPARE in every worker ─► apply here ─► COMMIT in every worker ─► answer
                ├─ applications or their code are other ones: new workers take over, the ones before them drain
                └─ another number of workers: after COMMIT some are started, or those that are too many drain
      └── a mistake, an address in use, a worker that cannot build it: nothing has changed, and the answer says why

One rule: before the first COMMIT nothing that serves is touched; after it there is no way back, so that a worker that
does not follow is ended and replaced by one that starts with the new configuration.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from edge.adapters.config_files import sources_of, why_unread
from edge.config.loader import Config, load
from edge.config.sources import Sources
from edge.control.admin.errors import Refusal, Unavailable
from edge.control.comparing import Difference, differences, needs, pinned, starts_anew
from edge.control.early import worker_count
from edge.control.forecast import forecast
from edge.control.journal import Revision
from edge.control.link import Refused
from edge.control.listeners import CannotListen, Listeners, Opened
from edge.control.packing import pack
from edge.control.preflight import preflight
from edge.control.registry import Change
from edge.control.slots import Slot
from edge.control.supervisor import RunningConfig, Supervisor
from edge.errors import ConfigError, EdgeError
from edge.frames import Frame, FrameKind

PREPARE_S = 60.0
SETTLE_S = 10.0


class NotAccepted(Refusal):
    """The configuration has mistakes, or cannot work here; `problems` has a line for each. Nothing has changed."""

    status: ClassVar[int] = 422

    def __init__(self, problems: Sequence[str]) -> None:
        first, *more = problems
        super().__init__(f"nothing changed: {first}" + (f" (and {len(more)} more)" if more else ""))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checked configuration that a reload may use."""

    sources: Sources
    config: Config
    changes: list[Difference]
    not_applied: list[str]
    warnings: list[str]
    code: str = ""  # of applications and hooks


@dataclass(slots=True)
class ReloadOutcome:
    """The result of the last reload, for status."""

    at: float = 0.0
    ok: bool = True
    actor: str = ""
    problems: list[str] = field(default_factory=list)
    not_applied: list[str] = field(default_factory=list)


class Reloading:
    """Reloads of one gateway, one at a time. `followers` are called with (new, old) and may not fail."""

    def __init__(self, supervisor: Supervisor, listeners: Listeners | None = None) -> None:
        self._all = supervisor
        self._listeners = listeners
        self.lock = asyncio.Lock()  # one reload, or upgrade, at a time
        self._number = 0
        self.followers: list[Callable[[Config, Config], None]] = []
        self.started: Callable[[], None] = lambda: None
        self.ended: Callable[[], None] = lambda: None
        self.have_files: Callable[[Config], None] = lambda config: None  # what it names and we make; may refuse
        self.outcome = ReloadOutcome()
        self.counts = {True: 0, False: 0}

    @property
    def status(self) -> dict[str, Any]:
        """The result of the last reload, and how many were accepted and refused."""
        last = self.outcome
        return {
            "at": last.at,
            "ok": last.ok,
            "actor": last.actor,
            "problems": last.problems,
            "not_applied": last.not_applied,
            "needs": needs(last.not_applied),
            "accepted": self.counts[True],
            "refused": self.counts[False],
        }

    def gauges(self) -> list[tuple[str, str, dict[str, str], float]]:
        """Its gauges for `/metrics`."""
        return [
            ("edge_config_last_reload_ok", "0 when the last reload was refused", {}, float(self.outcome.ok)),
            *(
                ("edge_config_reloads_total", "Reloads by how they ended", {"result": word}, float(self.counts[ok]))
                for ok, word in ((True, "accepted"), (False, "refused"))
            ),
        ]

    async def reload(self, change: Change, given: Revision | None = None, dry_run: bool = False) -> dict[str, Any]:
        """Reload the files, or this revision. Raises NotAccepted or Refusal, and then nothing has changed."""
        async with self.lock:
            if self._all.stopping:
                raise Unavailable("the gateway stops")
            if not self._all.workers.ready and self._all.accepted is None:
                raise Unavailable("the gateway is starting")
            if dry_run:
                candidate = await self._read(given)
                return {**_shown(candidate), "applied": False, "forecast": forecast(self._all, candidate.config)}
            self.started()
            try:
                return await self._reload(change, given)
            except EdgeError as error:
                problems = error.problems if isinstance(error, NotAccepted) else [error.detail]
                self.outcome = ReloadOutcome(time.time(), False, change.actor, problems, self.outcome.not_applied)
                self.counts[False] += 1
                self._all.events.add("gateway.reload_failed", {"actor": change.actor, "evidence": problems[0]})
                raise
            finally:
                self.ended()

    async def _reload(self, change: Change, given: Revision | None) -> dict[str, Any]:
        began = time.monotonic()
        if self._all.accepted is None:
            self._all.accept()  # what the gateway has just started with can be gone back to
        candidate = await self._read(given)
        await asyncio.to_thread(self.have_files, candidate.config)
        config, before = candidate.config, self._all.running.config
        running = RunningConfig(config, candidate.sources, time.time())
        other_code = any(slot.code != candidate.code for slot in self._all.workers.holding)
        renewed = other_code or starts_anew(config, before)
        opened = self._open(config)
        await (self._renew if renewed else self._prepare)(running, change, opened)
        for follow in self.followers:
            follow(config, before)
        if not renewed:
            await self._commit()
            await self._all.workers.resize(worker_count(config), SETTLE_S, before.limits.shutdown_grace)
        self._all.routing.workers = len(self._all.workers.holding)
        if self._listeners is not None:
            self._listeners.keep(config.listen)
        revision = self._all.accept()
        took_ms = round((time.monotonic() - began) * 1000, 1)
        self.outcome = ReloadOutcome(time.time(), True, change.actor, [], candidate.not_applied)
        self.counts[True] += 1
        facts = {"actor": change.actor, "changes": len(candidate.changes), "took_ms": took_ms}
        if renewed:
            facts["new_workers"] = len(self._all.workers.holding)
        if candidate.not_applied:
            facts["not_applied"] = ", ".join(candidate.not_applied)
        self._all.events.add("gateway.reloaded", facts)
        return {**_shown(candidate), "applied": True, "revision": revision, "took_ms": took_ms}

    async def _read(self, given: Revision | None) -> Candidate:
        running = self._all.running
        try:
            return await asyncio.to_thread(read, running, given)
        except ConfigError as error:
            raise NotAccepted(error.problems) from None

    # -- workers ---------------------------------------------------------------------------------------------------

    def _open(self, config: Config) -> Opened:
        """The sockets that it needs beside what is open. Raises NotAccepted."""
        if self._listeners is None:
            return Opened()
        try:
            return self._listeners.open_all(config.listen, worker_count(config))
        except CannotListen as error:
            raise NotAccepted([error.detail]) from None

    async def _prepare(self, running: RunningConfig, change: Change, opened: Opened) -> None:
        """Every worker has built it, and has the sockets that will be its own; or none keeps anything of it."""
        workers = self._all.workers
        self._number += 1
        body = {"number": self._number, "config": pack(running.config)}

        def hand(slot: Slot) -> dict[str, Any]:
            assert slot.child is not None
            bound = opened.of(slot.place)
            slot.child.hand([sock for _, sock in bound])
            return {"listeners": [name for name, _ in bound]}

        try:
            await workers.tell(FrameKind.PREPARE, body, PREPARE_S, hand)
            self._all.take_on(running, change)
        except EdgeError as error:
            workers.send_all(Frame(FrameKind.ABANDON))
            opened.close()
            raise NotAccepted([error.detail]) if isinstance(error, Refused) else error from None
        if self._listeners is not None:
            self._listeners.add(opened)

    async def _renew(self, running: RunningConfig, change: Change, opened: Opened) -> None:
        """New workers take over (code and stores of another kind are for a start), or those that run serve on."""
        whole, listeners = self._all, self._listeners
        before = whole.running
        if listeners is not None:
            listeners.add(opened)
        try:
            whole.take_on(running, change)
            grace_s = before.config.limits.shutdown_grace
            await whole.workers.renew(worker_count(running.config), PREPARE_S, grace_s)
        except EdgeError as error:
            if whole.running is running:
                whole.take_on(before, change)
            if listeners is not None:
                listeners.undo(opened)
            raise NotAccepted([error.detail]) if isinstance(error, Refused) else error from None

    async def _commit(self) -> None:
        """Every worker serves by it. One that cannot starts anew."""
        body = {"number": self._number, **self._all.state_body()}
        workers = self._all.workers

        async def one(slot: Slot) -> None:
            child = slot.child
            try:
                await workers.ask(slot, FrameKind.COMMIT, body, SETTLE_S)
            except Refused as error:
                self._all.events.add("worker.not_reloaded", {"worker": slot.index, "evidence": error.detail})
                if child is not None:
                    child.signal(signal.SIGKILL)
                await slot.over.wait()

        await asyncio.gather(*(one(slot) for slot in workers.holding if slot.child is not None))


def read(running: RunningConfig, given: Revision | None) -> Candidate:
    """Read and check the files, or a revision in their place. Blocking. Raises ConfigError."""
    if given is not None:
        sources = replace(running.sources, text=given.text, files=given.files)
    else:
        try:
            sources = sources_of(Path(running.filename))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"{running.filename}: {why_unread(error)}"]) from None
    config, not_applied = pinned(load(sources), running.config)
    found = preflight(config, sources)
    if found.errors:
        raise ConfigError(found.errors)
    return Candidate(sources, config, differences(running.config, config), not_applied, found.warnings, found.code)


def _shown(candidate: Candidate) -> dict[str, Any]:
    return {
        "changes": [each.as_dict() for each in candidate.changes],
        "not_applied": candidate.not_applied,
        "needs": needs(candidate.not_applied),
        "warnings": candidate.warnings,
    }
