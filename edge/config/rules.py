"""The tables of what a route does besides forwarding: conditions, header rules, rewrites, redirects, access.

One rule: whatever could break a message or run away is refused here, at its place in the file: a line end in a header,
a field that frames a message, a placeholder that nobody knows, a pattern that only a backtracking engine takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, field_validator, model_validator

from edge.config.cache import Switch
from edge.config.names import Argument, CookieName, Method, PathPrefix
from edge.config.positions import nearest
from edge.config.types import AtLeastOne, Cidr, Count, FilePath, Kind, Many, Section, Size, entry, shown

try:
    import re2
except ImportError:  # an extra: without it no pattern is accepted
    re2 = None

PLACEHOLDER = re.compile(r"\{\{|\{([a-z_]+)(?::([A-Za-z0-9!#$%&'*+.^_`|~-]+))?\}")
PLACEHOLDERS = (
    "authority",
    "client",
    "country",
    "host",
    "method",
    "path",
    "query",
    "region",
    "request_id",
    "scheme",
    "uri",
    "user",
)
WITH_ARGUMENT = ("cookie", "header", "query")
KNOWN_CODINGS = ("zstd", "br", "gzip") if find_spec("brotli") else ("zstd", "gzip")
COMPRESSED_TYPES = (
    "text/*",
    "application/javascript",
    "application/json",
    "application/*+json",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "application/x-ndjson",
    "image/svg+xml",
    "font/ttf",
    "font/otf",
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PRINTABLE = re.compile(r"[\t -~]*")
_GROUP = re.compile(r"\$\$|\$(?:([0-9])|\{([0-9]{1,2})\})")
# Framing and what ends at each hop: the gateway's alone, in both directions.
FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
NOT_FOR_ORIGINS = FRAMING | {"cdn-loop", "via", "x-request-id"}
NOT_FOR_CLIENTS = FRAMING | {"content-encoding", "content-range", "date"}


# -- texts -------------------------------------------------------------------------------------------------------------


def parse_template(value: object) -> str:
    """A text of printable ASCII in which every placeholder is known."""
    if not isinstance(value, str) or _PRINTABLE.fullmatch(value) is None:
        raise ValueError(f"must be one line of printable ASCII, got {shown(value)}")
    for found in PLACEHOLDER.finditer(value):
        if found[0] != "{{":
            _check_placeholder(found[1], found[2])
    return value


def _check_placeholder(name: str, argument: str | None) -> None:
    if argument is None and name in PLACEHOLDERS:
        return
    if argument is not None and name in WITH_ARGUMENT:
        return
    if argument is None and name in WITH_ARGUMENT:
        raise ValueError(f"placeholder {{{name}}} needs a name: {{{name}:<name>}}")
    near = nearest(name, [*PLACEHOLDERS, *WITH_ARGUMENT])
    hint = f", did you mean {{{near}}}?" if near else f", known: {', '.join(PLACEHOLDERS)}"
    raise ValueError(f"unknown placeholder {{{name}}}{hint} (a brace itself is written {{{{)")


def parse_redirect_target(value: object) -> str:
    """A URL or a path, with placeholders."""
    text = parse_template(value)
    if not re.match(r"(?:https?|\{scheme\})://[^/]|/|\{(?:path|uri)\}", text) or " " in text or "\t" in text:
        raise ValueError(f'must be a URL such as "https://{{host}}{{uri}}" or a path, got {shown(value)}')
    if re.match(r"(?:https?|\{scheme\})://\{(?:path|uri|query)\}", text):
        raise ValueError(f"has no host: write https://{{host}}{{uri}}, got {shown(value)}")
    return text


def parse_pattern(value: object) -> str:
    """A regular expression that runs in linear time (RE2)."""
    if not isinstance(value, str) or not value or not value.isascii():
        raise ValueError(f'must be a regular expression such as "^/v[0-9]+/", got {shown(value)}')
    if re2 is None:
        raise ValueError("needs google-re2, which never runs away: pip install 'streamgate[regex]'")
    compile_pattern(value)
    return value


def compile_pattern(text: str) -> Any:
    """The pattern over bytes. Raises ValueError."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        said = error.args[0].decode("latin-1") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"is no pattern that runs in linear time: {said}, got {shown(text)}") from None


