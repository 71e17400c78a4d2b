"""The tier that machines share, against a real redis-server: two gateways before one origin.

What goes wrong in the server is a miss, an event, and never a failed request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from kit.cachelab import HOST, Lab, from_store, lab_toml, until
from kit.origin import Pause, ScriptedOrigin
from kit.ports import LOOPBACK
from kit.redis import RedisProcess
from kit.relay import Relay
from kit.waiting import WAIT_S

from edge.adapters.fleet_server import RedisFleetServer
from edge.adapters.redis_client import Link
from edge.adapters.shared_tier import SharedTier, name_of
from edge.app import build, listen
from edge.cache.fleet.breaker import FAILURES
from edge.cache.fleet.stream import StreamPlace
from edge.cache.purge import Purge, PurgeKind
from edge.config.loader import load_text
from edge.config.redis_url import parse_redis_url
from edge.dataplane.caching.others import follow
from edge.dataplane.caching.purging import Purging, purged
from edge.errors import FleetAway, HistoryChanged

FRESH = "Cache-Control: max-age=600"


class Pair:
    """Two gateways, one origin, one server."""

    def __init__(self, labs: list[Lab], server: RedisProcess) -> None:
        self.labs = labs
        self.a, self.b = labs
        self.server = server
        self.origin = labs[0].origin

    def tier(self, lab: Lab) -> SharedTier:
        assert isinstance(lab.store.shared, SharedTier)
        return lab.store.shared

    async def written(self, count: int = 1) -> None:
        """Wait until `a` has written so many values."""
        await until(lambda: self.tier(self.a).written >= count)

    async def both(self, target: str, *lines: str) -> tuple[Any, Any]:
        """Ask `a`, then `b` when what `a` got is in the server."""
        before = self.tier(self.a).written
        first = await self.a.ask(*lines, target=target)
        await self.written(before + 1)
        return first, await self.b.ask(*lines, target=target)

    def purge(self, what: Purge, position: int, labs: list[Lab] | None = None) -> None:
        """A purge of the stream, on these machines."""
        for lab in labs or self.labs:
            Purging(lab.worker, what, position)
            purged(lab.worker, what, position)

    def events(self, lab: Lab) -> list[str]:
        return [event["kind"] for event in lab.store.take_events()]


@asynccontextmanager
async def open_pair(
    server: RedisProcess, extra: str = "", rules: str = "", url: str = "", route: str = "", timeout: str = "10s"
) -> AsyncIterator[Pair]:
    origin = ScriptedOrigin()
    await origin.start()
    labs = []
    shared = f'shared = {{ url = "{url or server.url}", timeout = "{timeout}" {extra} }}'
    for _ in range(2):
        toml = lab_toml(origin.port, rules, route=route).replace("[pools.origin]", f"{shared}\n[pools.origin]")
        config = load_text(toml, "lab.toml")
        worker = build(config)
        bound = await listen(worker, config)
        follow(worker, {"load": {"whole": 0, "position": 0, "purges": []}, **STEP})
        labs.append(Lab(worker, origin, bound[0][1]))
    try:
        yield Pair(labs, server)
    finally:
        for lab in labs:
            await lab.hang_up()
            await lab.worker.close()
        await origin.stop()
    assert not any(lab.worker.bugs for lab in labs), "a worker caught an exception: see standard error"


STEP = {
    "in_step": True,
    "catching_up": False,
    "blind": False,
    "line": ["history", "run", "", 0],
    "offset_s": 0.0,
    "lease_s": 3600.0,
}


@pytest.fixture(autouse=True)
def patient_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine that stands still for a moment does not write in time is dropped."""
    monkeypatch.setattr("edge.adapters.shared_tier.WRITE_S", WAIT_S)


@pytest.fixture
def server(tmp_path: Path) -> Any:
    made = RedisProcess.start(tmp_path)
    yield made
    made.kill()


@pytest.fixture
async def pair(server: RedisProcess) -> AsyncIterator[Pair]:
    async with open_pair(server) as found:
        yield found


async def test_what_one_machine_fetched_is_a_hit_on_the_other(pair: Pair) -> None:
    pair.a.says(FRESH, 'ETag: "1"', body="hello")
    first, second = await pair.both("/x")
    assert not from_store(first) and from_store(second)
    assert second.body.content == b"hello" and second.get(b"etag") == b'"1"'
    assert len(pair.origin.requests) == 1
    assert pair.b.store.shared_hits == 1
    third = await pair.b.ask(target="/x")
    assert from_store(third) and pair.b.store.shared_hits == 1, "it is in memory now"


