"""Limits of a worker's client side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Limits of the client side; seconds and bytes. The defaults are safe on the open internet."""

    header_timeout: float = 10.0
    idle_timeout: float = 60.0
    write_timeout: float = 30.0
    body_timeout: float = 30.0
    body_grace: float = 10.0
    body_rate: float = 1000.0
    connections: int = 20000
    connections_per_client: int = 4096
    handshakes: int = 2000
    handshakes_per_client: int = 200
    pipeline_bytes: int = 64 * 1024
    hold_bytes: int = 64 * 1024
    buffer_high: int = 64 * 1024
    buffer_low: int = 16 * 1024
    unread_bytes: int = 1024 * 1024 * 1024  # of answers, held for all clients together; 0: no bound
    chunk_line_bytes: int = 4096
    trailer_bytes: int = 8192
    max_ranges: int = 5
    grace: float = 30.0
    request_id: str = "keep"  # a client's X-Request-Id: keep | trusted (from trusted proxies) | replace
    https_port: int | None = None  # plain HTTP is sent there (308)
    return_id: bool = False  # each answer tells the client its request's id
