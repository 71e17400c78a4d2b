"""Validation: what is asked, what a 304, a HEAD or a further part makes of what is stored."""

from __future__ import annotations

import pytest
from kit.heads import NOW, OPEN, date, fields, request, response, stored, times

from edge.cache.policy import evaluate
from edge.cache.revalidate import (
    HeadEffect,
    combined,
    head_outcome,
    offer_fields,
    request_fields,
    rest_fields,
    selected,
    updated,
)
from edge.cache.rules import Rules
from edge.cache.stored import Stored, build
from edge.cache.verdict import Action
from edge.http.message import ResponseHead

ETAG = 'ETag: "a"'
LM = "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT"
LATER = NOW + 100


def fresh304(one: Stored, *lines: str, rules: Rules = OPEN) -> Stored:
    return updated(one, response(*lines, status=304), request(), rules, times(at=LATER))


def test_validators_replace_the_clients_conditions_and_all_else_stays() -> None:
    one = stored("Cache-Control: max-age=2", 'ETag: W/"a"', LM)
    asked = fields(
        "Foo: 1",
        'If-None-Match: "x"',
        "If-Modified-Since: y",
        "If-Match: z",
        "If-Unmodified-Since: w",
        "Range: bytes=0-1",
        "If-Range: v",
        "Cookie: c",
    )
    assert request_fields(asked, one) == fields(
        "Foo: 1", "Cookie: c", 'If-None-Match: W/"a"', "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT"
    )


def test_validators_go_out_byte_for_byte() -> None:
    one = stored("Cache-Control: max-age=2", "ETag: abc", "Last-Modified: wednesday, of sorts")
    sent = request_fields(fields(), one)
    assert sent == fields("If-None-Match: abc", "If-Modified-Since: wednesday, of sorts")
    assert request_fields(fields("A: 1"), stored("Cache-Control: max-age=2")) == fields("A: 1")


def test_a_part_is_validated_with_the_range() -> None:
    asked = request("Range: bytes=0-9")
    one = stored("Cache-Control: max-age=2", ETAG, "Content-Range: bytes 0-9/20", status=206, asked=asked)
    assert request_fields(asked.fields, one) == fields("Range: bytes=0-9", 'If-None-Match: "a"')


def test_offers_and_rests() -> None:
    assert offer_fields(fields("A: 1"), (b'"a"', b'"b"')) == fields("A: 1", 'If-None-Match: "a", "b"')
    assert offer_fields(fields('If-None-Match: "x"'), ()) == fields('If-None-Match: "x"')
    plain = stored(
        "Cache-Control: max-age=9", "Content-Range: bytes 0-9/20", status=206, asked=request("Range: bytes=0-9")
    )
    assert rest_fields(fields("A: 1"), plain) == fields("A: 1", "Range: bytes=10-")
    tagged = stored(
        "Cache-Control: max-age=9", ETAG, "Content-Range: bytes 0-9/20", status=206, asked=request("Range: bytes=0-9")
    )
    assert rest_fields(fields(), tagged) == fields("Range: bytes=10-", 'If-Range: "a"')


def test_304_replaces_what_it_brings_and_keeps_the_rest() -> None:
    one = stored("Cache-Control: max-age=2", ETAG, "A: 1", "A: 2", "B: 1", "Set-Cookie: x=1", "X-Frame-Options: deny")
    new = fresh304(one, ETAG, f"Date: {date(100)}", "A: 3", "Set-Cookie: x=2", "X-Frame-Options: sameorigin", "New: 1")
    head = new.head.fields
    assert head.get_all(b"a") == (b"3",)
    assert head.get_all(b"b") == (b"1",)
    assert head.get_all(b"set-cookie") == (b"x=2",)
    assert head.get_all(b"x-frame-options") == (b"sameorigin",)
    assert head.get_all(b"new") == (b"1",)
    assert new.status == 200
    assert new.chunks is one.chunks


