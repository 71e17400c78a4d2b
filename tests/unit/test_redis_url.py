"""What a URL of a server that speaks Redis' protocol says, and that a wrong one is never echoed."""

from __future__ import annotations

import pytest

from edge.config.redis_url import Topology, parse_redis_url


def test_the_parts_of_each_kind() -> None:
    one = parse_redis_url("redis://127.0.0.1")
    assert (one.topology, one.tls, one.hosts, one.database) == (Topology.DIRECT, False, (("127.0.0.1", 6379),), 0)
    assert (one.username, one.password) == (None, None)
    secret = parse_redis_url("rediss://ed:p%40ss%3A@[::1]:7000/3")
    assert (secret.tls, secret.hosts, secret.database) == (True, (("::1", 7000),), 3)
    assert (secret.username, secret.password) == ("ed", "p@ss:")
    assert parse_redis_url("redis://:word@h").password == "word"
    guarded = parse_redis_url("rediss+sentinel://u:p@10.0.0.1,10.0.0.2:7000,s3.example/main/2")
    assert (guarded.topology, guarded.tls, guarded.name, guarded.database) == (Topology.SENTINEL, True, "main", 2)
    assert guarded.hosts == (("10.0.0.1", 26379), ("10.0.0.2", 7000), ("s3.example", 26379))
    spread = parse_redis_url("redis+cluster://a,b:7001")
    assert (spread.topology, spread.hosts) == (Topology.CLUSTER, (("a", 6379), ("b", 7001)))


@pytest.mark.parametrize(
    "url",
    [
        "http://hunter2", "redis://", "redis://:hunter2@/0", "redis://hunter2:0", "redis://hunter2:65536",
        "redis://hunter2,other", "redis://hunter2/x", "redis://hunter2/0/1", "redis+sentinel://hunter2",
        "redis+sentinel://hunter2/", "redis+sentinel://hunter2/ma in", "redis+sentinel://hunter2,,b/main",
        "redis+sentinel://hunter2,hunter2/main", "redis+cluster://hunter2/0", "redis+other://hunter2",
        "redis://hunter2 ", "redis://hunter2?x=1", "redis+sentinel://hunter2/main/0/0",
    ],
)  # fmt: skip
def test_a_wrong_one_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as found:
        parse_redis_url(url)
    assert "hunter2" not in str(found.value)
