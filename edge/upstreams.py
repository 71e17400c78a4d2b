"""The pools of a worker from their tables: backends, connections to them, what a later graph takes over.

One rule: nothing is decided here. Reading certificates takes tens of milliseconds, so a context is made once, and again
only when a file that it was made from is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cache, partial
from ssl import SSLContext

from edge.adapters.announcing_link import AnnouncingLink
from edge.adapters.backend_link import BackendLink, Peer, response_memo
from edge.adapters.names import Names
from edge.adapters.session_tickets import TicketSecret
from edge.adapters.tls import client_context, stamps
from edge.applications import Applications
from edge.balance.backend import Backend
from edge.balance.health import EjectionSettings
from edge.balance.pool import BalanceSettings, Pool
from edge.config.loader import Config
from edge.config.routing import APP_SCHEME, PoolTimeouts, UpstreamTls
from edge.config.routing import Pool as PoolConfig
from edge.config.routing import Timeouts as TimeoutsConfig
from edge.control.membership import backend_spec
from edge.dataplane.core.geography import Places
from edge.dataplane.core.turns import Turns
from edge.dataplane.upstream.hashing import HashOn
from edge.dataplane.upstream.pool import PoolRuntime, PoolSettings, seeded
from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.ports import Link, Timeouts


def no_pool() -> PoolRuntime:
    """A pool without backends, for routes that name none."""
    return PoolRuntime(Pool("", [], "round-robin", BalanceSettings(), seeded()), PoolSettings(), _no_link)


def _no_link(backend: Backend) -> Link:
    raise AssertionError("a route without a pool has no backend")


@dataclass(slots=True)
class Lasting:
    """What the graph of a reload takes over from the one before, where the settings are the same."""

    applications: Applications | None
    places: Places
    memo: Memo[ResponseFacts]
    tickets: TicketSecret
    contexts: dict[Hashable, SSLContext] = field(default_factory=dict)
    nowhere: PoolRuntime = field(default_factory=no_pool)  # of routes that name no pool


def response_limits(config: Config) -> Limits:
    """The limits of a backend's head. A field line may be as long as all of it: origins set long policies."""
    limits = config.limits
    return Limits(limits.max_response_header, limits.max_response_fields, limits.max_response_header)


def pool_runtimes(config: Config, turns: Turns, lasting: Lasting) -> dict[str, PoolRuntime]:
    """The pools by name, with their backends and links. Fallback pools are looked up when they are used."""
    maker = LinkMaker(config, turns, lasting)
    runtimes = {}
    for name, pool in config.pools.items():
        backends = [
            Backend(backend_spec(name, each), pool.health is not None, ejection(pool)) for each in pool.backends
        ]
        settings = BalanceSettings(ejection(pool), pool.slow_start, pool.fail_open)
        pure = Pool(name, backends, pool.balance, settings, seeded())
        runtimes[name] = PoolRuntime(
            pure,
            PoolSettings(pool.queue, pool.retry.budget, pool.retry.min),
            maker.for_pool(pool),
            HashOn(pool.hash.on) if pool.balance == "hash" else None,
        )
    return runtimes


def ejection(pool: PoolConfig) -> EjectionSettings | None:
    """The ejection settings of a pool; None when it has none."""
    rule = pool.ejection
    if rule is None:
        return None
    return EjectionSettings(
        consecutive=rule.consecutive,
        time_s=rule.time,
        max_time_s=rule.max_time,
        max_ejected=rule.max,
        window_s=rule.window,
        min_sample=rule.min_sample,
        min_success=rule.success_rate,
    )


def head_memo(config: Config) -> Memo[ResponseFacts]:
    """A memo of response heads. A backend's X-Request-Id gives way where the gateway tells its own."""
    left_out = frozenset((b"x-request-id",)) if config.limits.return_request_id else frozenset()
    return response_memo(response_limits(config), left_out)


class LinkMaker:
    """Makes the connections' owner (link) of each backend; names and remembered response heads serve all pools."""

    def __init__(self, config: Config, turns: Turns, lasting: Lasting) -> None:
        self._limits = config.limits
        self._head = response_limits(config)
        self._bounds = config.metrics.bounds
        self._turns = turns
        self._lasting = lasting
        self._names = Names()

    def for_pool(self, pool: PoolConfig) -> Callable[[Backend], Link]:
        """Makes the links of one pool, also for backends that come later. Raises ConfigError for a bad TLS file."""
        context = cache(partial(self._context, pool.tls))  # takes tens of milliseconds: only with an https backend
        if any(each.address.scheme == "https" for each in pool.backends):
            context()  # a bad file is told at the start
        return partial(self._link, pool, context)

    def _context(self, tls: UpstreamTls) -> SSLContext:
        known, key = self._lasting.contexts, (tls.ca, tls.cert, tls.key, tls.verify, stamps(tls.ca, tls.cert, tls.key))
        if key not in known:
            known[key] = client_context(tls.ca, tls.cert, tls.key, tls.verify)
        return known[key]

    def _link(self, pool: PoolConfig, context: Callable[[], SSLContext], backend: Backend) -> Link:
        if backend.scheme == APP_SCHEME:
            assert self._lasting.applications is not None  # the configuration names it
            limit = next(each.time_limit for each in pool.backends if each.id == backend.id)
            app = self._lasting.applications.backend_link(backend.host, timeouts(pool.timeouts), limit)
            return self._set_up(app, backend)
        secure = context() if backend.scheme == "https" else None
        announced = pool.proxy_protocol or ""
        peer = Peer(backend.host, backend.port, secure, pool.tls.server_name, pool.resolve, pool.lifetime, announced)
        kind = AnnouncingLink if announced else BackendLink
        link = kind(peer, timeouts(pool.timeouts), self._head, self._lasting.memo, self._names)
        return self._set_up(link, backend)

    def _set_up(self, link: BackendLink, backend: Backend) -> BackendLink:
        link.label = b'%b","region":"%b' % (backend.id.encode(), backend.region.encode())
        link.later = self._turns.later
        link.meter.count_by(self._bounds)
        link.interim_max = self._limits.max_interim
        link.chunk_line_bytes = self._limits.max_chunk_line
        link.trailer_bytes = self._limits.max_trailers
        return link


def timeouts(values: TimeoutsConfig) -> Timeouts:
    """The waits on a backend. A head that is due in one second cannot have its first byte later."""
    first = min(values.first_byte, values.head)
    idle = values.idle if isinstance(values, PoolTimeouts) else 0.0  # a route has no connections of its own
    return Timeouts(values.connect, first, values.head, values.body, idle, values.queue, values.tunnel)
