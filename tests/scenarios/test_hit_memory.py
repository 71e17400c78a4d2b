"""Clients that do not read a large stored body: it is not put into their buffers, and it counts while it is sent.

One rule: what is looked at is what the gateway holds, never the time.
"""

from __future__ import annotations

import asyncio

import pytest
from kit.builds import pure_only
from kit.cachelab import Lab, from_store, open_lab, reply, request, until
from kit.client import RawClient

from edge.dataplane.caching import body_sender

FRESH = "Cache-Control: max-age=600"
MIB = 1024 * 1024
BODY = 8 * MIB
CROWD = 12
BUDGET = 32 * MIB


async def store(lab: Lab, target: str, length: int = BODY) -> None:
    """Have it stored by a client that reads."""
    lab.origin.route(target, reply(FRESH, 'ETag: "a"', body=bytes(length)))
    assert len((await lab.ask(target=target)).body.content) == length


async def read_whole(client: RawClient) -> None:
    """It reads on, gets all of the body, and leaves."""
    client.wire.resume_reading()
    response = await client.read_response()
    assert response is not None
    assert len(response.body.content) == BODY
    await client.close()


def unsent(lab: Lab) -> list[int]:
    """What waits in each client's buffer."""
    return [front.transport.get_write_buffer_size() for front in lab.worker.downstreams]


@pytest.mark.parametrize("line", ["", "Range: bytes=100-", 'If-None-Match: "b"'], ids=["plain", "range", "condition"])
async def test_a_client_that_does_not_read_has_little_in_its_buffer(line: str) -> None:
    async with open_lab() as lab:
        lab.fresh()
        await store(lab, "/large")
        await lab.hang_up()
        client = await RawClient.connect(lab.port)
        client.wire.pause_reading()
        await client.send(request(*([line] if line else []), target="/large"))
        await until(lambda: any(front.paused for front in lab.worker.downstreams))
        assert max(unsent(lab)) <= 512 * 1024
        client.wire.resume_reading()
        response = await client.read_response()
        assert response is not None
        assert from_store(response)
        assert len(response.body.content) == (BODY - 100 if line.startswith("Range") else BODY)
        await client.close()


async def test_bodies_that_are_sent_to_nobody_who_reads_stay_within_the_budget() -> None:
    async with open_lab(memory="32MiB") as lab:
        lab.fresh()
        clients = []
        for number in range(CROWD):
            await store(lab, f"/large{number}")
            held = len(lab.stored(f"/large{number}"))
            client = await RawClient.connect(lab.port)
            client.wire.pause_reading()
            if held:
                await client.send(request(target=f"/large{number}"))
                await until(lambda: sum(front.paused for front in lab.worker.downstreams) == len(clients) + 1)
                clients.append(client)
            else:
                await client.close()
            stats = lab.store.index.stats()
            assert lab.store.index.bytes + stats.reserved_bytes <= BUDGET
        assert 1 < len(clients) < CROWD  # those whose turn came when half of the memory was held were not stored
        assert lab.store.index.stats().reserved_bytes >= BODY  # evicted, and still sent
        for client in clients:
            await read_whole(client)
        await lab.rest()
        await store(lab, "/again")
        assert lab.stored("/again")


@pytest.mark.parametrize("how", ["purged", "validated", "left"])
async def test_what_is_sent_is_counted_once(how: str) -> None:
    async with open_lab() as lab:
        lab.fresh()
        await store(lab, "/large")
        before = lab.store.index.bytes
        client = await RawClient.connect(lab.port)
        client.wire.pause_reading()
        await client.send(request(target="/large"))
        await until(lambda: any(front.paused for front in lab.worker.downstreams))
        reserved = lambda: lab.store.index.stats().reserved_bytes  # noqa: E731
        assert (lab.store.index.bytes, reserved()) == (before, 0)
        if how == "purged":
            lab.store.index.remove(b"http://a.example/large")
            assert lab.store.index.bytes <= before - BODY
            assert reserved() == BODY
        elif how == "validated":
            lab.later(1000)
            lab.origin.route("/large", reply(FRESH, 'ETag: "a"', status=304))
            assert len((await lab.ask(target="/large")).body.content) == BODY
            assert reserved() == 0
        if how == "left":
            await client.close()
        else:
            await read_whole(client)
        await lab.rest()
        assert lab.store.index.stats().reserved_bytes == 0


@pure_only
async def test_a_client_that_reads_fast_is_given_a_bounded_share_of_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    go_on = body_sender.BodySender._go_on

    def counting(self: body_sender.BodySender) -> None:
        before = self._exchange.bytes_out
        go_on(self)
        written.append(self._exchange.bytes_out - before)

    monkeypatch.setattr(body_sender.BodySender, "_go_on", counting)
    async with open_lab() as lab:
        lab.fresh()
        await store(lab, "/large")
        found = await asyncio.gather(*(lab.ask(target="/large") for _ in range(1)))
        assert len(found[0].body.content) == BODY
        assert sum(written) == BODY
        assert max(written) < body_sender.TURN_BYTES + 512 * 1024