def parse_rate(value: object) -> tuple[int, float]:
    """`"100/s"` as (100, 1.0): how many in how many seconds."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})/([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'must be a rate such as "100/s", "60/m" or "1000/h", got {shown(value)}')
    return int(found[1]), {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[found[2]]


def parse_limit_by(value: object) -> str:
    """What a rate limit counts by."""
    form = r"client|route|(?:header|cookie):[A-Za-z0-9!#$%&'+.^_`|~-]+"
    if not isinstance(value, str) or re.fullmatch(form, value) is None:
        near = nearest(value, ["client", "route", "header:<name>", "cookie:<name>"]) if isinstance(value, str) else None
        hint = f', did you mean "{near}"?' if near else ""
        raise ValueError(f'must be "client", "route", "header:<name>" or "cookie:<name>", got {shown(value)}{hint}')
    return value


def parse_coding(value: object) -> str:
    """A coding that is installed."""
    if value not in KNOWN_CODINGS:
        near = nearest(value, KNOWN_CODINGS) if isinstance(value, str) else None
        hint = f', did you mean "{near}"?' if near else ""
        raise ValueError(f'must be "zstd", "br" or "gzip", got {shown(value)}{hint}')
    if value == "br" and find_spec("brotli") is None:
        raise ValueError("br needs brotli: pip install 'streamgate[compress]'")
    return str(value)


def parse_media_type(value: object) -> str:
    """`"text/html"` or a glob."""
    if not isinstance(value, str) or re.fullmatch(r"[a-z0-9!#$&^_.+*-]+/[a-z0-9!#$&^_.+*-]+", value) is None:
        raise ValueError(f'must be a media type such as "text/html" or "text/*", got {shown(value)}')
    return value


def _not_of(refused: frozenset[str]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
            raise ValueError(f'must be a field name such as "X-Frame-Options", got {shown(value)}')
        if value.lower() in refused:
            raise ValueError(f"{value} is for the gateway alone to say")
        return value

    return parse


def _not_host(name: str) -> str:
    """Of Host there is exactly one: it can only be set."""
    if name.lower() == "host":
        raise ValueError("Host can be set, not added or removed")
    return name


def _no_glob(value: str) -> str:
    if "*" in value:
        raise ValueError(f"is one name and takes no pattern, got {shown(value)}")
    return value


def _by_name(value: object) -> object:
    """Names in a table of fields are the same in any case."""
    if isinstance(value, dict):
        seen: dict[str, str] = {}
        for name in value:
            if seen.setdefault(name.lower(), name) != name:
                raise ValueError(f'names the field "{name}" twice')
    return value


Coding = Annotated[str, PlainValidator(parse_coding), Kind("coding")]
MediaType = Annotated[str, PlainValidator(parse_media_type), Kind("media type or glob")]
Rate = Annotated[tuple[int, float], PlainValidator(parse_rate), Kind("rate")]
LimitBy = Annotated[str, PlainValidator(parse_limit_by), Kind("text")]
Pattern = Annotated[str, PlainValidator(parse_pattern), Kind("regular expression")]
TemplateText = Annotated[str, PlainValidator(parse_template), Kind("text with placeholders")]
RedirectTarget = Annotated[str, PlainValidator(parse_redirect_target), Kind("URL or path with placeholders")]
RequestField = Annotated[str, PlainValidator(_not_of(NOT_FOR_ORIGINS)), Kind("field name")]
ResponseField = Annotated[str, PlainValidator(_not_of(NOT_FOR_CLIENTS)), Kind("field name")]
AnyField = Annotated[str, PlainValidator(_not_of(frozenset())), Kind("field name")]
OtherField = Annotated[RequestField, AfterValidator(_not_host)]
Fields = Annotated[dict[RequestField, TemplateText], BeforeValidator(_by_name)]
MoreFields = Annotated[dict[OtherField, TemplateText], BeforeValidator(_by_name)]
AnswerFields = Annotated[dict[ResponseField, TemplateText], BeforeValidator(_by_name)]
OneCookie = Annotated[CookieName, AfterValidator(_no_glob)]
OneArgument = Annotated[Argument, AfterValidator(_no_glob)]


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
        for found in _GROUP.finditer(self.to):
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
        65536, "How many are known at once in each worker, 16 bytes each; who owes least gives way"
    )


class Concurrency(Section):
    """`concurrency`: how many requests run at once, in each worker."""

    per_client: Count = entry(0, "Of one client (IPv6 by /64); more are 429; 0 = no limit")
    total: Count = entry(0, "On the route; more are 503; 0 = no limit")


class Compress(Section):
    """`compress`: content codings that the gateway makes."""

    codings: Annotated[Many[Coding], Field(min_length=1)] = entry(
        list(KNOWN_CODINGS), "Which, best first; the client's weights come before"
    )
    types: Many[MediaType] = entry(list(COMPRESSED_TYPES), 'Media types, "text/*" for all of a kind')
    min: Size = entry("1KiB", "A smaller body goes as it is")
    level: AtLeastOne | None = entry(None, "1 to 9, of each coding; left out: zstd 3, br 4, gzip 6")

    @field_validator("level")
    @classmethod
    def _a_level(cls, value: int | None) -> int | None:
        if value is not None and value > 9:
            raise ValueError(f"must be at most 9, got {value}")
        return value


class RouteRules(Section):
    """The keys of a route that are its rules; `config.routing.Route` has them too."""

    path_regex: Pattern | None = entry(None, "Regular expression (RE2) that the normalised path has to match as well")
    match: Match | None = entry(None, "Conditions besides host and path; the first route that fits serves")
    allow: Many[Cidr] = entry([], "Client networks that are served (403 for others); empty = all")
    deny: Many[Cidr] = entry([], "Client networks that are not served (403)")
    rate_limit: RateLimit | None = entry(None, "How often a client may ask, in each worker")
    concurrency: Concurrency | None = entry(None, "How many requests may run at once, in each worker")
    redirect: Redirect | None = entry(None, "Send the client elsewhere; needs no pool")
    respond: Respond | None = entry(None, "Answer from here; needs no pool")
    strip_prefix: PathPrefix | None = entry(None, "Left out of the path that the backend gets")
    rewrite: Rewrite | None = entry(None, "Another path for the backend")
    request_headers: RequestHeaders | None = entry(None, "Fields of the request as the backend gets it")
    compress: Switch[Compress] = entry(None, "Codings for clients: true or a table; not where secrets are mixed in")
    response_headers: ResponseHeaders | None = entry(None, "Fields of the response as the client gets it")
