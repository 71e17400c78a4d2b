"""What a rule may know of a request: an `Exchange` has it, and so has the request that `edge explain` imagines.

One rule: rules read, they never hold a request; what they decide is their return value.
"""

from __future__ import annotations

from typing import Any, Protocol

from edge.http.message import Fields


class Headers(Protocol):
    """The header block, as far as rules read it."""

    known: Any  # what a route's `auth` found it to be worth (`authentication.Verdicts`)

    @property
    def fields(self) -> Fields: ...


class Asked(Protocol):
    """A request, as far as the rules of its route read it."""

    @property
    def method(self) -> bytes: ...
    @property
    def scheme(self) -> bytes: ...
    @property
    def host(self) -> bytes | None: ...
    @property
    def target(self) -> bytes: ...
    @property
    def block(self) -> Headers: ...
    @property
    def authority(self) -> bytes: ...
    @property
    def identity(self) -> bytes: ...
    def client_text(self) -> str: ...
    def own_id(self) -> bytes: ...
    def country(self) -> str: ...


class Imagined:
    """A request that was not sent, for `edge explain`."""

    def __init__(self, method: bytes, scheme: bytes, host: bytes, target: bytes, block: Headers) -> None:
        self.method = method
        self.scheme = scheme
        self.host = host
        self.target = target
        self.block = block
        self.identity = b""
        self.client = ""
        self.place = ""

    @property
    def authority(self) -> bytes:
        """Host and port, without the scheme's default port."""
        return self.host.removesuffix(b":80" if self.scheme == b"http" else b":443")

    def client_text(self) -> str:
        """The client's address that the operator gave; empty if none."""
        return self.client

    def own_id(self) -> bytes:
        """Empty: it has no id."""
        return b"-"

    def country(self) -> str:
        """The country of the given client's address; empty if unknown."""
        return self.place
