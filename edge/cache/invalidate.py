"""What an unsafe request's answer makes invalid (RFC 9111 4.4, 9875).

One rule: only the request's own origin can be touched; a response cannot throw out what another origin's responses are.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from edge.http.message import RequestHead, ResponseHead
from edge.http.structured import ItemKind, parse_list

# Registered as safe (RFC 9110 9.2.1, 3253, 4918, 5323). A method that is not known is not safe.
SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY"))
_PORTS = {"http": 80, "https": 443}


def targets(request: RequestHead, response: ResponseHead) -> tuple[bytes, ...]:
    """The URIs that the answer to an unsafe request makes invalid, as authority and target without the scheme, which is
    the request's. All of their variants go.

    To be called before the answer is passed on or, for POST, stored.
    """
    if not _invalidates(request, response):
        return ()
    own = request.authority + request.target
    found = {own: None}
    for name in (b"location", b"content-location"):
        for value in response.fields.get_all(name):
            if (other := same_origin_uri(request, value)) is not None:
                found[other] = None
    return tuple(found)


def groups(request: RequestHead, response: ResponseHead) -> frozenset[bytes]:
    """The tags that Cache-Group-Invalidation names, bound to this origin (RFC 9875 3)."""
    value = response.fields.joined(b"cache-group-invalidation")
    if value is None or not _invalidates(request, response):
        return frozenset()
    return frozenset(
        origin_tag(request, item.value)
        for item in parse_list(value) or ()
        if item.kind is ItemKind.STRING and isinstance(item.value, bytes)
    )


def _invalidates(request: RequestHead, response: ResponseHead) -> bool:
    return request.method not in SAFE and 200 <= response.status <= 399


def origin_tag(request: RequestHead, group: bytes) -> bytes:
    """A group's name bound to its origin. The space in it keeps it apart from tags, which are split at spaces."""
    return b"%b://%b %b" % (request.scheme, request.authority, group)


def same_origin_uri(request: RequestHead, reference: bytes) -> bytes | None:
    """A URI reference resolved against the request's URI, as authority and target; None for another origin."""
    base = b"%b://%b%b" % (request.scheme, request.authority, request.target)
    try:
        resolved = urlsplit(urljoin(base.decode("latin-1"), reference.strip(b" \t").decode("latin-1")))
        origin = urlsplit(base.decode("latin-1"))
        if _origin(resolved) != _origin(origin):
            return None
    except ValueError:  # a port or an address that is none
        return None
    # Taken as written, so that it is the same bytes that a request for it has.
    target = (resolved.path or "/") + ("?" + resolved.query if resolved.query else "")
    return request.authority + target.encode("latin-1")


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def is_own_uri(request: RequestHead, reference: bytes) -> bool:
    """Whether a reference is the request's own URI."""
    return same_origin_uri(request, reference) == request.authority + request.target
