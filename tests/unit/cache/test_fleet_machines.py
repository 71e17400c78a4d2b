"""Whom a purge waits for, while the server's clock jumps."""

from __future__ import annotations

from edge.cache.fleet.machines import CLOCK_S, MARGIN_S, SETTLE_S, Machine, Machines

MAX_BLIND_S = 30.0


def other(at: float, left: bool = False) -> Machine:
    return Machine("id", "edge-2", at, "h", "run", 7, MAX_BLIND_S, left, {})


def late(machines: Machines, now: float) -> list[str]:
    """Who has not applied the stream's eighth purge."""
    return [machine.name for machine in machines.waiting("h", "run", 8, now)[1]]


def test_who_seems_silent_by_a_clock_that_jumped_is_waited_for_until_it_could_have_been_heard() -> None:
    """A machine starts; the server's clock went ten minutes on since the other one was heard."""
    machines = Machines(MAX_BLIND_S)
    machines.see([other(1000.0)], 1600.0, 50.0)
    assert late(machines, 50.0) == ["edge-2"], "it is named, whatever a purge waits for"
    machines.see([other(1600.5)], 1600.6, 50.6)
    machines.see([other(1600.5)], 1605.0, 50.6 + SETTLE_S)
    assert late(machines, 55.0) == ["edge-2"] and machines.silent_s("id", 50.6) == 0.0


def test_who_was_silent_for_long_is_forgotten_soon_after_a_start() -> None:
    machines = Machines(MAX_BLIND_S)
    machines.see([other(1000.0)], 1600.0, 50.0)
    machines.see([other(1000.0)], 1603.0, 50.0 + SETTLE_S)
    assert late(machines, 54.0) == []


def test_a_clock_that_goes_back_makes_nobody_silent() -> None:
    machines = Machines(MAX_BLIND_S)
    machines.see([other(1000.0)], 1000.5, 50.0)
    machines.see([other(400.0)], 400.5, 51.0)
    assert machines.silent_s("id", 51.0) == 0.0
    machines.see([other(400.0)], 401.0, 51.0 + MAX_BLIND_S)
    assert late(machines, 81.0) == ["edge-2"]


def test_who_has_left_is_not_waited_for() -> None:
    machines = Machines(MAX_BLIND_S)
    machines.see([other(1000.0, left=True)], 1000.5, 50.0)
    assert late(machines, 50.0) == []


def test_a_history_does_not_get_older_by_a_clock_that_jumps() -> None:
    machines = Machines(MAX_BLIND_S)
    machines.history_is(5.0, 100.0)
    machines.history_is(605.0, 101.0)
    assert not machines.sure
    machines.history_is(600.0 + MAX_BLIND_S + MARGIN_S, 95.0 + MAX_BLIND_S + MARGIN_S)
    assert machines.sure, "by our own clock it is old enough"
    machines.history_is(0.0, 200.0)
    assert not machines.sure, "a new one"
    machines.history_is(CLOCK_S / 2, 201.0)
    assert machines.may_grow
