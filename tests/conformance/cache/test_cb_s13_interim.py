"""Cache behaviour 13: interim responses (RFC 9110 15.2, 8297)."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store, head
from kit.client import RawClient

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRESH = "Cache-Control: max-age=600"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Mine: 1\r\n\r\n"
BUSY = b"HTTP/1.1 102 Processing\r\n\r\n"


async def test_all_are_passed_on_with_their_fields_and_later_hits_have_none(lab: Lab) -> None:
    lab.answers(BUSY, HINTS, HINTS, head(200, (FRESH,), 2) + b"ok")
    response = await lab.ask()
    assert [each.status for each in response.interim] == [102, 103, 103]
    assert response.interim[1].get(b"link") == b"</a.css>; rel=preload"
    assert response.interim[1].get(b"x-mine") == b"1"
    assert response.get(b"x-mine") is response.get(b"link") is None
    again = await lab.ask()
    assert (from_store(again), again.interim, again.get(b"link"), again.get(b"x-mine")) == (True, (), None, None)


async def test_they_come_before_a_validated_response_too(lab: Lab) -> None:
    lab.says("Cache-Control: max-age=1", 'ETag: "a"', body="kept")
    await lab.ask()
    lab.later(2)
    lab.answers(HINTS, head(304, (FRESH,), None))
    response = await lab.ask()
    assert ([each.status for each in response.interim], response.body.content) == ([103], b"kept")


async def test_http_1_0_clients_get_none(lab: Lab) -> None:
    lab.answers(HINTS, head(200, (FRESH,), 2) + b"ok")
    client = await RawClient.connect(lab.port)
    await client.send(f"GET {lab.target} HTTP/1.0\r\nHost: a.example\r\n\r\n".encode())
    response = await client.read_response()
    await client.close()
    assert response is not None
    assert (response.interim, response.body.content) == ((), b"ok")
    assert from_store(await lab.ask())


async def test_they_are_for_the_one_who_asked(lab: Lab) -> None:
    lab.answers(HINTS, head(200, ("Cache-Control: no-store",), 2) + b"ok")
    assert len((await lab.ask()).interim) == 1
    lab.says("Cache-Control: no-store")
    assert (await lab.ask()).interim == ()