async def test_its_life_in_the_server_is_what_is_left_of_it(pair: Pair) -> None:
    pair.a.says("Cache-Control: max-age=1000, stale-while-revalidate=200", "Age: 300")
    await pair.both("/x")
    name = name_of(f"http://{HOST}/x".encode(), b"")
    life = int(pair.server.say("PTTL", f"edge:{name}")[1:])
    assert 800_000 < life <= 900_001
    pair.a.says("Cache-Control: no-cache", 'ETag: "1"')
    await pair.a.ask(target="/validated")
    assert len(pair.server.say("KEYS", "edge:o:*").split(b"$")) == 2, "what has no life is not written"


async def test_variants_are_told_apart(pair: Pair) -> None:
    pair.a.says(FRESH, "Vary: Accept-Language", body="deutsch")
    _, second = await pair.both("/x", "Accept-Language: de")
    assert second.body.content == b"deutsch"
    pair.a.says(FRESH, "Vary: Accept-Language", body="english")
    other = await pair.b.ask("Accept-Language: en", target="/x")
    assert other.body.content == b"english" and not from_store(other)
    await until(lambda: pair.tier(pair.b).written >= 1)
    assert (await pair.a.ask("Accept-Language: en", target="/x")).body.content == b"english"
    assert len(pair.origin.requests) == 2


async def test_clocks_that_are_minutes_apart_change_no_age(server: RedisProcess) -> None:
    async with open_pair(server) as pair:
        pair.b.now += 300.0
        follow(pair.b.worker, {**STEP, "offset_s": -300.0})
        pair.a.says("Cache-Control: max-age=60", "Age: 10")
        _, second = await pair.both("/x")
        assert from_store(second) and int(second.get(b"age") or b"-1") in (10, 11)


async def test_a_purged_response_is_not_taken_from_the_others(pair: Pair) -> None:
    kinds = (
        Purge(PurgeKind.URL, f"http://{HOST}/x".encode()),
        Purge(PurgeKind.TAG, b"t"),
        Purge(PurgeKind.PREFIX, b"/x"),
        Purge(PurgeKind.HOST, HOST.encode()),
        Purge(PurgeKind.ALL),
    )
    for position, what in enumerate(kinds, 1):
        pair.a.says(FRESH, "Surrogate-Key: t", body=f"old {position}")
        before = pair.tier(pair.a).written
        await pair.a.ask(target="/x")
        await pair.written(before + 1)
        pair.purge(what, position)
        pair.a.says(FRESH, "Surrogate-Key: t", body=f"new {position}")
        assert (await pair.b.ask(target="/x")).body.content == f"new {position}".encode(), what
        pair.purge(Purge(PurgeKind.ALL), position + 100)  # for the next round
        pair.labs[0].store.shared.view.position = pair.labs[1].store.shared.view.position = position  # type: ignore[union-attr]


async def test_a_value_from_before_a_purge_is_refused_by_who_knows_the_purge(pair: Pair) -> None:
    """`a` has not heard of it yet, and what it fetched before goes to the server after the purge."""
    pair.purge(Purge(PurgeKind.URL, f"http://{HOST}/x".encode()), 1, [pair.b])
    pair.a.says(FRESH, body="old")
    await pair.a.ask(target="/x")
    await pair.written()
    pair.a.says(FRESH, body="new")
    assert (await pair.b.ask(target="/x")).body.content == b"new"


async def test_what_this_machine_invalidated_is_not_taken_from_the_others(pair: Pair) -> None:
    pair.a.says(FRESH, body="old")
    await pair.a.ask(target="/x")
    await pair.written()
    pair.a.says(status=200, body="done")
    await pair.b.ask(method="POST", target="/x", body=b"")
    pair.b.now += 300.0  # its clock is set: that makes nothing older
    pair.a.says(FRESH, body="new")
    assert (await pair.b.ask(target="/x")).body.content == b"new"


async def test_what_a_client_purged_here_is_not_taken_from_the_others(server: RedisProcess) -> None:
    async with open_pair(server, route="purge_methods = true") as pair:
        pair.a.says(FRESH, body="old")
        await pair.both("/x")
        assert (await pair.b.ask(method="PURGE", target="/x")).body.content == b"purged 1\n"
        pair.a.says(FRESH, body="new")
        assert (await pair.b.ask(target="/x")).body.content == b"new"


