"""Very many clients of one response: told and served a few in each turn of the loop, each with the right answer.

One rule: work is counted, not timed. The turns of the worker are the case's own here, and it makes them come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from kit.builds import pure_only
from kit.cachelab import Lab, head, open_lab, reply, request, until
from kit.client import RawClient
from kit.origin import Pause, Step
from kit.waiting import WAIT_S

from edge.cache.calls import TURN
from edge.cache.purge_request import parse_purge
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.core.exchange import Exchange
from edge.dataplane.core.turns import Turns

T = TypeVar("T")
FRESH = "Cache-Control: max-age=600"
NO_STORE = "Cache-Control: no-store"
CROWD = 100
BODY = b"0123456789" * 1000


class Counted:
    """The worker's later turns, and how many responses were begun or given a piece in each."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.most = 0
        self._count = 0
        lab.store.use_turns(self.waiting.append)
        for name in ("own_lines", "body"):
            monkeypatch.setattr(Exchange, name, self._counting(getattr(Exchange, name)))

    def _counting(self, method: Callable[..., object]) -> Callable[..., object]:
        def counting(*given: object) -> object:
            self._count += 1
            return method(*given)

        return counting

    def look(self) -> None:
        """What was done since the last look was done in one turn."""
        self.most, self._count = max(self.most, self._count), 0

    def turn(self) -> None:
        """The next one comes."""
        self.look()
        self.waiting.pop(0)()
        self.look()

    async def through(self, work: Awaitable[T]) -> T:
        """They come as they are wanted, until this is done."""
        doing = asyncio.ensure_future(work)
        while not doing.done():
            self.turn() if self.waiting else self.look()
            await asyncio.sleep(0)
        return await doing

    async def all(self) -> None:
        """They come, until the loop has nothing more to do for any of them."""
        for _ in range(20):
            while self.waiting:
                self.turn()
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)


@asynccontextmanager
async def waiting(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, crowd: int = CROWD
) -> AsyncIterator[tuple[Counted, list[RawClient]]]:
    """A leader at the origin, which waits for "go", and who waits for it."""
    clients = [await RawClient.connect(lab.port) for _ in range(crowd)]
    await clients[0].send(request(target=lab.target))
    await lab.origin.wait_for("requests", len(lab.asked) + 1 if not lab.asked else len(lab.asked))
    for client in clients[1:]:
        await client.send(request(target=lab.target))
    await until(lambda: sum(front.exchange is not None for front in lab.worker.downstreams) == crowd)
    counted = Counted(lab, monkeypatch)
    yield counted, clients
    for client in clients:
        await client.close()
    while counted.waiting:
        counted.turn()


async def whole(client: RawClient, body: bytes = BODY) -> bool:
    response = await client.read_response()
    return response is not None and response.status == 200 and response.body.content == body


