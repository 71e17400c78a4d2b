"""Ranges of which nothing is stored, where the rules say more than to forward them (`cache.ranges`).

    slice    what a GET wants comes in slices of one size, each stored for itself (`assembly`)
    whole    the whole response is fetched and stored for a range of it

One rule: this says which requests go that way; all others go the usual one. What could not be sliced is remembered for
a while, so that its origin is not asked twice each time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge.cache.key import key_of
from edge.cache.policy import is_bypassed
from edge.cache.rules import Ranges, Rules
from edge.dataplane.caching.assembly import Assembly, Usual, slice_of
from edge.dataplane.caching.follower import request_of
from edge.http.conditional import CLIENT_OWN
from edge.http.message import RequestHead
from edge.http.ranges import parse_range

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.route import Route

AVOIDED_S = 120.0
MOST_AVOIDED = 4096


class RangeRule:
    """A route's rule. `size` is a slice's, 0: the whole is fetched."""

    def __init__(self, route: Route, rules: Rules) -> None:
        self.size = rules.slice_bytes if rules.ranges is Ranges.SLICE else 0
        self.avoided: dict[int, float] = {}  # hashes of keys that are not sliced, until when
        self._whole = route
        self._parts: Route | None = None

    @classmethod
    def of(cls, route: Route) -> RangeRule | None:
        """None where ranges are forwarded."""
        rules = route.rules
        return None if rules is None or rules.ranges is Ranges.FORWARD else cls(route, rules)

    @property
    def parts(self) -> Route:
        """The route again, as its parts are fetched. Made when it is needed: what a reload takes over is there then."""
        found, route = self._parts, self._whole
        if found is None:
            assert route.rules is not None  # see `of`
            # No whole response is stored under a slice's key.
            most = route.rules.max_object_bytes
            rules = replace(route.rules, ranges=Ranges.FORWARD, max_object_bytes=min(self.size or most, most))
            does = replace(route.does, match=None, steps=(), delivery=None, bodies=None, affinity=None)
            self._parts = found = replace(route, rules=rules, does=does, members=(), ranges=None, prefetcher=None)
        return found

    def avoid(self, key: bytes, now: float) -> None:
        """Do not slice it for a while; the oldest gives way."""
        mark = hash(key)  # a client chooses how long its URLs are
        self.avoided.pop(mark, None)
        if len(self.avoided) >= MOST_AVOIDED:
            del self.avoided[next(iter(self.avoided))]
        self.avoided[mark] = now + AVOIDED_S

    def slices(self, exchange: Exchange, usual: Usual) -> bool:
        """Answer a request from slices; False: it is not one for that."""
        store, rules, request = exchange.worker.store, exchange.routed.rules, request_of(exchange)
        if not self.size or store is None or rules is None or request.method != b"GET" or not exchange.host:
            return False
        if exchange.upload is not None or exchange.wants_upgrade:
            return False
        specs = parse_range(request.fields.joined(b"range"))
        bypassed = (rules.bypasses or rules.key_cookies) and is_bypassed(request, rules)
        if bypassed or (specs is not None and len(specs) > 1):
            return False
        key = key_of(request, rules)
        found = store.index.peek(key)
        if self.avoided.get(hash(key), 0.0) > store.clock() or any(
            one.complete for one in (found.variants if found else ())
        ):
            return False
        first = specs[0][0] if specs is not None else None
        Assembly(exchange, request, self, key, usual).ask((first or 0) // self.size)
        return True

    def first(self, request: RequestHead) -> RequestHead:
        """What is looked up first for a request, for people."""
        if not self.size:
            return request
        apart, line = slice_of(self.size, 0)
        return replace(request, fields=request.fields.without(CLIENT_OWN).plus(line), apart=request.apart + apart)

    def fetches_whole(self, exchange: Exchange, request: RequestHead, usual: Usual) -> bool:
        """Fetch the whole for a range of which nothing is stored; False: it is no request for that."""
        if self.size or request.method != b"GET" or parse_range(request.fields.joined(b"range")) is None:
            return False
        if not exchange.host or exchange.key is None:
            return False
        Assembly(exchange, request, self, exchange.key, usual).ask(0)
        return True
