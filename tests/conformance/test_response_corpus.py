"""Each raw response of the corpus from a scripted origin through one running gateway: what the client gets of it.

One rule: after every case a second request asks a plain question. Its answer must be its own, whatever the origin
left on the connection before; the number of that connection shows whether the gateway used the old one again.
"""

from __future__ import annotations

import dataclasses

import pytest
from corpus import Abort, Deliver, GatewayError, ResponseCase, Reuse
from kit.client import RawClient, Response
from kit.message import Framing
from kit.origin import Step
from kit.waiting import WAIT_S
from response_corpus import CASES
from subject import Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")
HEAD_WAIT_S = 0.3
AFTER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter"


async def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 150
    assert {case.section.split(".")[0] for case in CASES} >= {"2", "4", "5", "6", "7", "8", "9"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section} {case.name}")
async def test_response(case: ResponseCase, subject: Subject) -> None:
    target = b"/silent/case" if Step.SILENCE in case.script else b"/case"
    subject.origin.route(target, *case.script)
    subject.origin.route("/after", AFTER)
    client = await RawClient.connect(subject.port)
    try:
        await client.send(b"%b %b HTTP/1.1\r\nHost: a.example\r\n\r\n" % (case.method, target))
        response = await _read(client, case.method, subject)
        _check(case, response, client)
    finally:
        await client.close()
    await _settle(case, subject)
    await _check_after(case, target, subject)


async def _read(client: RawClient, method: bytes, subject: Subject) -> Response:
    """Read one answer; the origin's script is let go on when the head is there, or will not come without more."""
    interim: list[Response] = []
    while True:
        try:
            head = await client.read_head(HEAD_WAIT_S)
        except TimeoutError:
            subject.origin.release("head")
            head = await client.read_head(WAIT_S)
        assert head is not None, "closed without an answer"
        if 100 <= head.status < 200 and head.status != 101:
            interim.append(head)
            continue
        subject.origin.release("head")
        response = await client.read_body(head, method, WAIT_S)
        subject.origin.release("done")
        return dataclasses.replace(response, interim=tuple(interim))


def _check(case: ResponseCase, response: Response, client: RawClient) -> None:
    expect = case.expect
    if isinstance(expect, GatewayError):
        _check_error(response, expect.statuses)
    elif isinstance(expect, Abort):
        if response.status in expect.statuses:
            _check_error(response, expect.statuses)
        else:
            assert response.status == 200
            assert not response.complete, "a broken answer looks whole"
            assert client.leftover == b"", "a second answer went into the body"
    elif expect.or_error and response.status == 502:
        _check_error(response, frozenset((502,)))
    else:
        _check_delivered(expect, response, client)


def _check_error(response: Response, statuses: frozenset[int]) -> None:
    assert response.status in statuses, response.raw_head
    assert response.complete
    assert len(response.body.content) < 2048, "an error of the gateway is small"
    assert response.get(b"x") is None, "a field of the refused answer was passed on"


def _check_delivered(expect: Deliver, response: Response, client: RawClient) -> None:
    head = response.raw_head.lower()
    assert response.status == expect.status, head
    assert response.complete
    assert response.body.content == expect.body
    assert response.body.extensions == (), "a chunk extension was passed on"
    assert response.body.framing is not Framing.CLOSE or response.closed
    assert client.leftover == b"", f"more than the answer: {client.leftover[:80]!r}"
    assert tuple(each.status for each in response.interim) == expect.interim
    for piece in expect.present:
        assert piece in head, f"{piece!r} is missing in {head!r}"
    for piece in expect.absent:
        assert piece not in head, f"{piece!r} was passed on in {head!r}"
    if expect.trailers is not None:
        assert tuple((name.lower(), value) for name, value in response.body.trailers) == expect.trailers


def _reuse(case: ResponseCase) -> Reuse:
    return case.expect.reuse if isinstance(case.expect, Deliver) else Reuse.NO


async def _settle(case: ResponseCase, subject: Subject) -> None:
    """A connection that must not be used again is closed by somebody, before the next question is asked."""
    if _reuse(case) is Reuse.NO:
        await subject.origin.wait_for("closed", 1, WAIT_S)


async def _check_after(case: ResponseCase, target: bytes, subject: Subject) -> None:
    client = await RawClient.connect(subject.port)
    try:
        after = await client.get("/after")
    finally:
        await client.close()
    assert after.status == 200, after.raw_head
    assert after.body.content == b"after", "another exchange's bytes reached this client"
    first, second = (
        [each.connection for each in subject.origin.requests if each.target == asked] for asked in (target, b"/after")
    )
    assert len(second) == 1
    if _reuse(case) is Reuse.YES:
        assert second[0] == first[-1], "a clean connection was not used again"
    elif _reuse(case) is Reuse.NO:
        assert second[0] not in first, "an unclean connection was used again"
