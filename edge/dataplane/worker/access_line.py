"""One line of the access log, of a request that went the full way; of fast hits see `caching.fast_hit`.

One rule: both ways write the same keys in the same order; they are documented in edge/README.md.
"""

from __future__ import annotations

from functools import lru_cache

from edge.dataplane.core.downstream import logged, protocol
from edge.dataplane.core.exchange import Exchange
from edge.http.text import quote

_LINE = (
    b'{"time":"%b","id":"%b","client":"%b","route":"%b","method":"%b","host":"%b","target":"%b","status":%d,'
    b'"bytes_in":%d,"bytes_out":%d,"us":%d,"upstream_us":%d,"backend":"%b","attempts":%d,"hedge":"%b",'
    b'"verdict":"%b","reason":"%b","error":"%b"}\n'
)


@lru_cache(maxsize=1024)
def _word(word: str) -> bytes:
    """A verdict, reason or error as bytes: there are few, and each log line has three."""
    return word.encode()


def json_line(stamp: bytes, exchange: Exchange, seconds: float) -> bytes:
    """One JSON object; its keys are documented in edge/README.md. Durations are whole microseconds."""
    route, upload, target = exchange.route, exchange.upload, exchange.target
    return _LINE % (
        stamp,
        exchange.request_id or exchange.own_id(),
        exchange.downstream.logged if not exchange.client and exchange.is_http11 else _client(exchange),
        route.label if route is not None else b"",
        exchange.method,
        (exchange.told.host if exchange.told is not None else b"") or exchange.host or b"",
        quote(target) if b'"' in target or b"\\" in target else target,
        exchange.status,
        upload.received if upload is not None else 0,
        exchange.bytes_out,
        seconds * 1e6,
        (exchange.head_at - exchange.started_at) * 1e6 if exchange.head_at else 0,
        exchange.served_by,
        exchange.attempts,
        _word(exchange.hedge) if exchange.hedge else b"",
        _word(exchange.verdict),
        _word(exchange.reason),
        _word(exchange.error) if exchange.error else b"",
    )


def _client(exchange: Exchange) -> bytes:
    """Whose the request is and how it came, as the JSON line has it within `"client":"…"`."""
    downstream = exchange.downstream
    client = exchange.client.encode() if exchange.client else downstream.peer_bytes
    return logged(client, protocol(exchange.version, exchange.is_http11), downstream.tls)
