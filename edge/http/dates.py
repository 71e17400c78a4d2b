"""HTTP dates (RFC 9110 5.6.7): the three forms read strictly, one form written.

One rule: a date that is not exactly one of the three forms is no date. Letters may be in any case.
"""

from __future__ import annotations

import re
from datetime import date

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_EPOCH = date(1970, 1, 1).toordinal()
_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MON = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_DAY = rb"(?:" + b"|".join(_DAYS) + rb")"
_LONG = rb"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_IMF = re.compile(_DAY + rb", (?P<day>[0-9]{2}) " + _MON + rb" (?P<year>[0-9]{4}) " + _TIME + rb" GMT", re.IGNORECASE)
_850 = re.compile(_LONG + rb", (?P<day>[0-9]{2})-" + _MON + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" GMT", re.IGNORECASE)
_ASC = re.compile(_DAY + rb" " + _MON + rb" (?P<day>[0-9 ][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})", re.IGNORECASE)


def parse_date(value: bytes, now: float) -> float | None:
    """Seconds since the epoch, None when it is no date. `now` gives a two-digit year its century."""
    match = _IMF.fullmatch(value) or _850.fullmatch(value) or _ASC.fullmatch(value)
    if match is None:
        return None
    year, hour, minute, second = int(match["year"]), int(match["hour"]), int(match["minute"]), int(match["second"])
    if len(match["year"]) == 2:
        year = _full_year(year, now)
    if hour > 23 or minute > 59 or second > 60:  # 60 is a leap second
        return None
    try:
        days = date(year, _MONTH[match["month"].lower()], int(match["day"])).toordinal() - _EPOCH
    except ValueError:  # such as 30 February
        return None
    return days * 86400.0 + hour * 3600 + minute * 60 + second


def _full_year(two_digits: int, now: float) -> int:
    """The latest year with these digits that is at most 50 years ahead."""
    latest = _day_of(now).year + 50
    return latest - (latest - two_digits) % 100


def _day_of(now: float) -> date:
    return date.fromordinal(min(max(_EPOCH + int(now // 86400), 1), date.max.toordinal()))


def format_date(now: float) -> bytes:
    """A date as an IMF-fixdate; `now` is seconds since the epoch."""
    day = _day_of(now)
    rest = int(now) % 86400
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _DAYS[day.weekday()],
        day.day,
        _MONTHS[day.month - 1],
        day.year,
        rest // 3600,
        rest // 60 % 60,
        rest % 60,
    )
