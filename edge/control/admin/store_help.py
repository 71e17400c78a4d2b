"""Help texts of the metrics that the stores count: `edge_store_*` of the workers, `edge_disk_*` of the disk tier.

One rule: a number that a store counts is explained here before it is shown; a test starts every tier and looks.
"""

from __future__ import annotations

WORKERS: dict[str, str] = {  # all workers together
    "objects": "Stored responses in memory",
    "keys": "Cache keys in memory; variants of one URL share a key",
    "bytes": "Memory of stored responses, metadata included",
    "reserved_bytes": "Memory reserved for responses that are being fetched",
    "budget_bytes": "Memory that stored responses may take",
    "ghosts": "Evicted keys that eviction remembers",
    "tags": "Different tags of the responses in memory",
    "flights": "Fetches that other requests can share",
    "prefetch_fetched": "Responses that were prefetched",
    "prefetch_used": "Prefetched responses that a client asked for",
    "prefetch_off": "Routes whose prefetching has switched itself off",
    "disk_hits": "Requests answered from the disk tier",
    "disk_found": "Look-ups that found something on disk",
    "disk_absent": "Look-ups that found nothing on disk",
    "disk_written": "Responses written to disk",
    "disk_dropped": "Responses that were not written, since too much waited or the disk failed",
    "disk_errors": "Errors of the disk or its index",
    "disk_damaged": "Stored responses that failed their checksum",
    "disk_waiting_bytes": "Memory of responses that wait to be written to disk",
    "disk_lag_seconds": "How long the last batch of writes had waited, over all workers",
    "shared_hits": "Requests answered from the shared tier",
    "shared_misses": "Look-ups that found nothing in the shared tier",
    "shared_garbled": "Entries of the shared tier that were not usable",
    "shared_errors": "Requests to the shared tier's server that failed or took too long",
    "shared_written": "Responses written to the shared tier",
    "shared_dropped": "Responses that were not written to the shared tier, since too much waited or it was away",
    "shared_opened": "How often the server was left alone after failures in a row",
    "shared_waiting_bytes": "Memory of responses that wait to be written to the shared tier",
    "shared_waited": "Requests that waited for another machine's fetch",
    "shared_spared": "Of those, requests that this saved from asking the origin",
    "shared_usable": "Workers that may use the shared tier now",
}
TIER: dict[str, str] = {  # the disk tier as a whole
    "objects": "Stored responses on disk",
    "bytes": "Disk space that the tier takes, as du counts",
    "budget_bytes": "Disk space that the tier may take",
    "bodies_bytes": "Disk space of bodies that are files of their own",
    "segments": "Files of packed responses",
    "evicted": "Stored responses that were evicted from disk",
}
REFUSED = "prefetch_refused_"


def of_tier(name: str) -> str:
    """The help text of `edge_disk_<name>`."""
    return TIER.get(name, f"The disk tier's {name}")


def of_workers(name: str) -> str:
    """The help text of `edge_store_<name>`."""
    if name.startswith(REFUSED):
        return f"Prefetches that were not made: {name.removeprefix(REFUSED).replace('_', ' ')}"
    return WORKERS.get(name, f"The stores' {name}")
