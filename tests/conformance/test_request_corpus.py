"""Each raw request of the corpus against one running gateway: what the client gets, and what the origin sees.

One rule: after every case a fresh client asks a plain question. It must be answered, and the origin must have seen
exactly the expected requests and that one: nothing of a refused message may arrive late or on another connection.
"""

from __future__ import annotations

import pytest
from corpus import Answer, Pass, Refuse, RequestCase, Seen
from kit.client import RawClient, Response
from kit.message import Framing
from kit.origin import Received
from kit.waiting import WAIT_S
from request_corpus import CASES
from subject import Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROBE = b"/probe"


async def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 150
    assert {case.section.split(".")[0] for case in CASES} >= {"2", "3", "5", "6", "7", "8", "9", "11"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section} {case.name}")
async def test_request(case: RequestCase, subject: Subject) -> None:
    client = await RawClient.connect(subject.port)
    try:
        for piece in case.raw:
            await client.send(piece)
        if case.half_close:
            client.half_close()
        served = await _answers(client, case)
    finally:
        await client.close()
    probe = await RawClient.connect(subject.port)
    try:
        assert (await probe.get(PROBE.decode())).status == 200, "the gateway no longer serves"
    finally:
        await probe.close()
    await _check_origin(case, subject, served)


async def _answers(client: RawClient, case: RequestCase) -> tuple[Seen, ...]:
    """Read what the client should get; the requests that the origin must have seen whole."""
    expect = case.expect
    if isinstance(expect, Answer):
        response = await _final(client, case.data.split(b" ", 1)[0])
        assert response is not None
        assert response.status in expect.statuses
        return ()
    if isinstance(expect, Refuse):
        for seen in expect.before:
            response = await _final(client, seen.method)
            assert response is not None
            assert response.status == 200
        response = await _final(client, b"GET")
        assert response is not None or expect.silent, "closed without an answer"
        assert response is None or response.status in expect.statuses, response.raw_head
        await _closed(client)
        return expect.before
    return await _passes(client, expect)


async def _passes(client: RawClient, expect: Pass) -> tuple[Seen, ...]:
    for number, seen in enumerate(expect.seen):
        response = await _final(client, seen.method)
        assert response is not None, f"closed before answer {number + 1}"
        if response.status in expect.or_refuse and response.status != 200:
            return expect.seen[:number]
        assert response.status == 200, response.raw_head
        assert response.body.content == (b"" if seen.method == b"HEAD" else b"ok")
    if expect.closes:
        await _closed(client)
    elif expect.closes is False:
        await client.send(b"GET /same HTTP/1.1\r\nHost: a.example\r\n\r\n")
        response = await _final(client, b"GET")
        assert response is not None, "the connection was not kept"
        assert response.status == 200
        assert client.leftover == b""
        return (*expect.seen, Seen(b"/same"))
    return expect.seen


async def _final(client: RawClient, method: bytes) -> Response | None:
    response = await client.read_response(method, WAIT_S)
    assert response is None or response.complete, "the answer was cut"
    return response


async def _closed(client: RawClient) -> None:
    assert client.leftover == b"", f"more than the answer: {client.leftover[:80]!r}"
    assert await client.ended(WAIT_S), f"the connection is still open: {client.leftover[:80]!r}"


async def _check_origin(case: RequestCase, subject: Subject, served: tuple[Seen, ...]) -> None:
    origin = subject.origin
    assert origin.problems == [], "the origin got what is not HTTP/1.1"
    assert origin.counters["partial_heads"] == 0
    whole = [request for request in origin.requests if request.body is not None]
    assert [request.target for request in whole] == [*(seen.target for seen in served), PROBE]
    for request, seen in zip(whole, served, strict=False):
        _check_request(request, seen)
    unfinished = len(origin.requests) - len(whole)
    if unfinished:
        assert isinstance(case.expect, Refuse)
        assert case.expect.partial, "a refused request's head reached the origin"
        await origin.wait_for("partial_bodies", unfinished)  # and its connection is given up


def _check_request(request: Received, seen: Seen) -> None:
    body, head = request.body, request.raw_head.lower()
    assert body is not None
    assert request.method == seen.method
    assert request.version == b"HTTP/1.1"
    assert request.get(b"host") is not None
    assert body.content == seen.body
    assert body.extensions == (), "a chunk extension was forwarded"
    assert seen.framing in (None, body.framing)
    if not seen.body and seen.trailers is None and seen.method in (b"GET", b"HEAD"):
        assert body.framing is Framing.NONE or body.wire == b""
    for piece in seen.present:
        assert piece in head, f"{piece!r} is missing in {head!r}"
    for piece in seen.absent:
        assert piece not in head, f"{piece!r} was forwarded in {head!r}"
    if seen.trailers is not None:
        assert tuple((name.lower(), value) for name, value in body.trailers) == seen.trailers
