"""HTTP dates: the three forms, and everything that is none of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.http.dates import format_date, parse_date

NOW = 1_800_000_000.0  # 2027


@given(st.integers(0, 253402300799))
def test_round_trip(moment: int) -> None:
    assert parse_date(format_date(moment), NOW) == moment


@given(st.binary(max_size=40))
def test_any_bytes(value: bytes) -> None:
    parse_date(value, NOW)


@pytest.mark.parametrize(
    "value",
    [
        b"Thu, 18 Aug 2050 02:01:18 GMT",
        b"THU, 18 Aug 2050 02:01:18 GMT",
        b"Thu, 18 AUG 2050 02:01:18 GMT",
        b"Thu, 18 Aug 2050 02:01:18 gMT",
        b"Thursday, 18-Aug-50 02:01:18 GMT",
        b"Thu Aug 18 02:01:18 2050",
    ],
)
def test_valid_forms(value: bytes) -> None:
    assert parse_date(value, NOW) == 2544400878


def test_asctime_pads_the_day_with_a_space() -> None:
    assert (
        parse_date(b"Sun Nov  6 08:49:37 1994", NOW) == parse_date(b"Sun, 06 Nov 1994 08:49:37 GMT", NOW) == 784111777
    )


def test_two_digit_years_more_than_fifty_ahead_are_past() -> None:
    assert parse_date(b"Sunday, 06-Nov-94 08:49:37 GMT", NOW) == 784111777
    near, far = parse_date(b"Friday, 01-Jan-77 00:00:00 GMT", NOW), parse_date(b"Friday, 01-Jan-78 00:00:00 GMT", NOW)
    assert near is not None and far is not None
    assert near > NOW > far


def test_far_dates_are_valid() -> None:
    assert parse_date(b"Tue, 19 Jan 2038 14:14:08 GMT", NOW) == 2147523248
    assert parse_date(b"Sun, 21 Nov 2286 04:46:39 GMT", NOW) == 10000039599


@pytest.mark.parametrize(
    "value",
    [
        b"0",
        b"-1",
        b"",
        b"Thu, 18 Aug 2050 02:01:18 UTC",
        b"Thu, 18 Aug 2050 02:01:18 AEST",
        b"Thu, 18 Aug 50 02:01:18 GMT",
        b"Thu 18 Aug 2050 02:01:18 GMT",
        b"Thu, 18  Aug  2050 02:01:18 GMT",
        b"Thu, 18-Aug-2050 02:01:18 GMT",
        b"Thu, 18-Aug-50 02:01:18 GMT",
        b"Thu, 18 Aug 2050 02.01.18 GMT",
        b"Thu, 18 Aug 2050 2:01:18 GMT",
        b"Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:19 GMT",
        b"Thu, 18 Aug 2050 25:01:18 GMT",
        b"Thu, 30 Feb 2050 02:01:18 GMT",
        b"Thu, 18 Aug 0000 02:01:18 GMT",
        b" Thu, 18 Aug 2050 02:01:18 GMT",
    ],
)
def test_no_dates(value: bytes) -> None:
    assert parse_date(value, NOW) is None
