"""The second gateway of a drill: a restored configuration made harmless, and the process that runs it.

The gateway is this program, started as `edge run` from the restored configuration with these changes, which keep it
from touching anything outside: listeners and the admin API on spare loopback ports, the restored state, no log, no
sidecar, no TLS listener (its key may not be in the point), no shared cache; and every backend of the file keeps its
name, region and weight but leads to an address where nobody listens, unprobed. So no origin is ever asked anything.

One rule: what is changed here is not proved by a drill, and stands in recovery/README.md as such.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.config.paths import Included, below
from edge.config.types import parse_backend_url
from edge.errors import DrillFailed

LOOPBACK = "127.0.0.1"
STOP_S = 10.0


def contained(raw: dict[str, Any], state: Path, place: Path, ports: tuple[int, int]) -> dict[str, Any]:
    """A configuration that touches nothing outside of the drill's directory."""
    kept = {name: value for name, value in raw.items() if name not in ("snapshots", "fleet", "include")}
    pools = {}
    number = 0
    for name, pool in raw.get("pools", {}).items():
        backends = []
        for backend in pool.get("backends", []):
            number += 1
            backends.append(_nowhere(backend, number))
        pools[name] = {key: value for key, value in pool.items() if key not in ("health", "tls")} | {
            "backends": backends
        }
    cache = {name: value for name, value in raw.get("cache", {}).items() if name not in ("disk", "shared")}
    if "disk" in raw.get("cache", {}) and (state / "cache").exists():
        cache["disk"] = {**raw["cache"]["disk"], "path": str(state / "cache")}
    listen = {name: value for name, value in raw.get("listen", {}).items() if name in ("trusted_proxies", "backlog")}
    found = {
        **kept,
        "listen": {**listen, "http": [f"{LOOPBACK}:{ports[0]}"], "workers": 1},
        "admin": {"listen": f"{LOOPBACK}:{ports[1]}", "token_file": str(place / "admin.token")},
        "state": {"path": str(state)},
        "log": {"access": "off"},
        "cache": cache,
        "pools": pools,
    }
    database = raw.get("geoip", {}).get("database")
    if database is not None:
        found["geoip"] = {"database": _restored(state, database) or database}
    found["routes"] = [_route(each, state) for each in raw.get("routes", [])]
    return found


def _route(route: Mapping[str, Any], state: Path) -> dict[str, Any]:
    """A route with its files as they were restored. Passwords and keys that are not in the point are not asked for,
    nor is a service."""
    found = dict(route)
    respond, pages, auth = route.get("respond", {}), route.get("error_pages", {}), route.get("auth", {})
    if isinstance(respond, Mapping) and "file" in respond:
        found["respond"] = {**respond, "file": _restored(state, respond["file"]) or respond["file"]}
    if pages:
        found["error_pages"] = {key: _restored(state, path) or path for key, path in pages.items()}
    basic = _restored(state, auth["basic"]) if "basic" in auth else None
    keys = _restored(state, auth["jwt"]["jwks"]) if "jwt" in auth else None
    if basic is not None:
        found["auth"] = {**auth, "basic": basic}
    elif keys is not None:
        found["auth"] = {**auth, "jwt": {**auth["jwt"], "jwks": keys}}
    else:
        found.pop("auth", None)
    return found


def _restored(state: Path, path: str) -> str | None:
    """Where a file that the configuration names was restored to; None where the point has it not."""
    seen = Path(below(path.folder, path) if isinstance(path, Included) else path)
    found = state / "restored" / seen.relative_to(seen.anchor)
    return str(found) if found.is_file() else None


def _nowhere(backend: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A backend under its own name, at an address of its own where nobody listens (discard, on loopback)."""
    found = {name: value for name, value in backend.items() if name not in ("url", "app")}
    if "id" not in found:
        url = backend.get("url")
        found["id"] = backend["app"] if url is None else parse_backend_url(url).name
    return {**found, "url": f"http://127.{64 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}:9"}


@contextmanager
def running(path: Path, place: Path) -> Iterator[Callable[[], None]]:
    """`edge run` as a process; gives what raises DrillFailed when it has ended."""
    log = place / "gateway.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.cli.main", "run", "-c", str(path)],
            *(), cwd=place, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(("EDGE_", "AWS_"))},
        )  # fmt: skip

    def check() -> None:
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip().splitlines()
            raise DrillFailed(f"the gateway did not start from the point: {said[-1] if said else process.returncode}")

    try:
        yield check
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass  # it is ended below
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nothing of it is left
        process.wait()


def spare_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
