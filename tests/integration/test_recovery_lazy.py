"""A restored gateway serves before the bodies of its cache have come, whatever becomes of the one that brings them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.repository import BUCKET, S3Server
from kit.threaded import QuietHandler, ThreadedServer
from kit.waiting import until_blocking
from recovery_site import Site, first_point

PAGES = 24
SLOW = 'bandwidth = "32KiB"'  # a minute and more for all bodies


def page(path: str) -> bytes:
    """What the origin has: large bodies and small ones that nothing makes smaller."""
    number = int(path.removeprefix("/"))
    return random.Random(number).randbytes(150_000 if number % 4 == 0 else 40_000)


class Origin(QuietHandler):
    """Counts what it is asked."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.answer(200, {"Cache-Control": "max-age=3600"}, page(self.path))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    Origin.asked = 0
    server = ThreadedServer(Origin)
    port = server.port
    found = Site(tmp_path, f"file:{tmp_path}/points")
    found._toml = found._toml.replace('127.0.0.1:9"', f'127.0.0.1:{port}"').replace("127.0.0.2:9", f"localhost:{port}")
    found._toml += '\n[cache]\nmemory = "8MiB"\ndisk = { path = "@STATE@/cache", size = "64MiB" }\n'
    yield found
    if found.gateway is not None:
        found.gateway.kill()
    server.stop()


def lose_the_cache(site: Site) -> dict[str, Any]:
    """A point of all pages, then a restore in place of a cache that is gone; the journal survives."""
    site.start()
    if "s3:" not in site._toml:
        first_point(site)
    for number in range(PAGES):
        assert site.fetch(f"/{number}")[0] == 200
    until_blocking(lambda: site.taken_with(PAGES))
    assert site.gateway is not None
    site.gateway.kill()
    shutil.rmtree(site.state / "cache")
    found: dict[str, Any] = json.loads(site.edge("restore", "--json"))
    assert (found["bodies"], found["purge_gap"]) == (PAGES, False)
    assert found["awaited_bytes"] == sum(len(page(f"/{number}")) for number in range(PAGES))
    return found


def start(site: Site, more: str = "") -> None:
    """With another line in [snapshots]."""
    toml = site._toml
    site._toml = toml.replace('jitter = "0s"', f'jitter = "0s"\n{more}')
    site.start()
    site._toml = toml


def start_slowly(site: Site) -> None:
    """Returns when the sidecar gives bodies to who asks, long before it has brought all by itself; a request waits for
    it, but not for as long as it takes to come up on a slow machine."""
    start(site, SLOW)
    until_blocking(lambda: filling(site).get("left"))


def filling(site: Site) -> dict[str, Any]:
    """What the sidecar tells of bodies that are awaited, once a second."""
    return site.api("GET", "/v1/recovery")[1].get("filling") or {}


def served(site: Site, number: int) -> bool:
    """Whether a page is a hit, byte for byte."""
    return site.body(f"/{number}") == page(f"/{number}") and "; hit" in site.cache_status


def sidecar(site: Site) -> int:
    """Its process id."""
    assert site.gateway is not None
    found = [pid for pid in site.gateway.children if b"cli.sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found[0]


def test_requests_are_served_of_bodies_that_have_not_come(site: Site) -> None:
    lose_the_cache(site)
    start_slowly(site)
    asked = Origin.asked
    assert all(served(site, number) for number in range(8))
    assert (site.state / "cache/store/awaited").exists()
    until_blocking(lambda: filling(site).get("asked", 0) >= 8)
    assert 0 < filling(site)["left"] <= PAGES
    os.kill(sidecar(site), signal.SIGKILL)
    until_blocking(lambda: site.api("GET", "/v1/recovery")[1].get("sidecar_restarts") == 1)
    assert until_blocking(lambda: served(site, 8))  # another one has come
    assert Origin.asked <= asked + 1
    site.gateway.kill()  # type: ignore[union-attr]
    start(site)
    until_blocking(lambda: not (site.state / "cache/store/awaited").exists())
    before = Origin.asked
    assert all(served(site, number) for number in range(PAGES))
    assert Origin.asked == before
    assert "recovery.filled" in site.gateway.log()  # type: ignore[union-attr]
    assert site.api("GET", "/v1/recovery")[1]["filling"] is None


def test_a_purge_holds_for_what_has_not_come(site: Site) -> None:
    lose_the_cache(site)
    start_slowly(site)
    for number in (4, 5):
        site.edge("purge", "--url", f"http://www.example.com/{number}")
    asked = Origin.asked
    assert not served(site, 4) and not served(site, 5)
    assert Origin.asked == asked + 2
    site.gateway.stop()  # type: ignore[union-attr]
    start(site)
    until_blocking(lambda: not (site.state / "cache/store/awaited").exists())
    assert served(site, 4) and served(site, 5)  # as they were fetched again
    assert all(served(site, number) for number in range(PAGES))


def test_all_bodies_first_where_that_is_asked_for_or_no_sidecar_could_bring_them(site: Site) -> None:
    lose_the_cache(site)
    whole = json.loads(site.edge("restore", "--all", "--json"))
    assert (whole["bodies"], whole["awaited_bytes"]) == (PAGES, 0)
    other = site.home / "other points"
    shutil.copytree(site.home / "points", other)
    elsewhere = json.loads(site.edge("restore", "--repository", f"file:{other}", "--json"))
    assert (elsewhere["bodies"], elsewhere["awaited_bytes"]) == (PAGES, 0)
    assert not (site.state / "cache/store/awaited").exists()
    start(site)
    assert site.body("/3") == page("/3")


def test_bodies_come_from_an_object_store_encrypted_and_survive_its_outage(site: Site, s3: S3Server) -> None:
    key = site.home / "key"
    key.touch(mode=0o600)
    key.write_text("5a" * 32)
    site._toml = site._toml.replace(f"file:{site.home}/points", f"s3://{BUCKET}/lazy")
    start_with = f"endpoint = '{s3.endpoint}'\nencryption_key_file = '{key}'"
    site._toml = site._toml.replace('jitter = "0s"', f'jitter = "0s"\n{start_with}')
    lose_the_cache(site)
    start_slowly(site)
    asked = Origin.asked
    assert all(served(site, number) for number in range(6))
    assert Origin.asked == asked
    s3.stop()
    assert site.body("/9") == page("/9") and Origin.asked == asked + 1  # a miss as any other
    site.gateway.stop()  # type: ignore[union-attr]
    start(site)
    until_blocking(lambda: "recovery.failed" in site.gateway.log())  # type: ignore[union-attr]
    assert (site.state / "cache/store/awaited").exists()  # it goes on when the store is back
    assert served(site, 9)
