"""`split` and `affinity`: which of several pools a request goes to, and which backend of a pool a client comes back to.

One rule: a share is kept exactly over any run, without chance (steps of the golden ratio), and a client that came once
comes back to where it was for as long as that is there. What pools answer is stored apart, so that no client of one
gets what another answered.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from zlib import crc32

from edge.cache.key import cookies

if TYPE_CHECKING:
    from edge.balance.backend import Backend
    from edge.dataplane.rules.asked import Asked
    from edge.dataplane.rules.steps import StepExchange

SPAN = 1 << 32
STEP = 2654435769  # SPAN divided by the golden ratio, odd: every place is visited
MARK_BYTES = 12


class Split:
    """`split` of a route. `routes` are the route again, one for each pool; the worker gives them (`Route.members`)."""

    name = "split"

    def __init__(self, pools: Sequence[str], weights: Sequence[int], sticky: str) -> None:
        self.pools = tuple(pools)
        total = sum(weights)
        self._bounds = [at * SPAN // total for at in accumulate(weights)]
        self._kind, _, name = sticky.partition(":")
        self._cookie = name.encode()
        self._at = 0
        self.routes: Sequence[Any] = ()

    def take_over(self, lived: Split) -> None:
        """Keep the shares after a reload."""
        self._at = lived._at

    def apply(self, exchange: StepExchange) -> None:
        """Use the route of the pool that the client comes back to, or of the one whose turn it is."""
        number = self._returning(exchange)
        if number is None:
            self._at = (self._at + STEP) % SPAN
            number = self._place(self._at)
            if self._kind == "cookie":
                exchange.told_lines += set_cookie(self._cookie, self.pools[number].encode(), exchange.scheme)
        exchange.route = self.routes[number]
        exchange.apart += apart(self.pools[number])

    def _returning(self, asked: Asked) -> int | None:
        """The number of the pool that the client comes back to; None for who is new."""
        if self._kind == "client":
            return self._place(crc32(asked.client_text().encode()) * STEP % SPAN)
        given = cookies(asked.block.fields).get(self._cookie) if self._kind == "cookie" else None
        name = given.decode("latin-1") if given is not None else ""
        return self.pools.index(name) if name in self.pools else None

    def _place(self, at: int) -> int:
        return min(bisect_right(self._bounds, at), len(self.pools) - 1)

    def home(self, asked: Asked) -> tuple[Any, bytes] | None:
        """The route that this client comes back to, and what keeps its responses apart; None for who is new."""
        number = self._returning(asked)
        return None if number is None else (self.routes[number], apart(self.pools[number]))

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`; no turn is used up."""
        number = self._returning(asked)
        if number is None:
            return f"one of {', '.join(self.pools)} by weight"
        return f"{self.pools[number]}, by {self._kind}"


def apart(pool: str) -> bytes:
    """The part of the cache key that separates a pool's responses."""
    return b" p:%d:%b" % (len(pool), pool.encode())


def set_cookie(name: bytes, value: bytes, scheme: bytes) -> bytes:
    """A Set-Cookie line for `sticky` and `affinity`."""
    secure = b"; Secure" if scheme == b"https" else b""
    return b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax%b\r\n" % (name, value, secure)


class Affinity:
    """`affinity` of a route: a cookie that names a backend by a keyed mark, so that no client can make one up."""

    __slots__ = ("_cookie", "_key", "_marks")

    def __init__(self, cookie: str, key: bytes) -> None:
        self._cookie = cookie.encode()
        self._key = key
        self._marks: dict[bytes, bytes] = {}  # by backend id; as many as there are backends

    def mark(self, backend: bytes) -> bytes:
        """The cookie's value for a backend."""
        found = self._marks.get(backend)
        if found is None:
            digest = hmac.digest(self._key, backend, "sha256")[:MARK_BYTES]
            self._marks[backend] = found = urlsafe_b64encode(digest)
        return found

    def wanted(self, asked: Asked, backends: Sequence[Backend]) -> Backend | None:
        """The backend that the client's cookie names, if it still exists."""
        given = cookies(asked.block.fields).get(self._cookie)
        if given is None:
            return None
        return next((each for each in backends if hmac.compare_digest(self.mark(each.id.encode()), given)), None)

    def lines(self, asked: Asked, backend: bytes) -> bytes:
        """The Set-Cookie line for the backend that answered; none if the client has it already."""
        mark = self.mark(backend)
        if not backend or cookies(asked.block.fields).get(self._cookie) == mark:
            return b""
        return set_cookie(self._cookie, mark, asked.scheme)

    def explain(self, asked: Asked, backends: Sequence[Backend]) -> str:
        """What the rule does, for `edge explain`."""
        found = self.wanted(asked, backends)
        return "no backend is named: any" if found is None else f"{found.id}, while it may serve"