async def test_out_of_step_nobody_is_asked_and_blind_nothing_is_believed(pair: Pair) -> None:
    pair.a.says(FRESH, 'ETag: "1"', body="old")
    await pair.both("/x")
    follow(pair.b.worker, {**STEP, "in_step": False})
    assert from_store(await pair.b.ask(target="/x")), "its own copy is good for max_blind"
    pair.a.says(FRESH, body="other")
    await pair.b.ask(target="/other")
    assert (pair.tier(pair.b).written, len(pair.origin.requests)) == (0, 2)
    follow(pair.b.worker, {**STEP, "in_step": False, "blind": True})
    for _ in range(2):  # stored while blind as well
        pair.origin.forget()
        pair.a.says(FRESH, 'ETag: "1"', status=304)
        answer = await pair.b.ask(target="/x")
        assert answer.body.content == b"old" and len(pair.origin.requests) == 1
        assert pair.origin.requests[0].get(b"if-none-match") == b'"1"'
    follow(pair.b.worker, STEP)
    pair.a.says(FRESH, 'ETag: "1"', status=304)
    await pair.b.ask(target="/x")
    assert from_store(await pair.b.ask(target="/x"))


async def test_a_worker_that_nobody_tells_anything_becomes_blind_by_itself(pair: Pair) -> None:
    pair.a.says(FRESH, body="old")
    await pair.a.ask(target="/x")
    follow(pair.a.worker, {**STEP, "lease_s": 0.0})
    await until(lambda: pair.a.store.blind)
    pair.a.says(FRESH, body="new")
    assert (await pair.a.ask(target="/x")).body.content == b"new"


async def test_large_bodies_and_what_is_known_not_to_be_stored_stay_away(server: RedisProcess) -> None:
    async with open_pair(server, ', max_object = "1KiB"') as pair:
        pair.a.says(FRESH, body="x" * 1025)
        await pair.a.ask(target="/large")
        pair.a.says("Cache-Control: no-store", body="no")
        await pair.a.ask(target="/no")
        asked = pair.tier(pair.a).misses
        pair.a.says("Cache-Control: no-store", body="no")
        await pair.a.ask(target="/no")
        assert pair.tier(pair.a).misses == asked, "its marker says that nobody has it"
        assert pair.tier(pair.a).written == 0


GARBLED: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda value: value[:60] + bytes([value[60] ^ 1]) + value[61:],
    "cut": lambda value: value[:-1],
    "another version": lambda value: b"EDF\x09" + value[4:],
    "a pickle": lambda value: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "nothing": lambda value: b"",
}


@pytest.mark.parametrize("garble", GARBLED.values(), ids=GARBLED)
async def test_a_garbled_value_is_a_miss_and_an_event(pair: Pair, garble: Callable[[bytes], bytes]) -> None:
    pair.a.says(FRESH, body="good")
    await pair.a.ask(target="/x")
    await pair.written()
    name = f"edge:{name_of(f'http://{HOST}/x'.encode(), b'')}"
    value = pair.server.say("GET", name).split(b"\r\n", 1)[1][:-2]
    pair.server.say("SET", name, garble(value))
    pair.a.says(FRESH, body="from the origin")
    assert (await pair.b.ask(target="/x")).body.content == b"from the origin"
    assert "shared.garbled" in pair.events(pair.b)


async def test_another_keys_value_and_another_type_are_misses(pair: Pair) -> None:
    pair.a.says(FRESH, body="x")
    await pair.a.ask(target="/x")
    await pair.written()
    wrong = f"edge:{name_of(f'http://{HOST}/y'.encode(), b'')}"
    pair.server.say("COPY", f"edge:{name_of(f'http://{HOST}/x'.encode(), b'')}", wrong)
    pair.server.say("RPUSH", f"edge:{name_of(f'http://{HOST}/z'.encode(), b'')}", "a list")
    for target in ("/y", "/z"):
        pair.a.says(FRESH, body=target)
        assert (await pair.b.ask(target=target)).body.content == target.encode()


