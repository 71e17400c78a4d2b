"""What one origin may make a cache keep for one URL, and what a look-up of it costs: parts, variants, tags."""

from __future__ import annotations

import pytest
from kit.builds import pure_only
from kit.cachelab import Lab, from_store, head, open_lab

from edge.cache import policy
from edge.cache.stored import MAX_VARY
from edge.cache.storing import MAX_TAGS
from edge.dataplane.core.store import MAX_PARTS

FRESH = "Cache-Control: max-age=60"


async def part(lab: Lab, first: int) -> None:
    """One stored part of ten bytes."""
    lab.says(FRESH, 'ETag: "a"', f"Content-Range: bytes {first}-{first + 9}/100000", status=206, body=b"x" * 10)
    await lab.ask(f"Range: bytes={first}-{first + 9}")


@pure_only
async def test_parts_of_one_url_are_few_and_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_lab() as lab:
        lab.fresh()
        for number in range(5 * MAX_PARTS):
            await part(lab, 100 * number)
            lab.later(0.1)
        kept = [one.part.first for one in lab.stored() if one.part is not None]
        assert sorted(kept) == [100 * number for number in range(4 * MAX_PARTS, 5 * MAX_PARTS)]
        parsed: list[bytes | None] = []
        parse = policy.parse_range
        monkeypatch.setattr(policy, "parse_range", lambda value: (parsed.append(value), parse(value))[1])
        assert from_store(await lab.ask(f"Range: bytes={100 * 5 * MAX_PARTS - 100}-{100 * 5 * MAX_PARTS - 91}"))
        assert len(parsed) == 1  # once for a request, however many parts there are


async def test_variants_are_as_many_as_the_route_allows_also_when_they_come_at_once() -> None:
    async with open_lab("vary_limit = 4") as lab:
        lab.fresh()
        for number in range(12):
            lab.says(FRESH, "Vary: X-Kind", body=b"%d" % number)
            await lab.ask(f"X-Kind: {number}")
        assert len(lab.stored()) == 4
        assert lab.store.index.variant_limit == 4 + MAX_PARTS


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Vary: " + ", ".join(f"x-{n}" for n in range(MAX_VARY + 1)), b"vary-limit"),
        ("Vary: " + ", ".join(f"x-{n}" for n in range(2000)), b"vary-star"),
        ("Surrogate-Key: " + " ".join(f"t{n}" for n in range(MAX_TAGS + 1)), b"tags"),
        ("Cache-Tag: " + ",".join(f"t{n}" for n in range(MAX_TAGS + 1)), b"tags"),
        ("Surrogate-Key: a" + " " * 5000 + "b", b"tags"),
    ],
    ids=["33 names", "2000 names", "1025 keys", "1025 tags", "blanks"],
)
async def test_what_would_cost_too_much_is_not_kept_and_the_reason_says_so(line: str, reason: bytes) -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says(FRESH, line)
        response = await lab.ask()
        assert lab.stored() == ()
        assert b"detail=" + reason in (response.get(b"cache-status") or b"")


async def test_at_the_limit_it_is_kept() -> None:
    async with open_lab() as lab:
        lab.fresh()
        names = ", ".join(f"x-{n}" for n in range(MAX_VARY))
        tags = " ".join(f"t{n}" for n in range(MAX_TAGS))
        lab.says(FRESH, f"Vary: {names}", f"Surrogate-Key: {tags}")
        await lab.ask()
        assert from_store(await lab.ask())


@pytest.mark.parametrize("rules", ["key_cookies = ['lang']", "bypass = { cookies = ['lang'] }"])
async def test_a_cookie_behind_very_many_others_is_not_overlooked(rules: str) -> None:
    async with open_lab(rules) as lab:
        lab.fresh()
        many = "; ".join(f"c{number}=1" for number in range(300))
        lab.says(FRESH, body="for all")
        assert (await lab.ask("Cookie: a=b")).body.content == b"for all"
        for _ in range(2):
            lab.says(FRESH, body="for one")
            assert (await lab.ask(f"Cookie: {many}; lang=de")).body.content == b"for one"
        assert len(lab.stored()) == 1
        assert from_store(await lab.ask("Cookie: a=b"))


CHUNKED = ("Transfer-Encoding: chunked",)


@pytest.mark.parametrize("memory", ["0", "64KiB", "64MiB"])
@pytest.mark.parametrize("size", [0, 4, 40_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_stored_is_said_where_it_is(memory: str, size: int, chunked: bool) -> None:
    async with open_lab(memory=memory) as lab:
        lab.fresh()
        body = b"x" * size
        if chunked:
            pieces = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if size else b"0\r\n\r\n"
            lab.answers(head(200, (FRESH, *CHUNKED), None) + pieces)
        else:
            lab.says(FRESH, body=body)
        said = (await lab.ask()).get(b"cache-status") or b""
        await lab.rest()
        if not (chunked and size > 4):  # whose length nobody knows when the head is sent
            assert (b"; stored" in said) is bool(lab.stored()), said
        if memory == "0":
            assert b"; stored" not in said
            assert lab.stored() == ()
