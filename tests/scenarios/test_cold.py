"""The cold way (`dataplane.cold`) against the full way: the same requests, the same answers, whatever comes between.

One rule: each case runs twice, with `Worker.cold` on and off, and all that can be seen from outside is compared:
answers byte for byte, what the origin was asked, what is stored and how, markers, counters, what is set aside.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from kit.builds import IS_COMPILED, pure_only
from kit.cachelab import HOST, Lab, from_store, head, open_lab, reply, request, until
from kit.client import RawClient, Response
from kit.origin import Pause, Step
from kit.slots import names_of

from edge.cache.purge import Purge, PurgeKind
from edge.cache.stored import PER_CHUNK_BYTES, Stored
from edge.dataplane.caching.cold import ColdFetch
from edge.dataplane.caching.fill import Fill

FRESH = "Cache-Control: max-age=60"
NO_STORE = "Cache-Control: no-store"
TOLD = ("verdict", "reason", "error", "status", "bytes_out", "attempts")
Scene = Callable[[Lab, "Seen"], Awaitable[None]]


class Log:
    """What was logged of each request that ended."""

    enabled = True
    stamp = stamp_combined = b""
    waiting: Sequence[bytes] = ()
    lost = 0

    def __init__(self, ended: list[tuple[Any, ...]]) -> None:
        self._ended = ended

    def add(self, line: bytes) -> None:
        found = orjson.loads(line)
        self._ended.append(tuple(found[name] for name in TOLD))

    def refresh(self, now: float) -> None: ...
    def flush(self) -> None: ...
    def reopen(self) -> None: ...
    def close(self) -> None: ...


class Seen:
    """What one run showed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.answers: list[Any] = []
        self.ended: list[tuple[Any, ...]] = []
        self.looked: list[Any] = []  # what a scene saw on its way
        lab.worker.log = Log(self.ended)

    async def ask(self, *lines: str, **given: Any) -> None:
        """One request; its answer is kept."""
        response = await self.lab.ask(*lines, **given)
        self.answers.append(_shown(response))

    async def read(self, client: RawClient) -> None:
        """The answer of another client, or how its connection ended."""
        try:
            response = await client.read_response()
        except Exception as error:
            self.answers.append(type(error).__name__)
            return
        self.answers.append(None if response is None else _shown(response))

    def facts(self) -> dict[str, Any]:
        """All of it, less what is another one each time."""
        lab, flights, meter = self.lab, self.lab.store.flights, self.lab.worker.router.routes[0].meter
        meter.fold()
        return {
            "answers": self.answers,
            "looked": self.looked,
            "ended": sorted(self.ended, key=repr),
            "asked": [(each.method, each.target) for each in lab.asked],
            "stored": [_of(each) for each in lab.stored()],
            "markers": sorted((repr(key), why) for key, (_, why) in flights._markers.items()),
            "meter": {"hit": 0, **meter.verdicts},
            "bytes": lab.store.index.bytes - sum(map(_split, lab.store.index)),
            "rest": lab.at_rest,
        }


def _shown(response: Response) -> tuple[Any, ...]:
    head = re.sub(rb"\r\nDate: [^\r]*|', [0-9]+\)", b"", response.raw_head)  # the port is another one
    return head, response.body.content, response.complete, response.closed, response.aborted


def _of(stored: Stored) -> dict[str, Any]:
    found = {name: getattr(stored, name) for name in names_of(Stored) if name not in ("chunks", "file", "wire")}
    body = b"".join(stored.chunks) if stored.file is None else b"(file)"
    found["size_bytes"] -= _split(stored)
    return {**found, "body": body, "wire": re.sub(rb"Date: [^\r]*", b"", stored.wire)}


def _split(stored: Stored) -> int:
    """What it is charged for the pieces that its body came in: the socket decides how many."""
    return PER_CHUNK_BYTES * len(stored.chunks)


