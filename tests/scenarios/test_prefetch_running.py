"""Prefetch and warm lists over a running worker: what is fetched ahead, what is not, and what is counted."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest
from kit.cachelab import HOST, Lab, from_store, head, open_lab, until
from kit.origin import Pause

from edge.balance.regions import RoutingView
from edge.cache.prefetch import PrefetchRefusal
from edge.dataplane.caching import prefetch
from edge.dataplane.caching.prefetch import UNUSED_BYTES, Prefetcher

FRESH = "Cache-Control: max-age=60"
LATE_S = 1000.0
LINKS = 'prefetch = { links = true, share = "100%" }'
PAGE = (head(200, (FRESH, 'Link: </a.css>; rel=preload, </b.js>; rel="prefetch", </c>; rel=next'), 4) + b"page",)
THING = (head(200, (FRESH,), 2) + b"ok",)


@pytest.fixture(autouse=True)
def never_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the loop of a slow machine is, that is no load: only what a test says is."""
    monkeypatch.setattr(prefetch, "FULL_LAG_S", LATE_S)


def prefetcher(lab: Lab) -> Prefetcher:
    found = lab.worker.router.routes[0].prefetcher
    assert found is not None
    return found


async def settled(lab: Lab) -> None:
    """Nothing runs ahead any more."""
    await until(lambda: lab.at_rest and not prefetcher(lab).gate.running)


async def test_what_a_page_names_is_fetched_ahead_and_used() -> None:
    async with open_lab(LINKS) as lab:
        lab.fresh()
        lab.origin.route("/page", *PAGE)
        lab.origin.default = THING
        own = ("Accept-Language: de", "User-Agent: x", "Cookie: secret=1", "Authorization: y", "X-Own: 1")
        await lab.ask(*own[:3], *own[4:], target="/page")
        await settled(lab)
        assert lab.origin.targets() == [b"/page", b"/a.css", b"/b.js"]
        ahead = lab.asked[1]
        assert (ahead.get(b"accept-language"), ahead.get(b"user-agent"), ahead.get(b"host")) == (
            b"de", b"x", HOST.encode())  # fmt: skip
        assert ahead.get(b"cookie") is ahead.get(b"x-own") is ahead.get(b"authorization") is None
        gate = prefetcher(lab).gate
        assert (gate.fetched, gate.hits) == (2, 0)
        assert from_store(await lab.ask(target="/a.css"))
        assert from_store(await lab.ask(target="/a.css"))
        assert (gate.fetched, gate.hits) == (2, 1)  # the first use alone is one
        meter = lab.worker.router.routes[0].meter
        meter.fold()
        assert meter.requests == 3  # what the gateway asks for itself is no client's request
        assert meter.attempts == 3


async def test_a_page_served_from_store_names_what_has_become_stale_meanwhile() -> None:
    async with open_lab(LINKS) as lab:
        lab.fresh()
        page = head(200, ("Cache-Control: max-age=600", "Link: </a.css>; rel=preload"), 4) + b"page"
        lab.origin.route("/page", page)
        lab.origin.route("/a.css", head(200, (FRESH, 'ETag: "1"'), 2) + b"ok")
        await lab.ask(target="/page")
        await settled(lab)
        lab.later(61)
        prefetcher(lab)._looked.clear()  # as a second later
        assert from_store(await lab.ask(target="/page"))
        await lab.origin.wait_for("requests", 3)
        assert (lab.last.target, lab.last.get(b"if-none-match")) == (b"/a.css", b'"1"')
        await settled(lab)


async def test_a_numbered_sequence_is_kept_one_ahead() -> None:
    async with open_lab('prefetch = { next = ["/live/seg-{n}.ts"], share = "100%" }') as lab:
        lab.fresh()
        lab.origin.default = THING
        for number in range(7, 12):
            await lab.ask(target=f"/live/seg-{number:03}.ts")
            await settled(lab)
        assert lab.origin.targets() == [b"/live/seg-%03d.ts" % number for number in range(7, 13)]
        assert prefetcher(lab).gate.hits == 4


