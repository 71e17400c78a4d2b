"""How long a response is fresh and how old it is (RFC 9111 4.2, 9213).

One rule: all dates and directives are read here, once, when a response is stored; a look-up compares two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.cache.rules import Rules
from edge.cache.verdict import Source
from edge.http.cache_control import (
    NONE,
    CacheControl,
    Collector,
    field_names,
    has_no_cache_pragma,
    is_seconds,
    parse_cache_control,
)
from edge.http.dates import parse_date
from edge.http.fields import age_value
from edge.http.message import Fields, ResponseHead
from edge.http.structured import Item, ItemKind, parse_dictionary

# RFC 9110 15.1: statuses that may be stored without explicit freshness.
HEURISTIC = frozenset((200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501))


@dataclass(frozen=True, slots=True)
class Times:
    """When the request was sent to the origin and when the response's head came; epoch seconds."""

    requested_at: float
    received_at: float


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a response is fresh, in seconds, and what says so."""

    seconds: float
    source: Source

    @property
    def explicit(self) -> bool:
        """Whether the origin or the operator said so, not a heuristic: then any status may be stored."""
        return self.source not in (Source.HEURISTIC, Source.NONE)


def policy(fields: Fields, rules: Rules) -> CacheControl:
    """The directives that count: the first targeted field that is valid and not empty, otherwise Cache-Control."""
    for name in rules.targets:
        value = fields.joined(name)
        if value is not None and (members := parse_dictionary(value)):
            return _targeted(members)
    values = fields.get_all(b"cache-control")
    return parse_cache_control(values) if values else NONE


def _targeted(members: dict[bytes, Item]) -> CacheControl:
    """RFC 9213 2.1: numbers are Integers, flags are true; a number of another type is as if it were not there."""
    collector = Collector()
    for name, item in members.items():
        if is_seconds(name):
            if item.kind is ItemKind.INTEGER and isinstance(item.value, int):
                collector.seconds(name, item.value)
        elif item.kind is ItemKind.STRING and isinstance(item.value, bytes):
            collector.flag(name, field_names(item.value))
        elif not (item.kind is ItemKind.BOOLEAN and not item.value):
            collector.flag(name, None)
    return collector.result(targeted=True)


def lifetime(control: CacheControl, head: ResponseHead, rules: Rules, received_at: float) -> Lifetime:
    """The first of: the operator's override, s-maxage, max-age, Expires - Date, the operator's default, a heuristic."""
    fields = head.fields
    if overrides(head, rules) and rules.override_ttl_s is not None:
        return Lifetime(rules.override_ttl_s, Source.OVERRIDE)
    if control.s_maxage is not None:
        return Lifetime(control.s_maxage, Source.TARGETED if control.targeted else Source.S_MAXAGE)
    if control.max_age is not None:
        return Lifetime(control.max_age, Source.TARGETED if control.targeted else Source.MAX_AGE)
    if not control.targeted and (expires := fields.joined(b"expires")) is not None:
        until = parse_date(expires, received_at)
        seconds = 0.0 if until is None else max(0.0, until - date_value(fields, received_at))
        return Lifetime(seconds, Source.EXPIRES)
    default = rules.status_ttl_s.get(head.status)
    if default is None and rules.default_ttl_s > 0 and head.status in HEURISTIC:
        default = rules.default_ttl_s
    if default is not None:
        return Lifetime(default, Source.RULE)
    return _heuristic(control, head, rules, received_at)


def overrides(head: ResponseHead, rules: Rules) -> bool:
    """Whether the operator's override_ttl applies. It does not for 5xx and the like, which nobody means to keep for
    hours.
    """
    return rules.override_ttl_s is not None and head.status in HEURISTIC


def _heuristic(control: CacheControl, head: ResponseHead, rules: Rules, received_at: float) -> Lifetime:
    fields = head.fields
    modified_field = fields.joined(b"last-modified")
    if modified_field is None or not (control.public or head.status in HEURISTIC) or has_no_cache_pragma(fields):
        return Lifetime(0.0, Source.NONE)
    modified = parse_date(modified_field, received_at)
    unchanged = 0.0 if modified is None else date_value(fields, received_at) - modified
    if unchanged <= 0:
        return Lifetime(0.0, Source.NONE)
    return Lifetime(min(unchanged * rules.heuristic_fraction, rules.heuristic_max_s), Source.HEURISTIC)


def date_value(fields: Fields, received_at: float) -> float:
    """The value of Date in epoch seconds; the time of receipt where it is missing or invalid."""
    value = fields.joined(b"date")
    date = parse_date(value, received_at) if value is not None else None
    return received_at if date is None else date


def initial_age(fields: Fields, times: Times) -> float:
    """The age at receipt in seconds (RFC 9111 4.2.3): the larger of the apparent age and Age plus the response
    delay.
    """
    date = date_value(fields, times.received_at)
    return age_at(date, age_value(fields) or 0, times.requested_at, times.received_at)


def age_at(date: float, told: int, requested_at: float, received_at: float) -> float:
    """The same from the values of Date and Age (`told`)."""
    # Date has whole seconds: without the floor a response made in the last moment of a second would seem a second old.
    apparent = float(int(max(0.0, received_at - date)))
    return max(apparent, told + max(0.0, received_at - requested_at))
