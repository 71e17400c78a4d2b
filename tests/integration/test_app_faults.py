"""Each way in which an application fails: one clear outcome for the client, one event, one count, no harm to others."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio
from inprocess import APPS, Gateway, StartEdge, app_toml
from kit.waiting import until

sys.path.insert(0, str(APPS))

import faulty

CUT = 0
QUICK = 'timeouts = { first_byte = "300ms", head = "300ms", body = "300ms" }'


class Row(NamedTuple):
    """What is asked, and what comes of it. `status` CUT: the connection ends in the body."""

    path: str
    status: int
    fault: str
    pool: str = ""
    backend: str = ""


TABLE = [
    Row("/raises", 500, "raised"),
    Row("/mute", 500, "raised"),
    Row("/eats", 500, "raised"),
    Row("/well?refuse", 502, "raised"),
    Row("/nothing", 500, "no response"),
    Row("/text", 500, "no response"),
    Row("/announced_less", 500, "length"),
    Row("/announced_more", 500, "length"),
    Row("/body_raises", CUT, "raised"),
    Row("/raises_late", CUT, "raised"),
    Row("/redirects_late", CUT, "raised"),
    Row("/second_answer", CUT, "raised"),
    Row("/short", CUT, "length"),
    Row("/never", 504, "late", pool=QUICK),
    Row("/stalls", CUT, "late", pool=QUICK),
    Row("/never", 504, "late", backend='time_limit = "200ms"'),
    Row("/drips", CUT, "late", backend='time_limit = "200ms"'),
    Row("/blocks", 200, "blocked"),
    Row("/blocks_beside", 200, "blocked"),
    Row("/itself", 508, "loop"),
    Row("/closes", 502, "closed"),
    Row("/closes_and_waits", 502, "closed"),
    Row("/aborts", 502, "closed"),
    Row("/closes_late", CUT, "closed"),
    Row("/after_the_end", 200, "raised"),
]


def toml(pool: str = "", backend: str = "") -> str:
    return app_toml(f'app = "faulty:app"\n{backend}', pool=pool, route="cache = false")


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    faulty.asked.clear()
    async with aiohttp.ClientSession() as found:
        yield found


async def outcome(session: aiohttp.ClientSession, gateway: Gateway, path: str) -> tuple[int, str]:
    """Status and text; CUT and what came when the body broke off."""
    async with session.get(f"http://127.0.0.1:{gateway.port}{path}") as answer:
        try:
            return answer.status, await answer.text()
        except aiohttp.ClientPayloadError:
            return CUT, ""


def events_of(gateway: Gateway) -> list[tuple[str, dict[str, Any]]]:
    told: list[tuple[str, dict[str, Any]]] = []
    gateway.worker.tell = lambda kind, facts: told.append((kind, facts))
    return told


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.path} {row.backend}")
async def test_one_outcome_one_event_one_count(row: Row, edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml(row.pool, row.backend))
    told = events_of(gateway)
    status, text = await outcome(session, gateway, row.path)
    assert status == row.status
    assert "secret" not in text
    await until(lambda: told)
    assert await outcome(session, gateway, "/well") == (200, "well")
    await until(lambda: gateway.in_flight == 0)
    assert [(kind, facts["app"], facts["fault"]) for kind, facts in told] == [
        ("app.blocked" if row.fault == "blocked" else "app.error", "faulty:app", row.fault)
    ]
    assert told[0][1]["evidence"]
    if status in (500, 504, 508) and row.pool != QUICK:
        assert text.endswith(f"request {told[0][1]['request']}\n")
    assert faulty.asked[row.path.strip("/").partition("?")[0]] == 1 + row.path.startswith("/well")
    faults = gateway.worker.applications.faults()["faulty:app"]  # type: ignore[union-attr]
    assert (dict(faults.counts), faults.running) == ({row.fault: 1}, 0)


async def test_the_watchdog_shows_the_line_that_blocks(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml())
    told = events_of(gateway)
    await outcome(session, gateway, "/blocks_beside")
    await until(lambda: told)
    facts = told[0][1]
    assert "faulty.py" in facts["evidence"] and "in beside" in facts["evidence"]
    assert "time.sleep(0.025)" in facts["trace"]


async def test_what_comes_on_an_idle_connection_reaches_nobody(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml())
    assert await outcome(session, gateway, "/garbage") == (200, "begun")
    assert await outcome(session, gateway, "/well") == (200, "well")


async def test_a_handler_that_goes_on_delays_nobody(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml(QUICK))
    for _ in range(3):
        assert await outcome(session, gateway, "/goes_on") == (200, "begun")
        assert await outcome(session, gateway, "/well") == (200, "well")
    await until(lambda: faulty.asked["ended"] == 3)
    assert faulty.asked["goes_on"] == 3


async def test_its_concurrency_is_bounded(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml('timeouts = { queue = "200ms" }', "max_in_flight = 2"))
    waits = [asyncio.create_task(outcome(session, gateway, "/never")) for _ in range(2)]
    await until(lambda: faulty.asked["never"] == 2)
    assert (await outcome(session, gateway, "/never"))[0] == 503
    assert faulty.asked["never"] == 2
    for each in waits:
        each.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await until(lambda: gateway.in_flight == 0)
    assert await outcome(session, gateway, "/well") == (200, "well")


async def test_an_application_that_always_fails_does_not_drown_the_events(
    edge: StartEdge, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.adapters.app_faults.monotonic", lambda: 1000.0)  # all within one second
    gateway = await edge(toml())
    told = events_of(gateway)
    for _ in range(200):
        assert (await outcome(session, gateway, "/raises"))[0] == 500
    faults = gateway.worker.applications.faults()["faulty:app"]  # type: ignore[union-attr]
    assert faults.counts == {"raised": 200}
    assert len([kind for kind, _ in told if kind == "app.error"]) == 10


async def test_a_client_that_leaves_is_no_fault(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml())
    told = events_of(gateway)
    for path in ("/never", "/stalls", "/drips"):
        asked = asyncio.create_task(outcome(session, gateway, path))
        await until(lambda path=path: faulty.asked[path[1:]] == 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    await until(lambda: gateway.in_flight == 0)
    assert await outcome(session, gateway, "/well") == (200, "well")
    assert not told


async def test_a_time_limit_is_for_applications(edge: StartEdge) -> None:
    with pytest.raises(Exception, match="time_limit is for an app"):
        await edge(toml(backend='time_limit = "1s"').replace('app = "faulty:app"', 'url = "http://127.0.0.1:1"'))
