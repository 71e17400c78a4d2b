"""A reload inside a worker: what lives on, and what a worker that cannot follow means for the others.

The worker is the real one of `inprocess`, or a whole gateway in this process over links in memory.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from inprocess import Connect, Gateway, StartEdge, StartOrigins, edge_toml
from kit.control import Whole
from kit.origin import OK, Pause, ScriptedOrigin
from kit.ports import LOOPBACK
from kit.waiting import until

from edge.config.loader import load_text
from edge.control.journal import Revision
from edge.control.packing import pack
from edge.control.registry import Change
from edge.control.reloading import NotAccepted
from edge.worker_reload import WorkerReload


class Reloader:
    """Reloads one worker as its agent would."""

    def __init__(self, gateway: Gateway, text: str) -> None:
        self.gateway = gateway
        self._reload = WorkerReload(gateway.worker, load_text(text, "test.toml"))
        self._number = 0

    async def __call__(self, text: str) -> None:
        self._number += 1
        body = {"number": self._number, "config": pack(load_text(text, "test.toml")), "listeners": []}

        async def work() -> None:
            await self._reload.prepare(body)
            self._reload.swap(self._number, {})
            await self._reload.settle()

        await self.gateway.on_loop(work)


async def test_what_has_a_life_of_its_own_lives_on(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    route = 'rate_limit = { rate = "2/h" }\nconcurrency = { total = 5 }'
    text = edge_toml(origin.port, route=route)
    gateway = await edge(text)
    worker = gateway.worker
    reload = Reloader(gateway, text)
    client = await raw_client(gateway.port)
    assert (await client.get("/")).status == 200
    pool = worker.pools["origin"]
    backend, link, store = pool.pool.backends[0], next(iter(pool.links.values())), worker.store
    kept = list(link.connections)
    taken, meter = backend.taken, worker.router.routes[0].meter
    await reload(text.replace('timeouts = { connect = "10s" }', 'queue = 7\ntimeouts = { idle = "9s" }'))
    assert worker.pools["origin"] is pool
    assert (pool.pool.backends[0], next(iter(pool.links.values())), worker.store) == (backend, link, store)
    assert list(link.connections) == kept
    assert (backend.taken, pool.settings.queue_size, link.timeouts.idle) == (taken, 7, 9.0)
    assert worker.router.routes[0].meter is meter
    assert (await client.get("/")).status == 200  # on the same connection, and counted on:
    assert (await client.get("/")).status == 429
    assert list(link.connections) == kept
    await reload(text.replace('"2/h"', '"9/h"'))  # another limit begins anew
    assert (await client.get("/")).status == 200


async def test_a_stored_response_is_still_there(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    text = edge_toml(origin.port, route='cache = { default_ttl = "1h" }')
    gateway = await edge(text)
    reload = Reloader(gateway, text)
    client = await raw_client(gateway.port)
    assert (await client.get("/page")).status == 200
    seen = len(origin.requests)
    await reload(text.replace('"1h"', '"2h"'))
    assert (await client.get("/page")).status == 200
    assert len(origin.requests) == seen


async def test_a_smaller_memory_is_reached_step_by_step(edge: StartEdge, origin: ScriptedOrigin) -> None:
    text = edge_toml(origin.port).replace("[pools.origin]", '[cache]\nmemory = "64MiB"\n[pools.origin]')
    gateway = await edge(text)
    reload = Reloader(gateway, text)
    store = gateway.worker.store
    assert store is not None
    await reload(text.replace("64MiB", "8MiB"))
    await until(lambda: store.stats()["budget_bytes"] == 8 * 1024 * 1024)
    await reload(text)
    await until(lambda: store.stats()["budget_bytes"] == 64 * 1024 * 1024)


async def test_a_running_request_ends_on_its_route_and_a_pool_that_went_is_let_go(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    text = edge_toml(origin.port)
    gateway = await edge(text)
    reload = Reloader(gateway, text)
    client = await raw_client(gateway.port)
    origin.route("/slow", Pause("hold"), OK)
    asked = asyncio.create_task(client.get("/slow"))
    await until(lambda: gateway.in_flight == 1)
    old = gateway.worker.pools["origin"]
    await reload(text.replace("origin", "other"))
    assert list(gateway.worker.pools) == ["other"]
    origin.release("hold")
    assert (await asked).status == 200
    await until(lambda: old.is_over)


async def test_a_renewed_certificate_is_shown_to_new_connections(
    origin: ScriptedOrigin, edge: StartEdge, tmp_path: Path
) -> None:
    authorities = [trustme.CA(), trustme.CA()]
    for at, authority in enumerate(authorities):
        authority.issue_cert("edge.test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{at}.pem"))
    pem = tmp_path / "site.pem"
    pem.write_bytes((tmp_path / "0.pem").read_bytes())
    listener = f'https = [{{ address = "{LOOPBACK}:0", certificates = [{{ cert = "{pem}", key = "{pem}" }}] }}]\n'
    text = edge_toml(origin.port).replace("[listen]\n", f"[listen]\n{listener}")
    gateway = await edge(text)
    reload = Reloader(gateway, text)

    async def trusts(authority: trustme.CA) -> bool:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        try:
            _, writer = await asyncio.open_connection(
                LOOPBACK, gateway.ports[-1], ssl=context, server_hostname="edge.test"
            )
        except ssl.SSLError:
            return False
        writer.close()
        return True

    assert [await trusts(each) for each in authorities] == [True, False]
    pem.write_bytes((tmp_path / "1.pem").read_bytes())
    await reload(text)
    assert [await trusts(each) for each in authorities] == [False, True]


async def test_a_reload_leaves_nothing_for_the_collector(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    text = edge_toml(origin.port)
    gateway = await edge(text)
    reload = Reloader(gateway, text)
    client = await raw_client(gateway.port)
    assert (await client.get("/")).status == 200

    def alive() -> dict[str, int]:
        names = ("PoolRuntime", "Pool", "Backend", "BackendLink", "Route", "Router", "Graph", "Config", "Waiting")
        return {name: sum(type(each).__name__ == name for each in gc.get_objects()) for name in names}

    await reload(text.replace("[pools.origin]", "[pools.origin]\nqueue = 7"))
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for number in range(3):
            await reload(text.replace("[pools.origin]", f"[pools.origin]\nqueue = {8 + number}"))
        await until(lambda: all(count <= before[name] for name, count in alive().items()))
    finally:
        gc.enable()


async def test_a_large_graph_is_looked_through_and_let_go_of_a_little_at_a_time(
    origin: ScriptedOrigin, edge: StartEdge
) -> None:
    text = edge_toml(origin.port, route='cache = { default_ttl = "1h" }')
    many = "".join(f'[[routes]]\nhost = "h{number}.test"\npool = "origin"\ncache = {{}}\n' for number in range(300))
    gateway = await edge(text + many)
    body = {"number": 1, "config": pack(load_text(text + many, "test.toml")), "listeners": []}
    reload, before = WorkerReload(gateway.worker, load_text(text + many, "test.toml")), load_text(text + many, "f")
    turns: list[int] = []

    async def work() -> None:
        await reload.prepare(body)
        turns.append(len(gc.get_objects(0)) + len(gc.get_objects(1)))
        old, rules = gateway.worker.router, [each.rules for each in gateway.worker.router.routes]
        routes = old.routes
        reload.swap(1, {})
        assert [each.rules for each in gateway.worker.router.routes] == rules
        assert all(a.rules is b for a, b in zip(gateway.worker.router.routes, rules, strict=True)), "with its memory"
        turns.append(len(routes))
        await until(lambda: not routes)

    await gateway.on_loop(work)
    young, left = turns
    assert young < 6_000, "not all of it at once, when the thread has ended"
    assert left == len(before.routes), "what went before is freed after the swap"


# -- all workers, or none ---------------------------------------------------------------------------------------------


def whole_toml(port: int, queue: int = 5) -> str:
    """Two workers."""
    return f"""
