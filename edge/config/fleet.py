"""The tables `[fleet]` and `cache.shared`: machines that serve together, and what they share.

One rule: a URL may hold a password, so it is never echoed.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import PlainValidator

from edge.config.paths import FilePath
from edge.config.redis_url import EXAMPLES, parse_redis_url
from edge.config.types import AtLeastOne, Duration, Kind, Many, PositiveSize, Section, Text, Timeout, entry


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


RedisUrl = Annotated[str, PlainValidator(parse_url), Kind("redis URL")]
Word = Annotated[str, PlainValidator(parse_word), Kind("word")]


class SharedTier(Section):
    """`cache.shared`."""

    url: RedisUrl = entry(
        ...,
        "Server that speaks Redis' protocol, which machines share, as redis://127.0.0.1:6379/0; rediss:// is TLS; "
        "redis+sentinel://host,host,host/name and redis+cluster://host,host too (rediss+… with TLS)",
    )
    ca_file: FilePath | None = entry(None, "Certificates of authorities to trust for rediss://, beside the system's")
    timeout: Timeout = entry("50ms", "How long a look-up may take before it counts as a miss")
    lease: Duration = entry(
        "100ms",
        "How long a machine waits for what another one fetches just now before it fetches too; 0s: each fetches",
    )
    max_object: PositiveSize = entry("1MiB", "Largest body that is given to the others")
    namespace: Word = entry("edge", "What the names of keys begin with; gateways of one namespace share")


class Fleet(Section):
    """`[fleet]`."""

    url: RedisUrl = entry(..., "Server that has the purge stream, as cache.shared.url")
    ca_file: FilePath | None = entry(None, "As cache.shared.ca_file")
    name: Text | None = entry(None, "This machine's name for people; left out: the host's name")
    region: Text | None = entry(None, "Where it is, for people")
    namespace: Word = entry("edge", "What the names of keys begin with; machines of one namespace are one fleet")
    max_blind: Timeout = entry(
        "30s", "How long after the last word of the purge stream stored responses may be used without validation"
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
        None, "File with a secret that all machines share: what is in the server without its seal is not believed"
    )
