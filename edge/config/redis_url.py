"""Where a server that speaks Redis' protocol is, from its URL.

    redis://[user:password@]host[:port][/database]                 one server; rediss:// is TLS, here and below
    redis+sentinel://[user:password@]host[:port],…/name[/database]  the primary that most of these sentinels name
    redis+cluster://[user:password@]host[:port],…                  a cluster, found through any of these nodes

One rule: a URL may hold a password, so it is never echoed, and nobody else takes one apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

_URL = re.compile(
    r"(?P<tls>redis|rediss)(?:\+(?P<way>sentinel|cluster))?://"
    r"(?:(?P<user>[^:/@\s]*)(?::(?P<password>[^/@\s]*))?@)?"
    r"(?P<hosts>[^/@\s]+)(?P<path>/[^\s]*)?"
)
_HOST = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_PORTS = {"": 6379, "sentinel": 26379, "cluster": 6379}
MAX_HOSTS = 32
EXAMPLES = (
    '"redis://127.0.0.1:6379/0", "redis+sentinel://10.0.0.1,10.0.0.2,10.0.0.3/main" or "redis+cluster://10.0.0.1"'
)


class Topology(Enum):
    """How the server is found."""

    DIRECT = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a URL says. `hosts` are sentinels, or nodes of a cluster, or one server."""

    topology: Topology
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    name: str  # of the primary, as sentinels know it
    database: int
    username: str | None
    password: str | None


def parse_redis_url(url: str) -> RedisAddress:
    """The parts of a URL. Raises ValueError, without a word of what stands in it."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"must be a URL such as {EXAMPLES}")
    topology = Topology(found["way"] or "")
    hosts = tuple(_host(each, _PORTS[topology.value]) for each in found["hosts"].split(","))
    if len(hosts) > (1 if topology is Topology.DIRECT else MAX_HOSTS):
        several = (
            f"at most {MAX_HOSTS} hosts"
            if topology is not Topology.DIRECT
            else "one host; several need redis+sentinel:// …"
        )
        raise ValueError(f"must name {several}")
    if len(set(hosts)) != len(hosts):
        raise ValueError("must name each host once")
    name, database = _path(topology, [part for part in (found["path"] or "").split("/") if part])
    user, password = found["user"], found["password"]
    return RedisAddress(
        topology,
        found["tls"] == "rediss",
        hosts,
        name,
        database,
        unquote(user) if user else None,
        unquote(password) if password is not None else None,
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or default_port) if found is not None else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(f"must have hosts with a port or none, as in {EXAMPLES}")
    return found["host"].strip("[]"), port


def _path(topology: Topology, parts: list[str]) -> tuple[str, int]:
    name = ""
    if topology is Topology.SENTINEL:
        if not parts or _NAME.fullmatch(parts[0]) is None:
            raise ValueError("must end with the primary's name, as sentinels know it: redis+sentinel://host,host/main")
        name, *parts = parts
    if topology is Topology.CLUSTER and parts:
        raise ValueError("must end after the hosts: a cluster has no databases")
    if len(parts) > 1 or any(re.fullmatch("[0-9]{1,3}", part) is None for part in parts):
        raise ValueError("must end with the number of a database, or nothing")
    return name, int(parts[0]) if parts else 0
