"""What the values of the fields that caching looks at mean: lists, entity tags, Age, Vary, languages, codings.

One rule: a value is any bytes and reading it never fails; what does not fit the grammar has a defined, safe meaning.
Cache-Control has a file of its own (`cache_control`), and so have dates (`dates`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice

from edge.http.message import Fields

MAX_MEMBERS = 256  # of any list: reading one must not take long, whatever it holds
LARGEST_S = 2**31  # RFC 9111 1.2.2: what delta-seconds beyond it count as
# A member of a list: no comma outside a quoted string. An unclosed quote runs to the end of its line.
_MEMBER = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
_TAG_MEMBER = re.compile(rb'(?:[^",]|"[^"]*+(?:"|\Z))++')  # in an entity tag a backslash is just a character
_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_WEIGHT = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_MEMO_LONGEST = 256  # longer values are not kept in the memos below


def members(value: bytes) -> list[bytes]:
    """The members of a comma list, outer white space dropped, empty ones left out; quoted strings stay whole.

    At most MAX_MEMBERS of them are read: ask `is_long` where it matters that there are more.
    """
    if b'"' in value:
        found = [match[0] for match in islice(_MEMBER.finditer(value), MAX_MEMBERS)]
    else:
        found = value.split(b",", MAX_MEMBERS)[:MAX_MEMBERS]
    return [part for raw in found if (part := raw.strip(b" \t"))]


def tokens(fields: Fields, name: bytes) -> list[bytes]:
    """The members of a comma list of tokens, lower case, empty ones left out. Raises ValueError past MAX_MEMBERS."""
    value = fields.joined(name)
    if value is None:
        return []
    if value.count(b",") >= MAX_MEMBERS:
        raise ValueError("too many members in a list")
    return [part for raw in value.lower().split(b",") if (part := raw.strip(b" \t"))]


def too_many_cookies(fields: Fields) -> bool:
    """Whether there are more cookies than are read, so that the one which decides may be among the others."""
    lines = fields.get_all(b"cookie")
    return bool(lines) and sum(line.count(b";") for line in lines) + len(lines) > MAX_MEMBERS


def is_long(value: bytes) -> bool:
    """Whether a list may have more members than are read."""
    return value.count(b",") >= MAX_MEMBERS


def delta_seconds(value: bytes) -> int | None:
    """A number of seconds (RFC 9111 1.2.2): digits only, capped at LARGEST_S; None when invalid."""
    if not value.isdigit():
        return None
    return min(int(value), LARGEST_S) if len(value) < 12 else _long_delta(value)


def _long_delta(value: bytes) -> int:
    significant = value.lstrip(b"0")
    return LARGEST_S if len(significant) > 10 else min(int(significant or b"0"), LARGEST_S)


def age_value(fields: Fields) -> int | None:
    """Age in seconds (RFC 9111 5.1): only the first member of the first line counts; None when absent or invalid."""
    values = fields.get_all(b"age")
    return delta_seconds(values[0].partition(b",")[0].strip(b" \t")) if values else None


# -- entity tags (RFC 9110 8.8.3) ---------------------------------------------------------------------------------


def tag_members(value: bytes) -> list[bytes]:
    """The members of a list of entity tags, well-formed or not; at most MAX_MEMBERS of them."""
    found = [match[0] for match in islice(_TAG_MEMBER.finditer(value), MAX_MEMBERS)]
    return [part for raw in found if (part := raw.strip(b" \t"))]


def is_tag(value: bytes) -> bool:
    """Whether the value keeps the grammar of one entity tag."""
    return _TAG.fullmatch(value) is not None


def strong_match(one: bytes, other: bytes) -> bool:
    """Strong comparison: the same bytes, well-formed, and not weak."""
    return one == other and one.startswith(b'"') and is_tag(one)


def weak_match(one: bytes, other: bytes) -> bool:
    """Weak comparison; a malformed tag equals only the same bytes."""
    return one == other or (one.removeprefix(b"W/") == other.removeprefix(b"W/") and is_tag(one) and is_tag(other))


def tag_listed(value: bytes, tag: bytes | None, *, strong: bool) -> bool:
    """Whether a list (If-Match, If-None-Match) names the tag; `*` names anything there is."""
    if value.strip(b" \t") == b"*":
        return True
    if tag is None:
        return False
    if strong:
        return tag.startswith(b'"') and is_tag(tag) and tag in tag_members(value)
    if value == tag:  # a malformed tag may itself hold commas
        return True
    # Weak comparison; a malformed tag equals only the same bytes. Looked at once here, not once for each member.
    bare = tag.removeprefix(b"W/")
    wanted = (bare, b"W/" + bare) if is_tag(tag) else (tag,)
    return any(member in wanted for member in tag_members(value))


def one_tag(fields: Fields) -> bytes | None:
    """The ETag of a head as it came; None when absent, empty or given more than once."""
    values = fields.get_all(b"etag")
    return values[0] if len(values) == 1 and values[0] else None


# -- selecting fields (RFC 9110 12.5, 9111 4.1) -------------------------------------------------------------------


def vary_names(fields: Fields) -> tuple[bytes, ...] | None:
    """The lower-case names in Vary, sorted, each once; None when nothing matches: `*`, no name, or too many."""
    values = fields.get_all(b"vary")
    if not values:
        return ()
    if sum(map(len, values)) > MAX_MEMBERS and is_long(b",".join(values)):
        return None
    names = {member.lower() for value in values for member in members(value)}
    if b"*" in names or not all(_TOKEN.fullmatch(name) for name in names):
        return None
    return tuple(sorted(names))


def joined_normal(values: tuple[bytes, ...]) -> bytes:
    """Lines as one list without optional white space around its commas."""
    value = values[0] if len(values) == 1 else b",".join(values)
    if b"," not in value or is_long(value):  # a long one is compared as it was sent
        return value.strip(b" \t")
    return b",".join(members(value))


def _weighted(value: bytes) -> list[tuple[bytes, float]] | None:
    """(lower-case member, weight) of an Accept-* list; None when a member does not keep the grammar."""
    found: list[tuple[bytes, float]] = []
    if is_long(value):
        return None
    for member in members(value):
        name, *parameters = [part.strip(b" \t") for part in member.lower().split(b";")]
        weight = 1.0
        if parameters:
            word, _, number = parameters[0].partition(b"=")
            if len(parameters) > 1 or word != b"q" or not _WEIGHT.fullmatch(number):
                return None
            weight = float(number)
        if not name:
            return None
        found.append((name, weight))
    return found


def language_key(value: bytes) -> bytes:
    """Accept-Language without what does not matter: case, spaces, and order among equal weights."""
    return _language_key(value) if len(value) <= _MEMO_LONGEST else _language_key.__wrapped__(value)


@lru_cache(maxsize=1024)
def _language_key(value: bytes) -> bytes:
    found = _weighted(value)
    if found is None:
        return value.lower()
    ordered = sorted(set(found), key=lambda pair: (-pair[1], pair[0]))
    return b",".join([b"%b;q=%.3f" % pair for pair in ordered])


@lru_cache(maxsize=1024)
def _preferred_language(value: bytes) -> bytes | None:
    found = _weighted(value)
    if not found:
        return None
    best = max(weight for _, weight in found)
    names = {name for name, weight in found if weight == best}
    return names.pop() if len(names) == 1 and best > 0 else None


def preferred_language(value: bytes) -> bytes | None:
    """The one language that the client likes best, lower case; None when there are several, none, or `*`."""
    found = _preferred_language(value) if len(value) <= _MEMO_LONGEST else _preferred_language.__wrapped__(value)
    return None if found == b"*" else found


def encoding_key(value: bytes | None, codings: tuple[bytes, ...]) -> bytes:
    """Which of the codings that a route serves the client takes (RFC 9110 12.5.3), in the route's order."""
    if value is not None and len(value) > _MEMO_LONGEST:
        return _encoding_key.__wrapped__(value, codings)
    return _encoding_key(value, codings)


@lru_cache(maxsize=1024)
def _encoding_key(value: bytes | None, codings: tuple[bytes, ...]) -> bytes:
    found = dict(_weighted(value or b"") or ())  # no field or an unreadable one: identity alone is sure to be welcome
    other = found.get(b"*", 0.0)
    return b",".join([coding for coding in codings if found.get(coding, other) > 0])