async def test_a_client_that_asks_meanwhile_shares_the_fetch() -> None:
    async with open_lab(LINKS) as lab:
        lab.fresh()
        lab.origin.route("/page", head(200, (FRESH, "Link: </a.css>; rel=preload"), 0))
        lab.origin.route("/a.css", Pause("go"), *THING)
        await lab.ask(target="/page")
        await lab.origin.wait_for("requests", 2)
        assert lab.client is not None
        await lab.client.send(f"GET /a.css HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await until(lambda: any(flight.waiting for flight in lab.store.flights._flights.values()))
        lab.origin.release("go")
        response = await lab.client.read_response()
        assert response is not None and b"collapsed" in (response.get(b"cache-status") or b"")
        assert len(lab.asked) == 2
        await settled(lab)


async def test_a_response_that_is_not_stored_names_nothing() -> None:
    async with open_lab(LINKS) as lab:
        lab.fresh()
        lab.says("Cache-Control: no-store", "Link: </a.css>; rel=preload")
        await lab.ask()
        await settled(lab)
        assert len(lab.asked) == 1


async def test_the_share_of_origin_requests_is_hard() -> None:
    async with open_lab('prefetch = { links = true, share = "10%" }') as lab:
        lab.fresh()
        links = ", ".join(f"</l{number}>; rel=preload" for number in range(30))
        lab.origin.default = (head(200, (FRESH, f"Link: {links}"), 2) + b"ok",)
        for number in range(40):
            await lab.ask(target=f"/page{number}")
            await settled(lab)
        ahead = sum(target.startswith(b"/l") for target in lab.origin.targets())
        assert 0 < ahead <= 0.1 * len(lab.asked)
        assert prefetcher(lab).gate.refused[PrefetchRefusal.SHARE] > 0


async def test_it_is_off_during_failover_and_under_load() -> None:
    async with open_lab(LINKS) as lab:
        lab.fresh()
        lab.origin.default = PAGE
        pool = lab.worker.router.routes[0].pool.pool
        region = pool.backends[0].region
        pool.apply(RoutingView({region: 100.0}, (region, "away"), frozenset((region,))))
        await lab.ask(target="/page")
        gate = prefetcher(lab).gate
        assert gate.refused[PrefetchRefusal.FAILOVER] == 1
        pool.apply(RoutingView({region: 100.0}, (region,), frozenset((region,))))
        assert lab.worker._timer is not None
        lab.worker._timer.cancel()  # the next tick would say how late it really is
        lab.store.late_s = LATE_S
        await lab.ask(target="/page2")
        assert gate.refused[PrefetchRefusal.LOAD] == 1
        assert lab.origin.targets() == [b"/page", b"/page2"]


async def test_it_switches_itself_off_when_nothing_is_used() -> None:
    async with open_lab('prefetch = { next = ["/s{n}"], share = "100%", precision_floor = "50%" }') as lab:
        lab.fresh()
        lab.origin.default = THING
        for number in range(0, 200, 2):  # never the one that was fetched
            await lab.ask(target=f"/s{number}")
            await settled(lab)
            lab.later(61)
            prefetcher(lab).tick(lab.store, monotonic())
        gate = prefetcher(lab).gate
        assert gate.fetched < 100
        assert gate.refused[PrefetchRefusal.PRECISION] > 0
        assert lab.store.stats()["prefetch_off"] == 1


async def test_a_warm_list_is_fetched_some_at_a_time_with_progress() -> None:
    async with open_lab() as lab:
        lab.fresh()
        for number in range(20):
            lab.origin.route(f"/w{number}", Pause("go"), *THING)
        lab.origin.route("/no-store", head(200, ("Cache-Control: no-store",), 0))
        lab.origin.route("/missing", head(404, (), 0))
        urls = [f"http://{HOST}:80/w{number}" for number in range(20)]
        urls += [f"http://{HOST.upper()}/no-store", f"http://{HOST}/missing"]
        steps: list[dict[str, Any]] = []
        work = asyncio.ensure_future(lab.store.warm(urls, steps.append))
        await lab.origin.wait_for("requests", 8)
        assert lab.in_flight == 8
        lab.origin.release("go")
        counts = await work
        assert counts.pop("failures") == [{"url": urls[-1], "reason": "404: answered by the origin"}]
        assert counts == {"fetched": 22, "stored": 20, "failed": 1, "done": 22, "total": 22}
        assert steps and steps[0]["done"] == 1 and steps[0]["total"] == 22
        for number in range(20):
            assert from_store(await lab.ask(target=f"/w{number}"))
        again = await lab.store.warm(urls[:20], steps.append)
        assert (again["fetched"], again["stored"], again["failed"]) == (0, 20, 0)
        assert lab.at_rest


async def test_a_warm_list_for_an_origin_that_is_away_fails_and_ends() -> None:
    async with open_lab() as lab:
        lab.fresh()
        await lab.origin.stop()
        counts = await lab.store.warm([f"http://{HOST}/{n}" for n in range(5)], lambda step: None)
        assert (counts["failed"], counts["stored"], counts["done"]) == (5, 0, 5)
        assert lab.at_rest


async def test_warming_fetches_the_variant_of_the_codings_that_the_route_serves() -> None:
    async with open_lab("normalise_encoding = ['br', 'gzip']") as lab:
        lab.fresh()
        lab.origin.default = (head(200, (FRESH, "Vary: Accept-Encoding"), 2) + b"ok",)
        await lab.store.warm([f"http://{HOST}/v"], lambda step: None)
        assert from_store(await lab.ask("Accept-Encoding: gzip, deflate, br, zstd", target="/v"))


async def test_what_nobody_used_is_bounded_in_bytes_and_pages_are_marks() -> None:
    async with open_lab('prefetch = { links = true, share = "100%" }') as lab:
        found = lab.store.prefetchers[0]
        for number in range(1000):
            found._keep(b"http://a/%d" % number + b"x" * 8000, lab.now + 60)
        assert sum(map(len, found._unused)) == found._unused_bytes <= UNUSED_BYTES
        lab.fresh()
        lab.says("Cache-Control: max-age=60")
        await lab.ask()
        assert [type(page) for page in found._looked] == [int]
        while found._unused:
            found._waste(next(iter(found._unused)))
        assert found._unused_bytes == 0