async def both(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, used: bool = True, disk: Path | None = None, **lab: Any
) -> dict[str, Any]:
    """Run the scene by both ways and compare. `used`: whether the cold way has a part in it at all."""
    found = []
    for cold in (True, False):
        begun = 0
        make = ColdFetch.__init__

        def counted(self: ColdFetch, *given: Any, make: Any = make) -> None:
            nonlocal begun
            begun += 1
            make(self, *given)

        with monkeypatch.context() as patch:
            if not IS_COMPILED:
                patch.setattr(ColdFetch, "__init__", counted)
            folder = {"disk": f"{disk}/{cold}"} if disk else {}
            async with open_lab(**lab, **folder) as one:
                one.worker.cold = cold
                one.fresh()
                seen = Seen(one)
                await scene(one, seen)
                await one.rest()
                found.append(seen.facts())
        assert IS_COMPILED or bool(begun) == (cold and used)
    assert found[0] == found[1]
    return found[0]


# -- heads ---------------------------------------------------------------------------------------------------------

LINES: tuple[tuple[str, ...], ...] = (
    (),
    ("Date: @0",),
    (FRESH,),
    (FRESH, "Date: @0"),
    (FRESH, "Date: @-20"),
    (FRESH, "Date: @20"),
    (FRESH, "Date: @0", "Age: 7"),
    (FRESH, "Date: @0", "Age: 70"),
    (FRESH, "Date: @0", "Age: x"),
    (FRESH, "Date: never"),
    (FRESH, "Date: Friday, 15-Jan-27 08:00:00 GMT"),
    (FRESH, "Date: @0", "Date: @0"),
    (NO_STORE, "Date: @0"),
    (NO_STORE,),
    ("Cache-Control: private, max-age=60", "Date: @0"),
    ('Cache-Control: private="x-own", max-age=60', "X-Own: 1", "X-All: 2", "Date: @0"),
    ('Cache-Control: no-cache="x-own", max-age=60', "X-Own: 1", "Date: @0"),
    ("Cache-Control: no-cache", 'ETag: "a"', "Date: @0"),
    ("Cache-Control: max-age=0", 'ETag: "a"', "Date: @0"),
    ("Cache-Control: max-age=0, public", 'ETag: "a"', "Date: @0"),
    ("Cache-Control: public", "Date: @0"),
    ("Cache-Control: s-maxage=60, must-revalidate", "Date: @0"),
    ("Cache-Control: max-age=60, stale-while-revalidate=30, stale-if-error=90", "Date: @0"),
    ("Cache-Control: must-understand, no-store, max-age=60", "Date: @0"),
    ("CDN-Cache-Control: max-age=30", NO_STORE, "Date: @0"),
    ("Expires: @90", "Date: @0"),
    ("Expires: @90",),
    ("Expires: 0", "Date: @0"),
    ("Expires: Friday, 15-Jan-27 10:00:00 GMT", "Date: @0"),
    ("Last-Modified: @-1000", "Date: @0"),
    ("Last-Modified: @-1000",),
    ("Last-Modified: @-1000", "Pragma: no-cache", "Date: @0"),
    ("Last-Modified: @1000", "Date: @0"),
    ('ETag: "a"', "Date: @0"),
    ('ETag: "a"', "Last-Modified: @1000"),
    (FRESH, "Set-Cookie: a=1", "Date: @0"),
    (FRESH, "Vary: Accept-Language", "Date: @0"),
    (FRESH, "Vary: *", "Date: @0"),
    (FRESH, "Vary: X-Real-IP", "Date: @0"),
    (FRESH, "Surrogate-Key: a b", "Cache-Tag: c", "Date: @0"),
    (FRESH, 'Cache-Groups: "g"', "Date: @0"),
    (FRESH, "Cache-Status: other; hit", "Date: @0"),
    (FRESH, "Connection: x-hop", "X-Hop: 1", "Date: @0"),
    (FRESH, "Content-Language: de", 'ETag: W/"b"', "Date: @0"),
    ("Surrogate-Key: " + " ".join(f"t{number}" for number in range(1100)), FRESH, "Date: @0"),
)
RULES = {
    "usual": "",
    "strict": "set_cookie = 'refuse'",
    "strip": "set_cookie = 'strip'",
    "default": "default_ttl = '30s', stale_if_error = '1m', stale_while_revalidate = '10s', stale_on_outage = '1h'",
    "override": "override_ttl = '30s'",
    "small": "max_object = '3B'",
    "cookies": "bypass = { cookies = ['session'] }",
}
STATUSES = (200, 203, 204, 206, 301, 302, 304, 404, 410, 418, 429, 500, 503)


