"""The request as the backends of a route get it: target, Host and lines by the route's rules.

One rule: framing stays the gateway's. Rules see the end-to-end lines and those that the gateway asserts, nothing else.
"""

from __future__ import annotations

from typing import Protocol

from edge.dataplane.rules.asked import Asked
from edge.dataplane.rules.headers import HeaderEdit, shown
from edge.dataplane.rules.target import TargetRule
from edge.dataplane.rules.template import Template
from edge.errors import BadRequest
from edge.http.host import normal_host
from edge.http.message import Line


class Granted(Asked, Protocol):
    """What request rules need of an exchange."""

    @property
    def granted(self) -> tuple[Line, ...]: ...


Sent = tuple[bytes, bytes, bytes, bytes]  # target, Host, the client's lines and those that the gateway puts to them


class Outbound:
    """The request rules of a route, as `upstream.request_head` uses them."""

    __slots__ = ("_edit", "_granted", "_host", "_target", "varying")

    def __init__(
        self, target: TargetRule | None, edit: HeaderEdit | None, host: str | None, granted: tuple[str, ...] = ()
    ) -> None:
        self._target = target
        self.varying = edit if edit is not None and edit.varies else None  # what the cache has to know of
        self._edit = edit
        self._granted = HeaderEdit({}, {}, granted) if granted else None  # no client says who it is by these names
        self._host = None if host is None else Template(host)

    def explain(self, asked: Asked) -> list[dict[str, str]]:
        """What the rules do, for `edge explain`."""
        rows = []
        if self._target is not None:
            try:
                rows.append({"rule": "strip_prefix, rewrite", "does": f"asks for {shown(self.target(asked))}"})
            except BadRequest as error:
                rows.append({"rule": "strip_prefix, rewrite", "does": f"refuses (400): {error.detail}"})
        if self._host is not None:
            rows.append({"rule": "request_headers", "does": f"set Host: {shown(self.host(asked, b'', b'-'))}"})
        if self._edit is not None:
            rows.append({"rule": "request_headers", "does": self._edit.explain(asked)})
        return rows

    def sent(self, asked: Granted, host: bytes, lines: bytes, own: bytes, region: bytes) -> Sent:
        """What a backend is asked; `host` is the usual one. Raises BadRequest."""
        lines = self.lines(asked, lines, own, region)
        return self.target(asked), self.host(asked, host, region), lines, b""

    def target(self, asked: Asked) -> bytes:
        """The target for the backend. Raises BadRequest."""
        return asked.target if self._target is None else self._target.target(asked.target)

    def host(self, asked: Asked, usual: bytes, region: bytes) -> bytes:
        """The one Host; what is filled in and is no host leaves the usual one."""
        return usual if self._host is None else normal_host(self._host.fill(asked, region)) or usual

    def lines(self, asked: Granted, lines: bytes, own: bytes, region: bytes) -> bytes:
        """The lines of the head without framing: the client's and those that the gateway asserts."""
        edit = self._edit
        if self._granted is not None:
            lines, own = self._granted.kept(lines), self._granted.kept(own)
            own += b"".join([b"%b: %b\r\n" % line for line in asked.granted])
        if edit is None:
            return lines + own
        if edit.gone:
            return edit.kept(lines) + edit.kept(own) + edit.lines(asked, region)
        return lines + own + edit.lines(asked, region)
