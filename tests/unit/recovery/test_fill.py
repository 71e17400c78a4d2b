"""A restore whose bodies follow: the cache answers at once, what comes is what was there, nothing purged comes back."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kit.recovery import KEY, Clock, work_on
from kit.repository import MemoryRepository
from kit.tier import SMALL, Killed, Stopping, body_of, looked, response, tier
from kit.waiting import WAIT_S, until

from edge.adapters.disk_awaited import AwaitedBodies, awaits, listen_awaited
from edge.adapters.disk_export import DiskWarm
from edge.adapters.disk_room import MIN_SIZE
from edge.adapters.disk_start import take_over
from edge.adapters.disk_tier import DiskTier
from edge.cache.purge import Purge, PurgeKind, PurgeLog
from edge.cache.stored import Stored
from edge.cli.state import LocalState
from edge.control.journal import Journal
from edge.control.recovered import JOURNAL_FILE
from edge.errors import RepositoryUnreachable
from edge.recovery.points import PointKind
from edge.sidecar.fill import Filler
from edge.sidecar.filling import Filling
from edge.sidecar.restore import Restored, Target, chosen, restore
from edge.sidecar.source import with_warm
from edge.sidecar.take import Work, take

KEYS = [b"http://site.test/%d" % number for number in range(12)]
BODIES = [random.Random(number).randbytes(3_000 if number % 3 else 90_000) for number in range(12)]
BODIES[7] = BODIES[4]  # one small body of two responses
BODIES[9] = BODIES[3]  # and one large
NEVER = KEYS[11]


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def work(request: pytest.FixtureRequest) -> Work:
    return work_on(MemoryRepository(), Clock(), request.param)


class Restoring:
    """A point of eleven responses, and what is restored from it."""

    def __init__(self, home: Path, work: Work) -> None:
        self.home, self.work = home, work
        self.state, self.cache = home / "var", home / "var" / "cache"
        with Journal.open(self.state / JOURNAL_FILE):
            pass
        full = tier(self.cache)
        for key, body in zip(KEYS[:11], BODIES, strict=False):
            assert full.put(response(key, body, tags=frozenset({b"t"})), 0)
        assert full.writer.flush()
        self.before = {key: looked(full, key)[0] for key in KEYS[:11]}
        full.close()
        self.warm = DiskWarm(self.cache, MIN_SIZE)
        self.point = take(work, PointKind.FULL, self.captured).point

    def captured(self) -> Any:
        return with_warm(LocalState(self.state, True).capture({}), self.warm)

    def restore(self, survivor: bool = True) -> Restored:
        target = Target(self.state, self.cache, True, self.state if survivor else None, later=True)
        local = LocalState(self.state, True)
        found = restore(self.work, local, self.warm, lambda points: chosen(points, None, None), target)
        assert awaits(self.cache) and found.bodies == 11 and found.awaited_bytes == sum(map(len, set(BODIES[:11])))
        return found

    def open(self) -> DiskTier:
        with Journal.open(self.state / JOURNAL_FILE) as journal:
            saved = journal.load_purge_log()
        assert saved is not None
        return tier(self.cache, purge_log=PurgeLog.from_dict(saved["epochs"]))

    def filler(self) -> Filler:
        return Filler(AwaitedBodies(self.cache, SMALL), lambda: self.work, lambda: self.work)

    def fill(self) -> None:
        filler = self.filler()
        for _ in range(10):
            if not filler.turn():
                return
        raise AssertionError("it has no end")

    def check(self, found: DiskTier, key: bytes) -> None:
        """A response as it was before, byte for byte, as quick to answer with."""
        (one,), old = looked(found, key), self.before[key]
        assert body_of(found, one) == BODIES[KEYS.index(key)]
        assert (one.wire, one.fresh_until, one.simple, one.tags) == (old.wire, old.fresh_until, old.simple, old.tags)


@pytest.fixture
def restoring(tmp_path: Path, work: Work) -> Restoring:
    return Restoring(tmp_path, work)


def test_all_comes_and_nothing_is_left_of_the_waiting(restoring: Restoring) -> None:
    restoring.restore()
    restoring.fill()
    assert not awaits(restoring.cache) and not (restoring.cache / "store" / "awaited").exists()
    found = restoring.open()
    for key in KEYS[:11]:
        restoring.check(found, key)
    assert looked(found, NEVER) == ()
    # The next point finds nothing new: an entry is the same, however its body lies.
    entries = {name: entry for name, entry in restoring.captured().table.items() if name.startswith("cache/")}
    table, _ = restoring.work.vault.table(restoring.work.vault.points(), restoring.point.id)
    assert entries == {name: entry for name, entry in table.items() if name.startswith("cache/")}
    found.close()


def test_the_budget_counts_what_will_come(restoring: Restoring) -> None:
    restoring.restore()
    found = restoring.open()
    waiting = found.writer._changer.room.used()
    restoring.fill()
    after = found.writer._changer.room.used()
    assert after <= waiting + 12 * 4096
    assert waiting > sum(map(len, set(BODIES[:11])))
    found.close()


def test_a_response_that_was_validated_or_replaced_meanwhile_stays_as_it_is(restoring: Restoring) -> None:
    restoring.restore()
    found = restoring.open()
    for number in (1, 3):
        assert found.put(response(KEYS[number], b"newer %d" % number), 0)
    assert found.writer.flush()
    restoring.fill()
    for number in (1, 3):
        assert body_of(found, looked(found, KEYS[number])[0]) == b"newer %d" % number
    restoring.check(found, KEYS[4])
    found.close()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("at", ["before the journal", "while awaited", "between look and put"])
def test_what_is_purged_before_its_body_came_stays_purged(restoring: Restoring, at: str, soft: bool) -> None:
    purges = [Purge(PurgeKind.URL, KEYS[number], soft=soft) for number in (3, 4)]  # large and small

    def purge() -> None:
        found = restoring.open()
        with Journal.open(restoring.state / JOURNAL_FILE) as journal:
            for each in purges:
                found.purge_log().record(each, 1.0, journal.append_purge(each.to_dict()))
                found.forget(each, 1.0)
        assert found.writer.flush()
        found.close()

    if at == "before the journal":
        with Journal.open(restoring.state / JOURNAL_FILE) as journal:
            for each in purges:
                journal.append_purge(each.to_dict())
    restoring.restore()
    if at == "while awaited":
        purge()
    if at == "between look and put":
        filler = restoring.filler()
        wanted = filler._awaiting.wanted
        calls: list[Callable[[], None]] = [purge]

        def looked_then_purged() -> Any:
            found = wanted()
            if calls:
                calls.pop()()
            return found

        filler._awaiting.wanted = looked_then_purged  # type: ignore[method-assign]
        while filler.turn():
            pass
    else:
        restoring.fill()
    found = restoring.open()
    for number in (3, 4):
        left = looked(found, KEYS[number])
        assert left[0].fresh_until < restoring.before[KEYS[number]].fresh_until if soft else left == ()
    restoring.check(found, KEYS[7])  # other responses with the same bodies
    restoring.check(found, KEYS[9])
    found.close()


def test_where_no_journal_survives_nothing_that_comes_is_served_unvalidated(restoring: Restoring) -> None:
    found = restoring.restore(survivor=False)
    assert found.rebuilt.gap
    restoring.fill()
    again = restoring.open()
    for key in KEYS[:11]:
        (one,) = looked(again, key)
        assert one.no_cache and not one.simple and body_of(again, one) == BODIES[KEYS.index(key)]
    again.close()


def test_a_point_that_is_taken_meanwhile_holds_all(restoring: Restoring) -> None:
    restoring.restore()
    filler = restoring.filler()
    filler._look(restoring.work, restoring.point.id, filler._awaiting.wanted())
    fresh = DiskWarm(restoring.cache, MIN_SIZE)

    def captured() -> Any:
        return with_warm(LocalState(restoring.state, True).capture({}), fresh, filler.read)

    other = work_on(MemoryRepository(), Clock(), KEY)  # which has no body of it yet
    point = take(other, PointKind.FULL, captured).point
    assert (point.bodies, point.left_out) == (restoring.point.bodies, ())
    same = take(restoring.work, PointKind.FULL, captured).point
    assert same.bodies == point.bodies and same.written < 10_000  # nothing is copied again


def test_after_the_restored_point_has_gone_bodies_come_of_one_taken_since(restoring: Restoring) -> None:
    restoring.restore()
    take(restoring.work, PointKind.FULL, restoring.captured)
    restoring.work.vault.repository.delete(f"points/{restoring.point.id}")
    restoring.work.vault._manifests.clear()
    restoring.fill()
    found = restoring.open()
    for key in KEYS[:11]:
        restoring.check(found, key)
    found.close()


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_body_that_cannot_be_had_is_a_miss_and_the_others_come(restoring: Restoring, how: str) -> None:
    restoring.restore()
    repository = restoring.work.vault.repository
    assert isinstance(repository, MemoryRepository)
    _, places = restoring.work.vault.table(restoring.work.vault.points(), restoring.point.id)
    (name,) = {f"packs/{place.pack.hex()}" for place in places.values()}
    if how == "missing":
        repository.delete(name)
    else:
        data = bytearray(repository.get(name) or b"")
        blob = restoring.before[KEYS[3]].file
        assert blob is not None
        data[places[blob.name].offset + 40] ^= 1
        repository.delete(name)
        repository.put(name, bytes(data))
    restoring.fill()
    assert not awaits(restoring.cache)
    found = restoring.open()
    lost = {KEYS[3], KEYS[9]} if how == "damaged" else set(KEYS)
    for key in KEYS[:11]:
        if key in lost:
            assert looked(found, key) == ()
        else:
            restoring.check(found, key)
    found.close()


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_killed_at_each_step_the_next_sidecar_goes_on(tmp_path: Path, how: str) -> None:
    work = work_on(MemoryRepository(), Clock(), None)
    restoring = Restoring(tmp_path, work)
    shutil.copytree(restoring.state, tmp_path / "as it was")
    for step in range(200):
        shutil.rmtree(restoring.state)
        shutil.copytree(tmp_path / "as it was", restoring.state)
        restoring.restore()
        ops = Stopping(step, how)
        awaiting = AwaitedBodies(restoring.cache, SMALL, ops)
        ended = False
        with suppress(Killed):
            while Filler(awaiting, lambda: work, lambda: work).turn():
                pass
            ended = True
        with suppress(Killed):
            awaiting.close()
        place = awaiting._place
        take_over(place, SMALL, PurgeLog(), "")
        restoring.fill()
        found = restoring.open()
        for key in KEYS[:11]:
            restoring.check(found, key)
        found.close()
        assert list((restoring.cache / "store" / "temps").iterdir()) == []
        if ended:
            assert step > 5
            return
    raise AssertionError("it has no end")


# -- what a worker sees meanwhile -------------------------------------------------------------------------------------


async def later(found: DiskTier, key: bytes) -> tuple[Stored, ...]:
    """What a look-up gives, in a thread where that has to be."""
    quick = found.look(key)
    if quick is not None:
        return quick
    future: asyncio.Future[tuple[Stored, ...]] = asyncio.get_running_loop().create_future()
    found.look_later(key, future.set_result)
    return await future


async def read(found: DiskTier, stored: Stored) -> bytes | None:
    """A body as it is sent; None where it is not to be had."""
    if stored.file is None:
        return b"".join(stored.chunks)
    opened = found.open_body(stored)
    assert opened is not None
    pieces = []
    for number in range(-(-stored.length // 262144)):
        data = opened.quick(number)
        if data is None:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            found.later(lambda number=number: opened.piece(number, True), future.set_result)  # type: ignore[misc]
            data = await future
        if isinstance(data, Exception):
            found.damage(stored, str(data))
            return None
        pieces.append(bytes(data))
    opened.close()
    return b"".join(pieces)


class Held(Filler):
    """Answers requests, and brings nothing by itself before `go`."""

    go = False

    def turn(self) -> bool:
        if self.go:
            return super().turn()
        self._look(self._work(), self._awaiting.point() or "", self._awaiting.wanted())
        return True


def meanwhile(restoring: Restoring, scene: Callable[[DiskTier, Held], Coroutine[Any, Any, None]]) -> list[str]:
    """Play a scene with a tier whose sidecar answers; the events that it told."""
    told: list[str] = []

    async def play() -> None:
        filler = Held(AwaitedBodies(restoring.cache, SMALL), lambda: restoring.work, lambda: restoring.work)
        filling = Filling(
            filler, listen_awaited(restoring.cache), lambda kind, facts: told.append(kind), lambda _: None
        )
        running = asyncio.create_task(filling.run())
        found = restoring.open()
        await scene(found, filler)
        filler.go = True
        await asyncio.wait_for(running, WAIT_S)
        found.close()

    asyncio.run(play())
    return told


def test_a_request_gets_a_body_that_has_not_come(restoring: Restoring) -> None:
    restoring.restore()

    async def scene(found: DiskTier, filler: Held) -> None:
        for key in KEYS[:11]:
            assert found.look(key) is None or BODIES[KEYS.index(key)] in (BODIES[3], BODIES[0], BODIES[6])
            (one,) = await later(found, key)
            assert await read(found, one) == BODIES[KEYS.index(key)]
        assert await later(found, NEVER) == ()
        assert awaits(restoring.cache)

    assert meanwhile(restoring, scene) == ["recovery.filled"]
    found = restoring.open()
    for key in KEYS[:11]:
        restoring.check(found, key)
    found.close()


def test_without_a_repository_awaited_responses_are_misses_and_come_later(restoring: Restoring) -> None:
    restoring.restore()
    repository = restoring.work.vault.repository
    assert isinstance(repository, MemoryRepository)

    async def scene(found: DiskTier, filler: Held) -> None:
        plain = repository.read

        def away(name: str, offset: int, length: int) -> bytes | None:
            raise RepositoryUnreachable("it is away")

        repository.read = away  # type: ignore[method-assign]
        assert await later(found, KEYS[1]) == ()
        (large,) = await later(found, KEYS[3])
        assert await read(found, large) is None
        assert found.damaged == 0
        repository.read = plain  # type: ignore[method-assign]
        (small,) = await later(found, KEYS[1])
        assert await read(found, small) == BODIES[1]
        (large,) = await later(found, KEYS[3])
        assert await read(found, large) == BODIES[3]

    meanwhile(restoring, scene)


def test_a_sidecar_that_comes_up_beside_the_workers_is_waited_for(
    restoring: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.adapters.disk_asker.WAIT_S", WAIT_S)
    restoring.restore()
    found = restoring.open()
    asker = found._asker
    assert asker is not None
    asker._patient_until += WAIT_S

    async def play() -> None:
        asking = asyncio.ensure_future(later(found, KEYS[1]))
        await until(lambda: asker._asking)
        filler = Held(AwaitedBodies(restoring.cache, SMALL), lambda: restoring.work, lambda: restoring.work)
        filling = Filling(filler, listen_awaited(restoring.cache), lambda *_: None, lambda _: None)
        running = asyncio.create_task(filling.run())
        (one,) = await asking
        assert await read(found, one) == BODIES[1]
        filler.go = True
        await running

    asyncio.run(play())
    found.close()


def test_without_a_sidecar_nobody_waits_for_ever(restoring: Restoring) -> None:
    restoring.restore()
    found = restoring.open()
    assert found._asker is not None
    found._asker._patient_until = 0.0  # the time in which a sidecar may come up is over

    async def scene() -> None:
        for key in KEYS[:3]:
            assert await later(found, key) == () or len(BODIES[KEYS.index(key)]) > 64 * 1024
        for key in KEYS[1:3]:
            await later(found, key)
        assert found.look(KEYS[1]) == ()  # after a few failures it is a miss at once, without a thread
        assert found.damaged == 0

    asyncio.run(scene())
    found.close()
