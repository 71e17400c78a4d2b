"""Cache behaviour 3: how long a response is fresh, and how the fields that say so are read (RFC 9111 4.2, 5)."""

from __future__ import annotations

import pytest
from kit.cachelab import START, Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def check(lab: Lab, lines: tuple[str, ...], after: float, reused: bool) -> None:
    assert await lab.reuses(*lines, after=after) is reused


@pytest.mark.parametrize(
    ("lines", "after", "reused"),
    [
        (("Cache-Control: max-age=60",), 59, True),
        (("Cache-Control: max-age=60",), 60, False),  # fresh means age < lifetime, strictly
        (("Cache-Control: max-age=0",), 0, False),
        (("Cache-Control: s-maxage=60",), 59, True),
        (("Cache-Control: s-maxage=60",), 60, False),
        (("Cache-Control: s-maxage=60, max-age=1",), 30, True),
        (("Cache-Control: max-age=1, s-maxage=60",), 30, True),
        (("Cache-Control: s-maxage=1, max-age=60",), 30, False),
        (("Cache-Control: max-age=60, s-maxage=1",), 30, False),
        (("Cache-Control: max-age=60", "Cache-Control: s-maxage=1"), 30, False),
        (("Date: @0", "Expires: @60"), 59, True),
        (("Date: @0", "Expires: @60"), 60, False),
        (("Date: @0", "Expires: @0"), 0, False),
        (("Expires: @60",), 30, True),
        (("Cache-Control: max-age=60", "Expires: @-60", "Date: @0"), 30, True),
        (("Cache-Control: max-age=60", "Expires: 0"), 30, True),
        (("Cache-Control: max-age=1", "Expires: @60", "Date: @0"), 30, False),
        (("Cache-Control: s-maxage=60", "Expires: @-60", "Date: @0"), 30, True),
    ],
)
async def test_which_lifetime_counts(lab: Lab, lines: tuple[str, ...], after: float, reused: bool) -> None:
    await check(lab, lines, after, reused)


@pytest.mark.parametrize(
    ("value", "reused"),
    [
        ("max-age=60", True),
        ("MaX-aGe=60", True),
        ("a=b, max-age=60", True),
        ("max-age=60, a=b, c", True),
        ('a="b", max-age=60', True),
        ('a="max-age=0", max-age=60', True),
        ('a="b, max-age=0", max-age=60', True),
        ('a="b, max-age=60"', False),
        ("max-age=0060", True),
        ('max-age="60"', True),
        ("max-age=2147483648", True),
        ("max-age=99999999999", True),
        ("max-age=" + "9" * 40, True),
        ("max-age=-60", False),
        ("max-age='60'", False),
        ("max-age=60abc", False),
        ("max-age=60.5", False),
        ("max-age=abc", False),
        ("max-age =60", False),
        ("max-age= 60", False),
        ("xmax-age=60", False),
        ("max-age=60, max-age=0", False),
        ("max-age=0, max-age=60", False),
        ("max-age=60, max-age=60", True),
    ],
)
async def test_cache_control_is_read(lab: Lab, value: str, reused: bool) -> None:
    await check(lab, (f"Cache-Control: {value}",), 30, reused)


async def test_lines_of_cache_control_are_one_list(lab: Lab) -> None:
    await check(lab, ("Cache-Control: x", "Cache-Control: max-age=60"), 30, True)


GOOD_DATES = [
    "Wed, 18 Jul 2040 20:01:00 GMT",
    "wed, 18 jul 2040 20:01:00 gmt",
    "WED, 18 JUL 2040 20:01:00 GMT",
    "Wednesday, 18-Jul-40 20:01:00 GMT",
    "Wed Jul 18 20:01:00 2040",
    "Fri, 18 Jul 2600 20:01:00 GMT",
]
BAD_DATES = [
    "0",
    "Wed, 18 Jul 2040 20:01:00 UTC",
    "Wed, 18 Jul 2040 20:01:00 AEST",
    "Wed, 18 Jul 2040 20:01:00 +0000",
    "Wed, 18 Jul 2040 20:01:00",
    "Wed, 18 Jul 40 20:01:00 GMT",
    "Wed, 18-Jul-2040 20:01:00 GMT",
    "Wed 18 Jul 2040 20:01:00 GMT",
    "Wed,  18 Jul 2040 20:01:00 GMT",
    "Wed, 18  Jul 2040 20:01:00 GMT",
    "Wed, 18 Jul 2040  20:01:00 GMT",
    "Wed, 18 Jul 2040 20.01.00 GMT",
    "Wed, 18 Jul 2040 8:01:00 GMT",
    "Wednesday, 18-Jul-85 20:01:00 GMT",  # more than 50 years ahead: the past century
]


