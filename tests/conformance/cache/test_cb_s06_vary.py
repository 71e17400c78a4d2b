"""Cache behaviour 6: Vary and the key (RFC 9111 4.1, 9110 12.5.5)."""

from __future__ import annotations

import pytest
from kit.cachelab import HOST, Lab, from_store, open_lab, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRESH = "Cache-Control: max-age=60"


async def test_queries_are_part_of_the_key(lab: Lab) -> None:
    path = lab.target
    rows = [("?a=1", False), ("?a=2", False), ("?a=1", True), ("", False), ("?", False), ("?a=2", True)]
    for target, answered in rows:
        lab.says(FRESH, body=target)
        response = await lab.ask(target=path + target)
        assert from_store(response) is answered
        assert response.body.content == target.encode()
        lab.origin.forget()


async def test_hosts_are_part_of_the_key_in_any_case_and_without_the_default_port(lab: Lab) -> None:
    lab.says(FRESH, body="a")
    await lab.ask()
    assert lab.client is not None
    for host, answered in [("b.example", False), (HOST.upper(), True), (f"{HOST}:80", True), (f"{HOST}:81", False)]:
        lab.says(FRESH, body="b")
        await lab.client.send(request(target=lab.target, host=host))
        response = await lab.client.read_response()
        assert response is not None
        assert from_store(response) is answered
        lab.origin.forget()


ONE = ("Foo: 1",)
THREE = ("Foo: 1", "Bar: abc", "Baz: 789")


@pytest.mark.parametrize(
    ("vary", "first", "again", "reused"),
    [
        ("Foo", ONE, ONE, True),
        ("Foo", ONE, ("Foo: 2",), False),
        ("Foo", (), ONE, False),
        ("Foo", ONE, (), False),
        ("Foo", (), (), True),
        ("foo", ONE, ("FOO: 1",), True),
        ("Foo, Bar", ("Foo: 1", "Bar: abc"), ("Foo: 1", "Bar: abc"), True),
        ("Foo, Bar", ("Foo: 1", "Bar: abc"), ("Foo: 2", "Bar: abc"), False),
        ("Foo, Bar", ("Foo: 1", "Bar: abc"), ("Foo: 1",), False),
        ("Foo, Bar, Baz", THREE, THREE, True),
        ("Foo, Bar, Baz", THREE, THREE[::-1], True),
        ("Baz, Foo, Bar", THREE, THREE, True),
        ("Foo, Bar, Baz", THREE, ("Foo: 1", "Baz: 789", "Bar: abcde"), False),
        ("Foo, Bar, Baz", ("Foo: 1", "Baz: 789"), ("Foo: 1", "Baz: 789"), True),
        ("Foo", ("Foo: 1", "Other: 2"), ("Foo: 1", "Other: 3"), True),
        ("Foo", ("Foo: 1, 2",), ("Foo: 1", "Foo: 2"), True),
        ("Foo", ("Foo: 1,2",), ("Foo:  1 , 2 ",), True),
        ("Foo", ("Foo: 1, 2",), ("Foo: 2, 1",), False),
        ("Foo", ('Foo: "1,2"',), ('Foo: "1, 2"',), False),
        ("Foo", ("Foo: a",), ("Foo: A",), False),
        (" , Foo", ONE, ONE, True),
        ("*", ONE, ONE, False),
        ("*, *", ONE, ONE, False),
        ("Foo, *", ONE, ONE, False),
        ("*, Foo", ONE, ONE, False),
        (", *", ONE, ONE, False),
    ],
)
async def test_all_selecting_fields_must_match(
    lab: Lab, vary: str, first: tuple[str, ...], again: tuple[str, ...], reused: bool
) -> None:
    assert await lab.reuses(FRESH, f"Vary: {vary}", first=first, again=again) is reused


@pytest.mark.parametrize("lines", [("Vary: Foo", "Vary: Bar"), ("Vary: ", "Vary: Foo,Bar")])
async def test_vary_may_have_several_lines(lab: Lab, lines: tuple[str, ...]) -> None:
    assert await lab.reuses(FRESH, *lines, first=THREE, again=THREE)
    lab.fresh()
    assert not await lab.reuses(FRESH, *lines, first=THREE, again=("Foo: 1", "Bar: x"))


async def test_variants_live_side_by_side(lab: Lab) -> None:
    for value in ("1", "2", "3"):
        lab.says(FRESH, "Vary: Foo", body=value)
        await lab.ask(f"Foo: {value}")
    for value in ("1", "3", "2"):
        response = await lab.ask(f"Foo: {value}")
        assert (from_store(response), response.body.content) == (True, value.encode())
    assert len(lab.asked) == 3


