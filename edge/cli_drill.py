"""What a drill needs from the rest of the program: the copy as a repository, a state directory, a second gateway.

The gateway is this program, started as `edge run` from the restored configuration with these changes, which keep it
from touching anything outside: listeners and the admin API on spare loopback ports, the restored state, no log, no
sidecar, no TLS listener (its key may not be in the point), no shared cache; and every backend of the file keeps its
name, region and weight but leads to an address where nobody listens, unprobed. So no origin is ever asked anything.

One rule: what is changed here is told in the report as not proved.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import orjson

from edge.adapters.disk_export import DiskWarm
from edge.adapters.repository_directory import DirectoryRepository
from edge.cache.purge import Epochs, Kind, Purge, Verdict, base_of
from edge.cli_state import LocalState, accepted
from edge.config_snapshots import Snapshots
from edge.config_types import parse_backend_url
from edge.config_writing import toml_of
from edge.control.keeper import JournalKeeper
from edge.control.recovered import JOURNAL_FILE, first_change_after
from edge.control.recovery import golden_of
from edge.errors import DrillFailed, RecoveryBusy, RecoveryError
from edge.recovery.points import Point, closure, is_sound, newest_first
from edge.recovery.table import Table
from edge.sidecar.drill import Asked, Found, drill
from edge.sidecar.pace import Pace
from edge.sidecar.restore import Restored, Target, restore
from edge.sidecar.source import State, Warm
from edge.sidecar.take import Work
from edge.sidecar.vault import Vault

LOOPBACK = "127.0.0.1"
READY_S = 60.0
STOP_S = 10.0
ANSWER_S = 10.0
PURGES = 100  # the newest ones, looked at one by one
TOKEN = "drill-token-of-one-gateway-only"


class LocalLab:
    """`sidecar.drill.Lab` on this machine."""

    def __init__(self, key: bytes | None, wall: Callable[[], float], cached: int) -> None:
        self._key, self._wall = key, wall
        # Room for all that the point has and for what a tier needs beside it.
        self.warm: Warm | None = DiskWarm(Path("unused"), 2 * cached + 64 * 1024 * 1024) if cached else None

    def open(self, directory: Path) -> Work:
        """See the port."""
        vault = Vault.open(DirectoryRepository(directory), self._key, os.urandom, make=False)
        return Work(vault, Pace(), self._wall)

    def state(self, folder: Path) -> State:
        """See the port."""
        return LocalState(folder, self._key is not None)

    def accepted(self, restored: Restored) -> list[str]:
        """See the port."""
        return accepted(restored.state, restored.rebuilt)

    def purges_hold(self, folder: Path, table: Table) -> list[str]:
        """See the port: a response that was filled just before a purge must not be usable any more."""
        keeper = JournalKeeper.open(folder)
        try:
            epochs = keeper.epochs()
        finally:
            keeper.close()
        return list(refusals_missing(epochs, table))

    @contextmanager
    def boot(self, restored: Restored, place: Path) -> Iterator[RunningGateway]:
        """See the port."""
        text = restored.rebuilt.config
        if text is None:
            raise DrillFailed("the point holds no configuration to start from")
        http_port, admin_port = spare_ports(2)
        (place / "admin.token").write_text(TOKEN, encoding="ascii")
        path = place / "drill.toml"
        raw = contained(tomllib.loads(text), restored.state, place, (http_port, admin_port))
        path.write_text(toml_of(raw), encoding="utf-8")
        with running(path, place, admin_port) as check:
            gateway = RunningGateway(http_port, admin_port)
            gateway.wait(check)
            yield gateway


def refusals_missing(epochs: Epochs, table: Table) -> Iterator[str]:
    """Purges that the restored log would let pass."""
    rows = sorted(name for name in table if name.startswith("journal/purges/"))[-PURGES:]
    for name in rows:
        entry = table[name]
        if entry.blob:
            continue  # a value of more than 2 KiB: the entry itself was compared already
        number, _, text = orjson.loads(entry.data)
        purge = Purge.from_dict(orjson.loads(text))
        key, tags = _touched(purge)
        fate = epochs.admit(((int(number) << 32) - 1) if number else 0, key, tags)
        if fate.verdict is Verdict.KEPT:
            yield f"purge {number} ({purge.kind.value} {purge.value.decode('latin-1')}) is not in force"


def _touched(purge: Purge) -> tuple[bytes, tuple[bytes, ...]]:
    """A key and tags that a purge names."""
    value = purge.value
    if purge.kind is Kind.URL:
        return base_of(value), ()
    if purge.kind is Kind.TAG:
        return b"http://drill.example/", (value,)
    if purge.kind is Kind.PREFIX:
        return b"http://" + (value if not value.startswith(b"/") else b"drill.example" + value), ()
    return b"http://" + (value or b"drill.example") + b"/", ()


class RunningGateway:
    """`sidecar.drill.Gateway` over its admin API."""

    def __init__(self, http_port: int, admin_port: int) -> None:
        self._http, self._admin = http_port, admin_port

    def wait(self, check: Callable[[], None]) -> None:
        """Until it is ready and gives a client a first byte. Raises DrillFailed."""
        deadline = monotonic() + READY_S
        while self._status(self._admin, "/readyz") != 200:
            check()
            if monotonic() > deadline:
                raise DrillFailed(f"the gateway was not ready within {READY_S:g} s")
            sleep(0.02)
        while self._status(self._http, "/") == 0:
            check()
            if monotonic() > deadline:
                raise DrillFailed(f"no client was answered within {READY_S:g} s")
            sleep(0.02)

    def differences(self, golden: Mapping[str, Any]) -> Iterator[str]:
        """See the port."""
        for recorded in orjson.loads(golden.get("golden/requests", b"[]")):
            url = recorded["url"]
            found = golden_of(url, self._ask(f"/v1/explain?url={quote(url, safe='')}"))
            for name in ("route", "key"):
                if found[name] != recorded[name]:
                    yield f"{url}: its {name} was {recorded[name]}, and is {found[name]}"
            if sorted(map(list, found["backends"])) != sorted(map(list, recorded["backends"])):
                yield f"{url}: its backends are others than when the point was taken"
            # An order that was made by ill health is not the point's to keep: then only the regions must be the same.
            same = list if recorded["healthy"] else sorted
            if same(found["regions"]) != same(recorded["regions"]):
                yield f"{url}: its regions were {recorded['regions']}, and are {found['regions']}"
        admin = orjson.loads(golden.get("golden/admin", b"{}"))
        if admin:
            yield from self._admin_differences(admin)
        epoch = orjson.loads(golden.get("golden/epoch", b"0"))
        now = self._ask("/v1/cache")["epoch"]
        if now < epoch:
            yield f"the purge log ends at {now}, and was at {epoch}"

    def _admin_differences(self, recorded: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
        regions = {each["name"]: each["admin"] for each in self._ask("/v1/regions")["regions"]}
        backends = {
            f"{pool['name']}/{each['id']}": each["admin"]
            for pool in self._ask("/v1/pools")["pools"]
            for each in pool["backends"]
        }
        for kind, found in (("regions", regions), ("backends", backends)):
            for name, state in recorded.get(kind, {}).items():
                if found.get(name) != state:
                    yield f"{kind[:-1]} {name} was {state}, and is {found.get(name, 'not there')}"

    def served(self, table: Table) -> Iterator[str]:
        """See the port: each URL that was purged must be a miss."""
        for name in sorted(each for each in table if each.startswith("journal/purges/"))[-PURGES:]:
            entry = table[name]
            if entry.blob:
                continue
            purge = Purge.from_dict(orjson.loads(orjson.loads(entry.data)[2]))
            if purge.kind is not Kind.URL:
                continue
            url = base_of(purge.value).decode("latin-1")
            verdict = (self._ask(f"/v1/explain?url={quote(url, safe='')}").get("cache") or {}).get("verdict")
            if verdict in ("hit", "stale") and not purge.soft:
                yield f"{url} was purged, and is a {verdict}"

    def _ask(self, path: str) -> Any:
        connection = http.client.HTTPConnection(LOOPBACK, self._admin, timeout=ANSWER_S)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise DrillFailed(f"the restored gateway did not answer {path}: {error}") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise DrillFailed(f"the restored gateway answered {answer.status} to {path}")
        return orjson.loads(body)

    def _status(self, port: int, path: str) -> int:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=ANSWER_S)
        try:
            # Nothing is behind this gateway: a cached route need not find that out before it answers.
            connection.request("GET", path, headers={"Cache-Control": "only-if-cached"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


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
    restored = None if database is None else state / "restored" / Path(database).relative_to(Path(database).anchor)
    if restored is not None:
        found["geoip"] = {"database": str(restored if restored.exists() else database)}
    return found


def _nowhere(backend: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A backend under its own name, at an address of its own where nobody listens (discard, on loopback)."""
    found = {name: value for name, value in backend.items() if name not in ("url", "app")}
    if "id" not in found:
        url = backend.get("url")
        found["id"] = backend["app"] if url is None else parse_backend_url(url).authority
    return {**found, "url": f"http://127.{64 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}:9"}