def test_304_does_not_touch_what_describes_the_bytes() -> None:
    kept = ["Content-Type: a/b", "Content-Encoding: gzip", "Content-Range: bytes 0-9/10", "Content-Length: 10"]
    one = stored("Cache-Control: max-age=2", *kept)
    new = fresh304(
        one,
        "Content-Type: c/d",
        "Content-Encoding: br",
        "Content-Range: x",
        "Content-Length: 0",
        "Connection: Z",
        "Z: 1",
        "Keep-Alive: x",
        "Content-MD5: y",
    )
    head = new.head.fields
    assert [head.joined(n) for n in (b"content-type", b"content-encoding", b"content-range", b"content-length")] == [
        b"a/b",
        b"gzip",
        b"bytes 0-9/10",
        b"10",
    ]
    assert head.joined(b"content-md5") == b"y"
    assert b"z" not in head and b"keep-alive" not in head


def test_304_begins_the_lifetime_anew() -> None:
    one = stored("Cache-Control: max-age=2", ETAG)
    kept, longer = fresh304(one), fresh304(one, "Cache-Control: max-age=3600")
    assert kept.is_fresh(LATER + 1.9) and not kept.is_fresh(LATER + 2)
    assert longer.is_fresh(LATER + 3599)
    assert longer.age(LATER + 5) == 5
    assert fresh304(one, "Age: 30").age(LATER) == 30
    expires = stored(f"Expires: {date(2)}", f"Date: {date()}", ETAG)
    assert fresh304(expires, f"Expires: {date(160)}", f"Date: {date(100)}").lifetime_s == 60
    assert evaluate(request(), [fresh304(one, "Cache-Control: no-cache")], OPEN, LATER).act is Action.REVALIDATE


def test_a_304_that_forbids_storing_answers_once() -> None:
    one = stored("Cache-Control: max-age=2", ETAG, "A: 1")
    once = fresh304(one, "Cache-Control: no-store", "A: 2")
    assert not once.keepable
    assert not once.is_fresh(LATER)
    assert not once.simple
    assert once.head.fields.joined(b"a") == b"2"
    assert once.age(LATER) == 0
    assert one.keepable and fresh304(one).keepable


def test_a_304_to_another_variants_tag_stores_it_for_this_request() -> None:
    one = stored("Cache-Control: max-age=9", ETAG, "Vary: Foo", asked=request("Foo: 1"))
    asked = request("Foo: 2")
    new = updated(one, response(ETAG, status=304), asked, OPEN, times(at=LATER))
    assert evaluate(asked, [new], OPEN, LATER).act is Action.FRESH
    assert evaluate(request("Foo: 1"), [new], OPEN, LATER).act is Action.MISS


def test_which_response_a_304_selects() -> None:
    one, two = stored("Cache-Control: max-age=9", ETAG), stored("Cache-Control: max-age=9", 'ETag: "b"')
    assert selected([one, two], response('ETag: W/"b"', status=304)) is two
    assert selected([one, two], response(status=304)) is None
    assert selected([one], response(status=304)) is one
    assert selected([one], response('ETag: "c"', status=304)) is None
    untagged = stored("Cache-Control: max-age=9", LM)
    assert selected([untagged], response('ETag: "c"', status=304)) is untagged


# -- HEAD --


def test_a_200_to_head_updates_fields_and_freshness() -> None:
    one = stored("Cache-Control: max-age=2", "Template-A: 1", ETAG)
    got = head_outcome(one, response("Cache-Control: max-age=1000"), request(method="HEAD"), OPEN, times(at=LATER))
    assert got.effect is HeadEffect.UPDATED
    assert got.stored.is_fresh(LATER + 999)
    assert got.stored.head.fields.joined(b"template-a") == b"1"
    assert got.stored.key == one.key
    again = head_outcome(
        one, response("Template-A: 2", "Content-Length: 10", ETAG), request(method="HEAD"), OPEN, times()
    )
    assert again.stored.head.fields.joined(b"template-a") == b"2"


