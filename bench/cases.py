"""What is measured, and what must be reached: the cases and the targets as tables.

One rule: a target names one metric of one case, and compares the gateway's figure of this run with a peer's figure of
the same run, or with a fixed bound. Nothing is compared across runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

GATEWAY = "gateway"
OBJECTS = 10_000
KEPT = 2_000


class Kind(Enum):
    """How a case is measured."""

    LOAD = "wrk"
    LATENCY = "one connection"
    IDLE = "kept connections"
    BIG = "large bodies"
    SLOW = "a 50 ms origin"
    TLS = "h2load, over TLS"
    HANDSHAKE = "one TLS connection after the other"


@dataclass(frozen=True, slots=True)
class Case:
    """`mode` is the load script's: plain, unique, cold, cold-unique, zipf or slow. Cached cases are warmed first.

    Over TLS (kept connections too) it is h2 or http/1.1, and `h2-paths` for a thousand paths; `streams` are of one
    connection at a time. Handshakes are full or resumed, with a certificate of P-256 or (`-rsa`) of RSA 2048.
    """

    name: str
    title: str
    path: str = ""
    kind: Kind = Kind.LOAD
    mode: str = "plain"
    connections: int = 64
    cached: bool = False
    streams: int = 1


CASES = (
    Case("forward-1k", "forward 1 KiB", "/f/1k"),
    Case("forward-100k", "forward 100 KiB", "/f/100k"),
    Case("forward-1m", "forward 1 MiB", "/f/1m"),
    # The default of most sites: a route that caches, answers that forbid it. nginx and HAProxy forward them plainly.
    Case("uncacheable-1k", "uncacheable, cached route, 1 KiB", "/u/1k"),
    Case("uncacheable-1k-unique", "uncacheable, every head another", "/u/1k", mode="unique"),
    Case("uncacheable-100k", "uncacheable, cached route, 100 KiB", "/u/100k"),
    Case("cold-1k", "cold miss, stored, 1 KiB", "/k/", mode="cold"),
    Case("cold-1k-unique", "cold miss, every head another", "/k/", mode="cold-unique"),
    Case("hit-1k", "hit 1 KiB", "/c/1k", cached=True),
    Case("hit-10k", "hit 10 KiB", "/c/10k", cached=True),
    Case("hit-100k", "hit 100 KiB", "/c/100k", cached=True),
    Case("hit-1m", "hit 1 MiB", "/c/1m", cached=True),
    Case("browser", "browser mix, cached", "/c/o/", mode="zipf", cached=True),
    Case("latency", "forward 1 KiB, 1 connection", "/f/1k", Kind.LATENCY, connections=1),
    Case("idle", "2,000 kept connections", "/f/1k", Kind.IDLE),
    Case("tls-idle", "2,000 idle connections over TLS", "/f/1k", Kind.IDLE, "http/1.1"),
    Case("h2-idle", "2,000 idle HTTP/2 connections", "/f/1k", Kind.IDLE, "h2"),
    Case("big", "large body up and down", "/big/", Kind.BIG),
    Case("slow-forward", "50 ms origin, no cache", "/sf/", Kind.SLOW, "slow"),
    Case("slow-cached", "50 ms origin, 90 % cacheable", "/s/", Kind.SLOW, "slow", cached=True),
    Case("h2-hit-1k", "HTTP/2 hit 1 KiB, 16 x 10 streams", "/c/1k", Kind.TLS, "h2", 16, True, 10),
    Case("h2-hit-1k-single", "HTTP/2 hit 1 KiB, 64 x 1 stream", "/c/1k", Kind.TLS, "h2", 64, True),
    Case("h2-paths", "HTTP/2 hits of 1,000 paths, 16 x 10", "/c/o/", Kind.TLS, "h2-paths", 16, True, 10),
    Case("h2-paths-single", "HTTP/2 hits of 1,000 paths, 64 x 1", "/c/o/", Kind.TLS, "h2-paths", 64, True),
    Case("h2-hit-100k", "HTTP/2 hit 100 KiB, 16 x 10 streams", "/c/100k", Kind.TLS, "h2", 16, True, 10),
    Case("h2-forward-1k", "HTTP/2 forward 1 KiB, 16 x 10 streams", "/f/1k", Kind.TLS, "h2", 16, False, 10),
    Case("tls-hit-1k", "HTTP/1.1 over TLS, hit 1 KiB", "/c/1k", Kind.TLS, "http/1.1", 64, True),
    Case("tls-full", "full handshake, P-256, and a hit", "/c/1k", Kind.HANDSHAKE, "full", 1, True),
    Case("tls-resumed", "resumed handshake, P-256, and a hit", "/c/1k", Kind.HANDSHAKE, "resumed", 1, True),
    Case("tls-full-rsa", "full handshake, RSA 2048, and a hit", "/c/1k", Kind.HANDSHAKE, "full-rsa", 1, True),
    Case("tls-resumed-rsa", "resumed handshake, RSA 2048, and a hit", "/c/1k", Kind.HANDSHAKE, "resumed-rsa", 1, True),
)


@dataclass(frozen=True, slots=True)
class Target:
    """gateway.metric (<= or >=) factor x reference.metric; with an empty reference, factor is the bound itself.

    `reference` is a peer's name, or `case:NAME` for the gateway's own figure in another case.
    """

    case: str
    metric: str
    factor: float
    reference: str = ""
    at_least: bool = False
    stretch: bool = False


TARGETS = (
    Target("forward-1k", "cpu_us", 1.45, "nginx"),
    Target("forward-1k", "cpu_us", 1.15, "nginx", stretch=True),
    Target("forward-1k", "rps", 4.0, "naive", at_least=True),
    Target("uncacheable-1k", "cpu_us", 1.15, "case:forward-1k"),
    Target("uncacheable-1k", "cpu_us", 1.7, "nginx"),
    Target("uncacheable-1k-unique", "cpu_us", 2.6, "nginx"),
    Target("uncacheable-100k", "cpu_us", 1.3, "haproxy"),
    Target("cold-1k", "cpu_us", 0.65, "varnish"),
    Target("cold-1k-unique", "cpu_us", 0.95, "varnish"),
    Target("forward-100k", "rps", 0.8, "haproxy", at_least=True),
    Target("idle", "bytes_each", 2560),
    Target("h2-idle", "bytes_each", 60_000),
    Target("big", "down_growth_mib", 32),
    Target("big", "up_growth_mib", 32),
    Target("latency", "added_us", 2.0, "nginx"),
    Target("hit-1k", "cpu_us", 0.8, "nginx"),
    Target("hit-1k", "cpu_us", 0.6, "varnish"),
    Target("hit-1k", "cpu_us", 0.7, "nginx", stretch=True),
    Target("hit-1k", "cpu_us", 1.1, "haproxy", stretch=True),
    Target("hit-1k", "p99_us", 1.5, "nginx"),
    Target("hit-10k", "cpu_us", 1.2, "nginx"),
    Target("hit-100k", "cpu_us", 0.8, "varnish"),
    Target("hit-100k", "cpu_us", 0.8, "haproxy"),
    Target("hit-100k", "cpu_us", 1.2, "nginx"),
    Target("browser", "cpu_us", 0.8, "nginx"),
    Target("browser", "cpu_us", 1.0, "haproxy", stretch=True),
    Target("h2-hit-1k", "cpu_us", 0.5, "nginx"),
    Target("h2-hit-1k-single", "cpu_us", 1.0, "nginx"),
    Target("h2-paths", "cpu_us", 0.6, "nginx"),
    Target("h2-paths-single", "cpu_us", 1.1, "nginx"),
    Target("h2-hit-100k", "cpu_us", 0.9, "nginx"),
    Target("h2-forward-1k", "cpu_us", 1.5, "nginx"),
    Target("tls-hit-1k", "cpu_us", 1.0, "nginx"),
    Target("tls-full", "cpu_us", 1.2, "nginx"),
    Target("tls-resumed", "cpu_us", 1.3, "nginx"),
    Target("tls-full-rsa", "cpu_us", 1.2, "nginx"),
    Target("tls-resumed-rsa", "cpu_us", 1.3, "nginx"),
    Target("slow-cached", "p50_us", 0.5, "case:slow-forward"),
    Target("slow-cached", "hit_ratio", 0.9, at_least=True),
)