@contextmanager
def running(path: Path, place: Path, admin_port: int) -> Iterator[Callable[[], None]]:
    """`edge run` as a process; gives what raises DrillFailed when it has ended."""
    log = place / "gateway.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.cli", "run", "-c", str(path)],
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


@contextmanager
def drill_room(state: Path, wanted: int) -> Iterator[Path]:
    """An empty directory for one drill, on the disk where a restore would go; what a killed one left is removed.

    Raises RecoveryBusy, DrillFailed.
    """
    state = state.absolute()
    state.mkdir(parents=True, exist_ok=True)
    place = state / ".drill"
    with (state / ".drill.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecoveryBusy(f"{state}: another drill runs here: wait until it is done") from None
        shutil.rmtree(place, ignore_errors=True)
        free = shutil.disk_usage(state).free
        if free < wanted:
            raise DrillFailed(f"{state}: a drill of this point needs {wanted} bytes, {free} are free: make room")
        place.mkdir(mode=0o700)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def load_point(work: Work, point: Point, state: Path, key: bytes | None) -> list[str]:
    """Restore a point to an empty directory and open it as a start would: what is wrong with it, one line each."""
    lab = LocalLab(key, work.wall, point.body_bytes)
    wanted = sum(file.size for file in point.files) + 2 * point.body_bytes
    with drill_room(state, wanted) as place:
        target = Target(place / "state", place / "state" / "cache" if lab.warm is not None else None)
        try:
            found = restore(work, lab.state(target.state), lab.warm, lambda points: points[point.id], target)
        except RecoveryError as error:
            work.vault.note(point.id, work.wall(), "corrupt", {"why": error.detail})
            return [error.detail]
        problems = lab.accepted(found)
        if not problems:
            work.vault.note(point.id, work.wall(), "verified", {"depth": "load"})
        return problems


def run_drill(work: Work, point: Point, values: Snapshots | None, state: Path, key: bytes | None) -> Found:
    """Drill a point; `state` is the state directory that the point is of, if it is here. Raises RecoveryError."""
    points = work.vault.points()
    newest = next((each for each in newest_first(points.values()) if is_sound(points, each)), None)
    judged = newest is not None and newest.id == point.id and (state / JOURNAL_FILE).exists()
    unsaved = first_change_after(state / JOURNAL_FILE, point.history, point.sequence_to) if judged else None
    rpo_s, rto_s = (900.0, 60.0) if values is None else (values.targets.rpo, values.targets.rto)
    wanted = 3 * sum(file.size for link in closure(points, point.id) for file in link.files) + point.body_bytes
    with drill_room(state, wanted) as place:
        return drill(
            work, Asked(point, place, rpo_s, rto_s, unsaved, judged), LocalLab(key, work.wall, point.body_bytes)
        )
