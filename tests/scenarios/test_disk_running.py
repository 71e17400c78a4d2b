"""The disk tier under a running worker: large bodies in files, look-ups in threads, damage, restarts, purges."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from kit.cachelab import HOST, Lab, from_store, head, open_lab, request, until
from kit.client import RawClient
from kit.origin import Pause, Step

from edge.adapters.disk_tier import DiskTier
from edge.cache.body import PIECE_BYTES
from edge.cache.purge_request import parse_purge

FRESH = "Cache-Control: max-age=600"
BODY = random.Random(4).randbytes(3 * PIECE_BYTES + 1000)
RULES = "max_object = '64MiB'"


def disk_of(lab: Lab) -> DiskTier:
    assert isinstance(lab.store.disk, DiskTier)
    return lab.store.disk


async def written(lab: Lab) -> None:
    """Until nothing waits to be written."""
    assert await asyncio.to_thread(disk_of(lab).writer.flush)


async def stored_large(lab: Lab, *lines: str) -> None:
    """A fresh target with BODY, which went to the disk as it came."""
    lab.fresh()
    lab.says(FRESH, 'ETag: "1"', *lines, body=BODY)
    response = await lab.ask()
    assert response.body.content == BODY
    await until(lambda: lab.at_rest)
    await written(lab)
    lab.origin.forget()


async def test_a_restart_serves_what_was_stored_and_nothing_that_was_purged(tmp_path: Path) -> None:
    async with open_lab(RULES, disk=str(tmp_path)) as lab:
        for target in ("/kept", "/gone", "/large"):
            lab.says(FRESH, "Surrogate-Key: t", body=target if target != "/large" else BODY)
            await lab.ask(target=target)
        lab.store.purge(parse_purge({"url": f"http://{HOST}/gone"}), lab.now)
    async with open_lab(RULES, disk=str(tmp_path)) as lab:
        for target, body in (("/kept", b"/kept"), ("/large", BODY)):
            response = await lab.ask(target=target)
            assert from_store(response) and response.body.content == body
        lab.says(FRESH, body="new")
        assert (await lab.ask(target="/gone")).body.content == b"new"
        assert len(lab.asked) == 1
        assert lab.store.disk_hits == 2


async def test_what_a_fast_hit_found_and_could_not_use_is_nobodys_after_a_purge(tmp_path: Path) -> None:
    """A connection with an identity of its own (NTLM) is answered by its backend, whatever was found for it."""
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        lab.fresh()
        lab.says(FRESH, "Vary: X-Any", body="old")
        await lab.ask()
        await written(lab)
        lab.origin.default = (head(200, ("Cache-Control: no-store",), 2) + b"no",)
        await lab.ask("Authorization: NTLM TlRM", target="/bound")
        assert (await lab.ask()).body.content == b"no"
        lab.store.purge(parse_purge({"url": f"http://{HOST}{lab.target}"}), lab.now)
        await lab.hang_up()
        lab.says(FRESH, body="new")
        assert (await lab.ask("Cache-Control: max-age=600")).body.content == b"new"


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("memory", ["1KiB", "8MiB"])
async def test_a_large_body_does_not_pass_through_memory(tmp_path: Path, announced: bool, memory: str) -> None:
    async with open_lab(RULES, memory, disk=str(tmp_path)) as lab:
        lab.fresh()
        if announced:
            lab.says(FRESH, body=BODY)
        else:
            lab.answers(head(200, (FRESH, "Connection: close"), None) + BODY, Step.CLOSE)
        before = lab.store.index.bytes
        assert (await lab.ask()).body.content == BODY
        await until(lambda: lab.at_rest)
        await written(lab)
        assert lab.store.index.bytes - before < 10_000
        for _ in range(2):
            again = await lab.ask()
            assert from_store(again) and again.body.content == BODY
        assert len(lab.asked) == 1
        (stored,) = lab.stored()
        assert stored.file is not None and not stored.chunks


async def test_conditions_and_ranges_of_a_body_in_a_file(tmp_path: Path) -> None:
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        await stored_large(lab)
        edge = PIECE_BYTES
        for first, last in ((0, 0), (edge - 1, edge), (5, 3 * edge), (len(BODY) - 10, len(BODY) - 1)):
            response = await lab.ask(f"Range: bytes={first}-{last}")
            assert response.status == 206 and response.body.content == BODY[first : last + 1]
        several = await lab.ask(f"Range: bytes=0-4,{edge - 2}-{edge + 2}")
        assert several.status == 206 and b"multipart" in (several.get(b"content-type") or b"")
        assert BODY[:5] in several.body.content and BODY[edge - 2 : edge + 3] in several.body.content
        assert (await lab.ask('If-None-Match: "1"')).status == 304
        assert (await lab.ask("Range: bytes=99999999-")).status == 416
        assert (await lab.ask('If-Match: "2"')).status == 412
        only_head = await lab.ask(method="HEAD")
        assert only_head.get(b"content-length") == b"%d" % len(BODY) and from_store(only_head)
        assert not lab.asked
        lab.later(700)
        lab.says(FRESH, 'ETag: "1"', "X-New: 1", status=304)
        validated = await lab.ask()
        assert validated.body.content == BODY and validated.get(b"x-new") == b"1"
        assert from_store(await lab.ask())
        await written(lab)
        assert len(list((tmp_path / "store" / "bodies").rglob("*/*"))) == 1


async def test_who_waits_for_a_large_body_gets_it_as_it_streams(tmp_path: Path) -> None:
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        lab.fresh()
        lab.answers(Pause("start"), head(200, (FRESH,), len(BODY)) + BODY[:1000], Pause("rest"), BODY[1000:])
        clients = [await RawClient.connect(lab.port) for _ in range(5)]
        for client in clients:
            await client.send(request(target=lab.target))
        await until(lambda: len(lab.worker.downstreams) >= 5 and all(each.exchange for each in lab.worker.downstreams))
        lab.origin.release("start")
        lab.origin.release("rest")
        responses = await asyncio.gather(*(client.read_response() for client in clients))
        assert [found is not None and found.body.content == BODY for found in responses] == [True] * 5
        assert len(lab.asked) == 1
        for client in clients:
            await client.close()
        await until(lambda: lab.at_rest)


async def test_a_body_that_breaks_off_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        lab.fresh()
        lab.answers(head(200, (FRESH,), len(BODY)) + BODY[:-1000], Step.CLOSE)
        assert not (await lab.ask()).complete
        await written(lab)
        await until(lambda: lab.at_rest)
        assert not list((tmp_path / "store" / "temps").iterdir())
        assert not list((tmp_path / "store" / "bodies").rglob("*/*")) and lab.stored() == ()
        assert disk_of(lab)._looker.db.execute("SELECT count(*) FROM temps").fetchone() == (0,)


async def test_a_client_that_leaves_ends_a_fill_that_nobody_else_wants(tmp_path: Path) -> None:
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        lab.fresh()
        lab.answers(head(200, (FRESH,), len(BODY)) + BODY[: PIECE_BYTES * 2], Pause("rest"), BODY[PIECE_BYTES * 2 :])
        client = await RawClient.connect(lab.port)
        await client.send(request(target=lab.target))
        await client.read_head()
        client.reset()
        await until(lambda: lab.at_rest)
        await written(lab)
        assert not list((tmp_path / "store" / "temps").iterdir()) and lab.stored() == ()


@pytest.mark.parametrize("how", ["gone", "cut", "flipped at the start"])
async def test_a_damaged_body_is_a_miss_an_event_and_removed(tmp_path: Path, how: str) -> None:
    async with open_lab(RULES, "1MiB", disk=str(tmp_path)) as lab:
        await stored_large(lab)
        (file,) = (each for each in (tmp_path / "store" / "bodies").rglob("*/*") if each.is_file())
        data = bytearray(file.read_bytes())
        if how == "gone":
            file.unlink()
        elif how == "cut":
            file.write_bytes(data[:-1])
        else:
            data[7] ^= 1
            file.write_bytes(data)
        lab.says(FRESH, body="fetched anew")
        response = await lab.ask()
        assert response.body.content == b"fetched anew" and len(lab.asked) == 1
        if how != "gone":
            assert disk_of(lab).damaged == 1
            assert [event["kind"] for event in lab.store.take_events()] == ["disk.damaged"]
        assert (await lab.ask()).body.content == b"fetched anew"
        assert len(lab.asked) == 1


async def test_damage_behind_the_head_ends_the_connection_and_the_next_one_fetches(tmp_path: Path) -> None:
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        await stored_large(lab)
        (file,) = (each for each in (tmp_path / "store" / "bodies").rglob("*/*") if each.is_file())
        data = bytearray(file.read_bytes())
        data[PIECE_BYTES * 2 + 5] ^= 1
        file.write_bytes(data)
        response = await lab.ask()
        assert not response.complete and response.body.content == BODY[: PIECE_BYTES * 2]
        lab.says(FRESH, body="fetched anew")
        assert (await lab.ask()).body.content == b"fetched anew"


async def test_a_damaged_record_is_a_miss_and_told(tmp_path: Path) -> None:
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        lab.fresh()
        lab.says(FRESH, body="right")
        await lab.ask()
        await written(lab)
        (segment,) = (tmp_path / "store" / "segments").iterdir()
        data = bytearray(segment.read_bytes())
        data[data.find(b"right")] ^= 1
        segment.write_bytes(data)
        lab.says(FRESH, body="fetched anew")
        assert (await lab.ask()).body.content == b"fetched anew"
        assert [event["kind"] for event in lab.store.take_events()] == ["disk.damaged"]
        assert (await lab.ask()).body.content == b"fetched anew" and len(lab.asked) == 2


async def test_cold_look_ups_go_through_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        await stored_large(lab)
        large = lab.target
        lab.fresh()
        lab.says(FRESH, body="small")
        await lab.ask()
        await written(lab)
        disk = disk_of(lab)
        disk._cold_until = float("inf")
        monkeypatch.setattr("edge.adapters.disk_files._NOWAIT", 0)  # no read is known not to wait
        assert disk.look(b"http://x/") is None
        for target, body in ((large, BODY), (lab.target, b"small")):
            response = await lab.ask(target=target)
            assert from_store(response) and response.body.content == body
        lab.says(FRESH, body="other")
        assert (await lab.ask(target="/other")).body.content == b"other"
        leaving = await RawClient.connect(lab.port)
        await leaving.send(request(target=large))
        leaving.reset()
        assert from_store(await lab.ask(target=large))


async def test_a_slow_client_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    body = random.Random(5).randbytes(40 * PIECE_BYTES)
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        lab.fresh()
        lab.says(FRESH, body=body)
        await lab.ask()
        await written(lab)
        slow = await RawClient.connect(lab.port)
        await slow.send(request(target=lab.target))
        first = await slow.read_head()
        assert first is not None
        for _ in range(3):
            assert (await lab.ask()).body.content == body
        assert (await slow.read_body(first)).body.content == body
        await slow.close()


@pytest.mark.parametrize("soft", [False, True])
async def test_a_purge_while_the_response_waits_to_be_written(tmp_path: Path, soft: bool) -> None:
    async with open_lab(RULES, "1KiB", disk=str(tmp_path)) as lab:
        lab.fresh()
        lab.says(FRESH, 'ETag: "1"', "Surrogate-Key: a b", body="old")
        await lab.ask()
        lab.store.purge(parse_purge({"tag": "b", "soft": soft}), lab.now)
        lab.says(FRESH, body="new") if not soft else lab.says(FRESH, status=304)
        response = await lab.ask()
        assert response.body.content == (b"old" if soft else b"new") and len(lab.asked) == 2
        await written(lab)
        assert from_store(await lab.ask()) and len(lab.asked) == 2


async def test_a_tier_that_cannot_be_used_costs_nobody_a_request(tmp_path: Path) -> None:
    (tmp_path / "stranger").write_text("mine")
    async with open_lab(RULES, disk=str(tmp_path)) as lab:
        assert lab.store.disk is None
        (event,) = lab.store.take_events()
        assert event["kind"] == "disk.unusable" and "stranger" in event["evidence"]
        lab.fresh()
        lab.says(FRESH, body="x")
        await lab.ask()
        assert from_store(await lab.ask())
