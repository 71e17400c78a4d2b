"""Clients of a server that speaks Redis' protocol, from the URL in the configuration.

One rule: a client never tries again by itself, and never waits longer than it is told: whoever asks decides that. What
goes wrong has one word or line for it (`why_of`), never the URL's password.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import asyncio as redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import TimeoutError as RedisTimeout

from edge.adapters.redis_primary import BySentinels, BySlot, NoPrimary, PrimaryPool
from edge.adapters.tls import client_context
from edge.adapters.word_file import secret_in
from edge.config.fleet import SecretFile, Server
from edge.config.redis_url import RedisAddress, Topology, parse_redis_url
from edge.errors import ConfigError

ERRORS = (RedisError, RedisClusterException, OSError, EOFError, ValueError)  # ValueError: an answer that is none
MOST_CONNECTIONS = 16  # looks whether the server is back may each have one, while none is answered
LEAST_ANSWER_S = 1.0  # of a sentinel, or of a node that is asked who has a slot


class Login(NamedTuple):
    """User and password for the sentinels."""

    username: str | None = None
    password: str | None = None


NOBODY = Login()


@dataclass(frozen=True, slots=True)
class Link:
    """How to connect to a server: address, trusted CAs, and the time for connecting in seconds."""

    address: RedisAddress
    ca_file: str | None
    connect_s: float
    sentinels: Login = NOBODY

    @classmethod
    def of(cls, key: str, server: Server, connect_s: float) -> Link:
        """The link for a URL of the configuration at `key`. Raises ConfigError."""
        if server.ca_file is not None:
            try:
                client_context(server.ca_file, None, None, verify=True)
            except ConfigError as error:
                raise ConfigError([f"{key}.ca_file: {error.problems[0].removeprefix('tls.ca ')}"]) from None
        secret = server.sentinel_password
        if isinstance(secret, SecretFile):
            secret = secret_in(f"{key}.sentinel_password.file", secret.file)
        login = Login(server.sentinel_user, secret)
        return cls(parse_redis_url(server.url), server.ca_file, connect_s, login)

    def client(self, near: str) -> redis.Redis:
        """A client of the one server that has the name `near`; nothing is connected yet."""
        address, ours = self.address, self._options()
        if address.tls:
            ours["ssl"] = True
        if address.topology is Topology.DIRECT:
            host, port = address.hosts[0]
            return redis.Redis(host=host, port=port, max_connections=MOST_CONNECTIONS, **ours)
        asking = [redis.Redis(host=host, port=port, **self._asking()) for host, port in address.hosts]
        locator = BySentinels(asking) if address.topology is Topology.SENTINEL else BySlot(asking, near)
        pool = PrimaryPool(address.name, locator, max_connections=MOST_CONNECTIONS, **ours)
        return redis.Redis.from_pool(pool)

    def spread_client(self) -> redis.Redis | RedisCluster:
        """A client for names that may be anywhere."""
        address = self.address
        if address.topology is not Topology.CLUSTER:
            return self.client("")
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        options = {name: value for name, value in self._options().items() if name != "db"}
        return RedisCluster(startup_nodes=nodes, ssl=address.tls, max_connections=MOST_CONNECTIONS, **options)

    def _options(self) -> dict[str, Any]:
        address = self.address
        return {
            "db": address.database,
            "username": address.username,
            "password": address.password,
            **self._bounds(None),
        }

    def _asking(self) -> dict[str, Any]:
        """Of those who are asked where the primary is: sentinels have users of their own."""
        if self.address.topology is Topology.SENTINEL:
            return {"ssl": self.address.tls, **self.sentinels._asdict(), **self._bounds(LEAST_ANSWER_S)}
        return {"ssl": self.address.tls, **self._options(), **self._bounds(LEAST_ANSWER_S)}

    def _bounds(self, answer_s: float | None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "socket_connect_timeout": self.connect_s,
            "socket_timeout": answer_s,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if self.address.tls:
            found["ssl_ca_certs"] = self.ca_file
        return found


def why_of(error: BaseException) -> str:
    """The reason of an error, in a few words without secrets."""
    if isinstance(error, TimeoutError | RedisTimeout):
        return "no answer in time"
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return "the server refuses the user or password"
    if isinstance(error, OutOfMemoryError):
        return "the server's memory is full"
    if isinstance(error, ReadOnlyError):
        return "the server is a replica"
    said = str(error)
    if isinstance(error, NoPrimary):
        return said
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "the server's certificate is not accepted"
    if isinstance(error, ConnectionError | OSError | EOFError | RedisClusterException):
        return "cannot reach the server"
    return f"the server answered: {said[:120]}"
