"""Purges over a running worker: each kind, hard and soft, with its counts; and none comes back by a fill under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.cachelab import HOST, Lab, from_store, head, open_lab, request, until
from kit.client import RawClient, Response
from kit.origin import Pause
from kit.tier import stuck

from edge.adapters.disk_tier import DiskTier
from edge.cache.purge import Purge, PurgeKind
from edge.cache.purge_request import parse_purge
from edge.cache.removal import STEP
from edge.control.link import LinkLost
from edge.dataplane.caching import purging
from edge.frames import packed, unpacked

FRESH = "Cache-Control: max-age=600"
TAGS = "Surrogate-Key: shoes red"
ALL = [f"/shop/{name}" for name in ("a", "b", "b?q=1", "c/d")] + ["/shopping", "/other"]


def purge(lab: Lab, soft: bool = False, **what: str | bool) -> int | None:
    """As the admin API would: parsed, then carried out when it returns."""
    removal = lab.store.purge(parse_purge({**what, "soft": soft}), lab.now)
    return None if removal is None else removal.count


async def fill(lab: Lab) -> None:
    """Each target of ALL stored, /shop/a in two variants; the first two are tagged."""
    lab.fresh()
    for at, target in enumerate(ALL):
        lab.says(FRESH, 'ETag: "1"', "Vary: Foo", *((TAGS,) if at < 2 else ()), body=target)
        await lab.ask(target=target)
    lab.says(FRESH, 'ETag: "1"', "Vary: Foo", TAGS, body="a in foo")
    await lab.ask("Foo: 1", target=ALL[0])
    lab.origin.forget()


async def gone(lab: Lab, soft: bool) -> list[str]:
    """The targets that the origin is asked for: plainly after a hard purge, to validate after a soft one."""
    found = []
    for target in ALL:
        if soft:
            lab.says(FRESH, status=304)
        else:
            lab.says(FRESH, body="new")
        response = await lab.ask(target=target)
        if not from_store(response):
            found.append(target)
            assert lab.last.get(b"if-none-match") == (b'"1"' if soft else None)
            assert response.body.content == (target.encode() if soft else b"new")
            if not soft:
                assert b"detail=purged" in (response.get(b"cache-status") or b"")
        lab.origin.forget()
    return found


KINDS = [
    ({"url": f"http://{HOST}/shop/a"}, 2, ["/shop/a"]),
    ({"url": f"http://{HOST}:80/shop/b?q=1"}, 1, ["/shop/b?q=1"]),
    ({"url": f"http://{HOST}/nothing"}, 0, []),
    ({"tag": "shoes"}, 3, ["/shop/a", "/shop/b"]),
    ({"tag": "sho"}, 0, []),
    ({"prefix": f"{HOST}/shop"}, None, ["/shop/a", "/shop/b", "/shop/b?q=1", "/shop/c/d"]),
    ({"prefix": "/shop/b"}, None, ["/shop/b", "/shop/b?q=1"]),
    ({"prefix": "b.example/shop"}, None, []),
    ({"host": HOST}, None, ALL),
    ({"host": "b.example"}, None, []),
    ({"all": True}, None, ALL),
]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("what", "count", "touched"), KINDS)
async def test_each_kind_touches_what_it_names_and_counts_it(
    what: dict[str, str | bool], count: int | None, touched: list[str], soft: bool
) -> None:
    async with open_lab() as lab:
        await fill(lab)
        assert purge(lab, soft, **what) == count
        assert await gone(lab, soft) == touched


async def test_a_purge_is_for_what_is_there_now_not_for_what_comes_later() -> None:
    async with open_lab() as lab:
        await fill(lab)
        purge(lab, all=True)
        await gone(lab, soft=False)
        assert from_store(await lab.ask(target=ALL[0]))
        assert purge(lab, url=f"http://{HOST}{ALL[0]}") == 1


RUNNING = [{"url": f"http://{HOST}/x"}, {"tag": "shoes"}, {"prefix": "/x"}, {"host": HOST}, {"all": True}]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("what", RUNNING)
@pytest.mark.parametrize("when", ["before the head", "in mid-body"])
async def test_a_fill_under_way_does_not_bring_it_back(what: dict[str, str | bool], when: str, soft: bool) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lines = (FRESH, TAGS, 'ETag: "1"')
        first = (Pause("go"), head(200, lines, 4) + b"olds") if when == "before the head" else (
            head(200, lines, 4) + b"ol", Pause("go"), b"ds")  # fmt: skip
        lab.answers(*first)
        early, late = await RawClient.connect(lab.port), await RawClient.connect(lab.port)
        await early.send(request(target="/x"))
        await lab.origin.wait_for("requests", 1)
        if when == "in mid-body":
            begun = await early.read_head()
            assert begun is not None
        purge(lab, soft, **what)
        lab.answers(head(200, lines, 4) + b"news")
        await late.send(request(target="/x"))  # asked after the purge: not the old one, whether it is there or not
        if what != {"tag": "shoes"} or when == "in mid-body":
            response = await late.read_response()
            assert response is not None and response.body.content == b"news"
        lab.origin.release("go")
        if when == "in mid-body":
            assert begun is not None
            assert (await early.read_body(begun)).body.content == b"olds"
        else:
            old = await early.read_response()
            assert old is not None and old.body.content == b"olds"
        if what == {"tag": "shoes"} and when == "before the head":  # the tags are known with the head only
            response = await late.read_response()
            assert response is not None and response.body.content == b"news"
        await early.close()
        await late.close()
        await lab.rest()
        assert [b"".join(one.chunks) for one in lab.stored("/x") if one.is_fresh(lab.now)] == [b"news"]
        assert len(lab.asked) == 2


async def asked_while_purged(lab: Lab, what: dict[str, str | bool]) -> Response:
    """What a client gets that asked for /x before the purge, while the origin answers only after it."""
    client = await RawClient.connect(lab.port)
    await client.send(request(target="/x"))
    await lab.origin.wait_for("requests", 2)
    purge(lab, **what)
    lab.origin.release("go")
    response = await client.read_response()
    await client.close()
    assert response is not None
    return response


@pytest.mark.parametrize("what", RUNNING)
async def test_nothing_purged_stands_in_for_an_origin_that_fails(what: dict[str, str | bool]) -> None:
    async with open_lab(route="retry = { attempts = 0 }") as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=60, stale-if-error=600", TAGS, 'ETag: "1"', body="old")
        await lab.ask(target="/x")
        lab.later(61)
        lab.answers(Pause("go"), head(503, (), 0))
        assert (await asked_while_purged(lab, what)).status == 503


@pytest.mark.parametrize("what", RUNNING)
async def test_a_validation_under_way_does_not_bring_it_back(what: dict[str, str | bool]) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=60", TAGS, 'ETag: "1"', body="old")
        await lab.ask(target="/x")
        lab.later(61)
        lab.answers(Pause("go"), head(304, (FRESH,), None))
        lab.says(FRESH, body="new")
        assert (await asked_while_purged(lab, what)).body.content == b"new"
        assert lab.last.get(b"if-none-match") is None


async def test_a_refresh_under_way_does_not_bring_it_back() -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says("Cache-Control: max-age=60, stale-while-revalidate=600", 'ETag: "1"', body="old")
        await lab.ask(target="/x")
        lab.later(61)
        lab.answers(Pause("go"), head(200, (FRESH,), 3) + b"mid")
        assert from_store(await lab.ask(target="/x"))
        await lab.origin.wait_for("requests", 2)
        assert purge(lab, url=f"http://{HOST}/x") == 1
        lab.origin.release("go")
        await lab.rest()
        assert lab.stored("/x") == ()


async def test_invalidations_are_announced_once_each_and_purges_are_not() -> None:
    async with open_lab() as lab:
        told: list[Purge] = []
        lab.store.announce = told.append
        await fill(lab)
        purge(lab, all=True)
        assert told == []
        lab.says("Location: /other", 'Cache-Group-Invalidation: "g"', status=201, body="")
        await lab.ask(method="POST", target="/shop/a", body=b"x")
        assert [(each.kind.value, each.value, each.soft) for each in told] == [
            ("url", b"http://a.example/shop/a", False),
            ("url", b"http://a.example/other", False),
            ("tag", b"http://a.example g", False),
        ]
        lab.says(status=500)
        await lab.ask(method="POST", target="/shop/a", body=b"x")
        assert len(told) == 3


async def test_a_large_purge_is_freed_bit_by_bit() -> None:
    async with open_lab() as lab:
        await fill(lab)
        before = lab.store.index.bytes
        purge(lab, host=HOST)
        assert lab.store.get(f"http://{HOST}{ALL[0]}".encode()) is None
        await until(lambda: len(lab.store.index) == 0)  # by the worker's tick
        assert lab.store.index.bytes < before


async def many(lab: Lab, count: int) -> None:
    """/0, /1, … stored with the tag `t`."""
    lab.says(FRESH, "Surrogate-Key: t", body="old")
    await lab.ask(target="/0")
    (model,) = lab.stored("/0")
    for number in range(1, count):
        other = model.expired(model.fresh_until)
        other.key = f"http://{HOST}/{number}".encode()
        assert lab.store.index.put(other, lab.now, lab.store.purge_log.now_seq()).ok


@pytest.mark.parametrize("soft", [False, True])
async def test_a_large_purge_is_obeyed_while_it_is_freed(soft: bool) -> None:
    async with open_lab() as lab:
        await many(lab, 1000)
        turns: list[Callable[[], None]] = []
        lab.store.use_turns(turns.append)
        removal = lab.store.purge(parse_purge({"tag": "t", "soft": soft}), lab.now)
        assert removal is not None
        asked = 0
        while turns:
            assert removal.count <= STEP * (asked + 1) + asked
            target = f"/{997 - 100 * asked}"
            lab.says(FRESH, "Surrogate-Key: t", body="new")
            assert (await lab.ask(target=target)).body.content == b"new"
            assert from_store(await lab.ask(target=target))
            asked += 1
            turns.pop(0)()
        assert removal.count == 1000
        assert asked == 4
        assert len(lab.asked) == 1 + asked
        assert len(lab.store.index) == (1000 if soft else asked)


async def test_a_client_that_purges_hears_the_whole_count() -> None:
    async with open_lab("key_headers = ['v']", route="purge_methods = ['127.0.0.0/8']") as lab:
        lab.says(FRESH, body="old")
        await lab.ask("V: 0", target="/x")
        (model,) = lab.store.variants(f"http://{HOST}/x h:v=1:0".encode())
        for number in range(1, 1000):
            other = model.expired(model.fresh_until)
            other.key = b"http://%b/x h:v=%d:%d" % (HOST.encode(), len(str(number)), number)
            assert lab.store.index.put(other, lab.now, lab.store.purge_log.now_seq()).ok
        answer = await lab.ask(method="PURGE", target="/x")
        assert answer.body.content == b"purged 1000\n"
        assert len(lab.store.index) == 0


async def test_a_client_that_purges_hears_where_other_workers_could_not_be_told() -> None:
    async def away(purge: Purge) -> None:
        raise LinkLost("the supervisor is gone")

    async with open_lab(route="purge_methods = ['127.0.0.0/8']") as lab:
        lab.says(FRESH, body="old")
        await lab.ask()
        lab.store.spread = away
        answer = await lab.ask(method="PURGE")
        assert (answer.status, answer.body.content) == (503, b"purged 1 here; other workers could not be told\n")
        assert lab.stored() == ()


async def test_a_count_that_takes_long_is_told_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "COUNT_S", 0.01)
    async with open_lab() as lab:
        await many(lab, 1000)
        turns: list[Callable[[], None]] = []
        lab.store.use_turns(turns.append)
        purge = purging.Purging(lab.worker, Purge(PurgeKind.TAG, b"t"))
        told: list[int | None] = []
        purge.then(lambda: told.append(purge.count))
        assert not told
        await until(lambda: told)  # though no turn came: it is in force
        assert (told, purge.over) == ([1000], False)
        while turns:
            turns.pop(0)()
        assert (told, purge.over, purge.count) == ([1000], True, 1000)


async def test_each_response_that_a_large_purge_touched_is_told_apart_for_the_disk_tier(tmp_path: Path) -> None:
    async with open_lab(disk=str(tmp_path)) as lab:
        await many(lab, 1000)  # the first of them is in both tiers
        purge = purging.Purging(lab.worker, Purge(PurgeKind.TAG, b"t"))
        await until(lambda: purge.over)
        numbers = unpacked(packed(purge.marks))
        assert len(set(zip(numbers[::2], numbers[1::2], strict=True))) == 1000
        assert (purge.count, purge.more) == (1000, 0)
        assert not len(lab.store.index)


async def test_what_waits_for_the_disk_is_told_apart_some_at_a_time(tmp_path: Path) -> None:
    """In force at once; the marks, a hash each, come in later turns."""
    async with open_lab(memory="1KiB", disk=str(tmp_path)) as lab:
        disk = lab.store.disk
        assert isinstance(disk, DiskTier)
        lab.fresh()
        lab.says(FRESH, "Surrogate-Key: t", body="x")
        await lab.ask()
        (model,) = lab.stored()
        assert await asyncio.to_thread(disk.writer.flush)
        with stuck(disk):
            for number in range(999):
                other = model.copy()
                other.key = model.key + b"%d" % number
                assert disk.put(other, lab.store.purge_log.now_seq())
            turns: list[Callable[[], None]] = []
            lab.store.use_turns(turns.append)
            purge = purging.Purging(lab.worker, Purge(PurgeKind.TAG, b"t"))
            assert disk.look(model.key + b"5") == ()
            told: list[int] = []
            purge.then(lambda: told.append(len(purge.marks) // 2))
            assert len(purge.marks) // 2 <= STEP and not told and not purge.over
            while turns:
                turns.pop(0)()
            assert purge.over and told == [999]
