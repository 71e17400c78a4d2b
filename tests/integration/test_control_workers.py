"""Workers that die, hang or start while something is told: whoever is alive has applied it when the answer comes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from kit.client import RawClient
from kit.control import TWO_WORKERS, Whole
from kit.waiting import WAIT_S, until

from edge.cache.purge import Purge, PurgeKind
from edge.control.link import LinkLost, Refused, pair
from edge.control.registry import Change
from edge.control.slots import State
from edge.dataplane.worker.listener import Listener
from edge.frames import Frame, FrameKind, ack

TOML = (
    TWO_WORKERS
    + """
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:9"
[[routes]]
pool = "web"
"""
)
OPERATOR = Change("test")
ALL = Purge(PurgeKind.ALL)


@pytest_asyncio.fixture
async def whole() -> AsyncIterator[Whole]:
    found = Whole(TOML)
    await found.start()
    yield found
    await found.supervisor.close()


def kinds(whole: Whole) -> list[str]:
    return [event["kind"] for event in whole.supervisor.events.recent]


async def test_a_worker_that_dies_is_replaced_and_starts_with_all_that_was_told(whole: Whole) -> None:
    await whole.supervisor.purge(ALL, OPERATOR)
    body = {"url": "http://127.0.0.1:19"}
    await whole.supervisor.registry.put_backend("web", "later", body, OPERATOR)
    whole.children[0].signal(signal.SIGKILL)
    await until(lambda: len(whole.children) == 3 and whole.supervisor.workers.ready)
    successor = whole.children[2].worker
    assert successor is not None and successor.store is not None
    assert successor.pools["web"].pool.get("later") is not None
    assert successor.store.purge_log.last_stamp == 1 << 32
    assert "worker.died" in kinds(whole)
    assert whole.supervisor.workers.slots[0].restarts == 1


async def test_readiness_fails_while_a_worker_is_missing(whole: Whole) -> None:
    assert whole.supervisor.readiness() == (True, "ready")
    whole.children[1].signal(signal.SIGKILL)
    await until(lambda: not whole.supervisor.readiness()[0], look_s=0)  # it may be for a moment only
    await until(lambda: whole.supervisor.readiness()[0])


async def test_a_worker_that_dies_while_it_is_told_does_not_hold_the_answer(whole: Whole) -> None:
    whole.children[0].deaf = True
    told = whole.supervisor.purge(ALL, OPERATOR)
    whole.children[0].signal(signal.SIGKILL)
    assert (await told)["workers"] == 1


async def test_a_worker_that_does_not_answer_is_killed_before_the_answer(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.children[0].deaf = True
    slot = whole.supervisor.workers.slots[0]
    assert await whole.supervisor.workers.ask(slot, FrameKind.PURGE, {}, 0.01) is None
    await until(lambda: "worker.hung" in kinds(whole) and len(whole.children) == 3)


async def test_a_drain_ends_all_and_none_is_replaced(whole: Whole) -> None:
    await whole.supervisor.stop(1.0)
    assert [slot.state for slot in whole.supervisor.workers.slots] == [State.GONE, State.GONE]
    assert len(whole.children) == 2
    assert whole.supervisor.readiness() == (False, "stopping")


async def test_a_worker_whose_link_ends_serves_on_for_itself(whole: Whole) -> None:
    """As after the supervisor's death: its last view stays."""
    child = whole.children[0]
    child._own.end("the supervisor died")
    assert child.worker is not None
    assert not child.worker.stopping
    assert child.worker.pools["web"].pool.view is not None


async def test_to_its_supervisor_it_is_no_worker_any_more(whole: Whole) -> None:
    whole.children[0].link.end("nobody knows why")
    assert whole.supervisor.readiness()[0] is False
    await until(lambda: len(whole.children) == 3 and whole.supervisor.readiness()[0])
    assert "worker.link_lost" in kinds(whole)