async def answered(lab: Lab, seen: Seen, lines: tuple[str, ...], status: int = 200) -> None:
    """The same head several times: new, again, from store where it was stored; another body when it is old."""
    target = f"{lab.target}/{len(seen.answers)}"
    targets = [target, f"{target}/b"]
    lab.origin.default = (reply(*map(lab.dated, lines), status=status, body="body"),)
    for one in (*targets, *targets):
        await seen.ask(target=one)
    lab.later(45)
    lab.origin.default = (reply(*map(lab.dated, lines), status=status, body="other"),)
    await seen.ask(target=target)
    seen.looked.extend(_of(each) for one in targets for each in lab.stored(one))


@pytest.mark.parametrize("rules", RULES)
async def test_a_head_comes_to_the_same(rules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        for lines in LINES:
            await answered(lab, seen, lines)

    await both(scene, monkeypatch, rules=RULES[rules], used=rules != "cookies")


async def test_a_status_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        for status in STATUSES:
            for lines in ((), LINES[3], LINES[12], ("Last-Modified: @-1000", "Date: @0")):
                await answered(lab, seen, lines, status)

    await both(scene, monkeypatch, route="retry = { attempts = 0 }")


async def test_two_routes_with_rules_of_their_own_judge_the_same_head_each(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        lab.origin.default = (reply("ETag: 'a'", f"Date: {lab.date()}", "Last-Modified: x", body="body"),)
        for turn in range(4):
            for path in ("/one", "/two", "/three", "/other"):
                await seen.ask(target=f"{path}/{turn}")

    more = "".join(  # routes of the longest path first, whatever their order
        f"[[routes]]\nhost='*'\npath='/{name}'\npool='origin'\ncache={{default_ttl='{ttl}s'}}\n"
        for name, ttl in (("one", 10), ("two", 20), ("three", 30))
    )
    found = await both(scene, monkeypatch, route=more)
    told = [re.search(rb"ttl=(-?[0-9]+)", answer[0]) for answer in found["answers"]]
    assert [each and each[1] for each in told] == [b"10", b"20", b"30", b"0"] * 4


# -- bodies --------------------------------------------------------------------------------------------------------

DATED = (FRESH, "Date: Fri, 15 Jan 2027 08:00:00 GMT")
CHUNKED = (*DATED, "Transfer-Encoding: chunked")
BODIES: dict[str, tuple[Any, ...]] = {
    "none": (reply(*DATED),),
    "with its head": (reply(*DATED, body="body"),),
    "later": (head(200, DATED, 4), Pause("go"), b"body"),
    "in two": (head(200, DATED, 4) + b"bo", Pause("go"), b"dy"),
    "large": (reply(*DATED, body=b"x" * 300_000),),
    "larger than may be stored": (reply(*DATED, body=b"x" * 900_000),),
    "chunked": (head(200, CHUNKED, None) + b"4\r\nbody\r\n0\r\n\r\n",),
    "chunked with a trailer": (head(200, CHUNKED, None) + b"4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n",),
    "to the end": (head(200, DATED, None) + b"body", Step.CLOSE),
    "cut": (head(200, DATED, 8) + b"body", Step.CLOSE),
    "cut chunked": (head(200, CHUNKED, None) + b"4\r\nbo", Step.RESET),
    "no head": (Step.CLOSE,),
    "half a head": (b"HTTP/1.1 200 OK\r\nX", Step.CLOSE),
    "no HTTP": (b"hello\r\n\r\n", Step.CLOSE),
    "interim": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(*DATED, body="body"),),
    "upgrade that nobody asked for": (b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Step.CLOSE),
    "no content with content": (b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nbody", Step.CLOSE),
    "not stored": (reply(NO_STORE, body="body"),),
    "not stored, in two": (head(200, (NO_STORE,), 4) + b"bo", Pause("go"), b"dy"),
    "not stored, chunked": (
        head(200, (NO_STORE, "Transfer-Encoding: chunked"), None) + b"4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    "not stored, to the end": (head(200, (NO_STORE,), None) + b"body", Step.CLOSE),
    "not stored, cut": (head(200, (NO_STORE,), 8) + b"body", Step.CLOSE),
    "not stored, large": (reply(NO_STORE, body=b"x" * 900_000),),
}


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("tiers", ["memory", "disk", "small"])
async def test_a_body_comes_to_the_same(
    tiers: str, version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        for script in BODIES.values():
            target = lab.target + f"/{len(seen.answers)}"
            lab.origin._pauses.clear()
            lab.origin.route(target, *script)
            for turn in range(2):
                client = await RawClient.connect(lab.port)
                await client.send(request(target=target).replace(b"HTTP/1.1", version.encode()))
                if Pause("go") in script and turn == 0:
                    await until(lambda: any(each.exchange and each.exchange.begun for each in lab.worker.downstreams))
                    lab.origin.release("go")
                await seen.read(client)
                await client.close()
            await lab.rest()
            seen.looked.append((target, [_of(each) for each in lab.stored(target)]))

    kinds: dict[str, dict[str, Any]] = {"memory": {}, "disk": {"disk": tmp_path}, "small": {"memory": "256KiB"}}
    await both(scene, monkeypatch, rules="max_object = '512KiB'", route="retry = { attempts = 0 }", **kinds[tiers])


# -- what comes between --------------------------------------------------------------------------------------------

SCRIPTS: dict[str, tuple[Any, ...]] = {
    "stored": (reply(*DATED, "Surrogate-Key: t", body="body"),),
    "stored, in pieces": (head(200, (*DATED, "Surrogate-Key: t"), 4) + b"bo", Pause("rest"), b"dy"),
    "not stored": (reply(NO_STORE, body="body"),),
    "not stored, in pieces": (head(200, (NO_STORE,), 4) + b"bo", Pause("rest"), b"dy"),
    "a variant": (reply(*DATED, "Vary: X-Kind", body="body"),),
    "only to be validated": (reply("Cache-Control: no-cache", 'ETag: "a"', DATED[1], body="body"),),
    "an error": (reply(DATED[1], status=503, body="body"),),
    "no answer": (Step.CLOSE,),
}
PURGES = {
    "url": Purge(PurgeKind.URL, b"http://a.example/t1"),
    "tag": Purge(PurgeKind.TAG, b"t"),
    "all": Purge(PurgeKind.ALL),
    "soft": Purge(PurgeKind.ALL, soft=True),
    "soft url": Purge(PurgeKind.URL, b"http://a.example/t1", soft=True),
    "another": Purge(PurgeKind.URL, b"http://a.example/other"),
    "nothing": None,
}


def at_origin(lab: Lab, count: int) -> Any:
    return lab.origin.wait_for("requests", count)


def asking(lab: Lab, count: int) -> Any:
    return until(lambda: sum(each.exchange is not None for each in lab.worker.downstreams) == count)


@pytest.mark.parametrize("marked", [False, True], ids=["new", "known not to be stored"])
@pytest.mark.parametrize("purged", PURGES)
@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_purge_and_others_before_the_head(
    script: str, purged: str, marked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        if marked:
            lab.says(NO_STORE)
            await seen.ask()
            lab.origin.counters.clear()
        lab.answers(Pause("head"), *SCRIPTS[script])
        lab.origin.default = (reply(*DATED, body="later"),)
        clients = [await RawClient.connect(lab.port) for _ in range(4)]
        await clients[0].send(request("X-Kind: 1", target=lab.target))
        await at_origin(lab, 1)
        if not marked:  # else each goes to the origin, in no order that is sure
            await clients[1].send(request("X-Kind: 1", target=lab.target))
            await asking(lab, 2)
        purge = PURGES[purged]
        if purge is not None:
            lab.store.purge(purge, lab.now)
        if not marked:
            await clients[2].send(request("X-Kind: 2", target=lab.target))
            await asking(lab, 3)
        seen.looked.append(len(lab.store.flights))
        lab.origin.release("head")
        lab.origin.release("rest")
        for client in clients[: 1 if marked else 3]:
            await seen.read(client)
        await lab.rest()
        await clients[3].send(request("X-Kind: 1", target=lab.target))
        await seen.read(clients[3])
        for client in clients:
            await client.close()

    await both(scene, monkeypatch, route="retry = { attempts = 0 }")


@pytest.mark.parametrize("script", ["stored, in pieces", "not stored, in pieces"])
@pytest.mark.parametrize("purged", PURGES)
async def test_who_comes_in_mid_body(script: str, purged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        lab.answers(*SCRIPTS[script])
        lab.origin.default = (reply(*DATED, body="later"),)
        clients = [await RawClient.connect(lab.port) for _ in range(2)]
        await clients[0].send(request(target=lab.target))
        await until(lambda: any(each.exchange and each.exchange.bytes_out for each in lab.worker.downstreams))
        purge = PURGES[purged]
        if purge is not None:
            lab.store.purge(purge, lab.now)
        await clients[1].send(request(target=lab.target))
        await asking(lab, 2) if "not" not in script and purged in ("nothing", "another") else await seen.read(
            clients[1]
        )
        lab.origin.release("rest")
        for client in clients:
            if client is clients[0] or len(seen.answers) < 2:
                await seen.read(client)
            await client.close()

    await both(scene, monkeypatch)


async def test_who_comes_before_there_is_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend is full: the first waits for it, the second for the first."""

    async def scene(lab: Lab, seen: Seen) -> None:
        (backend,) = lab.worker.pools["origin"].pool.backends
        backend.max_in_flight = 1
        lab.origin.route("/busy", Pause("busy"), reply(NO_STORE, body="x"))
        clients = [await RawClient.connect(lab.port) for _ in range(3)]
        await clients[0].send(request("Authorization: x", target="/busy"))
        await at_origin(lab, 1)
        lab.says(*DATED)
        for count, client in enumerate(clients[1:], 2):
            await client.send(request(target=lab.target))
            await asking(lab, count)
        lab.origin.release("busy")
        for client in clients:
            await seen.read(client)
            await client.close()

    found = await both(scene, monkeypatch)
    assert found["meter"]["collapsed"] == 1


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize(
    ("when", "script"),
    [
        *(("before the head", each) for each in SCRIPTS),
        *(("in the body", each) for each in SCRIPTS if "pieces" in each),  # the others' bodies have no middle
    ],
)
async def test_the_first_client_leaves(script: str, when: str, others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        lab.answers(Pause("head"), *SCRIPTS[script])
        lab.origin.default = (reply(*DATED, body="later"),)
        clients = [await RawClient.connect(lab.port) for _ in range(1 + others)]
        for count, client in enumerate(clients, 1):
            await client.send(request(target=lab.target))
            await asking(lab, count)
        if when == "in the body":
            lab.origin.release("head")
            await until(lambda: any(each.exchange and each.exchange.bytes_out for each in lab.worker.downstreams))
        await clients[0].close()
        await until(lambda: len(lab.worker.downstreams) == others)
        lab.origin.release("head")
        lab.origin.release("rest")
        for client in clients[1:]:
            await seen.read(client)
            await client.close()

    await both(scene, monkeypatch, route="retry = { attempts = 0 }")


@pytest.mark.parametrize("marked", [False, True], ids=["new", "known not to be stored"])
async def test_the_backend_cannot_be_reached(marked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        if marked:
            lab.says(NO_STORE)
            await seen.ask()
        await lab.origin.stop()
        for _ in range(2):
            await seen.ask()

    await both(scene, monkeypatch, route="retry = { attempts = 0, same_backend = '0s' }")


async def test_what_is_stale_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        lab.says(*DATED)
        await seen.ask()
        lab.later(70)
        for status in (503, 200):
            lab.says(NO_STORE, status=status, body="new")
            await seen.ask()

    found = await both(scene, monkeypatch, rules="stale_if_error = '1h'", route="retry = { attempts = 0 }")
    assert found["meter"]["stale"] == 1


async def test_an_answer_that_takes_a_second_is_as_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        for lines in ((*DATED, "Age: 3"), (NO_STORE, "Age: 3")):
            lab.fresh()
            lab.answers(Pause(lab.target), reply(*lines, body="body"))
            client = await RawClient.connect(lab.port)
            await client.send(request(target=lab.target))
            await at_origin(lab, 1)
            lab.later(2)
            lab.origin.release(lab.target)
            await seen.read(client)
            await client.close()

    found = await both(scene, monkeypatch)
    assert all(b"Age: 5" in answer[0] for answer in found["answers"])


async def test_pipelined_requests_see_what_the_ones_before_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(lab: Lab, seen: Seen) -> None:
        for lines in (DATED, (NO_STORE,)):
            target = lab.fresh()
            lab.origin.default = (reply(*lines, body="body"),)
            client = await RawClient.connect(lab.port)
            await client.send(request(target=target) * 3)
            for _ in range(3):
                await seen.read(client)
            await client.close()

    found = await both(scene, monkeypatch)
    assert (found["meter"]["hit"], found["meter"]["miss"]) == (2, 4)


# -- what it is for ------------------------------------------------------------------------------------------------


@pure_only
async def test_a_lone_request_makes_no_fill_and_no_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a fill was made")

    monkeypatch.setattr(Fill, "__init__", never)
    async with open_lab() as lab:
        for lines in (DATED, (NO_STORE,), (NO_STORE, "Transfer-Encoding: chunked")):
            lab.fresh()
            chunked = len(lines) > 1 and lines is not DATED
            body = b"4\r\nbody\r\n0\r\n\r\n" if chunked else b"body"
            lab.answers(Pause(lab.target), head(200, lines, None if chunked else 4) + body)
            client = await RawClient.connect(lab.port)
            await client.send(request(target=lab.target))
            await at_origin(lab, 1)
            assert not lab.store.flights._flights
            assert len(lab.store.flights) == 1
            lab.origin.release(lab.target)
            response = await client.read_response()
            assert response is not None and response.body.content == b"body"
            await client.close()
            await lab.rest()
            assert bool(lab.stored()) == (lines is DATED)


async def test_a_stored_body_holds_no_other_and_each_has_times_of_its_own() -> None:
    async with open_lab() as lab:
        lab.origin.default = (reply(*DATED, body="body"),)
        born = []
        for target in ("/a", "/b", "/c"):
            await lab.ask(target=target)
            (stored,) = lab.stored(target)
            born.append((stored.key, stored.received_at, stored.born))
            lab.later(5)
            assert from_store(await lab.ask(target=target))
        assert [(key, at - lab.now) for key, at, _ in born] == [
            (f"http://{HOST}/{name}".encode(), at) for name, at in (("a", -15), ("b", -10), ("c", -5))
        ]
        assert len({each for _, _, each in born}) == 1  # by their Date they are as old as one another
