"""What a backend is asked for where that is not what the client asked: a prefix left out, a path rewritten.

One rule: nothing is decoded and nothing guessed. What is cut or matched are the client's bytes; a path of which the
gateway and the backend could make different things once its beginning is gone (dot segments) is refused.
"""

from __future__ import annotations

import re

from edge.config.rule_values import compile_pattern
from edge.config.rules import Rewrite as RewriteConfig
from edge.errors import BadRequest
from edge.http.paths import below, normal_path

_DOTS = re.compile(rb"/(?:\.|%2[eE]){1,2}(?=/|\\|%2[fF]|%5[cC]|\Z)")
_GROUP = re.compile(rb"\$\$|\$(?:([0-9])|\{([0-9]{1,2})\})")


class TargetRule:
    """`strip_prefix` and `rewrite` of a route, in this order."""

    __slots__ = ("_parts", "_pattern", "_prefix", "_to")

    def __init__(self, prefix: str | None, rewrite: RewriteConfig | None) -> None:
        self._prefix = b"" if prefix is None else prefix.encode().rstrip(b"/")
        self._pattern = None if rewrite is None else compile_pattern(rewrite.match)
        self._to = b"" if rewrite is None else rewrite.to.encode()
        self._parts = _pieces(self._to)

    def target(self, target: bytes) -> bytes:
        """The target for the backend. Raises BadRequest for a path with dot segments or the like."""
        path, mark, query = target.partition(b"?")
        if path == b"*":
            return target
        if _DOTS.search(path):
            raise BadRequest("dot segments in a path that is rewritten")
        if self._prefix:
            path = self._stripped(path)
        if self._pattern is not None and (found := self._pattern.search(path)) is not None:
            path, mark, query = self._rewritten(found, query)
        return path + mark + query

    def _stripped(self, path: bytes) -> bytes:
        prefix = self._prefix
        if path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == 0x2F):
            return path[len(prefix) :] or b"/"
        if not below(normal_path(path), prefix):
            return path
        at, left = 0, prefix.count(b"/")  # the same prefix, written in another way: as many segments go
        while left:
            at += 1
            end = path.find(b"/", at)
            end = len(path) if end < 0 else end
            left -= end > at
            at = end
        if not below(normal_path(path[:at]), prefix):
            raise BadRequest("a path whose prefix cannot be told apart")
        return path[at:] or b"/"

    def _rewritten(self, found: re.Match[bytes], query: bytes) -> tuple[bytes, bytes, bytes]:
        made = b"".join([part if isinstance(part, bytes) else found[part] or b"" for part in self._parts])
        path, _, own = made.partition(b"?")
        if not path.startswith(b"/"):
            path = b"/" + path
        both = own + b"&" + query if own and query else own or query
        return path, b"?" if both else b"", both


def _pieces(text: bytes) -> tuple[bytes | int, ...]:
    parts: list[bytes | int] = []
    at = 0
    for found in _GROUP.finditer(text):
        parts.append(text[at : found.start()])
        parts.append(b"$" if found[0] == b"$$" else int(found[1] or found[2]))
        at = found.end()
    return (*parts, text[at:])
