"""The quick way: a plain GET answered from a fresh, simple stored response, with no object made for it.

One rule: it does nothing that the full way does not do as well, it only skips what cannot matter: the header block has
no field that caching, framing or the connection looks at (`RequestHeaders.quick`), the stored response answers anyone
(`Stored.simple`). Everything else returns False, untouched, and goes the full way. With `Worker.quick` off the same
bytes get the same answers, which a differential test holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.cache.key import cache_key
from edge.cache.policy import is_path_bypassed
from edge.dataplane.caching.tiers import from_disk
from edge.dataplane.core.certificate import covers
from edge.http.grammar import RequestHeaders
from edge.http.text import quote

if TYPE_CHECKING:
    from edge.dataplane.core.downstream import Asking
    from edge.dataplane.core.route import Route

_LOG_LINE = (  # the keys of `worker.access_line`; what no hit has is written out here
    b'{"time":"%b","id":"%b","client":"%b","route":"%b","method":"GET","host":"%b","target":"%b","status":200,'
    b'"bytes_in":0,"bytes_out":%d,"us":0,"upstream_us":0,"backend":"","region":"","attempts":0,"hedge":"",'
    b'"verdict":"hit","reason":"","error":""}\n'
)


def try_fast_hit(downstream: Asking, route: Route, target: bytes, block: RequestHeaders) -> bool:
    """Answer a kept connection's plain GET from store; False when that takes more than this."""
    worker = downstream.worker
    store, rules, host = worker.store, route.rules, block.host
    if store is None or rules is None or host is None or route.looks or worker.draining:
        return False
    if route.prefetcher is not None or (block.forwarding and downstream.trusted):  # each has to see the request
        return False
    if rules.bypassing_paths and is_path_bypassed(target, rules):  # it may have been stored before that was a rule
        return False
    if (
        rules.plain_key and downstream.key_host is host
    ):  # the same block, or another request of it: as `cache_key` does it
        key = downstream.key_start + target
    else:
        if worker.limits.https_port is not None and downstream.scheme == b"http":
            return False
        if downstream.shown_names is not None and not covers(downstream.shown_names, host):
            return False
        authority = host.removesuffix(b":80" if downstream.scheme == b"http" else b":443")
        downstream.key_host, downstream.key_start = host, b"%b://%b" % (downstream.scheme, authority)
        key = cache_key(downstream.scheme, authority, target, rules, block.fields)
    found = store.index.get(key)
    stored = found.sole if found is not None else from_disk(store, key) if store.disk is not None else None
    if stored is None or not stored.simple:
        return False
    now = store.clock()
    ttl = stored.fresh_until - now
    if ttl <= 0:
        return False
    if route.coded is not None:
        stored = route.coded.fast(store, stored, block.fields)
        if stored is None:
            return False
    if worker.tracing is not None and worker.tracing.picks(downstream, block):  # the full way makes a span
        return False
    if now > stored.received_at > stored.born:
        age = now - stored.born
    elif stored.is_ahead(now):
        return False
    else:
        age = float(stored.age(now))
    length = stored.length
    meter = route.meter
    meter.hits_by[downstream.spoken] += 1
    meter.hit_bytes += length
    log = worker.log
    if log.enabled:
        if worker.combined:
            first = b"GET %b %b" % (quote(target), downstream.version)
            log.add(worker.combined_line(downstream.peer_bytes, block, first, (200, length)))
        else:
            log.add(
                _LOG_LINE
                % (
                    log.stamp,
                    worker.next_id() if block.request_id is None else worker.id_of(downstream, block.request_id),
                    downstream.logged,
                    route.label,
                    host,
                    quote(target) if b'"' in target or b"\\" in target else target,
                    length,
                )
            )
    # The write comes last: nothing that could fail follows it, so there can be no second answer.
    wire = stored.wire if route.dress is None else route.dress(stored.wire)
    downstream.send_stored(wire, stored.chunks, length, age, ttl)
    return True
