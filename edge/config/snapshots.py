"""The table `[snapshots]`: where recovery points go, when they are taken, how many are kept, what a drill must reach.

One rule: an empty retention policy, a zone that nobody knows and a schedule that never comes due are refused here, so
that whoever acts on these values need not ask.
"""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PlainValidator, ValidationInfo, field_validator

from edge.config.cache import matching
from edge.config.paths import FilePath, placed
from edge.config.schedule import When
from edge.config.types import Count, Duration, Percent, Section, Size, Text, Timeout, ValueKind, entry, shown

Endpoint = Annotated[
    str, PlainValidator(matching(r"https?://[^\s/?#@]+/?", "a URL such as https://s3.example.com")), ValueKind("URL")
]
HttpUrl = Annotated[
    str, PlainValidator(matching(r"https?://[^\s@]+", "a URL such as https://hc.example.com/ping/1")), ValueKind("URL")
]


_REPOSITORY = matching(
    r"file:[^\x00-\x1f\x7f]+|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[^\s\x00-\x1f\x7f]*)?",
    '"file:<directory>" or "s3://<bucket>/<prefix>"',
)


def parse_repository(value: object, info: ValidationInfo) -> str:
    """A bucket, or a directory."""
    kind, _, place = _REPOSITORY(value).partition(":")
    return f"file:{placed(place.removeprefix('//'), value, info)}" if kind == "file" else f"{kind}:{place}"


class Keep(Section):
    """`snapshots.keep`: a recovery point is kept when any of these says so."""

    last: Count = entry(0, "The newest points")
    hourly: Count = entry(0, "The last point of each of so many hours")
    daily: Count = entry(0, "The last point of each of so many days")
    weekly: Count = entry(0, "The last point of each of so many weeks")
    monthly: Count = entry(0, "The last point of each of so many months")
    yearly: Count = entry(0, "The last point of each of so many years")
    within: Duration = entry("0s", "All points younger than this")


class Targets(Section):
    """`snapshots.targets`: what a drill is measured against."""

    rpo: Timeout = entry("15m", "Most data, in time, that may be lost")
    rto: Timeout = entry("60s", "Longest time until a restored gateway is ready")


DEFAULT_KEEP = {"last": 3, "hourly": 24, "daily": 7, "weekly": 4, "monthly": 6}


class Snapshots(Section):
    """`[snapshots]`."""

    repository: Annotated[str, PlainValidator(parse_repository), ValueKind("repository")] = entry(
        ..., 'Where recovery points go: "file:<directory>" or "s3://<bucket>/<prefix>"'
    )
    endpoint: Endpoint | None = entry(None, "S3 endpoint, where it is not the provider's own")
    region: Text | None = entry(None, "S3 region")
    encryption_key_file: FilePath | None = entry(
        None, "32 random bytes, as 64 hex digits; encrypts all points. Keep a copy elsewhere: without it they are lost"
    )
    full: When = entry("0 3 * * 0", "When to take a full point (cron line or interval)")
    differential: When | None = entry(None, "When to take what changed since the last full point")
    incremental: When | None = entry("10m", "When to take what changed since the last point of any kind")
    verify: When | None = entry("1d", "When to verify all points' structure and, in turn, a seventh of their data")
    drill: When | None = entry(None, "When to prove that the newest point restores, by a second gateway")
    jitter: Duration = entry("30s", "Each run begins up to this much later, the same for one machine")
    chain: Annotated[int, Field(ge=1, le=1000)] = entry(48, "Longest chain; the point after it is full")
    core: Percent = entry("50%", "Most of one processor core that this work takes; 0% = no limit")
    bandwidth: Size = entry("0", "Most bytes a second to and from the repository; 0 = no limit")
    keep: Keep = entry(DEFAULT_KEEP, "How many points to keep; the rules are joined by or")
    timezone: Text = entry("UTC", "Zone of calendar hours, days, weeks, months and years")
    targets: Targets = entry({}, "What a drill is measured against, and when an alert is due")
    heartbeat: HttpUrl | None = entry(None, "Asked for by GET after each point that was taken and each drill passed")
    runbooks: FilePath | None = entry(None, "Directory of further runbooks (*.toml)")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f'must be a time zone such as "Europe/Berlin", got {shown(value)}') from None
        return value

    @field_validator("keep")
    @classmethod
    def _not_empty(cls, value: Keep) -> Keep:
        if not any(value.model_dump().values()):
            raise ValueError("must keep something: every rule is zero")
        return value
