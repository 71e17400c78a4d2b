"""When recurring work runs: a five-field cron line or an interval, checked when the file is read.

One rule: a schedule that is accepted can come due. What a cron line means is `cronsim`'s to say, which follows Debian's
cron: lists, ranges, steps, the three-letter names, Sunday as 0 or 7, `L` and `MON#2`; a sixth field (seconds) is not
taken. Computing the next time belongs to whoever holds a clock (`recovery.schedule`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from cronsim import CronSim, CronSimError
from pydantic import PlainValidator

from edge.config.types import ValueKind, parse_duration, shown

_SHORTEST_S = 10.0
_FIELDS = {  # cronsim's word: ours, and what the field may hold
    "minute": "minute (must be 0 to 59)",
    "hour": "hour (must be 0 to 23)",
    "day-of-month": "day of month (must be 1 to 31)",
    "month": "month (must be 1 to 12, or jan to dec)",
    "day-of-week": "day of week (must be 0 to 7, or sun to sat)",
}
_ANY_DATE = datetime(2024, 1, 1)  # whether a line can come due does not depend on when one begins to look


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


def _is_day(text: str) -> bool:
    """Whether it is good by itself, so that it is the month that has no such day."""
    try:
        CronSim(f"0 0 {text} * *", _ANY_DATE)
    except CronSimError:
        return False
    return True


def check_cron(line: str) -> None:
    """Raise ValueError unless the line has five good fields and some date fulfils them."""
    parts = line.split()
    if len(parts) != 5:
        raise ValueError(
            f"must be a cron line of five fields (minute, hour, day, month, weekday), "
            f"got {len(parts)} field{'s' if len(parts) != 1 else ''}"
        )
    try:
        next(CronSim(line, _ANY_DATE))
    except CronSimError as error:
        bad = str(error).removeprefix("Bad ").strip()
        if bad == "day-of-month" and _is_day(parts[2]):
            raise ValueError(f"never comes due: no such day in the month, got {shown(line)}") from None
        raise ValueError(f"has a bad {_FIELDS.get(bad, bad)}, got {shown(line)}") from None
    except StopIteration:
        raise ValueError(f"never comes due: no date fulfils it, got {shown(line)}") from None


When = Annotated[Schedule, PlainValidator(parse_schedule), ValueKind("cron line or interval")]
