"""Cache behaviour 2: what may be stored (RFC 9111 3). Each row is a sentence: lines of the response, is it reused."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store

pytestmark = pytest.mark.asyncio(loop_scope="module")
LM = "Last-Modified: @-36000"
FRESH = "Cache-Control: max-age=60"


@pytest.mark.parametrize(
    ("why", "lines", "reused"),
    [
        ("explicit freshness", (FRESH,), True),
        ("nothing said", (), False),
        ("a validator alone is for validation", ('ETag: "a"',), False),
        ("a validator and heuristic freshness", (LM, "Date: @0"), True),
        ("public alone is stored, and not fresh", ("Cache-Control: public",), False),
        ("no-store", ("Cache-Control: no-store",), False),
        ("no-store wins over max-age and Expires", ("Cache-Control: max-age=60, no-store", "Expires: @60"), False),
        ("names in any case", ("Cache-Control: max-age=60, No-StOrE",), False),
        ("must-understand makes no-store ignored", ("Cache-Control: max-age=60, no-store, must-understand",), True),
        ("private", ("Cache-Control: private, max-age=60",), False),
        ("private in any case", ("Cache-Control: PRIVATE, max-age=60",), False),
        ("private for a field is not for all", ('Cache-Control: private="x", max-age=60',), True),
        ("Vary: *", (FRESH, "Vary: *"), False),
        ("Vary: * on another line", (FRESH, "Vary: Foo", "Vary: *"), False),
        ("Vary: * beside a name", (FRESH, "Vary: Foo, *"), False),
        ("Set-Cookie changes nothing", (FRESH, "Set-Cookie: a=b"), True),
        ("Content-Disposition changes nothing", (FRESH, "Content-Disposition: attachment; filename=a"), True),
        ("nor with a heuristic", (LM, "Date: @0", "Content-Disposition: attachment"), True),
    ],
)
async def test_a_response_is_stored(lab: Lab, why: str, lines: tuple[str, ...], reused: bool) -> None:
    assert await lab.reuses(*lines) is reused, why


@pytest.mark.parametrize(
    "status",
    [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599, 999],
)
async def test_explicit_freshness_makes_any_final_status_cacheable(lab: Lab, status: int) -> None:
    assert await lab.reuses(FRESH, "Location: /else", status=status)


@pytest.mark.parametrize("status", [200, 299, 302, 404, 500, 599])
async def test_no_status_is_reused_once_stale(lab: Lab, status: int) -> None:
    assert not await lab.reuses(FRESH, status=status, after=61)


async def test_must_understand_on_an_unknown_status_is_not_stored_whatever_else_is_there(lab: Lab) -> None:
    assert not await lab.reuses("Cache-Control: max-age=60, no-store, must-understand", status=599)
    lab.fresh()
    assert not await lab.reuses("Cache-Control: max-age=60, public, must-understand", status=599)


async def test_no_store_in_the_request_is_not_stored(lab: Lab) -> None:
    assert not await lab.reuses(FRESH, first=("Cache-Control: no-store",))


@pytest.mark.parametrize(
    ("directives", "reused"),
    [
        ("max-age=60", False),
        ("max-age=60, public", True),
        ("max-age=60, must-revalidate", True),
        ("s-maxage=60", True),
        ("max-age=60, proxy-revalidate", False),
    ],
)
async def test_a_response_to_authorization_needs_permission(lab: Lab, directives: str, reused: bool) -> None:
    credentials = ("Authorization: Basic YTpi",)
    assert await lab.reuses(f"Cache-Control: {directives}", first=credentials) is reused  # to one without, too
    lab.fresh()
    assert await lab.reuses(f"Cache-Control: {directives}", first=credentials, again=credentials) is reused


async def test_a_cookie_in_the_request_changes_nothing(lab: Lab) -> None:
    assert await lab.reuses(FRESH, first=("Cookie: a=b",))
    lab.fresh()
    assert await lab.reuses(FRESH, again=("Cookie: a=c",))


async def test_a_query_changes_nothing(lab: Lab) -> None:
    lab.target += "?a=1"
    assert await lab.reuses(FRESH)


async def test_a_newer_no_store_does_not_displace_what_is_fresh(lab: Lab) -> None:
    lab.says("Cache-Control: max-age=600", body="old")
    await lab.ask()
    lab.says("Cache-Control: no-store", body="new")
    passed = await lab.ask("Cache-Control: no-cache")
    assert passed.body.content == b"new"
    response = await lab.ask()
    assert (from_store(response), response.body.content) == (True, b"old")


async def test_a_newer_no_store_displaces_what_is_stale(lab: Lab) -> None:
    lab.says("Cache-Control: max-age=60", body="old")
    await lab.ask()
    lab.later(61)
    lab.says("Cache-Control: no-store", body="new")
    assert (await lab.ask()).body.content == b"new"
    assert lab.stored() == ()


@pytest.mark.parametrize(
    ("why", "lines", "status", "stored"),
    [
        ("its own URI", (FRESH, "Content-Location: @here"), 200, True),
        ("another URI", (FRESH, "Content-Location: /else"), 200, False),
        ("no Content-Location", (FRESH,), 200, False),
        ("no freshness", ("Content-Location: @here",), 200, False),
        ("a heuristic is not explicit", ("Content-Location: @here", LM, "Date: @0"), 200, False),
        ("another status", (FRESH, "Content-Location: @here"), 201, False),
    ],
)
async def test_a_post_may_answer_later_gets(
    lab: Lab, why: str, lines: tuple[str, ...], status: int, stored: bool
) -> None:
    lab.says(*(line.replace("@here", lab.target) for line in lines), status=status, body="posted")
    await lab.ask(method="POST", body=b"x")
    lab.says("Cache-Control: no-store", body="got")
    response = await lab.ask()
    assert from_store(response) is stored, why
    assert response.body.content == (b"posted" if stored else b"got")


async def test_posts_themselves_are_never_answered_from_store(lab: Lab) -> None:
    for _ in range(2):
        lab.says(FRESH, f"Content-Location: {lab.target}", body="posted")
        assert not from_store(await lab.ask(method="POST", body=b"x"))
    assert [each.method for each in lab.asked] == [b"POST", b"POST"]


async def test_interim_responses_are_not_stored(lab: Lab) -> None:
    lab.answers(b"HTTP/1.1 103 Early Hints\r\nCache-Control: max-age=60\r\nX-Hint: 1\r\n\r\n" + b"HTTP/1.1 200 OK\r\n"
                b"Content-Length: 2\r\n\r\nok")  # fmt: skip
    response = await lab.ask()
    assert (response.status, response.get(b"x-hint"), response.get(b"cache-control")) == (200, None, None)
    lab.says("Cache-Control: no-store")
    assert not from_store(await lab.ask())


async def test_a_get_with_content_is_neither_shared_nor_stored(lab: Lab) -> None:
    lab.says(FRESH, body="to this body")
    await lab.ask(body=b"abc")
    lab.says("Cache-Control: no-store", body="plain")
    assert (await lab.ask()).body.content == b"plain"
