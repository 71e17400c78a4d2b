"""Coalescing over a running worker: the table of `cache.flights`, row by row, with real sockets and counters.

One rule: no case waits for time. The origin is held at a pause until a counter says that everybody is where the case
wants them; at the end every flight, reservation and request in flight must be given back.
"""

from __future__ import annotations

import pytest
from crowds import crowd, ended, read, send, waiting
from kit.cachelab import from_store, head, open_lab, request, until
from kit.origin import Pause, Step

FRESH = "Cache-Control: max-age=60"
MANY = 100
MIB = 1024 * 1024


async def test_a_hundred_clients_on_one_cold_object_are_one_request_and_get_bytes_while_it_comes() -> None:
    async with open_lab() as lab, crowd(lab, MANY) as clients:
        lab.fresh()
        size = 10 * MIB
        half = b"x" * (size // 2)
        lab.answers(Pause("head"), head(200, (FRESH,), size) + half[:1000], Pause("rest"), half[1000:] + half)
        await send(lab, clients)
        await until(lambda: waiting(lab) == MANY - 1)
        lab.origin.release("head")
        for client in clients:  # each has its first byte while the origin is still sending
            found = await client.read_head()
            assert found is not None and found.status == 200
            assert await client.wire.exactly(1000) == half[:1000]
        lab.origin.release("rest")
        rest = size - 1000
        for client in clients:
            body = await client.wire.exactly(rest)
            assert body is not None and len(body) == rest
        assert len(lab.asked) == 1
        await ended(lab)
        response = await lab.ask()
        assert from_store(response) and len(response.body.content) == size
        verdicts = lab.worker.router.routes[0].meter.verdicts
        assert (verdicts["miss"], verdicts["collapsed"]) == (1, MANY - 1)


async def test_a_hundred_clients_on_an_uncacheable_object_are_not_serialised() -> None:
    async with open_lab() as lab, crowd(lab, MANY) as clients:
        lab.fresh()
        lab.origin.default = (head(200, ("Cache-Control: no-store",), 2) + b"ok",)
        lab.answers(Pause("first"), head(200, ("Cache-Control: no-store",), 2) + b"ok")
        lab.origin.route(lab.target, Pause("all"), head(200, ("Cache-Control: no-store",), 2) + b"ok")
        await send(lab, clients)
        await until(lambda: waiting(lab) == MANY - 1)
        lab.origin.release("first")
        await lab.origin.wait_for("requests", MANY)  # all of them are at the origin at once
        assert lab.in_flight == MANY - 1
        lab.origin.release("all")
        assert {each.body.content for each in await read(clients)} == {b"ok"}
        await ended(lab)
        await send(lab, clients[:10])  # remembered: nobody waits for anybody
        await lab.origin.wait_for("requests", MANY + 10)
        assert waiting(lab) == 0
        await read(clients[:10])


async def test_a_leader_whose_client_leaves_does_not_stop_the_fill_while_others_want_it() -> None:
    async with open_lab() as lab, crowd(lab, 3) as clients:
        lab.fresh()
        lab.answers(Pause("head"), head(200, (FRESH,), 4) + b"bo", Pause("rest"), b"dy")
        await send(lab, clients[:1])
        await lab.origin.wait_for("requests", 1)
        await send(lab, clients[1:])
        await until(lambda: waiting(lab) == 2)
        await clients[0].close()
        await until(lambda: len(lab.worker.downstreams) == 2)
        lab.origin.release("head")
        lab.origin.release("rest")
        assert [each.body.content for each in await read(clients[1:])] == [b"body", b"body"]
        assert len(lab.asked) == 1
        await ended(lab)
        assert from_store(await lab.ask())


@pytest.mark.parametrize("script", [(Pause("never"),), (head(200, (FRESH,), 4) + b"bo", Pause("never"))])
async def test_the_fetch_ends_with_the_last_who_wants_it(script: tuple[Pause | bytes, ...]) -> None:
    async with open_lab() as lab, crowd(lab, 3) as clients:
        lab.fresh()
        lab.answers(*script)
        await send(lab, clients)
        await until(lambda: waiting(lab) == 2)
        for client in clients:  # the leader first
            await client.close()
        await lab.origin.wait_for("gone", 1)
        await ended(lab)
        assert lab.stored() == ()


async def test_a_leader_that_fails_before_a_head_promotes_one_follower() -> None:
    async with open_lab("", route="retry = { attempts = 0 }") as lab, crowd(lab, 20) as clients:
        lab.fresh()
        lab.answers(Pause("fail"), Step.CLOSE)
        lab.answers(Pause("more"), head(200, (FRESH,), 2) + b"ok")
        await send(lab, clients)
        await until(lambda: waiting(lab) == 19)
        lab.origin.release("fail")
        await lab.origin.wait_for("requests", 2)
        await until(lambda: waiting(lab) == 18)
        lab.origin.release("more")
        statuses = [each.status for each in await read(clients)]
        assert sorted(statuses) == [200] * 19 + [502]
        assert len(lab.asked) == 2
        await ended(lab)


async def test_a_leader_that_fails_in_mid_body_aborts_all_and_stores_nothing() -> None:
    async with open_lab() as lab, crowd(lab, 20) as clients:
        lab.fresh()
        lab.answers(Pause("head"), head(200, (FRESH,), 10) + b"part", Pause("fail"), Step.CLOSE)
        await send(lab, clients)
        await until(lambda: waiting(lab) == 19)
        lab.origin.release("head")
        heads = [await client.read_head() for client in clients]
        lab.origin.release("fail")
        for client, found in zip(clients, heads, strict=True):
            assert found is not None
            response = await client.read_body(found)
            assert not response.complete and response.body.content == b"part"
        assert lab.stored() == ()
        assert len(lab.asked) == 1
        await ended(lab)


@pytest.mark.parametrize("framing", ["close", "chunked"])
async def test_a_body_without_a_length_that_breaks_off_never_looks_whole(framing: str) -> None:
    async with open_lab() as lab, crowd(lab, 5) as clients:
        lab.fresh()
        lines = (FRESH, "Connection: close") if framing == "close" else (FRESH, "Transfer-Encoding: chunked")
        part = b"part" if framing == "close" else b"4\r\npart\r\n"
        lab.answers(Pause("head"), head(200, lines, None) + part, Pause("fail"), Step.RESET)
        await send(lab, clients)
        await until(lambda: waiting(lab) == 4)
        lab.origin.release("head")
        heads = [await client.read_head() for client in clients]
        lab.origin.release("fail")
        for client, found in zip(clients, heads, strict=True):
            assert found is not None
            assert not (await client.read_body(found)).complete
        assert lab.stored() == ()
        await ended(lab)


@pytest.mark.parametrize("told", [True, False])
async def test_too_large_for_the_store_still_reaches_everybody(told: bool) -> None:
    async with open_lab("max_object = '64KiB'") as lab, crowd(lab, 10) as clients:
        lab.fresh()
        size = 200_000
        body = b"x" * size
        lines = (FRESH,) if told else (FRESH, "Transfer-Encoding: chunked")
        framed = body if told else b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        script = (head(200, lines, size if told else None) + framed[:1000], Pause("rest"), framed[1000:])
        lab.origin.route(lab.target, *script)
        lab.answers(Pause("head"), *script)
        await send(lab, clients)
        await until(lambda: waiting(lab) == 9)
        lab.origin.release("head")
        await lab.origin.wait_for("requests", 10 if told else 1)
        lab.origin.release("rest")
        for response in await read(clients):
            assert response.complete and response.body.content == body
        assert len(lab.asked) == (10 if told else 1)  # known from the head: all go at once; in mid-body: they stay
        assert lab.stored() == ()
        await ended(lab)


async def test_a_wait_has_its_limit() -> None:
    async with open_lab("collapse_wait = '10ms'") as lab, crowd(lab, 5) as clients:
        lab.fresh()
        lab.answers(Pause("slow"), head(200, (FRESH,), 4) + b"slow")
        await send(lab, clients[:1])
        await lab.origin.wait_for("requests", 1)
        lab.origin.route(lab.target, head(200, (FRESH,), 4) + b"fast")
        await send(lab, clients[1:])
        responses = await read(clients[1:])  # by the worker's tick
        assert {each.body.content for each in responses} == {b"fast"}
        assert len(lab.asked) == 5
        lab.origin.release("slow")
        assert [each.body.content for each in await read(clients[:1])] == [b"slow"]
        await ended(lab)


async def test_followers_of_another_variant_fetch_their_own_once_for_each_variant() -> None:
    async with open_lab() as lab, crowd(lab, 30) as clients:
        lab.fresh()
        script = (head(200, (FRESH, "Vary: Foo"), 2) + b"ok",)
        lab.answers(Pause("first"), *script)
        lab.origin.route(lab.target, Pause("others"), *script)
        for at, client in enumerate(clients):
            await client.send(request(f"Foo: {at % 3}", target=lab.target))
        await until(lambda: waiting(lab) == 29)
        lab.origin.release("first")
        await lab.origin.wait_for("requests", 3)
        await until(lambda: waiting(lab) == 18)
        lab.origin.release("others")
        assert len(await read(clients)) == 30
        assert sorted(each.get(b"foo") or b"" for each in lab.asked) == [b"0", b"1", b"2"]
        assert len(lab.stored()) == 3
        await ended(lab)


async def test_a_slow_follower_slows_nobody() -> None:
    async with open_lab() as lab, crowd(lab, 3) as clients:
        lab.fresh()
        size = 4 * MIB
        lab.answers(Pause("go"), head(200, (FRESH,), size) + b"x" * size)
        await send(lab, clients)
        await until(lambda: waiting(lab) == 2)
        clients[1].wire.pause_reading()
        lab.origin.release("go")
        for response in await read([clients[0], clients[2]]):
            assert len(response.body.content) == size
        await until(lambda: lab.stored() != ())
        assert len((await lab.ask()).body.content) == size  # stored while the slow one is still behind
        clients[1].wire.resume_reading()
        assert [len(each.body.content) for each in await read([clients[1]])] == [size]
        await ended(lab)


async def test_validations_of_one_stale_response_are_shared() -> None:
    async with open_lab() as lab, crowd(lab, 20) as clients:
        lab.fresh()
        lab.says(FRESH, 'ETag: "a"', body="kept")
        await lab.ask()
        lab.later(61)
        lab.answers(Pause("go"), head(304, (FRESH,), None))
        await send(lab, clients)
        await until(lambda: waiting(lab) == 19)
        lab.origin.release("go")
        assert {each.body.content for each in await read(clients)} == {b"kept"}
        assert len(lab.asked) == 2
        await ended(lab)


async def test_a_validation_that_fails_is_stood_in_for_to_all_who_wait() -> None:
    async with open_lab("", route="retry = { attempts = 0 }") as lab, crowd(lab, 20) as clients:
        lab.fresh()
        lab.says(FRESH, 'ETag: "a"', "Connection: close", body="kept")
        await lab.ask()
        lab.later(61)
        lab.answers(Pause("go"), Step.CLOSE)
        await send(lab, clients)
        await until(lambda: waiting(lab) == 19)
        lab.origin.release("go")
        assert {(each.status, each.body.content) for each in await read(clients)} == {(200, b"kept")}
        assert len(lab.asked) == 2
        await ended(lab)


async def test_credentials_and_wishes_for_something_newer_are_never_shared() -> None:
    async with open_lab() as lab, crowd(lab, 4) as clients:
        lab.fresh()
        lab.origin.route(lab.target, Pause("go"), head(200, (FRESH,), 2) + b"ok")
        own = ("Authorization: x", "Cache-Control: no-cache", "Range: bytes=0-1", 'If-None-Match: "x"')
        for client, line in zip(clients, own, strict=True):
            await client.send(request(line, target=lab.target))
        await lab.origin.wait_for("requests", 4)
        assert len(lab.store.flights) == 0
        lab.origin.release("go")
        await read(clients)
        await ended(lab)


@pytest.mark.parametrize("memory", ["1MiB", "256MiB"])
async def test_a_tiny_budget_gives_the_same_responses(memory: str) -> None:
    async with open_lab(memory=memory) as lab:
        for number in range(40):
            target, size = f"/{number % 13}", 1000 + 30_000 * (number % 13)
            lab.origin.route(target, head(200, (FRESH, 'ETag: "a"', f"X: {number % 13}"), size) + b"y" * size)
            response = await lab.ask(target=target)
            assert (response.status, response.body.content) == (200, b"y" * size)
            assert response.get(b"x") == str(number % 13).encode()
            part = await lab.ask("Range: bytes=10-19", target=target)
            assert part.status in (200, 206)  # the origin's scripts know no ranges: 200 where nothing is stored
            assert (await lab.ask('If-None-Match: "a"', target=target)).status in (200, 304)
            stats = lab.store.index.stats()
            assert stats.bytes + stats.reserved_bytes <= stats.budget_bytes
        await ended(lab)


async def test_who_shares_a_fetch_gets_the_stored_lines_once_and_the_full_age() -> None:
    async with open_lab() as lab, crowd(lab, 3) as clients:
        lab.fresh()
        lines = (FRESH, "Age: 7", "Connection: x", "X: 1", "Y: 2", "Cache-Status: origin; hit")
        lab.answers(Pause("go"), head(200, lines, 2) + b"ok")
        await send(lab, clients)
        await until(lambda: waiting(lab) == 2)
        lab.later(3)
        lab.origin.release("go")
        for at, response in enumerate(await read(clients)):
            names = [name.lower() for name, _ in response.fields]
            assert names.count(b"date") == names.count(b"age") == names.count(b"content-length") == 1
            assert (response.get(b"age"), response.get(b"x"), response.get(b"y")) == (b"10", None, b"2")
            assert response.get(b"cache-status") == (
                b"edge; fwd=uri-miss; ttl=50; stored; collapsed"
                if at
                else b"origin; hit, edge; fwd=uri-miss; ttl=50; stored; detail=cold"
            )


async def test_what_turns_out_storable_after_all_is_shared_again() -> None:
    async with open_lab() as lab, crowd(lab, 5) as clients:
        lab.fresh()
        lab.says("Cache-Control: no-store")
        await lab.ask()
        assert len(lab.store.flights._markers) == 1
        lab.says("Cache-Control: max-age=9")
        await lab.ask()
        assert len(lab.store.flights._markers) == 0
        lab.store.index.remove(f"http://a.example{lab.target}".encode())
        lab.answers(Pause("go"), head(200, (FRESH,), 2) + b"ok")
        await send(lab, clients)
        await until(lambda: waiting(lab) == 4)
        lab.origin.release("go")
        assert len(await read(clients)) == 5
        assert len(lab.asked) == 3


async def test_an_older_fetch_that_is_slower_does_not_replace_a_newer_response() -> None:
    async with open_lab() as lab, crowd(lab, 1) as clients:
        lab.fresh()
        lab.answers(head(200, (FRESH,), 4) + b"ol", Pause("go"), b"d!")
        await clients[0].send(request("Cache-Control: no-cache", target=lab.target))
        assert await clients[0].read_head() is not None
        lab.later(1)
        lab.says(FRESH, body="new")
        await lab.ask("Cache-Control: no-cache")
        lab.origin.release("go")
        await lab.rest()
        response = await lab.ask()
        assert (from_store(response), response.body.content) == (True, b"new")


async def test_a_client_answered_shortly_does_not_end_the_fill() -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says(FRESH, 'ETag: "a"')
        await lab.ask()
        lab.later(61)
        lab.answers(head(200, (FRESH, 'ETag: "b"'), 4) + b"ne", Pause("go"), b"w!")
        response = await lab.ask('If-None-Match: "b"')
        assert response.status == 304
        lab.origin.release("go")
        await lab.rest()
        again = await lab.ask()
        assert (from_store(again), again.body.content) == (True, b"new!")


async def test_what_is_not_used_often_enough_is_passed_on_and_replaced_all_the_same() -> None:
    async with open_lab("min_uses = 3") as lab:
        lab.fresh()
        for number in range(3):
            lab.says(FRESH, body=str(number))
            assert not from_store(await lab.ask())
        assert from_store(await lab.ask())
        lab.later(61)
        lab.says(FRESH, body="new")
        await lab.ask()
        assert (await lab.ask()).body.content == b"new"
        assert len(lab.asked) == 4


async def test_without_memory_one_fetch_serves_all_who_wait_and_none_is_told_that_it_is_stored() -> None:
    async with open_lab(memory="0") as lab, crowd(lab, 10) as clients:
        lab.fresh()
        lab.answers(Pause("head"), head(200, (FRESH,), 2) + b"ok")
        await send(lab, clients)
        await until(lambda: waiting(lab) == 9)
        lab.origin.release("head")
        found = await read(clients)
        assert [each.body.content for each in found] == [b"ok"] * 10
        assert not any(b"stored" in (each.get(b"cache-status") or b"") for each in found)
        assert len(lab.asked) == 1
        await ended(lab)
        assert lab.stored() == ()
