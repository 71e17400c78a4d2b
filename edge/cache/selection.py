"""Which stored variant a request selects (RFC 9111 4.1, 9110 12.5.5).

One rule: both sides go through the same comparable form, and absent matches only absent. What is left out of that form
(spaces, order among equal languages, codings the route does not serve) is each the operator's setting.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.cache.rules import Rules
from edge.cache.stored import Selecting, Stored, shared
from edge.http.credentials import CERTIFICATE_NAMES
from edge.http.fields import encoding_key, joined_normal, language_key, members, preferred_language, vary_names
from edge.http.message import Fields

# What the gateway tells the origin about the client: no other client's request has it, and it is not in the request
# as it came. A response that varies by it cannot be given to anyone else.
CLIENT_BOUND = CERTIFICATE_NAMES | frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"x-request-id", b"cdn-loop")
)
# What it tells of the scheme and the host is in the key already; what the client sent under these names is not.
IN_KEY = frozenset((b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"))
_LANGUAGE = b"accept-language"
_ENCODING = b"accept-encoding"


def comparable(name: bytes, fields: Fields, rules: Rules) -> bytes | None:
    """A selecting field of a request in the form that is compared; None when it is absent."""
    if name in IN_KEY:
        return b""
    values = fields.get_all(name)
    if name == _ENCODING and rules.normalise_encoding is not None:
        # No field and an empty one differ for the origin, but not for a route that serves just these codings.
        return encoding_key(b",".join(values) if values else None, rules.normalise_encoding)
    if not values:
        return None
    normal = joined_normal(values)
    return language_key(normal) if name == _LANGUAGE and rules.normalise_language else normal


def selecting(response: Fields, request: Fields, rules: Rules) -> Selecting | None:
    """The request's values of the fields in the response's Vary; None when no later request can match (`Vary: *`)."""
    names = vary_names(response)
    if names is None or not CLIENT_BOUND.isdisjoint(names):
        return None
    return shared(tuple((name, comparable(name, request, rules)) for name in names))


def content_language(response: Fields, vary: Selecting) -> bytes | None:
    """The one language of a response that varies by nothing but Accept-Language; else None."""
    if len(vary) != 1 or vary[0][0] != _LANGUAGE:
        return None
    languages = [member for value in response.get_all(b"content-language") for member in members(value)]
    return languages[0].lower() if len(languages) == 1 else None


def matching(fields: Fields, variants: Sequence[Stored], rules: Rules) -> list[Stored]:
    """The variants that this request selects; where there is none, those whose language it accepts."""
    if len(variants) == 1 and not variants[0].vary:
        return [variants[0]]
    found: list[Stored] = []
    known: dict[bytes, bytes | None] = {}
    for stored in variants:
        for name, value in stored.vary:
            if name not in known:
                known[name] = comparable(name, fields, rules)
            if known[name] != value:
                break
        else:
            found.append(stored)
    if not found and rules.normalise_language:
        return _by_language(fields, variants)
    return found


def _by_language(fields: Fields, variants: Sequence[Stored]) -> list[Stored]:
    speaking = [stored for stored in variants if stored.language is not None]
    if not speaking:
        return []
    wanted = preferred_language(joined_normal(fields.get_all(_LANGUAGE) or (b"",)))
    return [] if wanted is None else [stored for stored in speaking if stored.language == wanted]
