"""From a route's tables to its rules, once, at load. Most routes have none: every field is then empty.

One rule: the order is here and nowhere else. A request passes `steps` as they stand; `outbound` acts when a backend is
asked (strip_prefix, rewrite, request_headers), `delivery` when a head is written to the client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from edge.config.auth import Auth, ServiceUrl, parse_service
from edge.config.rule_values import statuses_of
from edge.config.rules import RateLimit, RequestHeaders, Respond, RouteRules
from edge.dataplane.rules.access import Access
from edge.dataplane.rules.answers import TEXT, Redirect
from edge.dataplane.rules.answers import Respond as FixedAnswer
from edge.dataplane.rules.asked import Asked
from edge.dataplane.rules.bandwidth import Bandwidth
from edge.dataplane.rules.bodies import Bodies, Page
from edge.dataplane.rules.compression import Compression
from edge.dataplane.rules.delivery import Delivery
from edge.dataplane.rules.headers import HeaderEdit
from edge.dataplane.rules.limits import Concurrency, Share
from edge.dataplane.rules.limits import RateLimit as RateLimiter
from edge.dataplane.rules.locations import Locations
from edge.dataplane.rules.matching import Match, compiled
from edge.dataplane.rules.mirror import Mirror, Send
from edge.dataplane.rules.outbound import Outbound
from edge.dataplane.rules.running import Owners, counts_of
from edge.dataplane.rules.service import Service
from edge.dataplane.rules.shares import Affinity, Split
from edge.dataplane.rules.steps import Step, explained
from edge.dataplane.rules.target import TargetRule
from edge.http.credentials import CERTIFICATE_WORDS
from edge.ports import Link


class Tools(NamedTuple):
    """What rules need from outside: files, clocks, connections."""

    read: Callable[[str], bytes]  # a file; raises OSError
    dial: Callable[[str, str, int], Link]  # scheme, host, port
    forwarding: Callable[[Any], bytes]  # what the gateway asserts of a request's client
    copy: Send  # to a shadow pool
    secret: Callable[[], bytes]  # the same in all workers
    warn: Callable[[str], None]
    share: Share  # memory of all workers, by name
    owners: Owners  # of columns in it


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The compiled rules of one route."""

    match: Match | None = None
    steps: tuple[Step, ...] = ()
    outbound: Outbound | None = None
    delivery: Delivery | None = None
    plain: bool = True  # a hit needs no more than the stored lines
    bodies: Bodies | None = None
    affinity: Affinity | None = None

    def services(self) -> list[Service]:
        """What its steps ask; each has deadlines, and connections that end with the route."""
        found = (getattr(step, "service", None) for step in self.steps)
        return [each for each in found if each is not None]

    def explain(self, asked: Asked) -> list[dict[str, str]]:
        """What each rule would do with a request, in order."""
        rows = explained(self.steps, asked)
        if self.outbound is not None:
            rows += self.outbound.explain(asked)
        if self.bodies is not None and self.bodies.compression is not None:
            rows.append({"rule": "compress", "does": self.bodies.compression.explain(asked)})
        if self.delivery is not None:
            rows += self.delivery.explain(asked)
        return rows


NO_RULES = RuleSet()


def compile_rules(values: RouteRules, tools: Tools) -> RuleSet:
    """A route's rules. Raises OSError for a file that cannot be read, ValueError for one that makes no sense."""
    affinity = None
    if values.affinity is not None:
        affinity = Affinity(values.affinity.cookie, tools.secret())
    match, steps, delivery = (
        compiled(values.match, values.path_regex),
        _steps(values, tools),
        _delivery(values, affinity),
    )
    plain = match is None and not steps and (delivery is None or delivery.is_plain)
    return RuleSet(match, steps, _outbound(values), delivery, plain, _bodies(values, tools), affinity)


def _steps(values: RouteRules, tools: Tools) -> tuple[Step, ...]:
    steps: list[Step] = []
    if values.allow or values.deny:
        steps.append(Access(values.allow, values.deny))
    if values.rate_limit is not None:
        steps.append(_rate_limit(values.rate_limit, tools.share))
    if values.concurrency is not None:
        counts = counts_of(tools.share, tools.owners)
        steps.append(Concurrency(values.concurrency.per_client, values.concurrency.total, counts))
    if values.auth is not None:
        steps.append(_auth(values.auth, tools))
    if values.redirect is not None:
        steps.append(Redirect(values.redirect.to, values.redirect.status))
    if values.respond is not None:
        steps.append(_fixed_answer(values.respond, tools))
    if values.bandwidth is not None:
        pace = values.bandwidth
        steps.append(Bandwidth(pace.rate, pace.burst, pace.by))
    if values.split:
        steps.append(Split([each.pool for each in values.split], [each.weight for each in values.split], values.sticky))
    if values.mirror is not None:
        steps.append(Mirror(values.mirror.pool, values.mirror.share, values.mirror.max_body, tools.copy))
    return tuple(steps)


