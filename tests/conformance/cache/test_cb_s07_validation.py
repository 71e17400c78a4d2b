"""Cache behaviour 7: answering conditions, validating at the origin, what a 304 and a HEAD do (RFC 9111 4.3, 3.2)."""

from __future__ import annotations

import pytest
from kit.cachelab import Lab, from_store, head

pytestmark = pytest.mark.asyncio(loop_scope="module")
FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "abc"'


@pytest.mark.parametrize(
    ("tag", "asked", "matches"),
    [
        ('"abc"', '"abc"', True),
        ('"abc"', '"abd"', False),
        ('"abc"', "*", True),
        ('W/"abc"', 'W/"abc"', True),
        ('W/"abc"', '"abc"', True),
        ('"abc"', 'W/"abc"', True),
        ('"abc"', '"abc", "x", "y"', True),
        ('"abc"', '"x", "abc", "y"', True),
        ('"abc"', '"x","y" , "abc"', True),
        ('"ab\xfcc"', '"ab\xfcc"', True),
        ("abc", "abc", True),
        ("abc", '"abc"', False),
        ('"abc"', "abc", False),
        ('w/"abc"', 'w/"abc"', True),
        ('w/"abc"', '"abc"', False),
        ('W\\"abc"', 'W\\"abc"', True),
        ('W"abc"', 'W"abc"', True),
        ('"a,b"', '"a,b"', True),
        ('"a,b"', '"a"', False),
    ],
)
async def test_if_none_match_against_a_fresh_response(lab: Lab, tag: str, asked: str, matches: bool) -> None:
    lab.says(FRESH, f"ETag: {tag}", body="full")
    await lab.ask()
    response = await lab.ask(f"If-None-Match: {asked}")
    assert from_store(response)
    assert response.status == (304 if matches else 200)
    assert response.body.content == (b"" if matches else b"full")


@pytest.mark.parametrize(
    ("lines", "since", "status"),
    [
        (("Last-Modified: @-3000",), "@-3000", 304),
        (("Last-Modified: @-3000",), "@-2000", 304),
        (("Last-Modified: @-3000",), "@-4000", 200),
        (("Date: @0",), "@10", 304),
        (("Date: @0",), "@-3000", 200),
        (("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",), "Sunday, 06-Nov-94 08:49:37 GMT", 304),
        (("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",), "Sun Nov  6 08:49:37 1994", 304),
        (("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",), "Sun, 06 Nov 1994 08:49:37 UTC", 200),
    ],
)
async def test_if_modified_since_against_a_fresh_response(
    lab: Lab, lines: tuple[str, ...], since: str, status: int
) -> None:
    lab.says(FRESH, *lines)
    await lab.ask()
    response = await lab.ask(f"If-Modified-Since: {since}")
    assert (response.status, from_store(response)) == (status, True)


@pytest.mark.parametrize(("tag", "since", "status"), [('"abc"', "@-9000", 304), ('"x"', "@0", 200), ("*", "x", 304)])
async def test_if_none_match_decides_alone(lab: Lab, tag: str, since: str, status: int) -> None:
    lab.says(FRESH, TAG, "Last-Modified: @-5000")
    await lab.ask()
    assert (await lab.ask(f"If-None-Match: {tag}", f"If-Modified-Since: {since}")).status == status


@pytest.mark.parametrize(
    ("line", "status"),
    [('If-Match: "abc"', 200), ('If-Match: "x"', 412), ("If-Match: *", 200), ("If-Unmodified-Since: @-9000", 412),
     ("If-Unmodified-Since: @0", 200)],
)  # fmt: skip
async def test_preconditions_are_answered_from_store_too(lab: Lab, line: str, status: int) -> None:
    lab.says(FRESH, TAG, "Last-Modified: @-5000")
    await lab.ask()
    response = await lab.ask(line)
    assert (response.status, from_store(response)) == (status, True)


