"""The values in rules of routes: texts with placeholders, patterns, field names, rates, codings.

One rule: whatever could break a message or run away is refused here, at its place in the file: a line end in a header,
a field that frames a message, a placeholder that nobody knows, a pattern that only a backtracking engine takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator

from edge.config.positions import nearest
from edge.config.types import (
    ValueKind,
    parse_positive_size,
    shown,
)

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
_OF_REQUEST = re.compile(r"(?:header|cookie):[A-Za-z0-9!#$%&'+.^_`|~-]+")
GROUP = re.compile(r"\$\$|\$(?:([0-9])|\{([0-9]{1,2})\})")
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
    if not re.match(r"(?:https?|\{scheme\})://[^/]|/(?![/\\])|\{(?:path|uri)\}", text) or " " in text or "\t" in text:
        raise ValueError(f'must be a URL such as "https://{{host}}{{uri}}" or a path, got {shown(value)}')
    if re.match(r"(?:https?|\{scheme\})://\{(?:path|uri|query)\}", text):
        raise ValueError(f"has no host: write https://{{host}}{{uri}}, got {shown(value)}")
    return text


def parse_pattern(value: object) -> str:
    """A regular expression that runs in linear time (RE2)."""
    if not isinstance(value, str) or not value or not value.isascii():
        raise ValueError(f'must be a regular expression such as "^/v[0-9]+/", got {shown(value)}')
    if find_spec("re2") is None:
        raise ValueError("needs google-re2, which never runs away: pip install 'streamgate[regex]'")
    compile_pattern(value)
    return value


def compile_pattern(text: str) -> Any:
    """The pattern over bytes. Raises ValueError."""
    import re2  # here, for most files have no pattern

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        said = error.args[0].decode("latin-1") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"is no pattern that runs in linear time: {said}, got {shown(text)}") from None


def match_range(text: str, longest: int) -> tuple[bytes, bytes] | None:
    """Between which bytes all lies that a pattern matches; None where its engine cannot tell."""
    import re2

    try:
        low, high = compile_pattern(text).possiblematchrange(longest)
    except re2.error:
        return None
    return low, high


def parse_rate(value: object) -> tuple[int, float]:
    """`"100/s"` as (100, 1.0): how many in how many seconds."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})/([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'must be a rate such as "100/s", "60/m" or "1000/h", got {shown(value)}')
    return int(found[1]), {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[found[2]]


def parse_byte_rate(value: object) -> int:
    """`"500KiB/s"` as bytes."""
    size, _, unit = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        if unit == "s":
            return parse_positive_size(size)
    except ValueError:
        pass  # told below, in the words for a rate
    raise ValueError(f'must be bytes in a second such as "500KiB/s", got {shown(value)}')


def parse_limit_by(value: object) -> str:
    """What a rate limit counts by."""
    return _by(value, ("client", "route"))


def parse_bandwidth_by(value: object) -> str:
    """What shares a bandwidth."""
    return _by(value, ("response", "client", "route"))


def _by(value: object, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or (value not in words and _OF_REQUEST.fullmatch(value) is None):
        near = nearest(value, [*words, "header:<name>", "cookie:<name>"]) if isinstance(value, str) else None
        hint = f', did you mean "{near}"?' if near else ""
        known = "".join(f'"{word}", ' for word in words)
        raise ValueError(f'must be {known}"header:<name>" or "cookie:<name>", got {shown(value)}{hint}')
    return value


def statuses_of(text: str) -> range:
    """`"502-504"` or `"404"`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def parse_error_statuses(value: object) -> str:
    """The statuses of a page, as the key of a table."""
    form = r"[45][0-9]{2}(?:-[45][0-9]{2})?"
    if not isinstance(value, str) or re.fullmatch(form, value) is None or not statuses_of(value):
        raise ValueError(f'must be statuses of errors such as "404" or "502-504", got {shown(value)}')
    return value


def parse_sticky(value: object) -> str:
    """How a client comes back to the same pool of a split."""
    if value == "cookie":
        return "cookie:edge_split"
    if not isinstance(value, str) or re.fullmatch(r"none|client|cookie:[A-Za-z0-9!#$%&'+.^_`|~-]+", value) is None:
        near = nearest(value, ["none", "client", "cookie"]) if isinstance(value, str) else None
        hint = f', did you mean "{near}"?' if near else ""
        raise ValueError(f'must be "none", "client", "cookie" or "cookie:<name>", got {shown(value)}{hint}')
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


def _by_name(value: object) -> object:
    """Names in a table of fields are the same in any case."""
    if isinstance(value, dict):
        seen: dict[str, str] = {}
        for name in value:
            if seen.setdefault(name.lower(), name) != name:
                raise ValueError(f'names the field "{name}" twice')
    return value


ErrorStatuses = Annotated[str, PlainValidator(parse_error_statuses), ValueKind("statuses")]
Sticky = Annotated[str, PlainValidator(parse_sticky), ValueKind("text")]
Coding = Annotated[str, PlainValidator(parse_coding), ValueKind("coding")]
MediaType = Annotated[str, PlainValidator(parse_media_type), ValueKind("media type or glob")]
Rate = Annotated[tuple[int, float], PlainValidator(parse_rate), ValueKind("rate")]
ByteRate = Annotated[int, PlainValidator(parse_byte_rate), ValueKind("bytes in a second")]
BandwidthBy = Annotated[str, PlainValidator(parse_bandwidth_by), ValueKind("text")]
LimitBy = Annotated[str, PlainValidator(parse_limit_by), ValueKind("text")]
Pattern = Annotated[str, PlainValidator(parse_pattern), ValueKind("regular expression")]
TemplateText = Annotated[str, PlainValidator(parse_template), ValueKind("text with placeholders")]
RedirectTarget = Annotated[str, PlainValidator(parse_redirect_target), ValueKind("URL or path with placeholders")]
RequestField = Annotated[str, PlainValidator(_not_of(NOT_FOR_ORIGINS)), ValueKind("field name")]
ProbeField = Annotated[str, PlainValidator(_not_of(FRAMING | {"host"})), ValueKind("field name")]
ResponseField = Annotated[str, PlainValidator(_not_of(NOT_FOR_CLIENTS)), ValueKind("field name")]
AnyField = Annotated[str, PlainValidator(_not_of(frozenset())), ValueKind("field name")]
OtherField = Annotated[RequestField, AfterValidator(_not_host)]
Fields = Annotated[dict[RequestField, TemplateText], BeforeValidator(_by_name)]
MoreFields = Annotated[dict[OtherField, TemplateText], BeforeValidator(_by_name)]
AnswerFields = Annotated[dict[ResponseField, TemplateText], BeforeValidator(_by_name)]