def _rate_limit(values: RateLimit, share: Share) -> RateLimiter:
    count, seconds = values.rate
    unit = {1.0: "s", 60.0: "m", 3600.0: "h", 86400.0: "d"}[seconds]
    limit = f"{count}/{unit}"
    return RateLimiter(limit, count / seconds, values.burst or count, values.by, values.clients, share)


def _auth(values: Auth, tools: Tools) -> Step:
    if values.basic is not None:
        from edge.dataplane.rules.authentication import (
            BasicAuth,  # here and below: a start has no use for what no route has
        )
        from edge.dataplane.rules.passwords import PasswordFile

        text = tools.read(values.basic).decode("utf-8", "replace")
        return BasicAuth(PasswordFile(text, values.basic), values.realm)
    if values.forward is not None:
        from edge.dataplane.rules.forward_auth import ForwardAuth

        return ForwardAuth(_service(values.forward, values.timeout, tools), values.copied, tools.forwarding)
    if values.client_certificate:
        from edge.dataplane.rules.authentication import CertificateAuth

        return CertificateAuth()
    from edge.dataplane.rules.tokens import JwtAuth, Keys

    token = values.jwt
    assert token is not None  # one of the four is given
    if "://" in token.jwks:
        service = _service(parse_service(token.jwks), values.timeout, tools)
        return JwtAuth(Keys(service, None), token)
    return JwtAuth(Keys(None, tools.read(token.jwks)), token)


def _service(url: ServiceUrl, seconds: float, tools: Tools) -> Service:
    host = url.authority.encode()
    return Service(tools.dial(url.scheme, url.host, url.port), url.scheme, host, url.target.encode(), seconds)


def _granted(values: Auth | None) -> tuple[str, ...]:
    """The fields that authentication adds for the backend."""
    if values is None:
        return ()
    if values.client_certificate:
        return tuple(name.decode() for name in CERTIFICATE_WORDS)
    return (*values.copied, *(values.jwt.headers if values.jwt is not None else ()))


def _fixed_answer(values: Respond, tools: Tools) -> FixedAnswer:
    if values.file is None:
        return FixedAnswer(values.status, values.body.encode(), TEXT, values.headers)
    return FixedAnswer(values.status, tools.read(values.file), content_type(values.file), values.headers)


def _outbound(values: RouteRules) -> Outbound | None:
    target = None
    if values.strip_prefix is not None or values.rewrite is not None:
        target = TargetRule(values.strip_prefix, values.rewrite)
    edit, host = None, None
    if values.request_headers is not None:
        edit, host = _request_edit(values.request_headers)
    granted = _granted(values.auth)
    wanted = target is not None or edit is not None or host is not None or granted
    return Outbound(target, edit, host, granted) if wanted else None


def _request_edit(values: RequestHeaders) -> tuple[HeaderEdit | None, str | None]:
    """The edit of the lines, and apart from it the Host, of which there is exactly one."""
    to_set = {name: text for name, text in values.set.items() if name.lower() != "host"}
    host = next((text for name, text in values.set.items() if name.lower() == "host"), None)
    if not (to_set or values.add or values.remove):
        return None, host
    return HeaderEdit(to_set, values.add, values.remove), host


def _delivery(values: RouteRules, affinity: Affinity | None) -> Delivery | None:
    found, edit = values.response_headers, None
    if found is not None and (found.set or found.add or found.remove):
        edit = HeaderEdit(found.set, found.add, found.remove)
    places = _locations(values)
    wanted = edit or affinity or places or values.rate_limit or values.split
    return Delivery(edit, affinity, places) if wanted else None


def _locations(values: RouteRules) -> Locations | None:
    """The mapping of Location and cookies; None where nothing is mapped."""
    edit = values.request_headers
    host = None if edit is None else next((text for name, text in edit.set.items() if name.lower() == "host"), None)
    if not values.map_back or (values.strip_prefix is None and host is None and values.preserve_host):
        return None
    return Locations(values.strip_prefix, host, values.preserve_host)


def _bodies(values: RouteRules, tools: Tools) -> Bodies | None:
    coded = values.compress
    compression = None if coded is None else Compression(coded.codings, coded.types, coded.min, coded.level)
    pages = {}
    for statuses, path in values.error_pages.items():
        try:
            page = Page(content_type(path).encode(), tools.read(path))
        except OSError as error:
            tools.warn(f"error_pages: {error.filename}: {error.strerror}: errors are answered plainly")
            continue
        pages.update(dict.fromkeys(statuses_of(statuses), page))
    paced = values.bandwidth is not None  # then no body goes out beside `Exchange.body`
    return Bodies(pages, compression) if pages or paced or compression is not None else None


def content_type(path: str) -> str:
    """The media type of a file, by its name."""
    import mimetypes  # not cheap: a start waits for it

    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
