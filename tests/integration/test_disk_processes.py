"""The disk tier under whole gateways: workers share it, kill -9 loses nothing, purges hold, a second one is refused."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from kit.asking import ask
from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, NotReady
from kit.waiting import until_blocking

OBJECTS = 200
TOML = f"""
[listen]
http = ["{LOOPBACK}:@HTTP@"]
workers = 2
[admin]
listen = "{LOOPBACK}:@ADMIN@"
token_file = "@STATE@/admin.token"
[state]
path = "@STATE@"
[log]
access = "off"
[cache]
memory = "16MiB"
disk = {{ path = "TIER", size = "64MiB", min_free = "0B" }}
[pools.o]
timeouts = {{ connect = "10s" }}
backends = [{{ url = "http://{LOOPBACK}:ORIGIN" }}]
[[routes]]
host = "*"
path = "/"
pool = "o"
"""


class Origin:
    """Counts requests by target; everything may be kept for an hour and is tagged with its last digit."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.port = 0
        self.running: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.running[task] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ")[1].decode()
                self.asked[target] += 1
                body = target.encode() * (5000 if target.startswith("/large") else 10)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nCache-Tag: t%b\r\nContent-Length: %d\r\n\r\n"
                    % (target[-1].encode(), len(body))
                    + body
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def origin() -> AsyncIterator[Origin]:
    made = Origin()
    server = await asyncio.start_server(made.serve, LOOPBACK, 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for writer in made.running.values():
        writer.transport.abort()
    await asyncio.gather(*made.running)


def get(port: int, target: str) -> tuple[str, bytes]:
    """Cache-Status and body, over a connection of its own so that any worker may have it."""
    found = ask(port, target, fields={"Host": "a.test"})
    assert found.status == 200
    return found.fields.get("Cache-Status", ""), found.body


def admin(gateway: GatewayProcess, method: str, path: str, body: Any = None) -> Any:
    status, found = gateway.api(method, path, body)
    assert status == 200, found
    return found


def all_written(gateway: GatewayProcess, count: int) -> None:
    """Until the tier holds so many responses."""

    def written() -> int:
        return int(admin(gateway, "GET", "/v1/cache")["disk"]["objects"])

    until_blocking(lambda: written() == count, look_s=0.05, said=lambda: f"{written()} of {count}")


def targets() -> list[str]:
    return [f"/{'large' if n % 20 == 0 else 'small'}/{n}" for n in range(OBJECTS)]


async def test_workers_share_it_and_kill_9_loses_nothing(origin: Origin, tmp_path: Path) -> None:
    toml = TOML.replace("TIER", str(tmp_path / "tier")).replace("ORIGIN", str(origin.port))
    await asyncio.to_thread(_shared_and_killed, toml, tmp_path, origin)


def _shared_and_killed(toml: str, path: Path, origin: Origin) -> None:
    gateway = GatewayProcess.start(toml, path)
    try:
        for target in targets():
            assert get(gateway.http_port, target)[1].startswith(target.encode())
        all_written(gateway, OBJECTS)
        for _ in range(4):  # by either worker, whichever fetched it
            for target in targets():
                status, body = get(gateway.http_port, target)
                assert "hit" in status and body.startswith(target.encode())
        assert set(origin.asked.values()) == {1} and len(origin.asked) == OBJECTS
        found = admin(gateway, "POST", "/v1/purge", {"tag": "t7"})
        assert found["count"] == OBJECTS // 10 and found["workers"] == 2
        assert admin(gateway, "POST", "/v1/purge", {"url": "http://a.test/small/1"})["count"] == 1
        assert admin(gateway, "POST", "/v1/purge", {"url": "http://a.test/small/1"})["count"] == 0
        admin(gateway, "POST", "/v1/purge", {"prefix": "a.test/large"})
        until_blocking(
            lambda: admin(gateway, "GET", "/v1/cache")["disk"]["hit_share"]
        )  # workers tell counts once a second
        shown = admin(gateway, "GET", "/v1/cache")["disk"]
        assert shown["budget_bytes"] == 64 << 20 and 0 < shown["bytes"] <= shown["budget_bytes"]
        assert shown["errors"] == shown["dropped"] == 0 and 0 < shown["hit_share"] < 1
    finally:
        gateway.kill()
    origin.asked.clear()
    gateway = GatewayProcess.start(toml, path)
    try:
        gone = {target for target in targets() if target.startswith("/large") or target.endswith("7")} | {"/small/1"}
        for target in targets():
            status, body = get(gateway.http_port, target)
            assert body.startswith(target.encode())
            assert ("hit" in status) == (target not in gone), target
        assert set(origin.asked) == gone
        # One worker dies, and its successor finds what the other one stored.
        get(gateway.http_port, "/late")
        all_written(gateway, OBJECTS + 1)
        dies = next(child for child in gateway.children if _is_worker(child))
        os.kill(dies, signal.SIGKILL)
        until_blocking(lambda: not _is_worker(dies) and sum(map(_is_worker, gateway.children)) > 1)
        until_blocking(lambda: gateway.admin_status("/readyz") == 200)
        for _ in range(12):
            assert "hit" in get(gateway.http_port, "/late")[0]
        assert gateway.stop() == 0
    finally:
        gateway.kill()


def _is_worker(pid: int) -> bool:
    try:
        return b"edge.cli.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


async def test_another_gateway_on_the_same_path_is_refused_with_one_line(origin: Origin, tmp_path: Path) -> None:
    toml = TOML.replace("TIER", str(tmp_path / "tier")).replace("ORIGIN", str(origin.port))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = await asyncio.to_thread(GatewayProcess.start, toml, tmp_path / "one")
    try:
        with pytest.raises(NotReady) as refused:
            await asyncio.to_thread(GatewayProcess.start, toml, tmp_path / "two")
        said = [line for line in str(refused.value).splitlines() if "another gateway" in line]
        assert len(said) == 1 and "Traceback" not in str(refused.value)
    finally:
        first.kill()


async def test_a_path_that_is_not_ours_is_one_event_and_no_obstacle(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "tier").mkdir()
    (tmp_path / "tier" / "letters").write_text("dear")
    toml = TOML.replace("TIER", str(tmp_path / "tier")).replace("ORIGIN", str(origin.port))
    gateway = await asyncio.to_thread(GatewayProcess.start, toml, tmp_path)
    try:
        assert (await asyncio.to_thread(get, gateway.http_port, "/x"))[1].startswith(b"/x")
        assert gateway.log().count("disk.unusable") == 1
        assert sorted(each.name for each in (tmp_path / "tier").iterdir()) == ["letters", "lock", "setup.lock"]
    finally:
        gateway.kill()
