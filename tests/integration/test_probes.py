"""Active probes over real sockets, against targets that answer well, badly, slowly, endlessly or not at all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import trustme
import uvloop
from kit.origin import OK, Action, Pause, Repeat, ScriptedOrigin, Step
from kit.ports import LOOPBACK, free_port
from kit.waiting import WAIT_S, until

from edge.control.probes import BODY_BYTES, NextDelay, OnResult, ProbeKind, Prober, ProbeResult, ProbeTarget, probe


def target_of(port: int, **changes: Any) -> ProbeTarget:
    return replace(ProbeTarget("b1", LOOPBACK, port, timeout_s=WAIT_S, path="/healthz"), **changes)


async def probe_on_uvloop(target: ProbeTarget) -> ProbeResult:
    """As the gateway does it: that loop has transports and errors of its own. In a thread, because the kit needs this
    one's."""

    def run() -> ProbeResult:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(probe(target))

    return await asyncio.to_thread(run)


LOOPS = {"asyncio": probe, "uvloop": probe_on_uvloop}


async def ask(origin: ScriptedOrigin, *script: Action, loop: str = "asyncio", **changes: Any) -> ProbeResult:
    """One probe of an origin with this script; its connection must be gone afterwards."""
    origin.route("/healthz", *script)
    answer = await LOOPS[loop](target_of(origin.port, **changes))
    await origin.wait_for("closed", origin.counters["connections"])
    return answer