@pytest.mark.parametrize("value", GOOD_DATES)
async def test_dates_in_each_form_are_read(lab: Lab, value: str) -> None:
    await check(lab, (f"Expires: {value}",), 30, True)


@pytest.mark.parametrize("value", BAD_DATES)
async def test_every_other_date_is_already_expired(lab: Lab, value: str) -> None:
    await check(lab, (f"Expires: {value}", "Last-Modified: @-99999"), 0, False)


async def test_two_expires_lines_are_no_date(lab: Lab) -> None:
    await check(lab, ("Expires: @60", "Expires: @60"), 0, False)


@pytest.mark.parametrize("value", ["x", "0", "@-99999 UTC"])
async def test_an_invalid_date_counts_as_the_time_of_receipt(lab: Lab, value: str) -> None:
    await check(lab, (f"Date: {value}", "Expires: @60"), 30, True)


@pytest.mark.parametrize(
    ("lines", "after", "reused"),
    [
        (("Age: 30",), 29, True),
        (("Age: 30",), 30, False),
        (("Age: 60",), 0, False),
        (("Date: @-60",), 0, False),  # apparent age
        (("Date: @-30", "Age: 10"), 29, True),  # the larger one
        (("Date: @-30", "Age: 10"), 30, False),
        (("Date: @-10", "Age: 30"), 30, False),
        (("Date: @3600",), 59, True),  # a clock ahead of ours: no apparent age
        (("Date: @3600",), 60, False),
    ],
)
async def test_the_age_counts_against_the_lifetime(
    lab: Lab, lines: tuple[str, ...], after: float, reused: bool
) -> None:
    await check(lab, ("Cache-Control: max-age=60", *lines), after, reused)


async def test_with_date_in_the_future_lifetime_is_still_expires_minus_date(lab: Lab) -> None:
    await check(lab, ("Date: @3600", "Expires: @3660"), 30, True)
    lab.fresh()
    await check(lab, ("Date: @3600", "Expires: @3600"), 0, False)
    lab.fresh()
    await check(lab, ("Date: @3600", "Expires: @1800"), 0, False)


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        (("Age: 3600",), True),
        (("Age: 3600, 0",), True),
        (("Age: 0, 3600",), False),
        (("Age: 3600", "Age: 0"), True),
        (("Age: 0", "Age: 3600"), False),
        (("Age: -3600",), False),
        (("Age: 3600.5",), False),
        (("Age: abc",), False),
        (("Age: 3600;a=b",), False),
        (("Age: 2147483648",), True),
        (("Age: " + "9" * 30,), True),
    ],
)
async def test_age_is_read(lab: Lab, lines: tuple[str, ...], counts: bool) -> None:
    await check(lab, ("Cache-Control: max-age=60", *lines), 0, not counts)


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
async def test_a_tenth_of_the_age_by_last_modified(lab: Lab, status: int) -> None:
    lines = ("Last-Modified: @-1000", "Date: @0", "Location: /x")
    assert await lab.reuses(*lines, status=status, after=99)
    lab.fresh()
    assert not await lab.reuses(*lines, status=status, after=100)


@pytest.mark.parametrize("status", [201, 202, 403, 502, 503, 504, 299, 599])
async def test_no_heuristic_for_other_statuses_without_public(lab: Lab, status: int) -> None:
    assert not await lab.reuses("Last-Modified: @-1000", "Date: @0", status=status)
    lab.fresh()
    assert await lab.reuses("Last-Modified: @-1000", "Date: @0", "Cache-Control: public", status=status)


async def test_a_heuristic_has_its_cap_of_a_day(lab: Lab) -> None:
    assert lab.now - START < 1e9
    lines = ("Last-Modified: @-99999999", "Date: @0")
    assert await lab.reuses(*lines, after=86399)
    lab.fresh()
    assert not await lab.reuses(*lines, after=86400)


async def test_pragma_no_cache_stops_the_heuristic_not_explicit_freshness(lab: Lab) -> None:
    assert not await lab.reuses("Last-Modified: @-1000", "Date: @0", "Pragma: no-cache")
    lab.fresh()
    assert await lab.reuses("Cache-Control: max-age=60", "Pragma: no-cache")
    lab.fresh()
    assert await lab.reuses("Expires: @60", "Date: @0", "Pragma: no-cache")


async def test_something_changed_now_has_no_heuristic_lifetime(lab: Lab) -> None:
    assert not await lab.reuses("Last-Modified: @0", "Date: @0", after=1)
