"""Regions and backends registered at run time, by API and by CLI: they serve, they last, bad ones leave no trace."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest_asyncio
from kit.origin import ScriptedOrigin
from kit.regions import Load, Regions, answer_of

from edge.control.state_store import JOURNAL_FILE

REGION = {"tier": 0, "continents": ["AS"], "location": [35.7, 139.7], "reason": "growth", "actor": "me"}


@pytest_asyncio.fixture
async def regions(tmp_path: Path) -> AsyncIterator[Regions]:
    found = Regions(tmp_path)
    yield found
    await found.stop()


@pytest_asyncio.fixture
async def tokyo() -> AsyncIterator[ScriptedOrigin]:
    """An origin of no configuration."""
    origin = ScriptedOrigin()
    origin.route("/work", answer_of("ap-1"))
    await origin.start()
    yield origin
    await origin.stop()


async def kept(regions: Regions) -> tuple[Any, Any]:
    """What is there, apart from what moves: names and sources."""
    found = (await regions.api("GET", "/v1/regions")).body["regions"]
    pool = await regions.pool()
    return (
        {each["name"]: each["source"] for each in found},
        {each["id"]: (each["url"], each["source"], each["weight"]) for each in pool["backends"]},
    )


async def test_what_is_registered_serves_is_shown_apart_and_lasts(regions: Regions, tokyo: ScriptedOrigin) -> None:
    await regions.start()
    made = await regions.api("PUT", "/v1/regions/ap", REGION)
    assert (made.status, made.body["source"], made.body["registered"]["actor"]) == (201, "runtime", "admin (me)")
    assert (await regions.api("PUT", "/v1/regions/ap", REGION)).status == 200
    body = {"url": tokyo.url, "region": "ap", "weight": 2}
    made = await regions.api("PUT", "/v1/pools/web/backends/ap-1", body)
    assert (made.status, made.body["source"], made.body["weight"]) == (201, "runtime", 2)
    await regions.until(lambda pool: all(each["health"] == "healthy" for each in pool["backends"]))
    async with Load(regions.gateway.http_port) as load:
        assert "ap-1" in {body for _, body in await load.more(60)}
    assert load.failed == []
    before = await kept(regions)
    assert before[0] == {"eu": "file", "us": "file", "ap": "runtime"}
    assert {name: source for name, (_, source, _) in before[1].items()} == {
        **dict.fromkeys(("eu-1", "eu-2", "us-1", "us-2"), "file"),
        "ap-1": "runtime",
    }
    await regions.kill_supervisor_and_restart()
    assert await kept(regions) == before
    await regions.until(lambda pool: all(each["health"] == "healthy" for each in pool["backends"]))
    async with Load(regions.gateway.http_port) as load:
        assert "ap-1" in {body for _, body in await load.more(60)}
    removed = await regions.api("DELETE", "/v1/pools/web/backends/ap-1")
    assert removed.status == 200
    async with Load(regions.gateway.http_port) as load:
        assert "ap-1" not in {body for _, body in await load.more(40)}
    assert (await regions.api("DELETE", "/v1/regions/ap")).status == 200
    assert (await kept(regions))[0] == {"eu": "file", "us": "file"}


async def test_the_commands_do_the_same(regions: Regions, tokyo: ScriptedOrigin) -> None:
    await regions.start()
    for command in (
        [
            "region",
            "add",
            "ap",
            "--tier",
            "0",
            "--continent",
            "AS",
            "--location",
            "35.7",
            "139.7",
            "--reason",
            "growth",
        ],
        ["backend", "add", "web", tokyo.url, "--id", "ap-1", "--region", "ap", "--weight", "2"],
    ):
        done = await regions.cli(*command)
        assert done.returncode == 0, done.stderr
    names, backends = await kept(regions)
    assert names["ap"] == "runtime"
    assert backends["ap-1"] == (tokyo.url, "runtime", 2)
    shown = await regions.cli("region", "list")
    assert "runtime" in shown.stdout and "growth" not in shown.stderr
    for command in (["backend", "remove", "web", "ap-1"], ["region", "remove", "ap"]):
        assert (await regions.cli(*command)).returncode == 0
    again = await regions.cli("region", "remove", "ap")
    assert (again.returncode, again.stderr) == (1, "edge: there is no region ap; known: eu, us\n")
    audit = (await regions.api("GET", "/v1/audit")).body["audit"]
    actions = [(each["action"], each["target"]) for each in reversed(audit)]
    assert actions == [
        ("region.register", "ap"),
        ("backend.register", "web/ap-1"),
        ("backend.unregister", "web/ap-1"),
        ("region.unregister", "ap"),
    ]
    assert all(each["actor"].startswith("admin (cli") for each in audit)


BAD: tuple[tuple[str, str, Any, int], ...] = (
    ("PUT", "/v1/regions/a%20b", {}, 400),
    ("PUT", "/v1/regions/eu", {"tier": 1}, 409),
    ("PUT", "/v1/regions/ap", {"tier": -1}, 400),
    ("PUT", "/v1/regions/ap", {"location": [100, 0]}, 400),
    ("PUT", "/v1/regions/ap", {"countries": ["Japan"]}, 400),
    ("PUT", "/v1/regions/ap", {"teir": 1}, 400),
    ("PUT", "/v1/regions/ap", [], 400),
    ("PUT", "/v1/regions/ap", {"expires": "soon"}, 400),
    ("PUT", "/v1/pools/none/backends", {"url": "http://127.0.0.1:1", "region": "eu"}, 404),
    ("PUT", "/v1/pools/web/backends", {"url": "ftp://127.0.0.1:1", "region": "eu"}, 400),
    ("PUT", "/v1/pools/web/backends", {"url": "http://127.0.0.1:1/path", "region": "eu"}, 400),
    ("PUT", "/v1/pools/web/backends", {"url": "http://127.0.0.1:99999", "region": "eu"}, 400),
    ("PUT", "/v1/pools/web/backends", {"region": "eu"}, 400),
    ("PUT", "/v1/pools/web/backends", {"url": "http://127.0.0.1:1", "region": "mars"}, 400),
    ("PUT", "/v1/pools/web/backends", {"url": "http://127.0.0.1:1", "region": "eu", "weight": "x"}, 400),
    ("PUT", "/v1/pools/web/backends/eu-1", {"url": "http://127.0.0.1:1", "region": "eu"}, 409),
    ("DELETE", "/v1/pools/web/backends/eu-1", None, 409),
    ("DELETE", "/v1/pools/web/backends/none", None, 404),
    ("DELETE", "/v1/regions/eu", None, 409),
    ("DELETE", "/v1/regions/mars", None, 404),
    ("POST", "/v1/regions/mars/state", {"state": "draining"}, 404),
    ("POST", "/v1/regions/eu/state", {"state": "gone"}, 400),
)


async def test_a_bad_change_is_one_line_and_nothing_is_stored(regions: Regions) -> None:
    await regions.start()
    before = await kept(regions)
    for method, path, body, status in BAD:
        answer = await regions.api(method, path, body)
        assert answer.status == status, (method, path, body, answer.body)
        assert list(answer.body) == ["type", "title", "status", "detail"]
        assert answer.body["detail"]
        assert "\n" not in answer.body["detail"]
    assert await kept(regions) == before
    assert (await regions.api("GET", "/v1/audit")).body["audit"] == []
    await regions.kill_supervisor_and_restart()
    assert await kept(regions) == before


async def test_a_twin_address_is_refused(regions: Regions) -> None:
    await regions.start()
    url = regions.origins["eu-1"].url
    answer = await regions.api("PUT", "/v1/pools/web/backends/twin", {"url": url, "region": "eu"})
    assert answer.status == 409, answer.body
    assert "twin" not in (await kept(regions))[1]


async def test_the_safety_rule_refuses_what_leaves_a_route_alone_without_force(regions: Regions) -> None:
    fenced = '\n[[routes]]\nname = "fenced"\nhost = "f.example"\npool = "web"\ngeo = { require = ["eu"] }\n'
    await regions.start(more=fenced)
    refused = await regions.api("POST", "/v1/regions/eu/state", {"state": "inactive"})
    assert refused.status == 409
    assert "route fenced" in refused.body["detail"]
    assert (await regions.api("GET", "/v1/regions/eu")).body["admin"] == "active"
    told = await regions.cli("region", "deactivate", "eu")
    assert (told.returncode, len(told.stderr.splitlines())) == (1, 1)
    forced = await regions.cli("region", "deactivate", "eu", "--force", "--reason", "I know")
    assert forced.returncode == 0, forced.stderr
    assert (await regions.api("GET", "/v1/regions/eu")).body["admin"] == "inactive"
    audit = (await regions.api("GET", "/v1/audit")).body["audit"]
    assert [each["detail"]["forced"] for each in audit] == [True]


async def test_a_registration_is_in_the_journal_when_it_is_answered(regions: Regions, tmp_path: Path) -> None:
    await regions.start()
    with closing(sqlite3.connect(f"file:{tmp_path / 'state' / JOURNAL_FILE}?mode=ro", uri=True)) as journal:
        for number in range(15):
            assert (await regions.api("PUT", f"/v1/regions/r{number}", {"tier": 2})).status == 201
            names = {name for (name,) in journal.execute("SELECT name FROM registrations WHERE kind = 'region'")}
            assert f"r{number}" in names
