"""When recurring work runs: a five-field cron line or an interval, checked when the file is read.

One rule: a schedule that is accepted can come due. Fields are those of crontab(5): lists, ranges, steps and the
three-letter names of months and days; Sunday is 0 or 7. Computing the next time belongs to whoever holds a clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator

from edge.config_types import Kind, parse_duration, shown

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: at for at, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: at for at, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_LONGEST = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
_PART = re.compile(r"(\*|([0-9a-z]{1,3})(?:-([0-9a-z]{1,3}))?)(?:/([0-9]{1,3}))?")
_SHORTEST_S = 10.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Either `cron` (five fields) or `interval` (seconds); the other is None. `text` is what the operator wrote."""

    text: str
    cron: str | None = None
    interval: float | None = None


def parse_schedule(value: object) -> Schedule:
    """`"0 3 * * 0"` or `"15m"`."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'must be a cron line such as "0 3 * * 0" or an interval such as "15m", got {shown(value)}')
    if len(value.split()) > 1:
        check_cron(value)
        return Schedule(value, cron=" ".join(value.split()))
    try:
        seconds = parse_duration(value)
    except ValueError:
        raise ValueError(
            f'must be a cron line of five fields such as "0 3 * * 0", or an interval such as "15m", got {shown(value)}'
        ) from None
    if seconds < _SHORTEST_S:
        raise ValueError(f"must be at least 10s apart, got {shown(value)}")
    return Schedule(value, interval=seconds)


def check_cron(line: str) -> None:
    """Raise ValueError unless the line has five good fields and some date fulfils them."""
    parts = line.lower().split()
    if len(parts) != 5:
        raise ValueError(
            f"must be a cron line of five fields (minute, hour, day, month, weekday), "
            f"got {len(parts)} field{'s' if len(parts) != 1 else ''}"
        )
    values = [_field(part, spec) for part, spec in zip(parts, _FIELDS, strict=True)]
    # Restricted by day of month alone (crontab(5) joins it with the day of week by "or").
    if parts[4] == "*" and min(values[2]) > max(_LONGEST.get(month, 31) for month in values[3]):
        raise ValueError(f"never comes due: no such day in the month, got {shown(line)}")


def _field(text: str, spec: tuple[str, int, int, dict[str, int]]) -> set[int]:
    name, low, high, names = spec
    found: set[int] = set()
    for piece in text.split(","):
        match = _PART.fullmatch(piece)
        if match is None:
            raise ValueError(f"has a bad {name}: {shown(piece)}")
        first, last = (
            (low, high) if match[1] == "*" else (_number(match[2], names), _number(match[3] or match[2], names))
        )
        step = int(match[4]) if match[4] else 1
        if match[4] and match[1] != "*" and match[3] is None:
            last = high  # `5/15` counts from 5 to the end
        if first is None or last is None or not low <= first <= last <= high or step < 1:
            raise ValueError(f"has a bad {name} (must be {low} to {high}): {shown(piece)}")
        found.update(range(first, last + 1, step))
    return found


def _number(text: str | None, names: dict[str, int]) -> int | None:
    return int(text) if text and text.isdigit() else names.get(text or "")


When = Annotated[Schedule, PlainValidator(parse_schedule), Kind("cron line or interval")]