@pytest.mark.parametrize(
    ("first", "again", "reused"),
    [
        ("en, de", "de, en", True),
        ("en, de", "eN, De", True),
        ("en, de", " en ,   de", True),
        ("en;q=0.5, de", "de;q=1.0, en;q=0.5", True),
        ("en, de", "en, de;q=0.5", False),
        ("en, de", "en, fr", False),
    ],
)
async def test_accept_language_is_compared_by_weight_and_without_case(
    lab: Lab, first: str, again: str, reused: bool
) -> None:
    asked, later = (f"Accept-Language: {first}",), (f"Accept-Language: {again}",)
    assert await lab.reuses(FRESH, "Vary: Accept-Language", first=asked, again=later) is reused


@pytest.mark.parametrize(
    ("vary", "content", "again", "reused"),
    [
        ("Accept-Language", "de", "fr;q=0.5, de;q=1.0", True),
        ("Accept-Language", "DE", "de", True),
        ("Accept-Language", "de", "fr, de;q=0.5", False),
        ("Accept-Language", "de", "fr, de", False),
        ("Accept-Language", "de, en", "de", False),
        ("Accept-Language, Foo", "de", "de", False),
    ],
)
async def test_content_language_may_select(lab: Lab, vary: str, content: str, again: str, reused: bool) -> None:
    lines = (FRESH, f"Vary: {vary}", f"Content-Language: {content}")
    first, later = ("Accept-Language: en, de",), (f"Accept-Language: {again}",)
    assert await lab.reuses(*lines, first=first, again=later) is reused


async def test_normalising_languages_is_a_setting() -> None:
    async with open_lab("normalise_language = false") as lab:
        lab.fresh()
        first, again = ("Accept-Language: en, de",), ("Accept-Language: de, en",)
        assert not await lab.reuses(FRESH, "Vary: Accept-Language", first=first, again=again)


async def test_normalising_encodings_is_a_setting(lab: Lab) -> None:
    first, again = ("Accept-Encoding: gzip, br",), ("Accept-Encoding: br;q=0.9, gzip, zstd",)
    assert not await lab.reuses(FRESH, "Vary: Accept-Encoding", first=first, again=again)
    async with open_lab("normalise_encoding = ['br', 'gzip']") as other:
        other.fresh()
        assert await other.reuses(FRESH, "Vary: Accept-Encoding", first=first, again=again)
        other.fresh()
        assert not await other.reuses(FRESH, "Vary: Accept-Encoding", first=first, again=("Accept-Encoding: gzip",))


async def test_a_variant_is_offered_and_a_304_selects_it(lab: Lab) -> None:
    lab.says(FRESH, "Vary: Foo", 'ETag: "one"', body="one")
    await lab.ask("Foo: 1")
    lab.says(FRESH, "Vary: Foo", 'ETag: "two"', body="two")
    await lab.ask("Foo: 2")
    lab.says(FRESH, "Vary: Foo", 'ETag: "one"', status=304)
    response = await lab.ask("Foo: 3")
    offered = lab.last.get(b"if-none-match")
    assert offered is not None
    assert set(offered.split(b", ")) == {b'"one"', b'"two"'}
    assert (response.status, response.body.content) == (200, b"one")
    for value, body in [("1", b"one"), ("2", b"two"), ("3", b"one")]:  # it is in both places now
        again = await lab.ask(f"Foo: {value}")
        assert (from_store(again), again.body.content) == (True, body)
    assert len(lab.asked) == 3


async def test_a_304_that_names_no_variant_is_asked_again_plainly(lab: Lab) -> None:
    for value in ("1", "2"):
        lab.says(FRESH, "Vary: Foo", f'ETag: "{value}"', body=value)
        await lab.ask(f"Foo: {value}")
    lab.says(FRESH, "Vary: Foo", 'ETag: "other"', status=304)
    lab.says(FRESH, "Vary: Foo", 'ETag: "3"', body="three")
    response = await lab.ask("Foo: 3")
    assert response.body.content == b"three"
    assert lab.last.get(b"if-none-match") is None
    assert len(lab.asked) == 4


async def test_nothing_is_offered_beside_the_clients_own_conditions(lab: Lab) -> None:
    lab.says(FRESH, "Vary: Foo", 'ETag: "one"')
    await lab.ask("Foo: 1")
    lab.says(status=304)
    assert (await lab.ask("Foo: 2", 'If-None-Match: "mine"')).status == 304
    assert lab.last.get(b"if-none-match") == b'"mine"'


async def test_variants_are_limited_by_a_setting() -> None:
    async with open_lab("vary_limit = 2") as lab:
        lab.fresh()
        for value in ("1", "2", "3"):
            lab.says(FRESH, "Vary: Foo", body=value)
            response = await lab.ask(f"Foo: {value}")
        assert b"detail=vary-limit" in (response.get(b"cache-status") or b"")
        assert from_store(await lab.ask("Foo: 1"))
        lab.says(FRESH, "Vary: Foo", body="again")
        assert not from_store(await lab.ask("Foo: 3"))
        lab.later(61)  # what is stale keeps its place and may be replaced
        lab.says(FRESH, "Vary: Foo", body="new")
        await lab.ask("Foo: 1")
        assert (await lab.ask("Foo: 1")).body.content == b"new"