async def test_a_server_that_is_killed_fails_no_request_and_is_used_again(pair: Pair) -> None:
    pair.server.kill()
    for number in range(FAILURES + 2):
        pair.a.says(FRESH, body="good")
        assert (await pair.a.ask(target=f"/{number}")).body.content == b"good"
    assert not pair.tier(pair.a).usable
    assert "shared.open" in pair.events(pair.a)
    again = pair.server.again()
    try:
        await asyncio.to_thread(lambda: None)
        await until(lambda: pair.tier(pair.a).usable)
        assert {"shared.half-open", "shared.closed"} <= set(pair.events(pair.a))
        pair.a.says(FRESH, body="back")
        _, second = await pair.both("/back")
        assert from_store(second)
    finally:
        again.kill()


@pytest.fixture
async def hasty_pair(server: RedisProcess) -> AsyncIterator[Pair]:
    """Who waits a moment only."""
    async with open_pair(server, timeout="250ms") as found:
        yield found


async def test_a_server_that_does_not_answer_costs_one_timeout_and_then_nothing(hasty_pair: Pair) -> None:
    pair = hasty_pair
    pair.server.pause()
    pair.a.says(FRESH, body="good")
    assert (await pair.a.ask(target="/0")).body.content == b"good"
    for number in range(1, FAILURES + 1):
        pair.a.says(FRESH, body="good")
        await pair.a.ask(target=f"/{number}")
    assert not pair.tier(pair.a).usable
    misses = pair.tier(pair.a).misses
    pair.a.says(FRESH, body="good")
    await pair.a.ask(target="/later")
    assert pair.tier(pair.a).misses == misses, "nobody asks a server that does not answer"
    pair.server.go_on()
    await until(lambda: pair.tier(pair.a).usable)


@pytest.mark.parametrize("fault", ["slow", "hold", "lose"])
async def test_a_link_that_is_slow_or_carries_nothing_fails_no_request(server: RedisProcess, fault: str) -> None:
    """Slower than a look-up may be; open and silent; open and never to carry anything again."""
    relay = Relay(server.port)
    try:
        async with open_pair(server, url=f"redis://{LOOPBACK}:{relay.port}/0", timeout="250ms") as pair:
            asked = count()

            async def wrote() -> bool:
                pair.a.says(FRESH, body="good")
                await pair.a.ask(target=f"/first{next(asked)}")
                return pair.tier(pair.a).written > 0

            await until(wrote)  # a machine that stands still may be too slow for the first ones
            {"slow": lambda: relay.slow(0.3), "hold": relay.hold, "lose": relay.lose}[fault]()
            for number in range(FAILURES + 1):
                pair.a.says(FRESH, body="good")
                assert (await pair.a.ask(target=f"/{number}")).body.content == b"good"
            assert not pair.tier(pair.a).usable
            told = [event for event in pair.a.store.take_events() if event["kind"] == "shared.open"]
            assert told[0]["evidence"] == "no answer in time"
            relay.mend()
            await until(lambda: pair.tier(pair.a).usable)
    finally:
        relay.close()


async def test_full_memory_stops_writing_and_reading_goes_on(pair: Pair) -> None:
    pair.a.says(FRESH, body="good")
    await pair.a.ask(target="/x")
    await pair.written()
    pair.server.say("CONFIG", "SET", "maxmemory", "1")
    pair.a.says(FRESH, body="more")
    await pair.a.ask(target="/y")
    await until(lambda: pair.tier(pair.a).dropped)
    assert "shared.full" in pair.events(pair.a)
    assert pair.tier(pair.a).usable and from_store(await pair.b.ask(target="/x"))


async def test_a_wrong_password_is_told_and_nothing_else_happens(server: RedisProcess) -> None:
    server.say("CONFIG", "SET", "requirepass", "right")
    wrong = server.url.replace("redis://", "redis://:wrong@")
    async with open_pair(server, url=wrong) as pair:
        for number in range(FAILURES):
            pair.a.says(FRESH, body="good")
            assert (await pair.a.ask(target=f"/{number}")).body.content == b"good"
        told = [event for event in pair.a.store.take_events() if event["kind"] == "shared.open"]
        assert told[0]["evidence"] == "the server refuses the user or password"
    server.say("CONFIG", "SET", "requirepass", "right")
    async with open_pair(server, url=server.url.replace("redis://", "redis://:right@")) as pair:
        pair.a.says(FRESH, body="good")
        _, second = await pair.both("/x")
        assert from_store(second)