@pytest.mark.parametrize("line", ['ETag: "b"', "Last-Modified: Thu, 02 Jan 2020 00:00:00 GMT", "Content-Length: 11"])
def test_a_head_that_contradicts_makes_stale(line: str) -> None:
    one = stored("Cache-Control: max-age=2000", ETAG, LM)
    got = head_outcome(one, response(line), request(method="HEAD"), OPEN, times(at=LATER))
    assert got.effect is HeadEffect.STALE
    assert not got.stored.is_fresh(LATER)
    assert one.is_fresh(LATER)


@pytest.mark.parametrize("status", [410, 404, 500, 304, 204])
def test_other_statuses_to_head_do_nothing(status: int) -> None:
    one = stored("Cache-Control: max-age=2")
    got = head_outcome(one, response("A: 2", "Cache-Control: max-age=9", status=status), request(), OPEN, times())
    assert (got.effect, got.stored) == (HeadEffect.NOTHING, one)


def test_head_with_no_store_does_not_displace() -> None:
    one = stored("Cache-Control: max-age=2000")
    assert head_outcome(one, response("Cache-Control: no-store"), request(), OPEN, times()).effect is HeadEffect.NOTHING


# -- combining parts --


def piece(told: str, body: bytes, *lines: str) -> Stored:
    asked = request(f"Range: bytes={told.partition('/')[0]}")
    return stored(
        "Cache-Control: max-age=9", f"Content-Range: bytes {told}", *lines, status=206, asked=asked, body=body
    )


def rest(told: str, *lines: str) -> ResponseHead:
    return response("Cache-Control: max-age=9", f"Content-Range: bytes {told}", f"Date: {date()}", *lines, status=206)


def test_parts_with_the_same_strong_tag_become_the_whole() -> None:
    one = piece("0-4/10", b"01234", ETAG, "A: 1", "B: 1")
    plan = combined(one, rest("5-9/10", ETAG, "A: 2", "Content-Length: 5"), request(), OPEN, times())
    assert plan is not None
    whole = build(plan, (*one.chunks, b"56789"))
    assert (whole.status, whole.part, b"".join(whole.chunks)) == (200, None, b"0123456789")
    head = whole.head.fields
    assert (head.joined(b"a"), head.joined(b"b")) == (b"2", b"1")
    assert b"content-range" not in head
    assert head.get_all(b"content-length") == (b"10",)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (piece("0-4/10", b"01234", ETAG), rest("5-9/10", 'ETag: "b"')),
        (piece("0-4/10", b"01234", 'ETag: W/"a"'), rest("5-9/10", 'ETag: W/"a"')),
        (piece("0-4/10", b"01234"), rest("5-9/10")),
        (piece("0-4/10", b"01234", ETAG), rest("6-9/10", ETAG)),
        (piece("0-4/10", b"01234", ETAG), rest("5-8/10", ETAG)),
        (piece("0-4/10", b"01234", ETAG), rest("5-9/10", ETAG, "Content-Length: 4")),
        (piece("0-4/9", b"01234", ETAG), rest("5-9/10", ETAG)),
        (piece("1-4/10", b"1234", ETAG), rest("5-9/10", ETAG)),
        (piece("0-4/10", b"01234", f"Last-Modified: {date()}"), rest("5-9/10", f"Last-Modified: {date()}")),
        (piece("0-4/10", b"01234", ETAG), rest("5-9/10", ETAG, "Cache-Control: no-store")),
        (piece("0-4/10", b"01234", ETAG), response(ETAG, "Content-Range: bytes 5-9/10")),
    ],
)
def test_other_parts_are_not_combined(one: Stored, two: ResponseHead) -> None:
    assert combined(one, two, request(), OPEN, times()) is None


def test_an_old_last_modified_is_a_strong_validator() -> None:
    assert combined(piece("0-4/10", b"01234", LM), rest("5-9/10", LM), request(), OPEN, times()) is not None
