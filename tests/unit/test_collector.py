"""When everything is looked through for garbage: where nobody waits, or when many connections have ended."""

from __future__ import annotations

import gc

import pytest

from edge.dataplane.worker.collector import AGAIN_S, ENDED, NEVER, QUIET_S, Collector


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of Python's collector, which is left as it is."""
    asked: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: asked.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: asked.append("freeze"))
    monkeypatch.setattr(gc, "set_threshold", lambda *given: asked.append(f"oldest {given[2]}"))
    return asked


def test_what_a_start_made_is_not_looked_at_again(collections: list[str]) -> None:
    Collector().begin(0.0, foreign=False)
    assert collections == ["collect", "freeze", f"oldest {NEVER}"]


def test_foreign_code_keeps_the_usual_schedule(collections: list[str]) -> None:
    collector = Collector()
    collector.begin(0.0, foreign=True)
    collector.tick(1000.0, 0, ENDED)
    assert collections == ["collect", "freeze"]


def test_nothing_happens_before_the_start_and_under_load(collections: list[str]) -> None:
    collector = Collector()
    collector.tick(1000.0, 0, ENDED)
    collector.begin(1000.0, foreign=False)
    del collections[:]
    for second in range(1000, 3000):
        collector.tick(float(second), 1, ENDED - 1)
    assert collections == []


def test_it_is_done_where_nobody_waits(collections: list[str]) -> None:
    collector = Collector()
    collector.begin(0.0, foreign=False)
    del collections[:]
    collector.tick(AGAIN_S, 1, 5)
    collector.tick(AGAIN_S + QUIET_S - 1, 0, 5)
    assert collections == []
    collector.tick(AGAIN_S + QUIET_S, 0, 5)
    assert collections == ["collect"]
    collector.tick(10 * AGAIN_S, 0, 5)
    assert collections == ["collect"], "nobody has come since"


def test_many_connections_that_ended_are_worth_the_pause(collections: list[str]) -> None:
    collector = Collector()
    collector.begin(0.0, foreign=False)
    del collections[:]
    collector.tick(1.0, 9, ENDED)
    collector.tick(2.0, 9, 2 * ENDED - 1)
    assert collections == ["collect"] and collector.full == 1
    collector.tick(3.0, 9, 2 * ENDED)
    assert collector.full == 2