async def test_nothing_is_acknowledged_while_it_lives(whole: Whole) -> None:
    """It serves from the old state until it is gone: the answer comes after its end, and does not count it."""
    lost = whole.children[0]
    lost.link.end("nobody knows why")
    slot = whole.supervisor.workers.slots[0]
    assert (await whole.supervisor.purge(ALL, OPERATOR))["workers"] == 1
    assert slot.child is not lost


async def test_an_invalidation_in_one_worker_reaches_the_others(whole: Whole) -> None:
    first, second = (child.worker for child in whole.children)
    assert first is not None and second is not None and first.store is not None and second.store is not None
    assert first.store.announce is not None
    before = second.store.purge_log.seq
    first.store.announce(Purge(PurgeKind.URL, b"http://a/"))
    await until(lambda: second.store is not None and second.store.purge_log.seq > before)
    assert first.store.purge_log.seq == before


async def test_what_a_client_purges_is_in_force_in_all_workers_when_it_is_answered() -> None:
    whole = Whole(TOML + "purge_methods = true\ncache = true\n")
    await whole.start()
    other = whole.children[1]
    assert other.worker is not None and other.worker.store is not None and other.agent is not None
    before, other.deaf = other.worker.store.purge_log.seq, True
    client = await RawClient.connect(whole.port)
    await client.send(b"PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: other.frames[-1].kind is FrameKind.PURGE)
    assert client.leftover == b""
    other.agent.on_frame(other.frames[-1])
    answer = await client.read_response()
    assert answer is not None and (answer.status, answer.body.content) == (200, b"purged 0\n")
    assert other.worker.store.purge_log.seq > before
    await client.close()
    await whole.supervisor.close()


async def test_new_workers_have_taken_over_when_those_before_let_nobody_in(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave, leaving, may = Listener.leave, asyncio.Event(), asyncio.Event()

    async def held(self: Listener) -> None:
        leaving.set()
        await may.wait()
        await leave(self)

    monkeypatch.setattr(Listener, "leave", held)
    renewed = asyncio.ensure_future(whole.supervisor.workers.renew(1, WAIT_S, WAIT_S))
    await leaving.wait()
    assert not renewed.done()
    may.set()
    await renewed
    assert all(not child.worker.listeners["127.0.0.1:0"]._servers for child in whole.children[:2] if child.worker)


# -- the link ----------------------------------------------------------------------------------------------------------


async def test_questions_get_their_own_answers() -> None:
    down, up = pair()
    up.on_frame = lambda frame: up.send(ack(frame, {"was": frame.body["n"]}))
    first, second = down.ask(FrameKind.ASK, {"n": 1}), down.ask(FrameKind.ASK, {"n": 2})
    assert [await second, await first] == [{"was": 2}, {"was": 1}]
    up.on_frame = lambda frame: up.send(ack(frame, error="no"))
    with pytest.raises(Refused, match="no"):
        await down.ask(FrameKind.ASK, {})


async def test_the_peers_death_is_told_once_and_fails_open_questions() -> None:
    down, up = pair()
    told: list[str] = []
    down.on_closed = told.append
    question = down.ask(FrameKind.ASK, {})
    up.end("gone")
    with pytest.raises(LinkLost):
        await question
    down.end("again")
    assert told == ["the peer closed the link"]
    with pytest.raises(LinkLost):
        await down.ask(FrameKind.ASK, {})


async def test_bytes_that_are_no_frame_end_the_link() -> None:
    down, _ = pair()
    down.feed(b"\x00\x00\x00\x02no")
    assert down.closed is not None
    down.feed(b"\x00\x00\x00\x02no")


async def test_progress_goes_to_who_asked() -> None:
    down, up = pair()
    seen: list[dict[str, object]] = []

    def work(frame: Frame) -> None:
        up.send(Frame(FrameKind.PROGRESS, {"done": 1}, frame.id))
        up.send(ack(frame, {"total": 1}))

    up.on_frame = work
    assert await down.ask(FrameKind.WARM, {}, seen.append) == {"total": 1}
    assert seen == [{"done": 1}]
