"""Carrying out a runbook: one step after the other, each within its time, written down before and after.

One rule: what was done is on disk before the next step begins. A run that was interrupted is gone on with at the first
step that was not done; a step that was begun and did not end is done again, which every deed allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from edge.adapters.durable_file import put
from edge.errors import EdgeError, RunbookFailed
from edge.recovery.runbook import Check, Deed, Runbook, Step
from edge.sidecar.shown import when

POLL_S = 0.5


class Hands(Protocol):
    """Carries out the steps. Each may be repeated safely. They raise EdgeError."""

    def holds(self, check: Check) -> str | None:
        """None when it is so, else how it is."""

    def carry_out(self, step: Step, run: str) -> str:
        """Do it within its time; what was done, in one line. `run` is for the audit."""


@dataclass(slots=True)
class Run:
    """One run of a runbook, as it is on disk."""

    id: str
    book: str
    parameters: Mapping[str, str]
    done: list[dict[str, Any]] = field(default_factory=list)
    ended: str | None = None  # None while it is not over: "done", or what went wrong


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of a run: epoch seconds, monotonic seconds, and a way to wait."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


class Log:
    """The runs of a state directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, book: Runbook, parameters: Mapping[str, str], now: float) -> Run:
        """Begin a new run."""
        stamp = (when(now) or "").replace(":", "").replace("-", "").replace(".", "")
        return Run(f"{book.name}-{stamp}", book.name, dict(parameters))

    def unfinished(self, name: str) -> Run:
        """The newest run that did not come to its end. Raises RunbookFailed."""
        for path in sorted(self._folder.glob(f"{name}-*.json"), reverse=True):
            try:
                found = Run(**orjson.loads(path.read_bytes()))
            except (OSError, ValueError, TypeError):
                continue  # a file that is not ours, or of another version
            if found.ended != "done":
                return found
        raise RunbookFailed(f"{name}: there is no run to go on with in {self._folder}: run it without --resume")

    def save(self, run: Run) -> None:
        """Write the run; durable on return."""
        self._folder.mkdir(parents=True, exist_ok=True)
        data = {name: getattr(run, name) for name in Run.__slots__}
        put(self._folder / f"{run.id}.json", orjson.dumps(data, option=orjson.OPT_INDENT_2))


Waits = Callable[[Step, str], None]


def rehearse(book: Runbook, hands: Hands) -> Iterator[tuple[Step, str]]:
    """For each step what a run would do now, or what prevents it. Changes nothing."""
    for step in book.steps:
        check = step.when if step.deed is not Deed.CHECK else step.check
        if check is None:
            yield step, "would be done"
            continue
        why = _asked(hands, check)
        yield step, "would be done" if why is None else f"would wait or stop: {check}: {why}"


def carry_out(
    book: Runbook, run: Run, hands: Hands, log: Log, clock: Clock, waits: Waits = lambda step, why: None
) -> Iterator[tuple[Step, str]]:
    """Do what is left of a run; each step with what was done. `waits` hears of a step that has to wait, and for what.

    Raises RunbookFailed, and can be gone on with then.
    """
    finished = {each["step"] for each in run.done}
    run.ended = None
    log.save(run)
    for step in book.steps:
        if step.name in finished:
            yield step, "was done before"
            continue
        try:
            said = _one(step, run, hands, clock, waits)
        except EdgeError as error:
            run.ended = f"{step.name}: {error.detail}"
            log.save(run)
            raise RunbookFailed(f"{book.name}: {run.ended}; go on with --resume when that is mended") from None
        run.done.append({"step": step.name, "at": when(clock.wall()), "said": said})
        log.save(run)
        yield step, said
    run.ended = "done"
    log.save(run)


def _one(step: Step, run: Run, hands: Hands, clock: Clock, waits: Waits) -> str:
    deadline = clock.monotonic() + step.timeout_s
    if step.when is not None:
        why = _asked(hands, step.when)
        if why is not None:
            raise RunbookFailed(f"its precondition does not hold: {step.when}: {why}")
    if step.deed is not Deed.CHECK:
        return hands.carry_out(step, run.id)
    assert step.check is not None
    told = False
    while (why := _asked(hands, step.check)) is not None:
        if not told:
            told = True
            waits(step, why)
        if clock.monotonic() >= deadline:
            raise RunbookFailed(f"not within {step.timeout_s:g} s: {step.check}: {why}")
        clock.sleep(POLL_S)
    return f"{step.check}: yes"


def _asked(hands: Hands, check: Check) -> str | None:
    try:
        return hands.holds(check)
    except EdgeError as error:
        return error.detail or type(error).__name__
