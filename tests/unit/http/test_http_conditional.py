"""Answering clients' conditions and ranges from a stored response."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.heads import date, fields, request

from edge.http.conditional import (
    FULL,
    NOT_MODIFIED,
    PRECONDITION_FAILED,
    Answer,
    AnswerKind,
    answer,
    failed_fields,
    multipart,
    not_modified_fields,
    partial_fields,
    unsatisfiable_fields,
)
from edge.http.ranges import ContentRange

STORED = fields('ETag: "a"', f"Last-Modified: {date(-3000)}", f"Date: {date()}", "Cache-Control: max-age=9", "A: 1")


def of(*lines: str, stored: object = STORED, method: str = "GET", status: int = 200) -> Answer:
    return answer(request(*lines, method=method), status, stored, 10, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], FULL),
        (['If-None-Match: "a"'], NOT_MODIFIED),
        (['If-None-Match: W/"a"'], NOT_MODIFIED),
        (['If-None-Match: "x", "a"', 'If-None-Match: "y"'], NOT_MODIFIED),
        (["If-None-Match: *"], NOT_MODIFIED),
        (['If-None-Match: "b"'], FULL),
        ([f"If-Modified-Since: {date(-3000)}"], NOT_MODIFIED),
        ([f"If-Modified-Since: {date(-2000)}"], NOT_MODIFIED),
        ([f"If-Modified-Since: {date(-4000)}"], FULL),
        (["If-Modified-Since: yesterday"], FULL),
        (['If-None-Match: "a"', f"If-Modified-Since: {date(-9999)}"], NOT_MODIFIED),
        (['If-None-Match: "b"', f"If-Modified-Since: {date()}"], FULL),
        (['If-None-Match: "b', f"If-Modified-Since: {date()}"], FULL),
        (['If-Match: "a"'], FULL),
        (['If-Match: W/"a"'], PRECONDITION_FAILED),
        (['If-Match: "b"'], PRECONDITION_FAILED),
        (['If-Match: "b"', 'If-None-Match: "a"'], PRECONDITION_FAILED),
        (['If-Match: "a"', f"If-Unmodified-Since: {date(-9999)}"], FULL),
        ([f"If-Unmodified-Since: {date(-4000)}"], PRECONDITION_FAILED),
        ([f"If-Unmodified-Since: {date(-3000)}"], FULL),
        (["If-Unmodified-Since: 0"], FULL),
        (['If-Match: "a"', 'If-None-Match: "a"', "Range: bytes=0-1"], NOT_MODIFIED),
    ],
)
def test_conditions(lines: list[str], expected: Answer) -> None:
    assert of(*lines) == expected
    assert of(*lines, method="HEAD") == expected


def test_all_date_forms_count() -> None:
    stored = fields("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
    assert of("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", stored=stored) == NOT_MODIFIED
    assert of("If-Modified-Since: Sun Nov  6 08:49:37 1994", stored=stored) == NOT_MODIFIED
    assert of("If-Modified-Since: Sun Nov  6 08:49:36 1994", stored=stored) == FULL


def test_without_last_modified_date_is_compared() -> None:
    stored = fields(f"Date: {date()}")
    assert of(f"If-Modified-Since: {date(1)}", stored=stored) == NOT_MODIFIED
    assert of(f"If-Modified-Since: {date(-1)}", stored=stored) == FULL
    assert of(f"If-Modified-Since: {date()}", stored=fields("A: 1")) == FULL


def test_conditions_count_only_where_the_answer_would_be_2xx() -> None:
    assert of('If-None-Match: "a"', status=404) == FULL
    assert of('If-None-Match: "a"', status=203) == NOT_MODIFIED
    assert of("Range: bytes=0-1", status=203) == FULL


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Range: bytes=0-1"], ((0, 1),)),
        (["Range: bytes=1-"], ((1, 9),)),
        (["Range: bytes=-1"], ((9, 9),)),
        (["Range: bytes=5-99"], ((5, 9),)),
        (["Range: bytes=0-1, 8-9"], ((0, 1), (8, 9))),
        (["Range: bytes=0-1, 1-3"], ((0, 3),)),
        (["Range: bytes=0-1, 50-"], ((0, 1),)),
        (["Range: bytes=10-"], ()),
        (["Range: bytes=-0"], ()),
        (["Range: items=0-1"], None),
        (["Range: bytes=1-0"], None),
        (["Range: bytes=0-0,2-2,4-4,6-6,8-8,9-9"], None),
        (["Range: bytes=0-1", 'If-Range: "a"'], ((0, 1),)),
        (["Range: bytes=0-1", 'If-Range: "b"'], None),
        (["Range: bytes=0-1", 'If-Range: W/"a"'], None),
        (["Range: bytes=0-1", f"If-Range: {date(-3000)}"], ((0, 1),)),
        (["Range: bytes=0-1", f"If-Range: {date(-2999)}"], None),
        (['If-Range: "a"'], None),
    ],
)
def test_ranges(lines: list[str], expected: tuple[tuple[int, int], ...] | None) -> None:
    if expected is None:
        assert of(*lines) == FULL
    else:
        assert of(*lines) == Answer(AnswerKind.PARTIAL if expected else AnswerKind.UNSATISFIABLE, expected, 10)
    assert of(*lines, method="HEAD") == FULL


def test_weak_validators_do_not_do_for_if_range() -> None:
    assert of("Range: bytes=0-1", 'If-Range: W/"a"', stored=fields('ETag: W/"a"')) == FULL
    young = fields(f"Last-Modified: {date()}", f"Date: {date()}")
    assert of("Range: bytes=0-1", f"If-Range: {date()}", stored=young) == FULL


def test_a_part_is_answered_with_its_place() -> None:
    part = ContentRange(4, 9, 20)
    got = answer(request("Range: bytes=6-8"), 206, STORED, 6, 5, part)
    assert got == Answer(AnswerKind.PARTIAL, ((6, 8),), 20, 4)


def test_304_lists_what_guides_caches_and_nothing_else() -> None:
    stored = fields(
        'ETag: "a"',
        "Cache-Control: x",
        "Content-Location: /x",
        "Date: d",
        "Expires: e",
        "Vary: v",
        "Last-Modified: l",
        "CDN-Cache-Control: c",
        "Content-Type: t",
        "Content-Length: 10",
        "Set-Cookie: s",
    )
    names = [name for name, _ in not_modified_fields(stored)]
    assert names == [b"ETag", b"Cache-Control", b"Content-Location", b"Date", b"Expires", b"Vary", b"CDN-Cache-Control"]
    assert not_modified_fields(fields("Last-Modified: l", "A: 1")) == fields("Last-Modified: l")


def test_heads_of_206_416_and_412() -> None:
    stored = fields("Content-Length: 10", "A: 1", 'ETag: "a"')
    assert partial_fields(stored, (2, 4), 10) == fields(
        "A: 1", 'ETag: "a"', "Content-Range: bytes 2-4/10", "Content-Length: 3"
    )
    assert unsatisfiable_fields(stored, 10) == fields('ETag: "a"', "Content-Range: bytes */10", "Content-Length: 0")
    assert failed_fields(stored) == fields('ETag: "a"', "Content-Length: 0")


def test_multipart_length_is_what_is_written() -> None:
    body = b"0123456789"
    made = multipart(fields("Content-Type: text/plain", "Content-Length: 10"), ((0, 1), (8, 9)), 10, b"XX")
    written = b"".join(
        lead + body[first : last + 1] for lead, (first, last) in zip(made.leads, ((0, 1), (8, 9)), strict=True)
    )
    written += made.tail
    assert made.fields.joined(b"content-length") == b"%d" % len(written)
    assert made.fields.joined(b"content-type") == b"multipart/byteranges; boundary=XX"
    assert written == (
        b"--XX\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01"
        b"\r\n--XX\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--XX--\r\n"
    )


NAMES = ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range", "ETag", "Date"]
LINES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.binary(max_size=12), st.sampled_from([b'"a"', b"bytes=0-"]))),
    max_size=5,
)


@settings(max_examples=200)
@given(LINES, LINES)
def test_any_bytes(asked: list[tuple[str, bytes]], kept: list[tuple[str, bytes]]) -> None:
    lines = [f"{name}: {value.decode('latin-1')}" for name, value in asked]
    got = of(*lines, stored=fields(*[f"{name}: {value.decode('latin-1')}" for name, value in kept]))
    assert all(0 <= first <= last < 10 for first, last in got.ranges)
