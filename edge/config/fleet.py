"""The tables `[fleet]` and `cache.shared`: machines that serve together, and what they share.

One rule: a URL may hold a password, so it is never echoed.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import PlainValidator, ValidationInfo, model_validator

from edge.config.paths import FilePath, parse_path
from edge.config.redis_url import EXAMPLES, parse_redis_url
from edge.config.types import AtLeastOne, Duration, Many, PositiveSize, Section, Text, Timeout, ValueKind, entry


def parse_url(value: object) -> str:
    """A URL that `redis_url` can take apart."""
    if not isinstance(value, str):
        raise ValueError(f"must be a URL such as {EXAMPLES}")
    parse_redis_url(value)
    return value


def parse_word(value: object) -> str:
    """A word that may stand in a key's name."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value) is None:
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' or '-'")
    return value


class SecretFile(Section):
    """A secret that stands in a file."""

    file: FilePath = entry(..., "File with the secret and nothing else in it")


def parse_secret(value: object, info: ValidationInfo) -> str | SecretFile:
    """A text, or a table that names a file. It is never echoed."""
    if isinstance(value, str) and value:
        return str(value)
    if isinstance(value, dict) and value.keys() == {"file"}:
        return SecretFile.model_construct(file=parse_path(value["file"], info))
    raise ValueError("must be a text that is not empty, or { file = path }")


Secret = Annotated[str | SecretFile, PlainValidator(parse_secret), ValueKind("text or { file = path }")]
RedisUrl = Annotated[str, PlainValidator(parse_url), ValueKind("redis URL")]
Word = Annotated[str, PlainValidator(parse_word), ValueKind("word")]


class Server(Section):
    """A server that machines share, and how it is reached."""

    url: RedisUrl = entry(
        ...,
        "Server that speaks Redis' protocol, which machines share, as redis://127.0.0.1:6379/0; rediss:// is TLS; "
        "redis+sentinel://host,host,host/name and redis+cluster://host,host too (rediss+… with TLS)",
    )
    ca_file: FilePath | None = entry(None, "Certificates of authorities to trust for rediss://, beside the system's")
    sentinel_user: Text | None = entry(
        None, "ACL user of the sentinels; left out, sentinel_password is their requirepass. The URL's is the server's"
    )
    sentinel_password: Secret | None = entry(
        None,
        "What the sentinels ask for: a text, better as ${NAME}, or { file = path } of a file with nothing else in it",
    )

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        if self.sentinel_user is not None and self.sentinel_password is None:
            raise ValueError("sentinel_user needs sentinel_password")
        return self


class SharedTier(Server):
    """`cache.shared`."""

    timeout: Timeout = entry("50ms", "How long a look-up may take before it counts as a miss")
    lease: Duration = entry(
        "100ms",
        "How long a machine waits for what another one fetches just now before it fetches too; 0s: each fetches",
    )
    max_object: PositiveSize = entry("1MiB", "Largest body that is stored in this tier")
    namespace: Word = entry("edge", "What the names of keys begin with; gateways of one namespace share")


class Fleet(Server):
    """`[fleet]`."""

    url: RedisUrl = entry(..., "Server that has the purge stream, as cache.shared.url")
    name: Text | None = entry(None, "This machine's name for people; left out: the host's name")
    region: Text | None = entry(None, "Where it is, for people")
    namespace: Word = entry("edge", "What the names of keys begin with; machines of one namespace are one fleet")
    max_blind: Timeout = entry(
        "30s", "How long after the last word of the purge stream stored responses may be used without validation"
    )
    catch_up: Timeout = entry(
        "1s",
        "How long requests wait while a machine that was cut off reads what it missed; after that, stored responses "
        "are validated",
    )
    ack_timeout: Timeout = entry("2s", "How long a purge waits for the other machines")
    keep: AtLeastOne = entry(10_000, "Purges that the stream holds; a machine that misses more validates all it has")
    share: Many[Literal["states", "health", "rate_limits"]] = entry(
        (),
        "What is the whole fleet's beside purges: states (administrative states of regions and backends, and what is "
        "registered at run time), health (a backend is down when most machines' probes say so), "
        "rate_limits (what each machine let through is owed on all of them)",
    )
    key_file: FilePath | None = entry(
        None,
        "File with a secret that all machines share: entries in the server that are not sealed with it are ignored",
    )