async def test_the_304_has_its_fields_and_no_others(lab: Lab) -> None:
    lines = [TAG, FRESH, "Content-Location: /x", "Date: @0", "Expires: @99", "Vary: Foo"]
    lab.says(*lines, "Content-Type: text/x", "X-Other: 1")
    await lab.ask()
    lab.later(7)
    response = await lab.ask('If-None-Match: "abc"')
    assert response.status == 304
    for name in (b"etag", b"cache-control", b"content-location", b"date", b"expires", b"vary"):
        assert response.get(name) is not None, name
    assert response.get(b"age") == b"7"
    assert response.get(b"content-type") is response.get(b"x-other") is response.get(b"content-length") is None


@pytest.mark.parametrize("tag", ['"abc"', 'W/"abc"', "abc", '"ab\xfc"', "w/abc"])
async def test_validation_sends_the_stored_tag_as_it_is(lab: Lab, tag: str) -> None:
    lab.says(FRESH, f"ETag: {tag}", body="kept")
    await lab.ask()
    lab.later(61)
    lab.says(FRESH, f"ETag: {tag}", status=304)
    response = await lab.ask()
    assert lab.last.get(b"if-none-match") == tag.encode("latin-1")
    assert (response.status, response.body.content) == (200, b"kept")


@pytest.mark.parametrize("date", ["Sun, 06 Nov 1994 08:49:37 GMT", "sun, 06 nov 1994 08:49:37 gmt", "not a date"])
async def test_validation_sends_last_modified_byte_for_byte(lab: Lab, date: str) -> None:
    lab.says(FRESH, f"Last-Modified: {date}")
    await lab.ask()
    lab.later(61)
    lab.says(FRESH, status=304)
    assert (await lab.ask()).status == 200
    assert lab.last.get(b"if-modified-since") == date.encode()


async def test_our_conditions_stand_in_place_of_the_clients_beside_all_its_other_fields(lab: Lab) -> None:
    lab.says(FRESH, TAG, "Vary: Foo", body="kept")
    await lab.ask("Foo: 1")
    lab.later(61)
    lab.says(FRESH, TAG, status=304)
    response = await lab.ask("Foo: 1", "Bar: 2", 'If-None-Match: "mine"', "If-Modified-Since: @0", 'If-Match: "no"')
    assert (lab.last.get(b"foo"), lab.last.get(b"bar")) == (b"1", b"2")
    assert lab.last.get(b"if-none-match") == b'"abc"'
    assert lab.last.get(b"if-modified-since") is lab.last.get(b"if-match") is None
    assert response.status == 412  # its own condition, from the result


@pytest.mark.parametrize(
    ("condition", "status"),
    [("If-Modified-Since: @-3000", 304), ("If-Modified-Since: @-4000", 200), ('If-None-Match: "abc"', 304),
     ('If-None-Match: "x"', 200)],
)  # fmt: skip
async def test_the_clients_condition_is_answered_from_the_validated_response(
    lab: Lab, condition: str, status: int
) -> None:
    condition = lab.dated(condition)
    lab.says("Cache-Control: max-age=2", TAG, "Last-Modified: @-3000", body="kept")
    await lab.ask()
    lab.later(3)
    lab.says(FRESH, status=304)
    response = await lab.ask(condition)
    assert (response.status, response.body.content) == (status, b"" if status == 304 else b"kept")


async def test_the_clients_condition_is_answered_from_a_new_full_response_too(lab: Lab) -> None:
    lab.says(FRESH, TAG, body="old")
    await lab.ask()
    lab.later(61)
    lab.says(FRESH, 'ETag: "new"', body="new")
    response = await lab.ask('If-None-Match: "new"')
    assert (response.status, response.get(b"etag"), response.body.content) == (304, b'"new"', b"")
    again = await lab.ask()
    assert (from_store(again), again.body.content) == (True, b"new")