def sized(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

WELL: dict[str, tuple[tuple[Action, ...], dict[str, Any]]] = {
    "plain": ((OK,), {}),
    "no body": ((b"HTTP/1.1 204 No Content\r\n\r\n",), {}),
    "another expected status": ((sized(b"", b"404 Not Found"),), {"expect": frozenset({404})}),
    "body text": ((sized(b"all systems GO"),), {"body": "systems"}),
    "chunked": ((CHUNKED + b"3\r\nsys\r\n", b"4\r\ntems\r\n0\r\n\r\n"), {"body": "systems"}),
    "until close": ((b"HTTP/1.1 200 OK\r\n\r\nsystems", Step.CLOSE), {"body": "systems"}),
    "interim first": ((b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK), {}),
    "HTTP/1.0": ((b"HTTP/1.0 200 OK\r\n\r\nok", Step.CLOSE), {}),
    "text at the start of a huge body": (
        (b"HTTP/1.1 200 OK\r\n\r\nsystems", Repeat(b"x" * 65536, 100_000)),
        {"body": "systems"},
    ),
    "huge announced body": ((b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", Repeat(b"x" * 9999, 9999)), {}),
}

UNWELL: dict[str, tuple[tuple[Action, ...], dict[str, Any], str]] = {
    "wrong status": ((sized(b"", b"503 Down"),), {}, "status 503"),
    "redirect": ((b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",), {}, "status 302"),
    "upgrade": ((b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",), {}, "status 101"),
    "wrong body": ((sized(b"degraded"),), {"body": "systems"}, "body without 'systems'"),
    "text behind what is looked at": (
        (sized(b"x" * BODY_BYTES + b"systems"),),
        {"body": "systems"},
        "first 64 KiB of the body without 'systems'",
    ),
    "closed at once": ((Step.CLOSE,), {}, "closed without an answer"),
    "reset": ((Step.RESET,), {}, "connection reset"),
    "closed in the head": ((b"HTTP/1.1 200 OK\r\nContent-", Step.CLOSE), {}, "closed within the head"),
    "closed in the body": ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Step.CLOSE), {}, "middle of the body"),
    "closed in a chunk": ((CHUNKED + b"9\r\nabc", Step.CLOSE), {}, "middle of the body"),
    "closed before the last chunk": ((CHUNKED + b"3\r\nabc\r\n", Step.CLOSE), {}, "middle of the body"),
    "bad chunk": ((CHUNKED + b"zz\r\n",), {}, "invalid answer: malformed chunk size"),
    "not HTTP": ((b"SSH-2.0-OpenSSH_9\r\n\r\n",), {}, "invalid answer: malformed status line"),
    "two framings": (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",),
        {},
        "invalid answer",
    ),
    "endless head": ((b"HTTP/1.1 200 OK\r\n", Repeat(b"A: " + b"x" * 4000 + b"\r\n", 99_999)), {}, "head too large"),
    "endless interim": ((Repeat(b"HTTP/1.1 102 Processing\r\n\r\n", 2_000),), {}, "too many interim"),
}

HANGS: dict[str, tuple[tuple[Action, ...], str]] = {
    "before the head": ((Step.SILENCE,), "waiting for the head"),
    "in the head": ((b"HTTP/1.1 200", Step.SILENCE), "waiting for the head"),
    "in the body": ((OK[:-1], Step.SILENCE), "reading the body"),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", WELL)
async def test_well(origin: ScriptedOrigin, name: str, loop: str) -> None:
    script, changes = WELL[name]
    answer = await ask(origin, *script, loop=loop, **changes)
    assert answer.ok, answer.evidence
    assert answer.evidence.startswith("status ") and 0 < answer.latency_s < WAIT_S


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", UNWELL)
async def test_unwell(origin: ScriptedOrigin, name: str, loop: str) -> None:
    script, changes, evidence = UNWELL[name]
    answer = await ask(origin, *script, loop=loop, **changes)
    assert not answer.ok
    assert evidence in answer.evidence and "\n" not in answer.evidence


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", HANGS)
async def test_what_hangs_ends_with_the_timeout(origin: ScriptedOrigin, name: str, loop: str) -> None:
    script, stage = HANGS[name]

    async def so_far() -> bool:
        """A machine that stands still may take the whole time for less."""
        answer = await ask(origin, *script, loop=loop, timeout_s=0.15)
        assert not answer.ok and answer.evidence.startswith("timed out after 0.15 s while ")
        return answer.evidence.endswith(stage)

    await until(so_far)


async def test_a_slow_drip_ends_with_the_timeout() -> None:
    begun = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":
            if reader.at_eof():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)  # a slow peer
        writer.transport.abort()

    server = await asyncio.start_server(drip, LOOPBACK, 0)
    async with server:
        answer = await probe(target_of(server.sockets[0].getsockname()[1], timeout_s=0.2))
        assert not answer.ok and "timed out after 0.2 s" in answer.evidence
        assert answer.latency_s >= 0.2
        await begun.wait()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.gather(*tasks)


async def test_the_request_is_what_a_server_expects(origin: ScriptedOrigin) -> None:
    await ask(origin, OK, authority=b"www.example.com")
    await ask(origin, OK)
    first, second = origin.requests
    assert first.raw_head.startswith(b"GET /healthz HTTP/1.1\r\nHost: www.example.com\r\n")
    assert first.get(b"connection") == b"close" and first.connection != second.connection
    assert second.get(b"host") == f"{LOOPBACK}:{origin.port}".encode()
    assert origin.problems == []


async def test_the_request_is_what_the_operator_says(origin: ScriptedOrigin) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    answer = await ask(origin, head, method="HEAD", headers=(("user-agent", "mine"), ("X-Token", "a")))
    assert answer.ok
    found = origin.requests[0]
    assert (found.method, found.get(b"user-agent"), found.get(b"x-token")) == (b"HEAD", b"mine", b"a")
    assert origin.problems == []


async def test_the_latency_is_that_of_the_head(origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = 0.0, []

    def clock() -> float:
        looks.append(now)
        return now

    monkeypatch.setattr("edge.control.probes.monotonic", clock)
    origin.route("/healthz", Pause("head"), OK[:-1], Pause("rest"), OK[-1:])
    running = asyncio.create_task(probe(target_of(origin.port)))
    await origin.wait_for("requests", 1)
    now = 0.1
    origin.release("head")
    await until(lambda: 0.1 in looks)  # the body has not come yet
    now = 0.4
    origin.release("rest")
    answer = await running
    assert answer.ok and answer.latency_s == pytest.approx(0.1)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ProbeKind)
async def test_refused(kind: ProbeKind, loop: str) -> None:
    answer = await LOOPS[loop](target_of(free_port(), kind=kind))
    assert (answer.ok, answer.evidence) == (False, "connection refused")


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_name_that_does_not_resolve(loop: str) -> None:
    for host in ("nothing.invalid", "a" * 300 + ".invalid", "a..b"):
        answer = await LOOPS[loop](target_of(80, host=host))
        assert not answer.ok and answer.evidence == "name not resolved"


async def test_tcp_only_connects(origin: ScriptedOrigin) -> None:
    answer = await ask(origin, Step.SILENCE, kind=ProbeKind.TCP)
    assert answer.ok and answer.evidence.startswith("connected in ")
    assert origin.counters["heads"] == 0


@pytest_asyncio.fixture
async def https_port() -> AsyncIterator[tuple[int, trustme.CA]]:
    """A TLS listener for `localhost` that answers once a connection."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.read()
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], authority
    others = [task for task in asyncio.all_tasks() if task.get_coro().__qualname__.endswith("serve")]  # type: ignore[union-attr]
    await asyncio.gather(*others)


@pytest.mark.parametrize("loop", LOOPS)
async def test_https(https_port: tuple[int, trustme.CA], loop: str) -> None:
    port, authority = https_port
    ask_on = LOOPS[loop]
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    answer = await ask_on(target_of(port, tls=trusting, server_name="localhost"))
    assert answer.ok, answer.evidence
    answer = await ask_on(target_of(port, tls=trusting, server_name="other.example"))
    assert not answer.ok and answer.evidence.startswith("certificate not accepted")
    answer = await ask_on(target_of(port, tls=ssl.create_default_context(), server_name="localhost"))
    assert not answer.ok and answer.evidence.startswith("certificate not accepted")
    answer = await ask_on(target_of(port))
    assert not answer.ok


@pytest.mark.parametrize("loop", LOOPS)
async def test_tls_to_a_plain_listener(origin: ScriptedOrigin, loop: str) -> None:
    origin.on_accept(b"HTTP/1.1 400 Bad Request\r\n\r\n", Step.CLOSE)
    answer = await LOOPS[loop](target_of(origin.port, tls=ssl.create_default_context()))
    assert not answer.ok and answer.evidence.startswith("TLS failed")


class Results:
    """Takes what a prober tells; `reach` waits for a number of results."""

    def __init__(self) -> None:
        self.told: list[tuple[Hashable, bool, str]] = []
        self._changed = asyncio.Event()

    def __call__(self, identity: Hashable, ok: bool, latency_s: float, evidence: str) -> None:
        assert latency_s >= 0
        self.told.append((identity, ok, evidence))
        self._changed.set()

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.told) < count:
                self._changed.clear()
                await self._changed.wait()

    def of(self, identity: Hashable) -> list[bool]:
        return [ok for who, ok, _ in self.told if who == identity]


MakeProber = Callable[..., Prober]


@pytest_asyncio.fixture
async def prober() -> AsyncIterator[MakeProber]:
    """Makes probers and closes them."""
    made: list[Prober] = []

    def make(
        targets: Iterable[ProbeTarget],
        on_result: OnResult,
        next_delay: NextDelay = lambda identity, now: 0.0,
        limit: int = 64,
    ) -> Prober:
        made.append(Prober(targets, on_result, next_delay, limit))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def hour(identity: Hashable, now: float) -> float:
    return 3600.0


async def test_results_come_again_and_again_with_the_delay_asked_each_time(
    origin: ScriptedOrigin, prober: MakeProber
) -> None:
    results, asked = Results(), list[Hashable]()

    def delay(identity: Hashable, now: float) -> float:
        asked.append(identity)
        assert len(results.of(identity)) == asked.count(identity)  # the result is known when the delay is asked
        return 0.01

    origin.enqueue(OK)
    origin.enqueue(sized(b"", b"500 Oops"))
    prober([target_of(origin.port)], results, delay)
    await results.reach(4)
    assert results.of("b1")[:4] == [True, False, True, True]
    assert origin.counters["connections"] >= 4


async def test_targets_that_never_answer_cost_a_bounded_number_of_sockets(
    origin: ScriptedOrigin, prober: MakeProber
) -> None:
    origin.default = (Step.SILENCE,)
    results, most = Results(), 0

    def look(identity: Hashable, ok: bool, latency_s: float, evidence: str) -> None:
        nonlocal most
        most = max(most, origin.open_connections)
        results(identity, ok, latency_s, evidence)

    targets = [target_of(origin.port, id=number, timeout_s=0.1) for number in range(12)]
    made = prober(targets, look, limit=3)
    await origin.wait_for("connections", 3)
    await until(lambda: made.running == 3)
    await results.reach(24)
    assert {identity for identity, _, _ in results.told} == set(range(12))  # the slots go round, nobody starves
    assert not any(ok for _, ok, _ in results.told)
    # Our end closes before the origin has seen it: those of the last round may still be counted there.
    assert 1 <= most <= 6 and made.running <= 3


async def test_one_that_hangs_delays_no_other(origin: ScriptedOrigin, prober: MakeProber) -> None:
    origin.route("/hang", Step.SILENCE)
    results = Results()
    prober([target_of(origin.port, id="hang", path="/hang"), target_of(origin.port, id="well")], results)
    await results.reach(5)
    assert results.of("hang") == [] and len(results.of("well")) == 5


async def test_update_adds_removes_changes_and_leaves_alone(origin: ScriptedOrigin, prober: MakeProber) -> None:
    origin.route("/hang", Step.SILENCE)
    results = Results()
    same, gone = target_of(origin.port, id="same"), target_of(origin.port, id="gone", path="/hang")
    changed = target_of(origin.port, id="changed")
    made = prober([same, gone, changed], results, hour)
    await results.reach(2)
    await origin.wait_for("requests", 3)
    made.update([same, replace(changed, path="/other"), target_of(origin.port, id="new")])
    await results.reach(4)
    await origin.wait_for("gone", 1)  # the probe that hung was ended, and nothing is told of it
    assert [results.of(name) for name in ("same", "gone", "changed", "new")] == [[True], [], [True, True], [True]]
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert {"probe-same", "probe-changed", "probe-new"} <= names and "probe-gone" not in names


async def test_hurry_asks_for_the_delay_anew(origin: ScriptedOrigin, prober: MakeProber) -> None:
    results, delays = Results(), [3600.0, 7200.0, 0.0, 3600.0]
    asked = asyncio.Event()

    def delay(identity: Hashable, now: float) -> float:
        asked.set()
        return delays.pop(0)

    made = prober([target_of(origin.port)], results, delay)
    made.hurry("nobody")
    await results.reach(1)
    asked.clear()
    made.hurry("b1")  # a later time changes nothing
    await asked.wait()
    assert len(results.told) == 1
    made.hurry("b1")
    await results.reach(2)
    assert delays in ([3600.0], [])


async def test_a_receiver_with_a_bug_does_not_end_the_watch(
    origin: ScriptedOrigin, prober: MakeProber, caplog: pytest.LogCaptureFixture
) -> None:
    results = Results()

    def broken(identity: Hashable, ok: bool, latency_s: float, evidence: str) -> None:
        results(identity, ok, latency_s, evidence)
        raise RuntimeError("bug")

    prober([target_of(origin.port)], broken)
    await results.reach(3)
    assert "was not taken" in caplog.text


async def test_close_ends_everything_and_tells_nothing_more(origin: ScriptedOrigin) -> None:
    origin.default = (Step.SILENCE,)
    results = Results()
    made = Prober([target_of(origin.port, id=number) for number in range(5)], results, hour, limit=2)
    await origin.wait_for("heads", 2)
    await made.close()
    await made.close()
    made.update([target_of(origin.port)])
    await origin.wait_for("closed", 2)
    assert results.told == [] and made.running == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probe-")]