[listen]
http = ["{LOOPBACK}:0"]
workers = 2
[log]
access = "off"
[pools.web]
timeouts = {{ connect = "10s" }}
queue = {queue}
[[pools.web.backends]]
url = "http://{LOOPBACK}:{port}"
[[routes]]
pool = "web"
"""


@pytest.fixture
async def whole(origin: ScriptedOrigin) -> AsyncIterator[Whole]:
    """A gateway in this process."""
    found = Whole(whole_toml(origin.port))
    await found.start()
    yield found
    await found.supervisor.close()


def queues(whole: Whole) -> list[int]:
    """What each worker serves by."""
    return [child.worker.pools["web"].settings.queue_size for child in whole.children if child.worker is not None]


async def test_a_worker_that_cannot_build_it_leaves_all_as_they_were(
    whole: Whole, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent: Any = whole.children[1].agent

    async def fails(body: dict[str, Any]) -> None:
        raise OSError("no file of that name")

    monkeypatch.setattr(agent._reload, "prepare", fails)
    with pytest.raises(NotAccepted, match="worker 1: no file of that name"):
        await whole.reloading.reload(Change("test"), Revision(0, 0.0, "", whole_toml(origin.port, 9)))
    assert queues(whole) == [5, 5]
    first: Any = whole.children[0].agent
    await until(lambda: first._reload._next is None)  # what the other one had built is forgotten
    assert whole.supervisor.running.config.pools["web"].queue == 5
    assert not whole.reloading.outcome.ok
    monkeypatch.undo()
    await whole.reloading.reload(Change("test"), Revision(0, 0.0, "", whole_toml(origin.port, 9)))
    assert queues(whole) == [9, 9]


async def test_a_worker_that_does_not_follow_is_replaced_by_one_that_starts_with_it(
    whole: Whole, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent: Any = whole.children[0].agent
    monkeypatch.setattr(agent._reload, "_next", None)

    async def forgets(body: dict[str, Any]) -> None:
        """It says that it is ready, and is not."""

    monkeypatch.setattr(agent._reload, "prepare", forgets)
    await whole.reloading.reload(Change("test"), Revision(0, 0.0, "", whole_toml(origin.port, 9)))
    await until(lambda: whole.supervisor.workers.ready and len(whole.children) == 3)
    assert [child.worker.pools["web"].settings.queue_size for child in whole.children[1:] if child.worker] == [9, 9]
    assert "worker.not_reloaded" in [event["kind"] for event in whole.supervisor.events.recent]


async def test_who_takes_traces_is_changed_without_losing_any(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect, origin: ScriptedOrigin
) -> None:
    first, second = await origins(), await origins()

    def said(collector: ScriptedOrigin | None, sample: str = "100%") -> str:
        lines = "" if collector is None else f'\notlp = "{collector.url}"\nsample = "{sample}"'
        return edge_toml(origin.port, log=f'access = "@LOG@"{lines}')

    gateway = await edge(said(None))
    worker = gateway.worker
    reload = Reloader(gateway, said(None))
    client = await raw_client(gateway.port)
    await client.get("/")
    assert worker.tracing is None
    await reload(said(first))
    tracing = worker.tracing
    await client.get("/")
    await reload(said(first).replace("[limits]", "[limits]\nmax_ranges = 3"))
    assert worker.tracing is tracing, "what is the same lives on"
    await reload(said(second))
    await client.get("/")
    await first.wait_for("requests", 1)  # what waited was sent, though nobody waited for it
    await reload(said(None))
    await second.wait_for("requests", 1)
    await client.get("/")
    await until(lambda: worker.spans.sent == 4)
    assert (worker.tracing, worker.spans.lost) == (None, 0)
