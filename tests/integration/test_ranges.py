"""`cache.ranges` through a running worker: slices of a large body, the whole for a range, and what cannot be sliced."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inprocess import Connect, Gateway, StartEdge, edge_toml
from kit.client import RawClient, Response
from kit.http2 import Http2Client, request_head
from kit.ports import LOOPBACK
from kit.waiting import until

from edge.cache.purge import Purge, PurgeKind
from edge.dataplane.caching.prefetch import Warming
from edge.dataplane.worker.explain import explain

KIB = 1024
SLICE = 64 * KIB
BODY = bytes(range(256)) * (5 * SLICE // 256) + b"the end"
MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"
RULE = 'cache = { ranges = "slice", slice = "64KiB" }'


class FileOrigin:
    """A file of one version at each moment, that knows ranges; it counts and remembers what it was asked for."""

    def __init__(self) -> None:
        self.body = BODY
        self.etag: str | None = '"one"'
        self.modified: str | None = MODIFIED
        self.control = "max-age=3600"
        self.knows_ranges = True
        self.more = ""
        self.status = 0  # where it is not what was asked for
        self.shorter = self.longer = 0  # bytes that a part has less, or more, than it says
        self.chunked = False  # parts
        self.asked: list[str | None] = []
        self.conditions: list[str | None] = []
        self.gate: asyncio.Event | None = None  # the second half of each answer waits for it
        self.port = 0
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task, writer in list(self._serving.items()):
            writer.transport.abort()
            await asyncio.wait((task,))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        task.add_done_callback(self._serving.pop)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head.decode(), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway has left
        finally:
            writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        asked = fields.get("range")
        self.asked.append(asked)
        self.conditions.append(fields.get("if-none-match") or fields.get("if-range"))
        status, lines, body = self._response(fields)
        text = "".join(f"{line}\r\n" for line in lines)
        writer.write(f"HTTP/1.1 {status} X\r\n{text}\r\n".encode())
        half = len(body) // 2 if self.gate is not None else len(body)
        writer.write(body[:half])
        if self.gate is not None:
            await self.gate.wait()
            writer.write(body[half:])
        await writer.drain()

    def _response(self, fields: dict[str, str]) -> tuple[int, list[str], bytes]:
        lines = [f"Cache-Control: {self.control}", *([self.more] if self.more else [])]
        lines += [f"ETag: {self.etag}"] if self.etag else []
        lines += [f"Last-Modified: {self.modified}"] if self.modified else []
        if self.status:
            return self.status, [*lines, "Content-Length: 2"], b"no"
        if self.etag and fields.get("if-none-match") == self.etag:
            return 304, lines, b""
        total, asked = len(self.body), fields.get("range")
        if asked is None or "," in asked or not self.knows_ranges or fields.get("if-range", self.etag) != self.etag:
            return 200, [*lines, f"Content-Length: {total}"], self.body
        first_text, _, last_text = asked.removeprefix("bytes=").partition("-")
        first = int(first_text) if first_text else max(0, total - int(last_text))
        last = min(int(last_text), total - 1) if first_text and last_text else total - 1
        if first >= total:
            return 416, [f"Content-Range: bytes */{total}", "Content-Length: 0"], b""
        part = self.body[first : last + 1 - self.shorter] + b"!" * self.longer
        lines.append(f"Content-Range: bytes {first}-{last}/{total}")
        if self.chunked:
            return 206, [*lines, "Transfer-Encoding: chunked"], b"%x\r\n%b\r\n0\r\n\r\n" % (len(part), part)
        return 206, [*lines, f"Content-Length: {len(part)}"], part


@pytest_asyncio.fixture
async def files() -> AsyncIterator[FileOrigin]:
    """The file's server."""
    found = FileOrigin()
    await found.start()
    yield found
    await found.stop()


async def ask(client: RawClient, *lines: str, method: str = "GET", target: str = "/f") -> Response:
    return await client.ask(target, *lines, method=method, host="a")


async def gateway_of(files: FileOrigin, edge: StartEdge, route: str = RULE, **more: str) -> Gateway:
    return await edge(edge_toml(files.port, route=route, **more))


def slices(*numbers: int) -> list[str | None]:
    return [f"bytes={number * SLICE}-{(number + 1) * SLICE - 1}" for number in numbers]


