"""Short forms for the pure tests of the cache: requests, responses and stored responses from text."""

from __future__ import annotations

from dataclasses import replace

from edge.cache.freshness import Times
from edge.cache.rules import Rules, SetCookie
from edge.cache.stored import Plan, Stored, build
from edge.cache.storing import storing
from edge.cache.verdict import Reason
from edge.http.dates import format_date
from edge.http.field_line import NO_LINE, field_lines, fields_of
from edge.http.grammar import Limits
from edge.http.message import Fields, RequestHead, ResponseHead

NOW = 1_800_000_000.0
OPEN = Rules(set_cookie=SetCookie.STORE)  # the transparent cache that the conformance suite measures


def fields(*lines: str) -> Fields:
    """`fields("Name: value", …)`; obs-text as Latin-1."""
    split = [line.partition(":") for line in lines]
    return Fields((name.encode("latin-1"), value.strip(" \t").encode("latin-1")) for name, _, value in split)


def date(offset: float = 0.0) -> str:
    """An HTTP date some seconds from NOW."""
    return format_date(NOW + offset).decode()


MA = "Cache-Control: max-age=3600"
LM = f"Last-Modified: {date(-86400)}"
DATE = f"Date: {date()}"


def request(*lines: str, method: str = "GET", target: str = "/a") -> RequestHead:
    """A request to http://example.com."""
    return RequestHead(method.encode(), b"http", b"example.com", target.encode("latin-1"), fields(*lines))


def response(*lines: str, status: int = 200) -> ResponseHead:
    """A response head with just these lines."""
    return ResponseHead(status, b"OK" if status == 200 else b"Some", fields(*lines))


def times(delay: float = 0.0, at: float = NOW) -> Times:
    """Received at `at`, asked for `delay` seconds before."""
    return Times(at - delay, at)


def outcome(*lines: str, status: int = 200, asked: RequestHead | None = None, rules: Rules = OPEN) -> Plan | Reason:
    """What storing says."""
    return storing(asked or request(), response(*lines, status=status), rules, times())


def lifetime(*lines: str, status: int = 200, rules: Rules = OPEN) -> float | None:
    """For how many seconds it is fresh; None when it is not stored."""
    plan = outcome(*lines, status=status, rules=rules)
    return plan.lifetime_s if isinstance(plan, Plan) else None


def stored(
    *lines: str,
    status: int = 200,
    asked: RequestHead | None = None,
    rules: Rules = OPEN,
    body: bytes = b"0123456789",
    at: float = NOW,
) -> Stored:
    """A stored response; fails when it is not storable."""
    plan = storing(asked or request(), response(*lines, status=status), rules, times(at=at))
    assert isinstance(plan, Plan), plan
    return build(plan, (body,) if body else ())


def at_home(rules: Rules = OPEN, **changes: object) -> Rules:
    """Rules with changes."""
    return replace(rules, **changes)  # type: ignore[arg-type]


def split_lines(block: bytes, limits: Limits) -> Fields | None:
    """The field lines of a block that ends in CRLF (or is empty), by the grammar; None when it is not proven."""
    lines = field_lines(block, limits.line_bytes, limits.fields)
    return None if lines is None or NO_LINE in lines else fields_of(lines)
