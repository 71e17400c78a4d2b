"""Clients of a server that speaks Redis' protocol, from the URL in the configuration.

One rule: a client never tries again by itself, and never waits longer than it is told: whoever asks decides that. What
goes wrong has one word or line for it (`why_of`), never the URL's password.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
)
from redis.exceptions import TimeoutError as RedisTimeout

ERRORS = (RedisError, OSError, EOFError, ValueError)  # ValueError: an answer that is none
MOST_CONNECTIONS = 8


def client_of(url: str, connect_s: float, answer_s: float | None) -> redis.Redis:
    """A client with connections of its own; nothing is connected yet."""
    parts = urlsplit(url)
    path = parts.path.strip("/")
    return redis.Redis(
        host=(parts.hostname or "127.0.0.1"),
        port=parts.port or 6379,
        db=int(path) if path else 0,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
        ssl=parts.scheme == "rediss",
        socket_connect_timeout=connect_s,
        socket_timeout=answer_s,
        retry=Retry(NoBackoff(), 0),
        max_connections=MOST_CONNECTIONS,
        protocol=2,
    )


def why_of(error: BaseException) -> str:
    """What went wrong, in a few words that are safe to show."""
    if isinstance(error, TimeoutError | RedisTimeout):
        return "no answer in time"
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return "the server refuses the user or password"
    if isinstance(error, OutOfMemoryError):
        return "the server's memory is full"
    if isinstance(error, ConnectionError | OSError | EOFError):
        return "cannot reach the server"
    return f"the server answered: {str(error)[:120]}"
