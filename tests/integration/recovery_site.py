"""A gateway with recovery points, as a process, and the commands for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from kit.asking import ask
from kit.processes import GatewayProcess, gateway_head, run_edge
from kit.waiting import until_blocking

TOML = (
    gateway_head()
    + """
[snapshots]
repository = "@REPOSITORY@"
incremental = "@INTERVAL@"
jitter = "0s"
@MORE@
[regions.eu]
[regions.us]
[pools.web]
ejection = false
timeouts = { connect = "10s" }
backends = [
  { url = "http://127.0.0.1:9", region = "eu", weight = 3 },
  { url = "http://127.0.0.2:9", region = "us" },
]
[[routes]]
host = "www.example.com"
path = "/"
pool = "web"
geo = { prefer = ["us"] }
[[routes]]
host = "*.example.net"
path = "/static"
pool = "web"
name = "static"
"""
)


class Site:
    """A gateway with recovery points, and the commands for it."""

    def __init__(self, home: Path, repository: str, more: str = "", interval: str = "1h") -> None:
        self.home = home
        self.state = home / "state"
        self._toml = TOML.replace("@REPOSITORY@", repository).replace("@MORE@", more).replace("@INTERVAL@", interval)
        self.gateway: GatewayProcess | None = None
        self.config = home / "gateway.toml"
        self.status, self.cache_status = 0, ""  # of the last plain GET

    def start(self) -> GatewayProcess:
        """Start, or start again."""
        self.gateway = GatewayProcess.start(self._toml, self.home)
        return self.gateway

    def edge(self, *arguments: str, code: int = 0) -> str:
        """Run a command; its standard output. Never a traceback."""
        found = run_edge(*arguments, "-c", str(self.config), directory=self.home)
        assert "Traceback" not in found.stderr, found.stderr
        assert found.returncode == code, (arguments, found.returncode, found.stdout, found.stderr)
        self.said = found.stderr
        return found.stdout

    def points(self) -> list[dict[str, Any]]:
        """What `snapshot list` shows."""
        found: list[dict[str, Any]] = json.loads(self.edge("snapshot", "list", "--json"))["points"]
        return found

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """As `GatewayProcess.api`, of the gateway that runs now."""
        assert self.gateway is not None
        return self.gateway.api(method, path, body)

    def get(self, host: str, path: str) -> tuple[int, str]:
        """Status and Cache-Status of a request to the gateway."""
        assert self.gateway is not None
        fields = {"Host": host, "Cache-Control": "only-if-cached"}
        found = ask(self.gateway.http_port, path, fields=fields)
        return found.status, found.fields.get("Cache-Status", "")

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and Cache-Status of a plain GET."""
        self.body(path)
        return self.status, self.cache_status

    def body(self, path: str) -> bytes:
        """The body of a plain GET."""
        assert self.gateway is not None
        found = ask(self.gateway.http_port, path, fields={"Host": "www.example.com"})
        self.status, self.cache_status = found.status, found.fields.get("Cache-Status", "")
        return found.body

    def taken_with(self, bodies: int) -> str | None:
        """A point that holds so many bodies; the disk tier may still be writing."""
        point = self.edge("snapshot", "take").strip()
        return point if self.points()[0]["bodies"] == bodies else None

    def answers(self) -> dict[str, Any]:
        """What must be the same before a loss and after it."""
        explained = {
            url: self.api("GET", f"/v1/explain?url={url}")[1]
            for url in ("http://www.example.com/a", "http://x.example.net/static/b?c=d", "http://nobody.example.org/")
        }
        for found in explained.values():
            found.pop("listeners", None)  # its port is another one at each start
            for backend in found.get("backends", []):
                backend.pop("score")
        return {
            "explained": explained,
            "regions": [
                {name: each[name] for name in ("name", "source", "admin", "tier")}
                for each in self.api("GET", "/v1/regions")[1]["regions"]
            ],
            "backends": [
                {name: each[name] for name in ("id", "region", "weight", "source", "admin")}
                for pool in self.api("GET", "/v1/pools")[1]["pools"]
                for each in pool["backends"]
            ],
            "requests": [self.get("www.example.com", "/a"), self.get("x.example.net", "/static/"), self.get("n", "/")],
        }

    def destroy(self) -> None:
        """kill -9 of everything, and no state left."""
        assert self.gateway is not None
        self.gateway.kill()
        shutil.rmtree(self.state)


def first_point(site: Site) -> dict[str, Any]:
    """The one that the sidecar takes at its start."""
    points: list[dict[str, Any]] = until_blocking(
        lambda: (site.config.exists() and (site.home / "points/points").is_dir()) and site.points()
    )
    return points[0]
