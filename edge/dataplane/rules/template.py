"""Texts with placeholders: what an operator writes once and each request fills in.

One rule: what a placeholder brings can never end a line or begin another one. Control bytes are left out of every
value, whatever the grammar proved before; the operator's own text was checked when the file was read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.cache.key import cookies
from edge.config.rule_values import PLACEHOLDER

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked

Value = Callable[["Asked", bytes], bytes]  # the request, and the backend's region where there is one
CONTROLS = bytes([*range(0x20), 0x7F])


class Template:
    """A text with placeholders. `fixed`: the whole text where there are none."""

    __slots__ = ("_parts", "_sole", "fixed", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[bytes | Value] = []
        at, plain = 0, ""
        for found in PLACEHOLDER.finditer(text):
            plain += text[at : found.start()]
            at = found.end()
            if found[0] == "{{":
                plain += "{"
                continue
            if plain:
                self._parts.append(plain.encode("latin-1"))
            self._parts.append(value_of(found[1], found[2] or ""))
            plain = ""
        if plain or at < len(text):
            self._parts.append((plain + text[at:]).encode("latin-1"))
        first = self._parts[0] if self._parts else b""
        self._sole = first if len(self._parts) == 1 and not isinstance(first, bytes) else None
        self.fixed: bytes | None = b"".join(p for p in self._parts if isinstance(p, bytes)) if self.is_fixed else None

    @property
    def is_fixed(self) -> bool:
        """Whether the text has no placeholders."""
        return all(isinstance(part, bytes) for part in self._parts)

    def fill(self, asked: Asked, region: bytes = b"") -> bytes:
        """The text for one request; `region` is the backend's."""
        if self.fixed is not None:
            return self.fixed
        if self._sole is not None:
            return self._sole(asked, region).translate(None, CONTROLS)
        return b"".join(
            [part if isinstance(part, bytes) else part(asked, region).translate(None, CONTROLS) for part in self._parts]
        )


def value_of(name: str, argument: str) -> Value:
    """The value of a placeholder, whose name was checked with the configuration."""
    if name == "header":
        key = argument.lower().encode()
        return lambda asked, region: asked.block.fields.joined(key) or b""
    if name == "cookie":
        cookie = argument.encode()
        return lambda asked, region: cookies(asked.block.fields).get(cookie, b"")
    if name == "query" and argument:
        wanted = argument.encode()
        return lambda asked, region: query_value(asked.target, wanted)
    return _VALUES[name]


def bare_host(host: bytes | None) -> bytes:
    """The Host without its port."""
    if not host or b":" not in host or host.endswith(b"]"):
        return host or b""
    return host[: host.rfind(b":")]


def path_of(target: bytes) -> bytes:
    """The path of a target, as the client sent it."""
    return target.partition(b"?")[0]


def query_value(target: bytes, name: bytes) -> bytes:
    """The first value of a query argument, as the client sent it; empty when there is none."""
    for pair in target.partition(b"?")[2].split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name:
            return value
    return b""


_VALUES: dict[str, Value] = {
    "client": lambda asked, region: asked.client_text().encode(),
    "country": lambda asked, region: asked.country().encode(),
    "host": lambda asked, region: bare_host(asked.authority),
    "authority": lambda asked, region: asked.authority,
    "method": lambda asked, region: asked.method,
    "path": lambda asked, region: path_of(asked.target),
    "query": lambda asked, region: asked.target.partition(b"?")[2],
    "region": lambda asked, region: region,
    "request_id": lambda asked, region: asked.own_id(),
    "scheme": lambda asked, region: asked.scheme,
    "uri": lambda asked, region: asked.target,
    "user": lambda asked, region: asked.identity,
}