@pytest.mark.parametrize(
    "condition", ['If-None-Match: "x"', "If-None-Match: x", "If-Modified-Since: @-9", "If-Match: *"]
)
async def test_with_nothing_stored_conditions_go_through_and_a_304_comes_back(lab: Lab, condition: str) -> None:
    condition = lab.dated(condition)
    lab.says(FRESH, status=304)
    response = await lab.ask(condition)
    name, _, value = condition.partition(": ")
    assert lab.last.get(name.lower().encode()) == value.encode()
    assert response.status == 304
    assert lab.stored() == ()


UPDATED = {
    "Test-Header": ("a", "b"),
    "X-Test-Header": ("a", "b"),
    "Content-Foo": ("a", "b"),
    "Content-MD5": ("rL0Y20zC+Fzt72VPzMSk2A==", "N7UdGUp1E+RbVvZSTy1R8g=="),
    "Content-Location": ("/foo", "/bar"),
    "Content-Security-Policy": ("default-src 'self'", "default-src 'self' x.example"),
    "X-Frame-Options": ("deny", "sameorigin"),
    "Clear-Site-Data": ("cache", "cookies"),
    "Public-Key-Pins": ("a", "b"),
    "Set-Cookie": ("a=b", "a=c"),
    "Set-Cookie2": ("a=b", "a=c"),
    "Expires": ("@1", "@3600"),
}


