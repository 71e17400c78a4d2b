"""Validating a stored response and what comes of it (RFC 9111 4.3, 3.2, 3.4).

One rule: fields are replaced whole, name by name, but never the ones that describe the stored bytes. The result is
always a new Stored that shares the body; the old one stays as it was for whoever still sends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from edge.cache.freshness import Times
from edge.cache.rules import Rules, SetCookie
from edge.cache.stored import Plan, Stored, build
from edge.cache.storing import plan, unkept
from edge.cache.verdict import Reason
from edge.http.conditional import CLIENT_OWN, same_version
from edge.http.dates import format_date
from edge.http.fields import one_tag, strong_match, weak_match
from edge.http.hopbyhop import storable
from edge.http.message import Fields, Line, RequestHead, ResponseHead
from edge.http.ranges import parse_content_range

# They describe the stored bytes, which a 304 or a HEAD does not bring.
NOT_UPDATED = frozenset((b"content-length", b"content-encoding", b"content-type", b"content-range"))


def request_fields(request_fields: Fields, stored: Stored) -> Fields:
    """The lines to validate with: the client's, its own conditions and Range replaced by the stored validators.

    Range stays when a part is validated, so that a new version of just that part comes back when it has changed.
    """
    dropped = CLIENT_OWN if stored.part is None else CLIENT_OWN - {b"range"}
    added: list[Line] = []
    if stored.etag is not None:
        added.append((b"If-None-Match", stored.etag))
    modified = stored.last_modified
    if modified is not None:
        added.append((b"If-Modified-Since", modified))
    return request_fields.without(dropped).plus(*added)


def offer_fields(request_fields: Fields, offers: Sequence[bytes]) -> Fields:
    """The lines of a miss that offers the ETags of variants which this request does not select."""
    if not offers:
        return request_fields
    return request_fields.without(CLIENT_OWN).plus((b"If-None-Match", b", ".join(offers)))


def rest_fields(request_fields: Fields, stored: Stored) -> Fields:
    """The lines that ask for what comes after a stored beginning; with If-Range where there is a strong ETag."""
    lines: list[Line] = [(b"Range", b"bytes=%d-" % stored.length)]
    if stored.etag is not None and strong_match(stored.etag, stored.etag):
        lines.append((b"If-Range", stored.etag))
    return request_fields.without(CLIENT_OWN).plus(*lines)


def selected(candidates: Sequence[Stored], head304: ResponseHead) -> Stored | None:
    """The stored response that a 304 validates: the one with its ETag, or the only candidate. None: ask again
    without conditions.
    """
    tag = one_tag(head304.fields)
    if tag is None:
        return candidates[0] if len(candidates) == 1 else None
    matches = [one for one in candidates if one.etag is not None and weak_match(one.etag, tag)]
    if matches:
        return max(matches, key=lambda one: one.received_at)
    return candidates[0] if len(candidates) == 1 and candidates[0].etag is None else None


def updated(stored: Stored, head304: ResponseHead, request: RequestHead, rules: Rules, times: Times) -> Stored:
    """The stored response with a 304's fields, its lifetime begun anew, in the place that this request selects.

    When the new fields forbid storing, the result answers this one request and is not `keepable`.
    """
    fresh = _merged(stored, head304, request, rules, times)
    if not isinstance(fresh, Reason):
        return fresh
    once = stored.expired(times.received_at)
    once.wire = _rewritten(stored, head304)
    once.no_cache, once.simple = True, False
    once.received_at = once.born = once.fresh_until = times.received_at
    once.lifetime_s = once.swr_s = once.sie_s = once.outage_s = once.keep_s = 0.0
    return once


def for_one(fresh: Stored, head: ResponseHead, rules: Rules) -> bytes:
    """The lines of a validating head for the client that asked only, such as a cookie that is not stored."""
    limited = b'="' in fresh.wire  # no-cache="…", private="…"
    if not limited and not (rules.set_cookie is SetCookie.STRIP and b"set-cookie" in head.fields):
        return b""
    return unkept(head.fields, fresh.head.fields, rules).encode()


def _replaced(stored: Stored, new: Fields, received_at: float) -> Fields:
    """Stored lines, each name that the new head has replaced by all of its lines there (RFC 9111 3.2)."""
    replacing = [line for line in storable(new).lines if line[0].lower() not in NOT_UPDATED]
    names = {name.lower() for name, _ in replacing}
    if b"date" not in names:  # its receipt is its date (RFC 9110 6.6.1): the old one would make it look old
        replacing.append((b"Date", format_date(received_at)))
        names.add(b"date")
    return stored.head.fields.without(names).plus(*replacing)


def _merged(stored: Stored, head: ResponseHead, request: RequestHead, rules: Rules, times: Times) -> Stored | Reason:
    old = stored.head
    merged = ResponseHead(old.status, old.reason, _replaced(stored, head.fields, times.received_at))
    get = replace(request, method=b"GET")
    planned = plan(get, merged, rules, times, stored.part)
    if isinstance(planned, Reason):
        return planned
    return build(replace(planned, key=stored.key), stored.chunks, stored.file)


def _rewritten(stored: Stored, head: ResponseHead) -> bytes:
    fields = _replaced(stored, head.fields, stored.received_at)
    return stored.wire.partition(b"\r\n")[0] + b"\r\n" + fields.without({b"age", b"cache-status"}).encode()


class HeadEffect(Enum):
    """What the answer to a HEAD does to the stored GET response."""

    UPDATED = "updated"
    STALE = "stale"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class HeadOutcome:
    """The effect, and what to store instead of the old response; after UPDATED the HEAD is answered from it."""

    effect: HeadEffect
    stored: Stored


def head_outcome(stored: Stored, head: ResponseHead, request: RequestHead, rules: Rules, times: Times) -> HeadOutcome:
    """RFC 9111 4.3.5: a 200 that does not contradict updates, one that does makes stale; others do nothing."""
    if head.status != 200 or stored.part is not None:
        return HeadOutcome(HeadEffect.NOTHING, stored)
    if stored.status != 200 or _contradicts(stored, head.fields):
        return HeadOutcome(HeadEffect.STALE, stored.expired(times.received_at))
    fresh = _merged(stored, head, request, rules, times)
    if isinstance(fresh, Reason):
        return HeadOutcome(HeadEffect.NOTHING, stored)
    return HeadOutcome(HeadEffect.UPDATED, fresh)


def _contradicts(stored: Stored, new: Fields) -> bool:
    tag, modified, length = one_tag(new), new.joined(b"last-modified"), new.joined(b"content-length")
    old_modified = stored.last_modified
    return (
        (tag is not None and stored.etag is not None and not weak_match(tag, stored.etag))
        or (modified is not None and old_modified is not None and modified != old_modified)
        or (length is not None and length != b"%d" % stored.length)
    )


def combined(stored: Stored, rest: ResponseHead, request: RequestHead, rules: Rules, times: Times) -> Plan | None:
    """The plan of the 200 that a stored beginning and the 206 for what follows it are together (RFC 9111 3.4).

    Its body is the stored chunks and then the 206's. None when they may not be combined: they must have the same strong
    validator and touch, and the end must be the end. The newer part's fields win.
    """
    fields = rest.fields
    one, two = stored.part, parse_content_range(fields.joined(b"content-range"))
    if rest.status != 206 or one is None or two is None or one.first != 0 or stored.length != len(one):
        return None
    if not two.at_end or two.first != one.last + 1 or one.complete not in (None, two.complete):
        return None
    if fields.joined(b"content-length") not in (None, b"%d" % len(two)) or not same_version(stored.head.fields, fields):
        return None
    new = storable(fields).without(frozenset((b"content-range", b"content-length")))
    merged = stored.head.fields.without({*new.names(), b"content-range", b"content-length"}).plus(*new.lines)
    sized = merged.plus((b"Content-Length", b"%d" % (stored.length + len(two))))
    planned = plan(request, ResponseHead(200, b"OK", sized), rules, times, None)
    return None if isinstance(planned, Reason) else replace(planned, key=stored.key)
