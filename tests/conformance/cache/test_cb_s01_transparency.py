"""Cache behaviour 1: the cache is a transparent intermediary (RFC 9110 5, 7.6, 9111 3.1)."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store, head
from kit.origin import Step

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRESH = "Cache-Control: max-age=60"


@pytest.mark.parametrize("method", ["PROPFIND", "M-SEARCH", "FOO", "PATCH", "OPTIONS"])
async def test_methods_are_forwarded_as_they_are(lab: Lab, method: str) -> None:
    lab.says(body="ok")
    response = await lab.ask(method=method)
    assert (lab.last.method, response.body.content) == (method.encode(), b"ok")


@pytest.mark.parametrize("status", [201, 299, 305, 418, 499, 599, 999])
async def test_status_codes_are_forwarded_with_their_phrase(lab: Lab, status: int) -> None:
    lab.says(status=status, reason="Whatever it is", body="x")
    response = await lab.ask()
    assert (response.status, response.reason) == (status, b"Whatever it is")
    lab.fresh()
    lab.says(FRESH, status=status, reason="Whatever it is", body="x")
    await lab.ask()
    again = await lab.ask()
    assert (again.status, again.reason, from_store(again)) == (status, b"Whatever it is", True)


async def test_unknown_fields_several_lines_of_one_name_and_their_order_are_kept(lab: Lab) -> None:
    lab.says("X-A: 1", "X-B: 2", "X-A: 3", "x-a: 4", FRESH)
    wanted = [b"1", b"3", b"4"]
    for _ in range(2):
        response = await lab.ask("Y-A: 1", "Y-B: 2", "Y-A: 3")
        assert [value for name, value in response.fields if name.lower() == b"x-a"] == wanted
    assert [line for line in lab.last.fields if line[0].startswith(b"Y-")] == [
        (b"Y-A", b"1"), (b"Y-B", b"2"), (b"Y-A", b"3")
    ]  # fmt: skip
    assert len(lab.asked) == 1


HOP = {
    "Keep-Alive": "timeout=5",
    "Proxy-Connection": "x",
    "TE": "trailers",
    "Trailer": "X-T",
    "Proxy-Authenticate": "Basic",
    "Proxy-Authentication-Info": "x",
    "Proxy-Authorization": "Basic YTpi",
    "Upgrade": "other",
}


@pytest.mark.parametrize("name", HOP)
async def test_hop_by_hop_fields_are_neither_forwarded_nor_stored(lab: Lab, name: str) -> None:
    lab.says(f"{name}: {HOP[name]}", FRESH)
    for _ in range(2):
        response = await lab.ask(f"{name}: {HOP[name]}")
        assert response.get(name.lower().encode()) is None
    assert lab.last.get(name.lower().encode()) is None
    assert len(lab.asked) == 1


async def test_fields_that_connection_names_end_here(lab: Lab) -> None:
    lab.says("Connection: a, b", "A: 1", "B: 2", "C: 3", FRESH)
    for _ in range(2):
        response = await lab.ask("Connection: x, nobody-sent-this", "X: 1", "Y: 2")
        assert [response.get(name) for name in (b"connection", b"a", b"b", b"c")] == [None, None, None, b"3"]
    assert (lab.last.get(b"x"), lab.last.get(b"y")) == (None, b"2")


KEPT = {
    "Set-Cookie": "a=b",
    "Set-Cookie2": "a=b",
    "Content-Range": "bytes 0-3/4",
    "Content-Encoding": "unknown-coding",
    "Content-Location": "/x",
    "Content-MD5": "rL0Y20zC+Fzt72VPzMSk2A==",
    "Clear-Site-Data": '"cache"',
    "Public-Key-Pins": "x",
    "X-Frame-Options": "deny",
    "Strict-Transport-Security": "max-age=1",
    "WWW-Authenticate": "Basic",
    "Content-Type": "text/x",
    "X-Test": "y",
}


@pytest.mark.parametrize("name", KEPT)
async def test_everything_else_is_stored_and_given_back(lab: Lab, name: str) -> None:
    lab.says(f"{name}: {KEPT[name]}", FRESH)
    first, again = await lab.ask(), await lab.ask()
    assert first.get(name.lower().encode()) == again.get(name.lower().encode()) == KEPT[name].encode()
    assert from_store(again)


async def test_obs_text_passes_unchanged_both_ways(lab: Lab) -> None:
    lab.says("X-Text: \xe4\x80\xff", FRESH)
    for _ in range(2):
        assert (await lab.ask("Y-Text: \xfc\x85")).get(b"x-text") == b"\xe4\x80\xff"
    assert lab.last.get(b"y-text") == b"\xfc\x85"


async def test_bytes_behind_content_length_are_never_used_and_retire_the_connection(lab: Lab) -> None:
    lab.answers(head(200, (FRESH,), 4) + b"bodyEXCESS")
    assert (await lab.ask()).body.content == b"body"
    again = await lab.ask()
    assert (again.body.content, from_store(again)) == (b"body", True)
    first = lab.last.connection
    lab.says(body="next")
    assert (await lab.ask(target=lab.target + "x")).body.content == b"next"
    assert lab.last.connection != first


async def test_an_unknown_transfer_encoding_is_a_bad_gateway(lab: Lab) -> None:
    lab.answers(head(200, ("Transfer-Encoding: gzip", FRESH), None) + b"x", Step.CLOSE)
    response = await lab.ask()
    assert response.status == 502
    assert lab.stored() == ()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_kept_connection_that_closes_is_replaced_once(lab: Lab, method: str) -> None:
    lab.says("Cache-Control: no-store")
    await lab.ask()
    lab.answers(Step.CLOSE)
    lab.answers(head(200, (), 0))
    response = await lab.ask(method=method)
    assert response.status == 200
    assert len(lab.asked) == 3


async def test_a_post_is_not_repeated(lab: Lab) -> None:
    lab.says("Cache-Control: no-store")
    await lab.ask()
    lab.answers(Step.CLOSE)
    response = await lab.ask(method="POST", body=b"x")
    assert response.status == 502
    assert len(lab.asked) == 2


async def test_an_idle_connection_is_given_up_before_the_origins_hint(lab: Lab) -> None:
    lab.says("Keep-Alive: timeout=1", "Cache-Control: no-store")  # a second, less the margin: at once
    await lab.ask()
    first = lab.last.connection
    await lab.origin.wait_for("closed", 1)
    lab.says()
    await lab.ask()
    assert lab.last.connection != first


async def test_a_date_is_added_where_the_origin_sends_none(lab: Lab) -> None:
    lab.says(FRESH)
    first, again = await lab.ask(), await lab.ask()
    assert first.get(b"date") is not None
    assert again.get(b"date") is not None
    assert sum(name.lower() == b"date" for name, _ in again.fields) == 1


async def test_date_and_expires_are_left_alone(lab: Lab) -> None:
    lab.says("Date: @-5", "Expires: @600")
    first = await lab.ask()
    lab.later(30)
    again = await lab.ask()
    assert from_store(again)
    for name in (b"date", b"expires"):
        assert first.get(name) == again.get(name)