async def test_the_server_is_asked_once_for_many_requests(pair: Pair) -> None:
    """Fifty clients at once want the same of `b`, which has nothing of it."""
    pair.a.says(FRESH, body="good")
    await pair.a.ask(target="/x")
    await pair.written()
    clients = [Lab(pair.b.worker, pair.origin, pair.b.port) for _ in range(50)]
    answers = await asyncio.gather(*(client.ask(target="/x") for client in clients))
    assert all(answer.body.content == b"good" for answer in answers) and len(pair.origin.requests) == 1
    await asyncio.gather(*(client.hang_up() for client in clients))


async def test_what_one_process_of_the_server_says_is_not_taken_for_anothers(server: RedisProcess) -> None:
    """After a failover some connections lead to the old primary: what is read and written names the run."""
    stream = RedisFleetServer(Link(parse_redis_url(server.url), None, WAIT_S), "runs", 100)
    try:
        await stream.begin("", "history")
        run = (await stream.beat("", {})).head.run
        assert await stream.publish("history", run, "mark", b"payload") == 1
        assert [entry.mark for entry in await stream.read(run, 0)] == ["mark"]
        with pytest.raises(FleetAway, match="another process"):
            await stream.read("other", 0)
        with pytest.raises(HistoryChanged):
            await stream.publish("history", "other", "mark", b"payload")
        await stream.certify(StreamPlace("history", 1, "mark"), run)
        assert (await stream.beat("", {})).head.before == "", "it is the same process"
        server.say("HSET", "{runs}:head", "run", "another", "begun", "0")
        await stream.certify(StreamPlace("history", 1, "mark"), "other")
        assert not (await stream.beat("", {})).head.same_run, "certified for another process"
        await stream.certify(StreamPlace("history", 1, "mark"), run)
        beat = await stream.beat("", {})
        assert (beat.head.same_run, beat.head.before, beat.head.certified) == (True, "another", 1)
        assert beat.history_age_s < 1_000_000, (
            "counted anew, not from 1970: who was there before may be with the old one"
        )
    finally:
        await stream.close()


LEASE = ', lease = "1m"'


async def ask_held(pair: Pair, target: str) -> asyncio.Task[Any]:
    """`a` asks for what the origin holds back; returns when the origin has been asked."""
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 4\r\n\r\n"
    pair.origin.route(target, Pause("go"), head + b"slow")
    asking = asyncio.ensure_future(pair.a.ask(target=target))
    await pair.origin.wait_for("heads", 1)
    return asking


async def test_with_a_lease_one_machine_fetches_and_the_other_takes_its_response(server: RedisProcess) -> None:
    async with open_pair(server, LEASE) as pair:
        asking = await ask_held(pair, "/x")
        clients = [Lab(pair.b.worker, pair.origin, pair.b.port) for _ in range(5)]
        waiting = [asyncio.ensure_future(client.ask(target="/x")) for client in clients]
        await until(lambda: pair.tier(pair.b).waited == 5)
        pair.origin.release("go")
        answers = await asyncio.gather(asking, *waiting)
        assert {answer.body.content for answer in answers} == {b"slow"} and len(pair.origin.requests) == 1
        assert pair.tier(pair.b).spared == 5 and pair.tier(pair.a).waited == 0
        for client in clients:
            await client.hang_up()


async def test_whoever_has_waited_for_a_lease_fetches(server: RedisProcess) -> None:
    async with open_pair(server, ', lease = "100ms"', timeout="4s") as pair:
        asking = await ask_held(pair, "/x")
        server.say("SET", f"edge:l:{name_of(f'http://{HOST}/x'.encode(), b'')}", "")  # held on, however slow this is
        pair.origin.enqueue(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown")
        assert (await pair.b.ask(target="/x")).body.content == b"own"
        assert pair.tier(pair.b).waited == 1
        pair.origin.release("go")
        assert (await asking).body.content == b"slow"


async def test_who_waits_for_a_lease_goes_on_when_the_server_does_not_answer(server: RedisProcess) -> None:
    async with open_pair(server, LEASE) as pair:
        asking = await ask_held(pair, "/x")
        waiting = asyncio.ensure_future(pair.b.ask(target="/x"))
        await until(lambda: pair.tier(pair.b).waited == 1)
        server.kill()
        await pair.origin.wait_for("heads", 2)
        pair.origin.release("go")
        answers = await asyncio.gather(asking, waiting)
        assert {answer.body.content for answer in answers} == {b"slow"}
