"""What a fill holds in memory: let go by the last who needs it, without a collector, and never past the budget.

One rule: the collector is off while a case looks, so that a cycle of references shows as a fill that is alive.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.builds import pure_only
from kit.cachelab import Lab, head, open_lab, reply, request, until
from kit.client import RawClient
from kit.origin import Pause, Step

from edge.dataplane.caching.fill import Fill
from edge.dataplane.upstream.fetch import Fetch

pytestmark = pure_only

FRESH = "Cache-Control: max-age=60"


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, *kinds: type) -> Iterator[list[weakref.ref[object]]]:
    """Weak references to each fill and each fetch that is made (a lone one has no fill); no collector meanwhile."""
    made: list[weakref.ref[object]] = []

    def noted(make: Callable[..., None]) -> Callable[..., None]:
        def note(self: object, *given: object) -> None:
            make(self, *given)
            made.append(weakref.ref(self))

        return note

    for kind in kinds or (Fill, Fetch):
        monkeypatch.setattr(kind, "__init__", noted(kind.__init__))
    gc.collect()
    gc.disable()
    try:
        yield made
    finally:
        gc.enable()


async def all_dead(lab: Lab, fills: list[weakref.ref[object]]) -> None:
    """No fill is left, and nothing is set aside for one."""
    await until(lambda: all(each() is None for each in fills))
    assert fills
    assert lab.store.index.stats().reserved_bytes == 0


async def ask_all(lab: Lab, clients: list[RawClient]) -> None:
    """They ask one after the other; the first is at the origin before the second."""
    await clients[0].send(request(target=lab.target))
    await lab.origin.wait_for("requests", 1)
    for client in clients[1:]:
        await client.send(request(target=lab.target))
    await until(lambda: sum(downstream.exchange is not None for downstream in lab.worker.downstreams) == len(clients))


NO_STORE = "Cache-Control: no-store"
LARGE = 300_000  # larger than `max_object` of the lab below
LEFT = {
    "before the head": (Pause("never"),),
    "in a body that is stored": (head(200, (FRESH,), 50_000) + b"x" * 20_000, Pause("never")),
    "in a body that is not": (head(200, (NO_STORE,), 50_000) + b"x" * 20_000, Pause("never")),
    "in a body that outgrew": (
        head(200, (FRESH, "Transfer-Encoding: chunked"), None) + b"%x\r\n" % LARGE + b"x" * LARGE,
        Pause("never"),
    ),
}
ENDED = {
    "stored": (reply(FRESH, body=b"x" * 50_000),),
    "not stored": (reply(NO_STORE, body=b"x" * 50_000),),
    "for whoever asked alone": (reply("Cache-Control: private, max-age=60", body=b"x"),),
    "a failure before the head": (Step.CLOSE,),
    "a failure in the body": (head(200, (FRESH,), 50_000) + b"x" * 20_000, Step.CLOSE),
    "an error": (reply(FRESH, status=500, body=b"x"),),
}


@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("state", LEFT)
async def test_a_fill_whose_clients_left_is_gone_at_once(
    state: str, clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_lab("max_object = '200KiB'") as lab:
        lab.fresh()
        lab.answers(*LEFT[state])
        lab.origin.default = (Pause("never"),)
        crowd = [await RawClient.connect(lab.port) for _ in range(clients)]
        with watched(monkeypatch) as fills:
            await ask_all(lab, crowd)
            if state != "before the head":
                await crowd[0].read_head()
            for client in crowd:
                await client.close()
            await lab.rest()
            await all_dead(lab, fills)


@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("way", ENDED)
async def test_a_fill_that_ended_is_gone_at_once(way: str, clients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab(route="retry = { attempts = 0 }") as lab:
        lab.fresh()
        lab.answers(Pause("go"), *ENDED[way])
        lab.origin.default = (reply(NO_STORE, body=b"x"),)
        crowd = [await RawClient.connect(lab.port) for _ in range(clients)]
        with watched(monkeypatch) as fills:
            await ask_all(lab, crowd)
            lab.origin.release("go")
            await asyncio.gather(*(client.read_head() for client in crowd))
            await lab.origin.wait_for("requests", 1)
            for client in crowd:
                await client.wire.exactly(1)
            for client in crowd:
                await client.close()
            await lab.rest()
            await all_dead(lab, fills)


@pytest.mark.parametrize("status", [304, 200, 500])
async def test_a_fill_that_validated_is_gone_at_once(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=1, stale-if-error=60", 'ETag: "a"')
        await lab.ask()
        lab.later(5)
        lab.says(FRESH, 'ETag: "a"', status=status)
        with watched(monkeypatch) as fills:
            await lab.ask()
            await lab.rest()
            await all_dead(lab, fills)


BUDGET_MIB = 64
BODY = 20 * 1024 * 1024
CROWD = 12
PIECES = CROWD * 512 * 1024  # of each fill, at most what one read brought after it was held back


def live(fills: list[weakref.ref[Fill]]) -> int:
    """Bytes of bodies that fills hold."""
    alive = [fill for each in fills if (fill := each()) is not None]
    return sum(len(chunk) for fill in alive for chunk in fill.chunks)


def at_rest(fill: Fill | None) -> bool:
    """Whether no byte comes into it."""
    return fill is None or fill.whole or fill.held_back


@pytest.mark.parametrize("line", [FRESH, NO_STORE])
@pytest.mark.parametrize("with_disk", [False, True])
async def test_bodies_that_nobody_takes_stay_within_the_budget(
    line: str, with_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_lab(memory=f"{BUDGET_MIB}MiB", disk=str(tmp_path) if with_disk else "") as lab:
        body = bytes(BODY)
        crowd = [await RawClient.connect(lab.port) for _ in range(CROWD)]
        lab.worker.cold = False  # each gets a fill
        with watched(monkeypatch, Fill) as fills:
            for number, client in enumerate(crowd):
                lab.origin.route(f"/large{number}", head(200, (line,), BODY), body)
                await client.send(request(target=f"/large{number}"))
            await until(lambda: len(fills) == CROWD and all(at_rest(each()) for each in fills))
            stats = lab.store.index.stats()
            assert live(fills) <= stats.reserved_bytes + PIECES
            assert lab.store.index.bytes + stats.reserved_bytes <= BUDGET_MIB * 1024 * 1024
            for client in crowd:
                await client.close()
            await until(lambda: not lab.worker.downstreams)
            await lab.rest()
            await all_dead(lab, fills)
        assert lab.in_flight == 0


async def test_slow_clients_get_their_whole_body_and_all_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab(memory=f"{BUDGET_MIB}MiB") as lab:
        body = bytes(BODY)
        crowd = [await RawClient.connect(lab.port) for _ in range(4)]
        lab.worker.cold = False  # each gets a fill
        with watched(monkeypatch, Fill) as fills:
            for number, client in enumerate(crowd):
                lab.origin.route(f"/large{number}", head(200, (FRESH,), BODY), body)
                await client.send(request(target=f"/large{number}"))
            await until(lambda: len(fills) == 4 and all(at_rest(each()) for each in fills))
            for client in crowd:
                found = await client.read_head()
                assert found is not None and found.status == 200
                assert await client.wire.exactly(BODY) == body
            await lab.rest()
            await all_dead(lab, fills)
        for client in crowd:
            await client.close()
