"""What an operator may ask to be purged, read from JSON.

One rule: whatever is not exactly one thing to purge is refused, with one line that says what to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from edge.cache.purge import Purge, PurgeKind, without_default_port
from edge.errors import BadRequest
from edge.http.paths import normal_path

_MAX_VALUE = 8192
_AUTHORITY = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?\Z")
_URL = re.compile(r"(https?)://([^/?#]*)(/[^#]*)?\Z", re.IGNORECASE)


def parse_purge(found: object) -> Purge:
    """An operator's purge: one of `url`, `tag`, `prefix`, `host`, `all`, and `soft`; or `kind` and `value`.

    Raises BadRequest with one line that says what to change.
    """
    if not isinstance(found, dict):
        raise BadRequest("purge: expected a JSON object")
    asked = dict(found)
    soft = asked.pop("soft", False)
    if not isinstance(soft, bool):
        raise BadRequest("purge: soft must be true or false")
    if "kind" in asked:
        name = asked.pop("kind")
        value = asked.pop("value", True if name == "all" else None)
    elif len(asked) == 1:
        name, value = asked.popitem()
    else:
        raise BadRequest("purge: give exactly one of url, tag, prefix, host, all")
    if asked:
        raise BadRequest(f"purge: unknown field {_shown(next(iter(asked)))}")
    kind = next((kind for kind in PurgeKind if kind.value == name), None)
    if kind is None:
        raise BadRequest(f"purge: unknown kind {_shown(name)}; one of url, tag, prefix, host, all")
    if kind is PurgeKind.ALL:
        if value is not True:
            raise BadRequest("purge: all must be true")
        return Purge(kind, soft=soft)
    return Purge(kind, _VALUES[kind](_text(kind, value)), soft)


def _shown(value: object) -> str:
    return repr(value)[:60]


def _text(kind: PurgeKind, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"purge: {kind.value} must be a text that is not empty")
    if len(value) > _MAX_VALUE:
        raise BadRequest(f"purge: {kind.value} is longer than {_MAX_VALUE} characters")
    allowed = " " if kind is PurgeKind.TAG else "!"  # group names (RFC 9875) may have spaces inside
    if value != value.strip() or not all(allowed <= char <= "~" for char in value):
        raise BadRequest(f"purge: {kind.value} has characters that must be percent-encoded: {_shown(value)}")
    return value


def _authority(text: str) -> bytes:
    lowered = text.lower()
    if not _AUTHORITY.match(lowered):
        raise BadRequest(f"purge: not a host or host:port: {_shown(text)}")
    return lowered.encode()


def _url(text: str) -> bytes:
    found = _URL.match(text)
    if found is None:
        raise BadRequest(f"purge: url must be http(s)://host/path without fragment: {_shown(text)}")
    scheme = found[1].lower().encode()
    return b"%b://%b%b" % (scheme, without_default_port(scheme, _authority(found[2])), (found[3] or "/").encode())


def _prefix(text: str) -> bytes:
    """`/path` on every host, `host/path` or a URL; a final slash says nothing."""
    found = _URL.match(text)
    host, path = (found[2], found[3] or "") if found else (text[: text.find("/")] if "/" in text else text, "")
    if found is None:
        path = text[len(host) :]
    if "?" in path or "#" in path:
        raise BadRequest(f"purge: prefix must be a path without query or fragment: {_shown(text)}")
    authority = _authority(host) if host else b""
    if found is not None:
        authority = without_default_port(found[1].lower().encode(), authority)
    return authority + normal_path(path.encode()).removesuffix(b"/") if path else authority


_VALUES: dict[PurgeKind, Callable[[str], bytes]] = {
    PurgeKind.URL: _url,
    PurgeKind.TAG: str.encode,
    PurgeKind.PREFIX: _prefix,
    PurgeKind.HOST: _authority,
}
