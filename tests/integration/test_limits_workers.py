"""A rate limit counts for all workers of a gateway together."""

from __future__ import annotations

import http.client
from contextlib import closing
from pathlib import Path

from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_head

TOML = f"""{gateway_head(2, log="@STATE@/access.log")}
[pools.web]
backends = [{{ url = "http://{LOOPBACK}:1" }}]
[[routes]]
pool = "web"
path = "/other"
[[routes]]
rate_limit = {{ rate = "10/h" }}
respond = {{ status = 204 }}
"""


def ask(port: int) -> int:
    """Over a connection of its own: the kernel gives it to any worker."""
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=10)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().status


def test_workers_count_together_and_over_a_restart_anew(tmp_path: Path) -> None:
    for _ in range(2):
        gateway = GatewayProcess.start(TOML, tmp_path)
        try:
            answers = [ask(gateway.http_port) for _ in range(40)]
            assert (answers.count(204), answers.count(429)) == (10, 30)
            assert len(list((tmp_path / "state" / "limits").iterdir())) == 1, "of this run alone"
        finally:
            gateway.stop()
