"""What a drill needs from the rest of the program: the copy as a repository, a state directory, a second gateway.

One rule: what it answers is asked as an operator or a client would ask it; nothing looks inside.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any
from urllib.parse import quote

import orjson

from edge.adapters.config_files import sources_of
from edge.adapters.disk_export import DiskWarm
from edge.adapters.repository_directory import DirectoryRepository
from edge.cache.purge import Purge, PurgeKind, PurgeLog, PurgeState, base_of
from edge.cache.record import Damaged, decode
from edge.cli.second import contained, running, spare_ports
from edge.cli.state import RESTORED, LocalState, accepted
from edge.config.snapshots import Snapshots
from edge.config.sources import put_together
from edge.config.writing import toml_of
from edge.control.recovered import JOURNAL_FILE, first_change_after
from edge.control.recovery import golden_of
from edge.control.state_store import JournalStateStore
from edge.errors import DrillFailed, RecoveryBusy, RecoveryError
from edge.recovery.points import Point, closure, is_sound, newest_first
from edge.recovery.table import Entry, Table
from edge.sidecar.drill import DrillRequest, Found, drill
from edge.sidecar.pace import Pace
from edge.sidecar.restore import Restored, Target, restore
from edge.sidecar.source import CACHE, State, Warm
from edge.sidecar.take import Work
from edge.sidecar.vault import Vault

LOOPBACK = "127.0.0.1"
READY_S = 60.0
STOP_S = 10.0
ANSWER_S = 10.0
PURGES = 100  # the newest ones, looked at one by one
FRESH_S = 60.0
SERVED = 50  # stored responses that are asked for
TOKEN = "drill-token-of-one-gateway-only"


class LocalLab:
    """`sidecar.drill.Lab` on this machine."""

    def __init__(self, key: bytes | None, wall: Callable[[], float], cached: int) -> None:
        self._key, self._wall = key, wall
        # Room for all that the point has and for what a tier needs beside it.
        self.warm: Warm | None = DiskWarm(Path("unused"), 2 * cached + 64 * 1024 * 1024) if cached else None

    def open(self, directory: Path) -> Work:
        """As `sidecar.drill.Lab` says."""
        vault = Vault.open(DirectoryRepository(directory), self._key, os.urandom, make=False)
        return Work(vault, Pace(), self._wall)

    def state(self, folder: Path) -> State:
        """As `sidecar.drill.Lab` says."""
        return LocalState(folder, self._key is not None)

    def accepted(self, restored: Restored) -> list[str]:
        """As `sidecar.drill.Lab` says."""
        return accepted(restored.state, restored.rebuilt)

    def purges_hold(self, folder: Path, table: Table) -> list[str]:
        """As `sidecar.drill.Lab` says: a response that was filled just before a purge must not be usable any more."""
        state_store = JournalStateStore.open(folder)
        try:
            purge_log = state_store.purge_log()
        finally:
            state_store.close()
        return list(refusals_missing(purge_log, table))

    @contextmanager
    def boot(self, restored: Restored, place: Path) -> Iterator[RunningGateway]:
        """As `sidecar.drill.Lab` says."""
        text = restored.rebuilt.config
        if text is None:
            raise DrillFailed("the point holds no configuration to start from")
        http_port, admin_port = spare_ports(2)
        (place / "admin.token").write_text(TOKEN, encoding="ascii")
        path = place / "drill.toml"
        sources = sources_of(restored.state / RESTORED / restored.rebuilt.config_name)
        raw = contained(put_together(sources).raw, restored.state, place, (http_port, admin_port))
        path.write_text(toml_of(raw), encoding="utf-8")
        with running(path, place) as check:
            gateway = RunningGateway(http_port, admin_port)
            gateway.wait(check)
            yield gateway


def refusals_missing(purge_log: PurgeLog, table: Table) -> Iterator[str]:
    """Purges that the restored log would let pass."""
    rows = sorted(name for name in table if name.startswith("journal/purges/"))[-PURGES:]
    for name in rows:
        entry = table[name]
        if entry.blob:
            continue  # a value of more than 2 KiB: the entry itself was compared already
        number, _, text = orjson.loads(entry.data)
        purge = Purge.from_dict(orjson.loads(text))
        key, tags = _touched(purge)
        fate = purge_log.admit(((int(number) << 32) - 1) if number else 0, key, tags)
        if fate.verdict is PurgeState.KEPT:
            yield f"purge {number} ({purge.kind.value} {purge.value.decode('latin-1')}) is not in force"


def _touched(purge: Purge) -> tuple[bytes, tuple[bytes, ...]]:
    """A key and tags that a purge names."""
    value = purge.value
    if purge.kind is PurgeKind.URL:
        return base_of(value), ()
    if purge.kind is PurgeKind.TAG:
        return b"http://drill.example/", (value,)
    if purge.kind is PurgeKind.PREFIX:
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
        """As `sidecar.drill.Gateway` says."""
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
        """As `sidecar.drill.Gateway` says: asked as a client would, for what is stored only."""
        for name in sorted(each for each in table if each.startswith("journal/purges/"))[-PURGES:]:
            if table[name].blob:
                continue  # a value of more than 2 KiB
            purge = Purge.from_dict(orjson.loads(orjson.loads(table[name].data)[2]))
            url = base_of(purge.value)
            if purge.kind is PurgeKind.URL and not purge.soft and self._stored(url) is not None:
                yield f"{url.decode('latin-1')} was purged before the point"
        for url, entry in stored_urls(table, SERVED):
            body = self._stored(url)
            if body is not None and sha256(body).digest() != (entry.blob or sha256(b"").digest()):
                yield f"{url.decode('latin-1')} has another body than in the point"
            elif body is None:
                yield f"{url.decode('latin-1')} is in the point, and is not served"

    def _stored(self, url: bytes) -> bytes | None:
        """The body of a stored response; None when nothing stored answers."""
        host, _, path = url.partition(b"://")[2].partition(b"/")
        connection = http.client.HTTPConnection(LOOPBACK, self._http, timeout=ANSWER_S)
        try:
            headers = {"Host": host.decode("latin-1"), "Cache-Control": "only-if-cached, max-stale"}
            connection.request("GET", "/" + path.decode("latin-1"), headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            return body if answer.status == 200 and answer.getheader("Cache-Status") else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

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


def stored_urls(table: Table, most: int) -> Iterator[tuple[bytes, Entry]]:
    """Responses of the point that a plain request must get: whole ones with status 200, reusable, of no variant."""
    found = 0
    for name in sorted(table):
        if not name.startswith(CACHE) or found == most:
            continue
        try:
            stored = decode(table[name].data).stored
        except Damaged:
            continue  # the restore has said so already
        plain = stored.status == 200 and not stored.vary and stored.part is None and not stored.no_cache
        plain = plain and stored.fresh_until > time() + FRESH_S  # what has gone stale is the origin's to answer
        if plain and b" " not in stored.key and stored.key.startswith(b"http://") and not stored.must_revalidate:
            found += 1
            yield stored.key, table[name]


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
            work, DrillRequest(point, place, rpo_s, rto_s, unsaved, judged), LocalLab(key, work.wall, point.body_bytes)
        )
