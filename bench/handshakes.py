"""TLS handshakes: one connection after the other, each with one request, and what a proxy spends on them.

One rule: what is asked for is what happened. A full handshake offers no session; a resumed one offers that of the
connection before it, and counts as an error when the proxy did not take it up.
"""

from __future__ import annotations

import socket
import ssl
import statistics
import time
from dataclasses import dataclass

from bench.certificates import RSA_NAME
from bench.load import Load
from bench.processes import LOOPBACK, Refused


@dataclass(frozen=True, slots=True)
class Shape:
    """What each connection does."""

    path: str
    resumed: bool
    rsa: bool


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _one(port: int, shape: Shape, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    """One connection, answered; its socket, to be closed."""
    raw = socket.create_connection((LOOPBACK, port), 5)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = RSA_NAME if shape.rsa else None
    secured = context.wrap_socket(raw, server_hostname=name, session=session)
    host = RSA_NAME if shape.rsa else f"{LOOPBACK}:{port}"
    secured.sendall(f"GET {shape.path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    found = b""
    while piece := secured.recv(65536):
        found += piece
    if not found.startswith(b"HTTP/1.1 200"):
        raise Refused(f"port {port} answered {found[:80]!r}")
    return secured


def run(port: int, shape: Shape, seconds: float) -> Load:
    """Connections until the time is over."""
    context, session = _context(), None
    taken: list[float] = []
    errors = 0
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            begun = time.perf_counter()
            with _one(port, shape, context, session if shape.resumed else None) as secured:
                taken.append(time.perf_counter() - begun)
                errors += secured.session_reused != (shape.resumed and session is not None)
                session = secured.session
    except OSError as broken:
        raise Refused(f"a handshake with port {port} broke: {broken!r}") from None
    tail = statistics.quantiles(taken, n=100)[-1] if len(taken) > 1 else taken[0]
    return Load(len(taken), seconds, 0, int(statistics.median(taken) * 1e6), int(tail * 1e6), errors)
