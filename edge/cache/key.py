"""The cache key: what makes two requests the same (RFC 9111 2).

One rule: the key is the URI exactly as the origin sees it, never decoded or re-quoted; only an operator's rule leaves
something of it out. What rules add comes after a space, which no URI holds, with its length before it: unambiguous.
"""

from __future__ import annotations

from edge.cache.rules import Rules
from edge.http.fields import MAX_MEMBERS, joined_normal
from edge.http.message import Fields, RequestHead

SLICE = b" slice:"  # in `RequestHead.apart`: all requests with this key ask for one and the same range


def key_of(request: RequestHead, rules: Rules) -> bytes:
    """The key of a GET of this request's URI under these rules."""
    key = cache_key(request.scheme, request.authority, request.target, rules, request.fields)
    if request.behind:
        key = b"%b b:%d:%b" % (key, len(request.behind), request.behind)
    return key + request.apart


def cache_key(scheme: bytes, authority: bytes, target: bytes, rules: Rules, fields: Fields) -> bytes:
    """The key of a GET of this URI under these rules. HEAD has the same one; the caller turns other methods away."""
    if rules.plain_key:
        return b"%b://%b%b" % (scheme, authority, target)
    return b"%b://%b%b%b" % (scheme, authority, _target(target, rules), _additions(rules, fields))


def uri_of(key: bytes) -> bytes:
    """The URI in a key, without what rules added."""
    return key.partition(b" ")[0]


def _target(target: bytes, rules: Rules) -> bytes:
    path, mark, query = target.partition(b"?")
    if not mark or not (rules.ignore_query or rules.only_query is not None or rules.sort_query):
        return target
    if query.count(b"&") >= MAX_MEMBERS:  # as it came: a place of its own
        return target
    arguments = [argument for argument in query.split(b"&") if _is_kept(argument.partition(b"=")[0], rules)]
    if rules.sort_query:
        # Equal names keep their order: for many applications it means something.
        arguments.sort(key=lambda argument: argument.partition(b"=")[0])
    return path + b"?" + b"&".join(arguments) if arguments else path


def _is_kept(name: bytes, rules: Rules) -> bool:
    return (rules.kept_query is None or name in rules.kept_query) and name not in rules.ignored_query


def _additions(rules: Rules, fields: Fields) -> bytes:
    parts: list[bytes] = []
    for name in rules.key_headers:
        values = fields.get_all(name)
        if values:
            value = joined_normal(values)
            parts.append(b" h:%b=%d:%b" % (name, len(value), value))
    if rules.key_cookies:
        # In one order, whatever that of the client: a name holds no `=`, so the parts cannot be read in another way.
        for name, cookie in sorted(cookies(fields).items()):
            if name in rules.keyed_cookies:
                parts.append(b" c:%b=%d:%b" % (name, len(cookie), cookie))
    return b"".join(parts)


def cookies(fields: Fields) -> dict[bytes, bytes]:
    """The request's cookies by name; the first of equal names, as most servers read it.

    At most MAX_MEMBERS of them are read: ask `http.fields.too_many_cookies` before a decision is made by them.
    """
    found: dict[bytes, bytes] = {}
    left = MAX_MEMBERS
    for line in fields.get_all(b"cookie"):
        pairs = line.split(b";", left)[:left]
        left -= len(pairs)
        for pair in pairs:
            name, _, value = pair.strip(b" \t").partition(b"=")
            found.setdefault(name, value)
        if not left:
            break
    return found
