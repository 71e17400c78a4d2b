"""Cache behaviour 8: unsafe methods are written through and invalidate (RFC 9111 4.4)."""

from __future__ import annotations

import pytest
from kit.cachelab import HOST, Lab, from_store, reply, request, until
from kit.client import RawClient
from kit.origin import Pause

from edge.cache.purge_request import parse_purge

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRESH = "Cache-Control: max-age=600"
UNSAFE = ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "PURGE-LIKE", "FOO"]


async def is_gone(lab: Lab, target: str, *lines: str) -> bool:
    """Whether the origin has to be asked for a target."""
    lab.says("Cache-Control: no-store")
    gone = not from_store(await lab.ask(*lines, target=target))
    lab.origin.forget()
    return gone


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize(("status", "gone"), [(200, True), (204, True), (303, True), (400, False), (500, False)])
async def test_the_target_uri_is_invalidated_by_success_alone(lab: Lab, method: str, status: int, gone: bool) -> None:
    lab.says(FRESH)
    await lab.ask()
    lab.says(status=status, body="")
    response = await lab.ask(method=method, body=b"abc")
    assert response.status == status
    assert (lab.last.method, lab.last.body.content if lab.last.body else b"") == (method.encode(), b"abc")
    assert await is_gone(lab, lab.target) is gone


@pytest.mark.parametrize("method", ["OPTIONS", "PROPFIND", "REPORT", "SEARCH"])
async def test_safe_methods_invalidate_nothing(lab: Lab, method: str) -> None:
    lab.says(FRESH)
    await lab.ask()
    lab.says()
    await lab.ask(method=method)
    assert not await is_gone(lab, lab.target)


async def test_all_variants_go(lab: Lab) -> None:
    for value in ("1", "2"):
        lab.says(FRESH, "Vary: Foo")
        await lab.ask(f"Foo: {value}")
    lab.says()
    await lab.ask(method="POST", body=b"")
    for value in ("1", "2"):
        assert await is_gone(lab, lab.target, f"Foo: {value}")


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("name", ["Location", "Content-Location"])
async def test_location_and_content_location_of_the_same_origin_are_invalidated(
    lab: Lab, method: str, name: str
) -> None:
    other = lab.target + "/other?a=1"
    for form in (other, f"http://{HOST}{other}", f"other?a=1|{lab.target}/x", f"//{HOST}{other}"):
        reference, _, target = form.partition("|")
        lab.says(FRESH)
        await lab.ask(target=other)
        lab.says(f"{name}: {reference}", status=201, body="")
        await lab.ask(method=method, target=target or lab.target, body=b"")
        assert await is_gone(lab, other), form


@pytest.mark.parametrize(
    "reference", ["http://b.example@there", "https://a.example@there", "http://a.example:81@there"]
)
async def test_another_origin_is_left_alone(lab: Lab, reference: str) -> None:
    other = lab.target + "/other"
    lab.says(FRESH)
    await lab.ask(target=other)
    lab.says(f"Location: {reference.replace('@there', other)}", status=201, body="")
    await lab.ask(method="POST", body=b"")
    assert not await is_gone(lab, other)


async def test_a_failed_unsafe_request_leaves_its_locations_alone(lab: Lab) -> None:
    other = lab.target + "/other"
    lab.says(FRESH)
    await lab.ask(target=other)
    lab.says(f"Location: {other}", status=500, body="")
    await lab.ask(method="POST", body=b"")
    assert not await is_gone(lab, other)


async def test_they_are_always_written_through(lab: Lab) -> None:
    lab.says(FRESH)
    await lab.ask()
    for method in UNSAFE:
        lab.says(status=500)
        await lab.ask(method=method, body=b"x")
    assert [each.method.decode() for each in lab.asked] == ["GET", *UNSAFE]


async def test_cache_groups_are_invalidated_within_their_origin(lab: Lab) -> None:
    other = lab.target + "/other"
    lab.says(FRESH, 'Cache-Groups: "scripts"')
    await lab.ask(target=other)
    lab.says('Cache-Group-Invalidation: "scripts"', body="")
    await lab.ask(method="POST", body=b"")
    assert await is_gone(lab, other)


@pytest.mark.parametrize(
    ("what", "body", "stored"),
    [
        ("/another", None, True),
        ("@here", None, False),
        ("a purge of its tag", {"tag": "t"}, False),
        ("a purge of its host", {"host": HOST}, False),
        ("a purge of another tag", {"tag": "other"}, True),
    ],
)
async def test_what_was_made_invalid_while_a_post_ran_counts_for_it_only_by_name(
    lab: Lab, what: str, body: dict[str, str] | None, stored: bool
) -> None:
    """A POST's response answers later GETs; another client's writes elsewhere change nothing about that."""
    lab.answers(Pause("go"), reply(FRESH, "Surrogate-Key: t", f"Content-Location: {lab.target}", body="posted"))
    posting = await RawClient.connect(lab.port)
    await posting.send(request(method="POST", target=lab.target, body=b"x"))
    await until(lambda: len(lab.asked) == 1)
    if body is not None:
        lab.store.purge(parse_purge(body), lab.now)
    else:
        lab.says(status=204)
        await lab.ask(method="PUT", target=what.replace("@here", lab.target), body=b"x")
    lab.origin.release("go")
    assert await posting.read_response(b"POST") is not None
    await posting.close()
    lab.says("Cache-Control: no-store", body="got")
    assert from_store(await lab.ask()) is stored, what