@pytest.mark.parametrize("disk", [False, True])
async def test_many_who_waited_get_all_of_what_is_stored(
    disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_lab(disk=str(tmp_path) if disk else "") as lab:
        lab.fresh()
        lab.answers(Pause("go"), reply(FRESH, body=BODY))
        async with waiting(lab, monkeypatch) as (counted, clients):
            lab.origin.release("go")
            await until(lambda: lab.stored())  # the body is whole and stored before most have heard of it
            assert all(await counted.through(asyncio.gather(*map(whole, clients))))
        assert counted.most <= 4 * TURN
        assert len(lab.asked) == 1
        await lab.rest()


async def test_pieces_go_to_many_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab() as lab:
        lab.fresh()
        piece = BODY[:5000]
        lab.answers(Pause("go"), head(200, (FRESH,), 10_000) + piece, Pause("more"), piece)
        async with waiting(lab, monkeypatch) as (counted, clients):
            lab.origin.release("go")
            await until(lambda: counted.waiting)
            assert all(await counted.through(asyncio.gather(*(client.read_head() for client in clients))))
            lab.origin.release("more")
            await until(lambda: counted.waiting)
            assert counted.most <= 4 * TURN
            read = asyncio.gather(*(client.wire.exactly(10_000) for client in clients))
            assert await counted.through(read) == [BODY] * CROWD
        assert counted.most <= 4 * TURN
        await lab.rest()


async def test_many_who_wait_for_what_is_not_shared_go_alone_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.answers(Pause("go"), reply(NO_STORE, body=BODY))
        lab.origin.default = (reply(NO_STORE, body=BODY),)
        async with waiting(lab, monkeypatch) as (counted, clients):
            lab.origin.release("go")
            assert await whole(clients[0])
            asked = lab.in_flight + len(lab.asked)
            assert asked <= 1 + 2 * TURN
            assert all(await counted.through(asyncio.gather(*map(whole, clients[1:]))))
        assert len(lab.asked) == CROWD


@pytest.mark.parametrize("status", [304, 503])
async def test_many_are_answered_from_store_some_at_a_time(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab("stale_if_error = '60s'") as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=1", 'ETag: "a"', body=BODY)
        await lab.ask()
        await lab.hang_up()
        lab.later(5)
        lab.origin.forget()
        lab.answers(Pause("go"), reply(FRESH, 'ETag: "a"', status=status))
        async with waiting(lab, monkeypatch) as (counted, clients):
            lab.origin.release("go")
            assert await whole(clients[0])
            assert len(counted.waiting) == 1
            assert all(await counted.through(asyncio.gather(*map(whole, clients[1:]))))
        assert counted.most <= 2 * TURN
        assert len(lab.asked) == 1


async def test_a_body_that_breaks_off_is_whole_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.answers(Pause("go"), head(200, (FRESH,), 10_000) + BODY[:5000], Pause("break"), Step.CLOSE)
        async with waiting(lab, monkeypatch) as (counted, clients):
            lab.origin.release("go")
            await until(lambda: counted.waiting)
            counted.turn()
            lab.origin.release("break")
            await until(lambda: not len(lab.store.flights))
            heads = await counted.through(asyncio.gather(*(client.read_head() for client in clients)))
            began = [client for client, found in zip(clients, heads, strict=True) if found and found.status == 200]
            refused = [found for found in heads if found is not None and found.status == 502]
            assert TURN <= len(began) < CROWD
            assert len(began) + len(refused) == CROWD
            for client in began:
                assert len(await client.wire.until_end()) < 10_000
        assert not lab.stored()
        await lab.rest()


async def test_who_leaves_before_it_hears_is_not_fetched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.answers(Pause("go"), reply(NO_STORE, body=BODY))
        lab.origin.default = (reply(NO_STORE, body=BODY),)
        async with waiting(lab, monkeypatch) as (counted, clients):
            lab.origin.release("go")
            assert await whole(clients[0])
            for client in clients[1:]:
                await client.close()
            await until(lambda: sum(front.exchange is not None for front in lab.worker.downstreams) == 0)
            await counted.all()
        assert len(lab.asked) <= 1 + 2 * TURN
        await lab.rest()


@pytest.mark.parametrize("disk", [False, True])
async def test_a_body_that_outgrows_the_store_begins_at_its_beginning_for_all(
    disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(range(256)) * 4096  # 1 MiB; a sixteenth of the memory is 512 KiB
    async with open_lab(memory="8MiB", disk=str(tmp_path) if disk else "") as lab:
        lab.fresh()
        rest = [b"%x\r\n%b\r\n" % (65536, large[at : at + 65536]) for at in range(0, len(large), 65536)]
        lab.answers(Pause("go"), head(200, (FRESH, "Transfer-Encoding: chunked"), None), *rest, b"0\r\n\r\n")
        async with waiting(lab, monkeypatch, 40) as (counted, clients):
            lab.origin.release("go")
            await until(lambda: counted.waiting)
            reading = asyncio.gather(*(whole(client, large) for client in clients))
            await lab.origin.wait_for("responses", 1)  # the body comes while those who are due have not heard of it
            while not reading.done():
                if counted.waiting:
                    counted.turn()
                await asyncio.sleep(0)
            assert all(await reading)
        assert len(lab.asked) == 1
        await lab.rest()


async def test_a_purge_while_they_are_told_is_obeyed_by_who_asks_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.answers(Pause("go"), reply(FRESH, body=b"old"))
        async with waiting(lab, monkeypatch) as (counted, clients):
            lab.origin.release("go")
            await until(lambda: lab.stored())
            lab.store.purge(parse_purge({"all": True}), lab.now)
            lab.says(FRESH, body=b"new")
            assert (await lab.ask()).body.content == b"new"
            assert all(await counted.through(asyncio.gather(*(whole(client, b"old") for client in clients))))
        assert len(lab.asked) == 2


@pure_only
@pytest.mark.parametrize("way", ["expire", "drain"])
async def test_many_connections_end_some_at_a_time(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab() as lab:
        clients = [await RawClient.connect(lab.port) for _ in range(CROWD)]
        await until(lambda: len(lab.worker.downstreams) == CROWD)
        ended: list[int] = []
        done = getattr(ClientConnection, way)

        def counting(self: ClientConnection, now: float) -> None:
            ended[-1] += 1
            done(self, now)

        some = Turns._some

        def counting_turns(self: Turns, *given: object) -> None:
            ended.append(0)
            some(self, *given)  # type: ignore[arg-type]

        monkeypatch.setattr(ClientConnection, way, counting)
        monkeypatch.setattr(Turns, "_some", counting_turns)
        if way == "expire":
            for downstream in lab.worker.downstreams:
                downstream.deadline = 0.0
            await until(lambda: not lab.worker.downstreams)
        else:
            await lab.worker.drain(WAIT_S)
        assert sum(ended) >= CROWD
        assert max(ended) <= 32
        for client in clients:
            assert await client.wire.until_end() == b""
            await client.close()