async def test_a_whole_comes_in_slices_and_then_from_store(
    files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await gateway_of(files, edge)
    client = await raw_client(gateway.port)
    for _ in range(3):
        found = await ask(client)
        assert (found.status, found.get(b"content-length")) == (200, b"%d" % len(BODY))
        assert found.get(b"content-range") is None and found.body.content == BODY
        assert found.get(b"etag") == b'"one"' and found.get(b"accept-ranges") == b"bytes"
    assert files.asked == slices(0, 1, 2, 3, 4, 5)
    assert b"hit" in (found.get(b"cache-status") or b"")
    log = await gateway.log(3)
    assert [(line["verdict"], line["bytes_out"]) for line in log] == [("miss", len(BODY)), *[("hit", len(BODY))] * 2]


async def test_what_is_warmed_comes_in_slices(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await gateway_of(files, edge)
    warm = Warming(gateway.worker)

    async def run() -> dict[str, Any]:
        return await warm.run(["http://a/f"], lambda step: None)

    for _ in range(2):
        found = await gateway.on_loop(run)
        assert (found["stored"], found["failed"], found["failures"]) == (1, 0, [])
    assert files.asked == slices(0, 1, 2, 3, 4, 5)
    client = await raw_client(gateway.port)
    assert (await ask(client, f"Range: bytes={3 * SLICE}-{3 * SLICE + 9}")).body.content == BODY[:10]
    assert (await ask(client)).body.content == BODY
    assert files.asked == slices(0, 1, 2, 3, 4, 5), "from store"
    files.body, files.etag = BODY[::-1], '"other"'
    gateway.worker.store.clock = lambda: time.time() + 2 * 3600  # type: ignore[union-attr]
    found = await gateway.on_loop(run)
    assert (found["stored"], found["failed"]) == (1, 0)


async def test_what_cannot_be_sliced_is_warmed_whole(files: FileOrigin, edge: StartEdge) -> None:
    files.knows_ranges = False
    gateway = await gateway_of(files, edge)

    async def run() -> dict[str, Any]:
        return await Warming(gateway.worker).run(["http://a/f"], lambda step: None)

    found = await gateway.on_loop(run)
    assert (found["stored"], found["failed"], files.asked) == (1, 0, [*slices(0), None])


async def test_explain_tells_of_the_first_slice(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await gateway_of(files, edge)
    before = await gateway.on_loop(lambda: explain(gateway.worker, {"url": "http://a/f"}))
    assert (before["cache"]["verdict"], before["cache"]["variants"]) == ("miss", 0)
    await ask(await raw_client(gateway.port), "Range: bytes=0-4")
    after = await gateway.on_loop(lambda: explain(gateway.worker, {"url": "http://a/f"}))
    assert (after["cache"]["verdict"], after["cache"]["key"]) == ("hit", "http://a/f slice:65536:0")


RANGES = [
    ("bytes=0-0", 0, 0, [0]),
    (f"bytes=10-{SLICE - 1}", 10, SLICE - 1, [0]),
    (f"bytes={SLICE - 1}-{SLICE}", SLICE - 1, SLICE, [0, 1]),
    (f"bytes={2 * SLICE + 5}-{4 * SLICE}", 2 * SLICE + 5, 4 * SLICE, [2, 3, 4]),
    (f"bytes={5 * SLICE}-", 5 * SLICE, len(BODY) - 1, [5]),
    ("bytes=-3", len(BODY) - 3, len(BODY) - 1, [0, 5]),  # how long it is, the first slice tells
    ("bytes=5-999999999", 5, len(BODY) - 1, [0, 1, 2, 3, 4, 5]),
]


@pytest.mark.parametrize(("asked", "first", "last", "fetched"), RANGES)
async def test_a_range_takes_the_slices_that_it_needs(
    asked: str, first: int, last: int, fetched: list[int], files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    client = await raw_client((await gateway_of(files, edge)).port)
    for _ in range(2):
        found = await ask(client, f"Range: {asked}")
        assert (found.status, found.get(b"content-range")) == (206, b"bytes %d-%d/%d" % (first, last, len(BODY)))
        assert found.body.content == BODY[first : last + 1]
        assert found.get(b"content-length") == b"%d" % (last - first + 1)
    assert files.asked == slices(*fetched)


async def test_http2_and_a_small_window(files: FileOrigin, edge: StartEdge) -> None:
    gateway = await gateway_of(files, edge, listen='http = ["127.0.0.1:0"]\nh2c = true')
    client = await Http2Client.connect(gateway.port)
    for _ in range(2):
        whole = await client.get(b"/f")
        assert (whole.status, bytes(whole.body)) == (200, BODY)
        part = await client.answer(client.ask(request_head(b"/f", extra=[(b"range", b"bytes=65530-131080")])))
        assert (part.status, bytes(part.body)) == (206, BODY[65530:131081])
    assert files.asked == slices(0, 1, 2, 3, 4, 5)
    await client.close()


CONDITIONS = [
    (('If-None-Match: "one"',), 304, 0, 0),
    (('If-None-Match: "two"',), 200, 0, len(BODY)),
    (('If-Match: "two"',), 412, 0, 0),
    ((f"If-Modified-Since: {MODIFIED}",), 304, 0, 0),
    (("Range: bytes=70000-70009", 'If-Range: "one"'), 206, 70000, 70010),
    (("Range: bytes=70000-70009", 'If-Range: "two"'), 200, 0, len(BODY)),
    (("Range: bytes=70000-70009", f"If-Range: {MODIFIED}"), 206, 70000, 70010),
    (("Range: lines=1-2",), 200, 0, len(BODY)),
    (("Range: bytes=9-1",), 200, 0, len(BODY)),
]


@pytest.mark.parametrize(("lines", "status", "first", "stop"), CONDITIONS)
async def test_conditions_are_those_of_a_whole_response(
    lines: tuple[str, ...],
    status: int,
    first: int,
    stop: int,
    files: FileOrigin,
    edge: StartEdge,
    raw_client: Connect,
) -> None:
    client = await raw_client((await gateway_of(files, edge)).port)
    for _ in range(2):
        found = await ask(client, *lines)
        assert (found.status, found.body.content) == (status, BODY[first:stop])
    assert not any(files.conditions), "the client's own conditions are not the slices'"


async def test_beyond_the_end(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    client = await raw_client((await gateway_of(files, edge)).port)
    found = await ask(client, f"Range: bytes={len(BODY) + 5}-")
    assert (found.status, found.get(b"content-range")) == (416, b"bytes */%d" % len(BODY))
    files.asked.clear()
    far = await ask(client, "Range: bytes=99999999-")
    assert (far.status, far.get(b"content-range")) == (416, b"bytes */%d" % len(BODY))
    assert len(files.asked) == 1, "the origin's answer for a slice is the client's as well"
    files.asked.clear()
    assert (await ask(client)).body.content == BODY
    assert None not in files.asked, "nobody can stop the slicing by asking for what is not there"
    assert (await ask(client, "Range: bytes=0-4")).body.content == BODY[:5]


@pytest.mark.parametrize(
    ("line", "status"), [('If-Range: "two"', 200), ('If-Range: "one"', 416), ('If-None-Match: "one"', 304)]
)
async def test_beyond_the_end_with_conditions(
    line: str, status: int, files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    client = await raw_client((await gateway_of(files, edge)).port)
    found = await ask(client, "Range: bytes=99999999-", line)
    assert (found.status, found.body.content) == (status, BODY if status == 200 else b"")


@pytest.mark.parametrize(
    "change",
    ["etag", "length", "no validator", "coding", "short", "short, chunked", "long", "long, chunked", "status"],
)
async def test_a_change_in_the_middle_cuts_the_response_and_the_next_one_is_whole(
    change: str, files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await gateway_of(files, edge)
    client = await raw_client(gateway.port)
    assert (await ask(client, f"Range: bytes=0-{2 * SLICE - 1}")).status == 206
    if change == "etag":
        files.body, files.etag = BODY[::-1], '"two"'
    elif change == "length":
        files.body = BODY + b"more"
    elif change == "no validator":
        files.etag = files.modified = None
    elif change == "coding":
        files.more = "Content-Encoding: gzip"
    elif change.startswith("short"):
        files.shorter = 1
    elif change.startswith("long"):
        files.longer = 100
    else:
        files.status = 500
    files.chunked = change.endswith("chunked")
    await client.send(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n")
    cut = await client.read_response()
    assert cut is not None and not cut.complete
    assert cut.body.content == BODY[: len(cut.body.content)], "what came is of the first version"
    assert 2 * SLICE <= len(cut.body.content) < 3 * SLICE or change == "long, chunked"
    files.shorter = files.longer = files.status = 0
    again = await raw_client(gateway.port)
    found = await ask(again)
    assert found.status == 200 and found.complete
    if change != "status":
        assert found.body.content == files.body, "nothing of the old version is left"
    await until(lambda: gateway.in_flight == 0)


@pytest.mark.parametrize("line", ["", "Range: bytes=70000-140000"])
@pytest.mark.parametrize(("shorter", "longer"), [(1, 0), (0, 100)])
async def test_parts_that_tell_another_length_are_not_put_together(
    shorter: int, longer: int, line: str, files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    files.shorter, files.longer = shorter, longer
    client = await raw_client((await gateway_of(files, edge)).port)
    found = await ask(client, *([line] if line else []))
    if not line:
        assert (found.status, found.body.content) == (200, BODY), "it is fetched whole"
    else:
        assert found.get(b"content-range") == b"bytes 70000-140000/%d" % len(BODY)
        assert len(found.body.content) == 70001 - shorter + longer, "as its origin sent it"


async def test_a_first_part_that_is_longer_than_it_says_cuts_the_response(
    files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    files.longer, files.chunked = 100, True
    client = await raw_client((await gateway_of(files, edge)).port)
    await client.send(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n")
    cut = await client.read_response()
    assert cut is not None and not cut.complete
    assert cut.body.content == BODY[: len(cut.body.content)]


async def test_an_origin_without_ranges_is_asked_as_usual(
    files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    files.knows_ranges = False
    gateway = await gateway_of(files, edge)
    client = await raw_client(gateway.port)
    for _ in range(3):
        assert (await ask(client)).body.content == BODY
    assert files.asked == [*slices(0), None], "then it is stored whole"
    found = await ask(client, "Range: bytes=100000-100009")
    assert (found.status, found.body.content) == (206, BODY[100000:100010])
    assert len(files.asked) == 2


async def test_without_a_strong_validator_slices_do_not_meet(
    files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    files.etag, files.modified = 'W/"one"', None
    client = await raw_client((await gateway_of(files, edge)).port)
    assert (await ask(client, "Range: bytes=5-9")).body.content == BODY[5:10], "one slice is one answer"
    assert files.asked == slices(0)
    assert (await ask(client)).body.content == BODY
    assert files.asked == [*slices(0), None]


async def test_what_is_no_range_is_passed_on(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    client = await raw_client((await gateway_of(files, edge)).port)
    for status in (404, 302, 500):
        files.status = status
        found = await ask(client, target=f"/{status}")
        assert (found.status, found.body.content) == (status, b"no")
        assert found.complete
    files.status = 0
    assert (await ask(client, method="HEAD")).status == 200
    assert (await ask(client, "Range: bytes=0-1,5-6")).status == 200
    assert files.asked[-1] == "bytes=0-1,5-6", "several ranges are forwarded"
    files.body = b""
    assert (await ask(client, target="/empty")).body.content == b""


@pytest.mark.parametrize("kind", ["url", "tag", "post"])
async def test_a_purge_of_the_url_takes_all_slices(
    kind: str, files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    files.more = "Cache-Tag: films"
    gateway = await gateway_of(files, edge)
    client = await raw_client(gateway.port)
    assert (await ask(client)).body.content == BODY
    files.body, files.etag = BODY[::-1], '"two"'
    if kind == "post":
        assert (await ask(client, "Content-Length: 0", method="POST")).status == 200
        files.asked.clear()
    else:
        purge = Purge(PurgeKind.URL, b"http://a/f") if kind == "url" else Purge(PurgeKind.TAG, b"films")
        store = gateway.worker.store
        assert store is not None
        await gateway.on_loop(lambda: store.purge(purge, store.clock()))
    assert (await ask(client)).body.content == files.body
    assert files.asked[-6:] == slices(0, 1, 2, 3, 4, 5)


async def test_stale_slices_are_validated(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    files.control = "max-age=0, public"
    client = await raw_client((await gateway_of(files, edge)).port)
    for _ in range(2):
        assert (await ask(client)).body.content == BODY
    assert files.conditions == [None] * 6 + ['"one"'] * 6


async def test_those_who_want_the_same_slice_share_it(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    files.gate = asyncio.Event()
    gateway = await gateway_of(files, edge)
    clients = [await raw_client(gateway.port) for _ in range(5)]
    asking = [asyncio.ensure_future(ask(client, "Range: bytes=10-20")) for client in clients]
    await until(lambda: len(files.asked) == 1 and len(gateway.worker.downstreams) == 5)
    assert [found.body.content for found in await asyncio.gather(*asking)] == [BODY[10:21]] * 5
    files.gate.set()
    assert len(files.asked) == 1


async def test_a_client_that_leaves_ends_what_it_alone_wanted(
    files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    files.gate = asyncio.Event()
    gateway = await gateway_of(files, edge)
    client = await raw_client(gateway.port)
    await client.send(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.read_head()) is not None
    client.reset()
    await until(lambda: gateway.in_flight == 0 and not gateway.worker.downstreams)
    files.gate.set()
    files.gate = None
    assert (await ask(await raw_client(gateway.port))).body.content == BODY


async def test_a_slow_client_holds_its_slices_back(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    files.body = bytes(range(256)) * 4 * KIB * 64  # 64 MiB
    gateway = await gateway_of(files, edge, RULE.replace("64KiB", "1MiB"))
    client = await raw_client(gateway.port)
    await client.send(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n")
    head = await client.read_head()
    client.wire.pause_reading()
    before = gateway.worker._ticks
    await until(lambda: gateway.worker._ticks > before + 3)
    assert len(files.asked) < 32, "64 would be all"
    client.wire.resume_reading()
    assert head is not None and (await client.read_body(head)).body.content == files.body


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.tuples(st.integers(0, len(BODY) + 9), st.integers(0, 3 * SLICE)), min_size=1, max_size=6))
async def test_any_ranges_in_any_order(
    wanted: list[tuple[int, int]], files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    client = await raw_client((await gateway_of(files, edge)).port)
    for first, more in wanted:
        found = await ask(client, f"Range: bytes={first}-{first + more}")
        assert found.body.content == BODY[first : first + more + 1]
        assert found.status == (206 if first < len(BODY) else 416)


async def test_a_sliced_body_is_coded_and_paced_like_any(
    files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    files.more = "Content-Type: text/plain"
    more = '\ncompress = true\nbandwidth = { rate = "1GiB/s" }'
    client = await raw_client((await gateway_of(files, edge, RULE + more)).port)
    for _ in range(2):
        coded = await ask(client, "Accept-Encoding: gzip")
        assert (coded.status, coded.get(b"content-encoding"), coded.get(b"etag")) == (200, b"gzip", b'W/"one"')
        assert zlib.decompress(coded.body.content, 31) == BODY
        part = await ask(client, "Accept-Encoding: gzip", "Range: bytes=65530-65545")
        assert (part.status, part.body.content) == (206, BODY[65530:65546])
    assert len(files.asked) == 6


# -- the whole for a range ---------------------------------------------------------------------------------------------

WHOLE = 'cache = { ranges = "whole" }'


async def test_the_whole_is_fetched_for_a_range(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await gateway_of(files, edge, WHOLE)
    client = await raw_client(gateway.port)
    for first, last in ((100_000, 100_009), (5, 9), (0, 300_000)):
        found = await ask(client, f"Range: bytes={first}-{last}")
        assert (found.status, found.body.content) == (206, BODY[first : last + 1])
        await until(lambda: gateway.in_flight == 0)
    assert (await ask(client)).body.content == BODY
    assert files.asked == [None]


async def test_a_whole_that_is_not_stored_is_not_fetched_to_its_end(
    files: FileOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    files.control, files.gate = "no-store", asyncio.Event()
    gateway = await gateway_of(files, edge, WHOLE)
    client = await raw_client(gateway.port)
    found = await ask(client, "Range: bytes=5-9")
    assert (found.status, found.body.content) == (206, BODY[5:10])
    await until(lambda: gateway.in_flight == 0)
    files.gate.set()
    files.gate = None
    assert (await ask(client, "Range: bytes=5-9")).body.content == BODY[5:10]
    assert files.asked == [None, "bytes=5-9"], "once it is known, ranges are forwarded"


async def test_a_whole_of_unknown_statuses(files: FileOrigin, edge: StartEdge, raw_client: Connect) -> None:
    client = await raw_client((await gateway_of(files, edge, WHOLE)).port)
    beyond = await ask(client, "Range: bytes=99999999-")
    assert (beyond.status, beyond.get(b"content-range")) == (416, b"bytes */%d" % len(BODY))
    files.status = 404
    assert (await ask(client, "Range: bytes=5-9", target="/404")).status == 404