@pytest.mark.parametrize("name", UPDATED)
@pytest.mark.parametrize("validator", [TAG, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"])
async def test_fields_of_a_304_replace_the_stored_ones(lab: Lab, name: str, validator: str) -> None:
    one, two = (f"{name}: {lab.dated(value)}" for value in UPDATED[name])
    lab.says("Cache-Control: max-age=1", "Date: @0", validator, one, body="kept")
    await lab.ask()
    lab.later(2)
    lab.says("Cache-Control: max-age=3600", "Date: @0", validator, two, status=304)
    for _ in range(2):
        response = await lab.ask()
        assert response.get(name.lower().encode()) == two.partition(": ")[2].encode()
        assert response.body.content == b"kept"
    assert from_store(response)
    assert len(lab.asked) == 2


@pytest.mark.parametrize("name", ["Content-Encoding", "Content-Type", "Content-Range"])
async def test_fields_about_the_stored_bytes_stay(lab: Lab, name: str) -> None:
    lab.says(FRESH, TAG, f"{name}: bytes 0-3/4", body="kept")
    await lab.ask()
    lab.later(61)
    lab.says(FRESH, TAG, f"{name}: other", status=304)
    for _ in range(2):
        assert (await lab.ask()).get(name.lower().encode()) == b"bytes 0-3/4"


async def test_content_length_and_hop_by_hop_fields_of_a_304_do_not_count(lab: Lab) -> None:
    lab.says(FRESH, TAG, "X-Kept: 1", body="kept")
    await lab.ask()
    lab.later(61)
    lab.answers(head(304, (FRESH, TAG, "Content-Length: 99", "Proxy-Authenticate: x", "Connection: y", "Y: 1"), None))
    for _ in range(2):
        response = await lab.ask()
        assert (response.get(b"content-length"), response.body.content) == (b"4", b"kept")
        assert response.get(b"x-kept") == b"1"  # what the 304 leaves out is kept
        assert response.get(b"proxy-authenticate") is response.get(b"y") is None


async def test_the_lifetime_starts_anew(lab: Lab) -> None:
    lab.says("Cache-Control: max-age=60", TAG, "Date: @0")
    await lab.ask()
    lab.later(61)
    lab.says("Cache-Control: max-age=600", TAG, status=304)  # without a Date: not as old as the stored one
    await lab.ask()
    lab.later(599)
    assert from_store(await lab.ask())
    lab.later(1)
    lab.says(FRESH)
    assert not from_store(await lab.ask())


async def test_a_304_that_leaves_cache_control_out_keeps_it(lab: Lab) -> None:
    lab.says(FRESH, TAG)
    await lab.ask()
    lab.later(61)
    lab.says(TAG, status=304)
    await lab.ask()
    lab.later(59)
    assert from_store(await lab.ask())


async def test_a_304_with_no_store_answers_once_and_takes_the_stale_one_away(lab: Lab) -> None:
    lab.says(FRESH, TAG, body="kept")
    await lab.ask()
    lab.later(61)
    lab.says("Cache-Control: no-store", TAG, status=304)
    response = await lab.ask()
    assert (response.status, response.body.content) == (200, b"kept")
    assert lab.stored() == ()


async def test_a_full_response_replaces(lab: Lab) -> None:
    lab.says(FRESH, TAG, "X-Old: 1", body="old")
    await lab.ask()
    lab.later(61)
    lab.says(FRESH, 'ETag: "2"', body="new")
    for _ in range(2):
        response = await lab.ask()
        assert (response.body.content, response.get(b"etag"), response.get(b"x-old")) == (b"new", b'"2"', None)
    assert len(lab.asked) == 2


async def test_an_origin_that_says_304_to_no_condition_does_not_turn_in_circles(lab: Lab) -> None:
    lab.says(FRESH, 'ETag: "1"')
    await lab.ask()
    lab.later(61)
    for _ in range(2):
        lab.says('ETag: "other"', status=304)
    assert (await lab.ask()).status == 304
    assert len(lab.asked) == 3


# -- HEAD --


async def test_head_is_answered_from_a_fresh_stored_get(lab: Lab) -> None:
    lab.says(FRESH, TAG, body="four")
    await lab.ask()
    response = await lab.ask(method="HEAD")
    assert (from_store(response), response.get(b"content-length"), response.body.content) == (True, b"4", b"")
    assert (await lab.ask('If-None-Match: "abc"', method="HEAD")).status == 304


async def test_head_fills_no_get(lab: Lab) -> None:
    lab.answers(head(200, (FRESH,), 4))
    assert not from_store(await lab.ask(method="HEAD"))
    assert lab.stored() == ()


async def stale(lab: Lab) -> None:
    """Something stored that has become stale."""
    lab.says(FRESH, "Template-A: 1", TAG, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", body="four")
    await lab.ask()
    lab.later(61)


async def test_head_is_forwarded_as_head_and_updates_the_stored_get(lab: Lab) -> None:
    await stale(lab)
    lab.answers(head(200, ("Cache-Control: max-age=1000", "Template-B: 2", TAG), 4))
    response = await lab.ask(method="HEAD")
    assert lab.last.method == b"HEAD"
    assert (response.get(b"template-a"), response.get(b"template-b")) == (b"1", b"2")
    lab.later(999)
    again = await lab.ask()
    assert (from_store(again), again.body.content, again.get(b"template-b")) == (True, b"four", b"2")


@pytest.mark.parametrize("line", ['ETag: "x"', "Last-Modified: Sun, 06 Nov 1995 08:49:37 GMT", "Content-Length: 5"])
async def test_a_head_that_contradicts_makes_the_stored_get_stale(lab: Lab, line: str) -> None:
    lab.says("Cache-Control: max-age=600", TAG, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", body="four")
    await lab.ask()
    lab.answers(head(200, (line, "Cache-Control: max-age=600"), None))
    response = await lab.ask("Cache-Control: no-cache", method="HEAD")
    assert response.get(b"etag") != b'"abc"'
    lab.says(FRESH, body="new")
    assert (await lab.ask()).body.content == b"new"


@pytest.mark.parametrize("status", [410, 404, 204, 500])
async def test_other_statuses_to_head_update_nothing(lab: Lab, status: int) -> None:
    await stale(lab)
    lab.answers(head(status, ("Template-A: 2", "Cache-Control: max-age=1000"), 0))
    assert (await lab.ask(method="HEAD")).status == status
    lab.says(FRESH, TAG, status=304)
    response = await lab.ask()
    assert lab.last.get(b"if-none-match") == b'"abc"'
    assert response.get(b"template-a") == b"1"
