"""From a route's tables to its rules, once, at load. Most routes have none: every field is then empty.

One rule: the order is here and nowhere else. A request passes `steps` as they stand; `outbound` acts when a backend is
asked (strip_prefix, rewrite, request_headers), `delivery` when a head is written to the client.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from dataclasses import dataclass

from edge.config.rules import RateLimit, RequestHeaders, Respond, RouteRules
from edge.dataplane.rules.access import Access
from edge.dataplane.rules.answers import TEXT, Redirect
from edge.dataplane.rules.answers import Respond as FixedAnswer
from edge.dataplane.rules.asked import Asked
from edge.dataplane.rules.compression import Compression
from edge.dataplane.rules.delivery import Delivery
from edge.dataplane.rules.headers import HeaderEdit
from edge.dataplane.rules.limits import Concurrency
from edge.dataplane.rules.limits import RateLimit as RateLimiter
from edge.dataplane.rules.matching import Match, compiled
from edge.dataplane.rules.outbound import Outbound
from edge.dataplane.rules.steps import Step, explained
from edge.dataplane.rules.target import TargetRule

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one route."""

    match: Match | None = None
    steps: tuple[Step, ...] = ()
    outbound: Outbound | None = None
    delivery: Delivery | None = None
    plain: bool = True  # a hit needs no more than the stored lines

    def explain(self, asked: Asked) -> list[dict[str, str]]:
        """What each rule would do with a request, in their order."""
        rows = explained(self.steps, asked)
        if self.outbound is not None:
            rows += self.outbound.explain(asked)
        if self.delivery is not None:
            rows += self.delivery.explain(asked)
        return rows


NO_RULES = RuleSet()


def compile_rules(values: RouteRules, read: ReadFile) -> RuleSet:
    """A route's rules. Raises OSError for a file that cannot be read."""
    match, steps, delivery = compiled(values.match, values.path_regex), _steps(values, read), _delivery(values)
    plain = match is None and not steps and values.response_headers is None
    return RuleSet(match, steps, _outbound(values), delivery, plain)


def _steps(values: RouteRules, read: ReadFile) -> tuple[Step, ...]:
    steps: list[Step] = []
    if values.allow or values.deny:
        steps.append(Access(values.allow, values.deny))
    if values.rate_limit is not None:
        steps.append(_rate_limit(values.rate_limit))
    if values.concurrency is not None:
        steps.append(Concurrency(values.concurrency.per_client, values.concurrency.total))
    if values.redirect is not None:
        steps.append(Redirect(values.redirect.to, values.redirect.status))
    if values.respond is not None:
        steps.append(_fixed_answer(values.respond, read))
    return tuple(steps)


def _rate_limit(values: RateLimit) -> RateLimiter:
    count, seconds = values.rate
    unit = {1.0: "s", 60.0: "m", 3600.0: "h", 86400.0: "d"}[seconds]
    return RateLimiter(f"{count}/{unit}", count / seconds, values.burst or count, values.by, values.clients)


def _fixed_answer(values: Respond, read: ReadFile) -> FixedAnswer:
    if values.file is None:
        return FixedAnswer(values.status, values.body.encode(), TEXT, values.headers)
    kind = mimetypes.guess_type(values.file)[0] or "application/octet-stream"
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return FixedAnswer(values.status, read(values.file), kind, values.headers)


def _outbound(values: RouteRules) -> Outbound | None:
    target = None
    if values.strip_prefix is not None or values.rewrite is not None:
        target = TargetRule(values.strip_prefix, values.rewrite)
    edit, host = None, None
    if values.request_headers is not None:
        edit, host = _request_edit(values.request_headers)
    return None if target is None and edit is None and host is None else Outbound(target, edit, host)


def _request_edit(values: RequestHeaders) -> tuple[HeaderEdit | None, str | None]:
    """The edit of the lines, and apart from it the Host, of which there is exactly one."""
    to_set = {name: text for name, text in values.set.items() if name.lower() != "host"}
    host = next((text for name, text in values.set.items() if name.lower() == "host"), None)
    if not (to_set or values.add or values.remove):
        return None, host
    return HeaderEdit(to_set, values.add, values.remove), host


def _delivery(values: RouteRules) -> Delivery | None:
    found, edit = values.response_headers, None
    if found is not None and (found.set or found.add or found.remove):
        edit = HeaderEdit(found.set, found.add, found.remove)
    coded = values.compress
    compression = None if coded is None else Compression(coded.codings, coded.types, coded.min, coded.level)
    wanted = edit is not None or compression is not None or values.rate_limit is not None
    return Delivery(edit, compression) if wanted else None
