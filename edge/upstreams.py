"""The pools of a worker from their tables: backends, connections to them, what a later graph takes over.

One rule: nothing is decided here. Reading certificates takes tens of milliseconds, so a context is made once, and again
only when a file that it was made from is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
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
from edge.config.routing import APP_SCHEME, PoolTimeouts
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
    """For routes that name none: nobody is ever picked."""
    return PoolRuntime(Pool("", [], "round-robin", BalanceSettings(), seeded()), PoolSettings(), _no_link)


def _no_link(backend: Backend) -> Link:
    raise AssertionError("a route without a pool has no backend")


@dataclass(slots=True)
class Lasting:
    """What a later graph of a worker takes over where its settings are the same."""

    applications: Applications | None
    places: Places
    memo: Memo[ResponseFacts]
    tickets: TicketSecret
    contexts: dict[Hashable, SSLContext] = field(default_factory=dict)
    nowhere: PoolRuntime = field(default_factory=no_pool)  # of routes that name no pool


def response_limits(config: Config) -> Limits:
    """Of a backend's head. A field line may be as long as the head: origins set long policies and cookies."""
    limits = config.limits
    return Limits(limits.max_response_header, limits.max_response_fields, limits.max_response_header)


def pool_runtimes(config: Config, turns: Turns, lasting: Lasting) -> dict[str, PoolRuntime]:
    """All pools; their fallbacks are tied when they are used."""
    make = link_maker(config, turns, lasting)
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
            make(pool),
            HashOn(pool.hash.on) if pool.balance == "hash" else None,
        )
    return runtimes


def ejection(pool: PoolConfig) -> EjectionSettings | None:
    """How live failures take a backend of this pool out; None when they do not."""
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


def link_maker(config: Config, turns: Turns, lasting: Lasting) -> Callable[[PoolConfig], Callable[[Backend], Link]]:
    """For each pool, how a backend of it is connected to; response heads are remembered for all of them together."""
    limits = config.limits
    head = response_limits(config)
    applications, memo = lasting.applications, lasting.memo
    names, bounds = Names(), config.metrics.bounds

    def for_pool(pool: PoolConfig) -> Callable[[Backend], Link]:
        tls = pool.tls
        limits_of = {each.id: each.time_limit for each in pool.backends}
        known: list[SSLContext] = []  # made once, when there is an https backend: it takes tens of milliseconds

        def context() -> SSLContext:
            if not known:
                key = (tls.ca, tls.cert, tls.key, tls.verify, stamps(tls.ca, tls.cert, tls.key))
                if key not in lasting.contexts:
                    lasting.contexts[key] = client_context(tls.ca, tls.cert, tls.key, tls.verify)
                known.append(lasting.contexts[key])
            return known[0]

        if any(each.address.scheme == "https" for each in pool.backends):
            context()  # a bad file is told at the start

        def make(backend: Backend) -> Link:
            if backend.scheme == APP_SCHEME:
                assert applications is not None  # the configuration names it
                link = applications.backend_link(backend.host, timeouts(pool.timeouts), limits_of[backend.id])
                return dressed(link, backend)
            secure = context() if backend.scheme == "https" else None
            announced = pool.proxy_protocol or ""
            peer = Peer(backend.host, backend.port, secure, tls.server_name, pool.resolve, pool.lifetime, announced)
            kind = AnnouncingLink if announced else BackendLink
            return dressed(kind(peer, timeouts(pool.timeouts), head, memo, names), backend)

        def dressed(link: BackendLink, backend: Backend) -> BackendLink:
            link.label = b'%b","region":"%b' % (backend.id.encode(), backend.region.encode())
            link.later = turns.later
            link.meter.count_by(bounds)
            link.interim_max = limits.max_interim
            link.chunk_line_bytes = limits.max_chunk_line
            link.trailer_bytes = limits.max_trailers
            return link

        return make

    return for_pool


def timeouts(values: TimeoutsConfig) -> Timeouts:
    """The waits on a backend. A head that is due in one second cannot have its first byte later."""
    first = min(values.first_byte, values.head)
    idle = values.idle if isinstance(values, PoolTimeouts) else 0.0  # a route has no connections of its own
    return Timeouts(values.connect, first, values.head, values.body, idle, values.queue, values.tunnel)
