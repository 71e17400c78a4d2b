"""Purges of a URL as a worker carries them out: the key of what is stored is made as its route makes it.

One rule: whoever names a URL means whatever this gateway would answer for it, so the key is the route's (its query
rules, its default ports), for both schemes: behind something that ends TLS and does not say so, the operator's
https://… is stored as http://….
"""

from __future__ import annotations

from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Any

from edge.cache.key import cache_key, uri_of
from edge.cache.purge import Kind, Purge
from edge.cache.rules import Rules
from edge.http.forwarding import DEFAULT_PORTS
from edge.http.message import Fields

if TYPE_CHECKING:
    from edge.dataplane.exchange import Exchange
    from edge.dataplane.worker.worker import Worker

_NO_FIELDS = Fields()


def purge(worker: Worker, asked: Purge, number: int | None = None) -> int | None:
    """Carry a purge out here; how many responses for url and tag, None for the O(1) kinds."""
    store = worker.store
    if store is None:
        return 0
    if asked.kind is not Kind.URL:
        return store.purge(asked, time(), number)
    return sum(store.purge(replace(asked, value=key), time(), number) or 0 for key in keys_of(worker, asked.value))


def touched(worker: Worker, asked: Purge) -> dict[str, Any]:
    """What the other tier has to know of a purge by URL or tag: the keys, and what is about to go here."""
    store = worker.store
    if store is None or store.disk is None or asked.kind not in (Kind.URL, Kind.TAG):
        return {}
    keys = keys_of(worker, asked.value) if asked.kind is Kind.URL else [asked.value]
    marks = {mark for key in keys for mark in store.marks(replace(asked, value=key), time())}
    return {"keys": [key.decode("latin-1") for key in keys], "marks": sorted(marks)}


def keys_of(worker: Worker, url: bytes) -> list[bytes]:
    """The keys that a URL may be stored under, without what fields add to them."""
    scheme, _, rest = uri_of(url).partition(b"://")
    authority, slash, path = rest.partition(b"/")
    target = slash + path or b"/"
    found: list[Rules | None] = [route.rules for route in worker.router.all(authority, target)]
    keys = [uri_of(url)]
    for each in (scheme, *(other for other in DEFAULT_PORTS if other != scheme)):
        bare = authority.removesuffix(b":" + DEFAULT_PORTS.get(each, b""))
        plain = b"%b://%b%b" % (each, bare, target)
        for rules in found or [None]:
            key = plain if rules is None else uri_of(cache_key(each, bare, target, rules, _NO_FIELDS))
            if key not in keys:
                keys.append(key)
    return keys


def obey(exchange: Exchange) -> None:
    """PURGE of a client that may: this worker's store at once, the others' as after an unsafe request."""
    worker = exchange.worker
    url = b"%b://%b%b" % (exchange.scheme, exchange.authority, exchange.target)
    count = purge(worker, Purge(Kind.URL, url)) or 0
    if worker.store is not None and worker.store.announce is not None:
        worker.store.announce(Purge(Kind.URL, url))
    exchange.answer(200, f"purged {count}\n")
