"""Cache behaviour 10: ranges (RFC 9110 14, 9111 3.3, 3.4)."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store
from kit.origin import Step

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRESH = "Cache-Control: max-age=60"
BODY = b"0123456789A"


@pytest.mark.parametrize(
    ("asked", "content", "told"),
    [
        ("0-1", b"01", b"0-1"),
        ("1-", BODY[1:], b"1-10"),
        ("-1", b"A", b"10-10"),
        ("-99", BODY, b"0-10"),
        ("5-99", BODY[5:], b"5-10"),
        ("10-10", b"A", b"10-10"),
    ],
)
async def test_a_stored_response_answers_single_ranges(lab: Lab, asked: str, content: bytes, told: bytes) -> None:
    lab.says(FRESH, "X: 1", 'ETag: "a"', body=BODY)
    await lab.ask()
    response = await lab.ask(f"Range: bytes={asked}")
    assert (response.status, response.body.content, from_store(response)) == (206, content, True)
    assert response.get(b"content-range") == b"bytes %b/11" % told
    assert (response.get(b"x"), response.get(b"etag")) == (b"1", b'"a"')


@pytest.mark.parametrize("asked", ["11-", "99-100", "-0"])
async def test_beyond_the_end_is_416(lab: Lab, asked: str) -> None:
    lab.says(FRESH, body=BODY)
    await lab.ask()
    response = await lab.ask(f"Range: bytes={asked}")
    assert (response.status, response.get(b"content-range")) == (416, b"bytes */11")


@pytest.mark.parametrize(
    "value", ["lines=0-1", "bytes=1-0", "bytes=a-b", "bytes", "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 11, 2))]
)
async def test_what_is_not_understood_or_too_many_gives_the_whole(lab: Lab, value: str) -> None:
    lab.says(FRESH, body=BODY)
    await lab.ask()
    response = await lab.ask(f"Range: {value}")
    assert (response.status, response.body.content) == (200, BODY)


async def test_several_ranges_come_as_multipart(lab: Lab) -> None:
    lab.says(FRESH, "Content-Type: text/x", body=BODY)
    await lab.ask()
    response = await lab.ask("Range: bytes=0-1, 5-6")
    kind = response.get(b"content-type") or b""
    assert response.status == 206
    assert kind.startswith(b"multipart/byteranges; boundary=")
    boundary = kind.partition(b"boundary=")[2]
    parts = response.body.content.split(b"--" + boundary)
    assert parts[1] == b"\r\nContent-Type: text/x\r\nContent-Range: bytes 0-1/11\r\n\r\n01\r\n"
    assert parts[2] == b"\r\nContent-Type: text/x\r\nContent-Range: bytes 5-6/11\r\n\r\n56\r\n"
    assert parts[3] == b"--\r\n"


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('If-Range: "a"', 206),
        ('If-Range: "b"', 200),
        ('If-Range: W/"a"', 200),
        ("If-Range: Sun, 06 Nov 1994 08:49:37 GMT", 206),
        ("If-Range: Sun, 06 Nov 1995 08:49:37 GMT", 200),
    ],
)
async def test_if_range_is_honoured(lab: Lab, condition: str, status: int) -> None:
    lab.says(FRESH, 'ETag: "a"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Date: @0", body=BODY)
    await lab.ask()
    response = await lab.ask("Range: bytes=0-1", condition)
    assert (response.status, from_store(response)) == (status, True)


async def test_a_weak_tag_never_satisfies_if_range(lab: Lab) -> None:
    lab.says(FRESH, 'ETag: W/"a"', body=BODY)
    await lab.ask()
    assert (await lab.ask("Range: bytes=0-1", 'If-Range: W/"a"')).status == 200


async def test_ranges_are_for_get_of_a_200(lab: Lab) -> None:
    lab.says(FRESH, status=404, body=BODY)
    await lab.ask()
    assert (await lab.ask("Range: bytes=0-1")).status == 404
    assert (await lab.ask("Range: bytes=0-1", method="HEAD")).status == 404


async def part(lab: Lab, told: str, body: str, *lines: str, asked: str = "-5") -> None:
    """Have a 206 stored."""
    lab.says(FRESH, f"Content-Range: bytes {told}", *lines, status=206, body=body)
    response = await lab.ask(f"Range: bytes={asked}")
    assert lab.last.get(b"range") == b"bytes=" + asked.encode()  # with nothing stored it is forwarded
    assert (response.status, response.body.content) == (206, body.encode())


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        ("-5", b"56789"),
        ("5-9", b"56789"),
        ("6-8", b"678"),
        ("6-", b"6789"),
        ("-1", b"9"),
        ("5-5", b"5"),
        ("8-99", b"89"),
    ],
)
async def test_a_stored_part_answers_ranges_within_it(lab: Lab, asked: str, content: bytes) -> None:
    await part(lab, "5-9/10", "56789")
    response = await lab.ask(f"Range: bytes={asked}")
    assert (response.status, response.body.content, from_store(response)) == (206, content, True)
    start = 10 - len(content) if asked.startswith("-") else int(asked.partition("-")[0])
    assert response.get(b"content-range") == b"bytes %d-%d/10" % (start, start + len(content) - 1)


@pytest.mark.parametrize("asked", ["bytes=4-6", "bytes=0-", "bytes=-6", "bytes=6-7,8-9", "other=1"])
async def test_and_no_others(lab: Lab, asked: str) -> None:
    await part(lab, "5-9/10", "56789")
    lab.says(body="0123456789")
    assert not from_store(await lab.ask(f"Range: {asked}"))


async def test_a_part_that_does_not_reach_the_end_has_no_last_bytes(lab: Lab) -> None:
    await part(lab, "0-4/10", "01234", asked="0-4")
    lab.says(body="0123456789")
    assert not from_store(await lab.ask("Range: bytes=-2"))


async def test_a_part_never_answers_a_request_without_range(lab: Lab) -> None:
    await part(lab, "5-9/10", "56789")
    lab.says(FRESH, body="0123456789")
    response = await lab.ask()
    assert (response.status, response.body.content, lab.last.get(b"range")) == (200, b"0123456789", None)
    assert from_store(await lab.ask("Range: bytes=0-3"))


@pytest.mark.parametrize("lines", [(), ("Content-Range: nonsense",), ("Content-Range: bytes 5-4/10",)])
async def test_a_206_without_a_right_content_range_is_not_stored(lab: Lab, lines: tuple[str, ...]) -> None:
    lab.says(FRESH, *lines, status=206, body="56789")
    assert (await lab.ask("Range: bytes=-5")).status == 206
    assert lab.stored() == ()


async def test_a_206_that_nobody_asked_for_is_not_stored(lab: Lab) -> None:
    lab.says(FRESH, "Content-Range: bytes 5-9/10", status=206, body="56789")
    await lab.ask()
    assert lab.stored() == ()


async def test_the_rest_of_a_beginning_is_asked_for_and_combined(lab: Lab) -> None:
    await part(lab, "0-4/10", "01234", 'ETag: "a"', "A: 1", "B: 1")
    lab.says(FRESH, "Content-Range: bytes 5-9/10", 'ETag: "a"', "A: 2", status=206, body="56789")
    for _ in range(2):
        response = await lab.ask()
        assert (response.status, response.body.content) == (200, b"0123456789")
        assert (response.get(b"a"), response.get(b"b"), response.get(b"content-range")) == (b"2", b"1", None)
        assert response.get(b"content-length") == b"10"
    assert (lab.last.get(b"range"), lab.last.get(b"if-range")) == (b"bytes=5-", b'"a"')
    assert from_store(response)
    assert len(lab.asked) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [((), ()), (('ETag: "a"',), ('ETag: "b"',)), (('ETag: W/"a"',), ('ETag: W/"a"',)), (('ETag: "a"',), ())],
)
async def test_parts_without_the_same_strong_validator_are_never_combined(
    lab: Lab, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    await part(lab, "0-4/10", "01234", *first)
    lab.says(FRESH, "Content-Range: bytes 5-9/10", *second, status=206, body="56789")
    lab.says(FRESH, body="the whole")
    response = await lab.ask()
    assert (response.status, response.body.content) == (200, b"the whole")
    assert lab.last.get(b"range") is None
    assert (await lab.ask()).body.content == b"the whole"


async def test_the_rest_may_be_answered_by_the_whole(lab: Lab) -> None:
    await part(lab, "0-4/10", "01234")
    lab.says(FRESH, body="another version")
    response = await lab.ask()
    assert (lab.last.get(b"range"), response.body.content) == (b"bytes=5-", b"another version")


async def test_a_416_to_the_rest_is_asked_again_plainly(lab: Lab) -> None:
    await part(lab, "0-4/10", "01234")
    lab.says("Content-Range: bytes */3", status=416, body="")
    lab.says(FRESH, body="abc")
    assert (await lab.ask()).body.content == b"abc"


async def test_a_rest_that_breaks_off_is_neither_stored_nor_passed_off_as_whole(lab: Lab) -> None:
    await part(lab, "0-4/10", "01234", 'ETag: "a"')
    broken = b'HTTP/1.1 206 x\r\nContent-Range: bytes 5-9/10\r\nETag: "a"\r\nContent-Length: 5\r\n\r\n56'
    lab.answers(broken, Step.CLOSE)
    response = await lab.ask()
    assert not response.complete
    assert [one.length for one in lab.stored()] == [5]


async def test_a_stale_part_is_validated_for_its_range(lab: Lab) -> None:
    await part(lab, "5-9/10", "56789", 'ETag: "a"')
    lab.later(61)
    lab.says(FRESH, status=304)
    response = await lab.ask("Range: bytes=-5")
    assert (lab.last.get(b"if-none-match"), lab.last.get(b"range")) == (b'"a"', b"bytes=-5")
    assert (response.status, response.body.content) == (206, b"56789")
