"""The tables of what a route does besides forwarding: conditions, header rules, rewrites, redirects, access, limits.

Values only; how each is written is in `rule_values`, who may ask in `auth`.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from edge.config.auth import Auth
from edge.config.cache import Switch
from edge.config.names import Method, OneArgument, OneCookie, PathPrefix
from edge.config.paths import FilePath
from edge.config.rule_values import (
    COMPRESSED_TYPES,
    GROUP,
    KNOWN_CODINGS,
    AnswerFields,
    AnyField,
    BandwidthBy,
    ByteRate,
    Coding,
    ErrorStatuses,
    Fields,
    LimitBy,
    MediaType,
    MoreFields,
    OtherField,
    Pattern,
    Rate,
    RedirectTarget,
    ResponseField,
    Sticky,
    compile_pattern,
)
from edge.config.types import (
    AtLeastOne,
    Cidr,
    Count,
    Many,
    Name,
    Percent,
    Section,
    Size,
    Weight,
    entry,
    shown,
)

# -- tables ------------------------------------------------------------------------------------------------------------


class Match(Section):
    """`match`: conditions besides host and path; all of them have to hold."""

    methods: Many[Method] = entry([], "Any of these methods")
    headers: dict[AnyField, str] = entry({}, 'Each field has this value; "*" = it is there, "" = it is not')
    query: dict[OneArgument, str] = entry({}, 'Each argument has this value; "*" = it is there, "" = it is not')
    cookies: dict[OneCookie, str] = entry({}, 'Each cookie has this value; "*" = it is there, "" = it is not')
    clients: Many[Cidr] = entry([], "The client's address is in one of these networks")
    scheme: str | None = entry(None, '"http" or "https": what the client speaks')

    @field_validator("scheme")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        if value not in (None, "http", "https"):
            raise ValueError(f'must be "http" or "https", got {shown(value)}')
        return value


class RequestHeaders(Section):
    """`request_headers`: what a backend gets."""

    set: Fields = entry({}, "Fields in place of the client's and the gateway's own")
    add: MoreFields = entry({}, "Further lines, beside what the client sent")
    remove: Many[OtherField] = entry([], "Fields that do not go on")


class ResponseHeaders(Section):
    """`response_headers`: what a client gets; what is stored stays as the origin sent it."""

    set: AnswerFields = entry({}, "Fields in place of the origin's and the gateway's own")
    add: AnswerFields = entry({}, "Further lines, beside what the origin sent")
    remove: Many[ResponseField] = entry([], "Fields that do not go on")


class Rewrite(Section):
    """`rewrite`: another path for the backend."""

    match: Pattern = entry(..., "Regular expression (RE2) over path and query, after strip_prefix")
    to: str = entry(..., 'What is sent instead, with groups: "/new/$1"; $$ is a dollar')

    @model_validator(mode="after")
    def _groups(self) -> Rewrite:
        if not self.to.startswith(("/", "$")) or not re.fullmatch(r"[!-~]+", self.to) or "#" in self.to:
            raise ValueError(f'to must be a path such as "/new/$1", got {shown(self.to)}')
        groups = compile_pattern(self.match).groups
        for found in GROUP.finditer(self.to):
            number = int(found[1] or found[2] or 0)
            if number > groups:
                raise ValueError(f"to names group {number}, but match has {groups}")
        return self


class Redirect(Section):
    """`redirect`: the client is sent elsewhere; a request that asks for that very place goes on."""

    to: RedirectTarget = entry(..., "URL or path, with placeholders")
    status: int = entry(302, "301, 302, 303, 307 or 308")

    @field_validator("status")
    @classmethod
    def _redirects(cls, value: int) -> int:
        if value not in (301, 302, 303, 307, 308):
            raise ValueError(f"must be 301, 302, 303, 307 or 308, got {value}")
        return value


class Respond(Section):
    """`respond`: a fixed answer."""

    status: Annotated[int, Field(ge=200, le=599)] = entry(200, "Its status")
    body: str = entry("", "Its body; no placeholders, so nothing that a client sent comes back")
    file: FilePath | None = entry(None, "Or a file with the body, read at the start; its type is told by its name")
    headers: AnswerFields = entry({}, "Its fields; without Content-Type it is text/plain")

    @model_validator(mode="after")
    def _one_body(self) -> Respond:
        if self.file is not None and self.body:
            raise ValueError("has body or file, not both")
        if self.status in (204, 205, 304) and (self.body or self.file):
            raise ValueError(f"a {self.status} has no body")
        return self


class RateLimit(Section):
    """`rate_limit`: how often; more is 429 with Retry-After."""

    rate: Rate = entry(..., 'Requests in a time, such as "100/s", "60/m", "1000/h"')
    burst: AtLeastOne | None = entry(None, "How many may come at once; left out: the number in rate")
    by: LimitBy = entry("client", '"client" (IPv6 by /64), "header:<name>", "cookie:<name>" or "route" as a whole')
    clients: AtLeastOne = entry(
        65536, "Clients that are remembered at once, 16 bytes each; the least active one gives way"
    )


class Concurrency(Section):
    """`concurrency`: how many requests run at once, in all workers together."""

    per_client: Count = entry(0, "Of one client (IPv6 by /64); more are 429; 0 = no limit")
    total: Count = entry(0, "On the route; more are 503; 0 = no limit")


class Bandwidth(Section):
    """`bandwidth`: how fast bodies of responses go to clients; backends are held back accordingly."""

    rate: ByteRate = entry(..., 'Bytes in a second, such as "500KiB/s"')
    burst: Size = entry("0", "How much may go at once before that; at least what flows in half a second")
    by: BandwidthBy = entry(
        "response",
        '"response", or who shares, in each worker: "client" (IPv6: /64), "header:<name>", "cookie:<name>", "route"',
    )


class Compress(Section):
    """`compress`: content codings that the gateway makes."""

    codings: Annotated[Many[Coding], Field(min_length=1)] = entry(
        list(KNOWN_CODINGS), "Which, best first; the client's weights come before"
    )
    types: Many[MediaType] = entry(list(COMPRESSED_TYPES), 'Media types, "text/*" for all of a kind')
    min: Size = entry("1KiB", "A smaller body goes as it is")
    level: AtLeastOne | None = entry(
        None, "1 to 9; left out: zstd 3, br 4, gzip 6, never more for what comes in pieces"
    )

    @field_validator("level")
    @classmethod
    def _a_level(cls, value: int | None) -> int | None:
        if value is not None and value > 9:
            raise ValueError(f"must be at most 9, got {value}")
        return value


class Share(Section):
    """`split`: one of the pools."""

    pool: Name = entry(..., "Pool that serves this share")
    weight: Weight = entry(1, "Its share, beside the others'")


class Mirror(Section):
    """`mirror`: a copy for another pool; the answer to it is dropped."""

    pool: Name = entry(..., "Pool that gets the copies")
    share: Percent = entry("100%", "Of the requests")
    max_body: Size = entry("64KiB", "A request with a larger body is not copied; it is kept until it is whole")


class Affinity(Section):
    """`affinity`: a client comes back to its backend, while that may serve."""

    cookie: OneCookie = entry("edge_b", "Cookie that names the backend, in a form that clients cannot forge")


class RouteRules(Section):
    """The keys of a route that are its rules; `config.routing.Route` has them too."""

    path_regex: Pattern | None = entry(None, "Regular expression (RE2) that the normalised path has to match as well")
    match: Match | None = entry(None, "Conditions besides host and path; the first route that fits serves")
    allow: Many[Cidr] = entry([], "Client networks that are served (403 for others); empty = all")
    deny: Many[Cidr] = entry([], "Client networks that are not served (403)")
    rate_limit: RateLimit | None = entry(None, "How often a client may ask, of all workers together")
    concurrency: Concurrency | None = entry(None, "How many requests may run at once, in all workers together")
    bandwidth: Bandwidth | None = entry(None, "How fast bodies of responses go to clients")
    auth: Auth | None = entry(None, "Who may ask, by password, token, external service or client certificate")
    redirect: Redirect | None = entry(None, "Send the client elsewhere; needs no pool")
    respond: Respond | None = entry(None, "Answer from here; needs no pool")
    split: Many[Share] = entry(
        [], "Share requests among pools by weight, in each worker; each pool's answers are stored apart"
    )
    sticky: Sticky = entry("none", 'Who came to a pool of a split comes back: "client", "cookie", "cookie:<name>"')
    mirror: Mirror | None = entry(None, "Copy requests to another pool; no client notices")
    affinity: Affinity | None = entry(None, "A client comes back to its backend")
    strip_prefix: PathPrefix | None = entry(None, "Left out of the path that the backend gets")
    rewrite: Rewrite | None = entry(None, "Another path for the backend")
    preserve_host: bool = entry(True, "Send the client's Host on; false = the backend's own")
    map_back: bool = entry(True, "Location and cookies follow strip_prefix and another Host than the client's")
    request_headers: RequestHeaders | None = entry(None, "Fields of the request as the backend gets it")
    compress: Switch[Compress] = entry(None, "Compress responses: true or a table; not where secrets are mixed in")
    error_pages: dict[ErrorStatuses, FilePath] = entry({}, "Files in place of errors' bodies, the gateway's own too")
    response_headers: ResponseHeaders | None = entry(None, "Fields of the response as the client gets it")
