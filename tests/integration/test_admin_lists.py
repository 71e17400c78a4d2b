"""The admin API's lists and streams: pages, many purges at once, events over gaps and restarts, pace, the page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer
from kit.admin import TOKEN, AdminClient, admin_client
from kit.control import TWO_WORKERS
from kit.origin import ScriptedOrigin

from edge.control.access import Access, Token
from edge.control.admin.application import admin_app
from edge.control.admin.pace import KeyedRateLimit
from edge.control.dashboard import assets
from edge.control.events import KEPT, Events

TOML = (
    TWO_WORKERS
    + """
[regions.eu]
[regions.us]
[regions.as]
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:@ORIGIN@"
region = "eu"
[[routes]]
pool = "web"
[routes.cache]
"""
)


@pytest_asyncio.fixture
async def api(origin: ScriptedOrigin) -> AsyncIterator[AdminClient]:
    async with admin_client(TOML.replace("@ORIGIN@", str(origin.port))) as found:
        yield found


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["regions", "pools", "events", "audit"])
async def test_a_list_is_the_same_in_pages_of_one(api: AdminClient, name: str) -> None:
    for region in ("eu", "us"):
        await api.ask("POST", f"/v1/regions/{region}/state", {"state": "draining", "force": True})
    follow = "follow=0&" if name == "events" else ""
    _, whole = await api.ask("GET", f"/v1/{name}?{follow}")
    assert whole["next"] is None
    found, after = [], ""
    while True:
        _, page = await api.ask("GET", f"/v1/{name}?{follow}limit=1{after}")
        found += page[name]
        assert len(page[name]) == 1
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    key = "id" if "id" in found[0] else "name"
    keys, wanted = [row[key] for row in found], [row[key] for row in whole[name]]
    assert keys[: len(wanted)] == wanted and len(found) >= 1
    if name == "events":  # more may happen while they are read
        assert keys == sorted(set(keys))
    else:
        assert keys == wanted
    if key == "id":
        for row in found[:3]:
            assert (await api.ask("GET", f"/v1/{name}/{row['id']}"))[1] == row
        assert (await api.ask("GET", f"/v1/{name}/{2**52}"))[0] == 404


async def test_a_page_behind_what_is_gone_is_told_so(api: AdminClient) -> None:
    status, body = await api.ask("GET", "/v1/regions?after=gone")
    assert status == 404 and "begin again" in body["detail"]


# -- purges ------------------------------------------------------------------------------------------------------------


async def test_many_purges_are_done_together(api: AdminClient, origin: ScriptedOrigin) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\nSurrogate-Key: t1\r\n\r\n"
    origin.default = (head + b"ok",)
    base = f"http://127.0.0.1:{api.whole.port}"
    for path in ("/a", "/b", "/c"):
        async with api.client.session.get(base + path) as response:
            await response.read()
    items = [{"url": f"{base}/a"}, {"tag": "t1", "soft": True}, {"prefix": "www.example.com/x"}]
    status, body = await api.ask("POST", "/v1/purge", {"items": items, "reason": "release"})
    assert status == 200
    shown = [(each["kind"], each["soft"], each["count"]) for each in body["purges"]]
    assert shown == [("url", False, 1), ("tag", True, 2), ("prefix", False, None)]
    numbers = [each["id"] for each in body["purges"]]
    assert numbers == sorted(set(numbers))
    assert len([event for event in api.whole.supervisor.events.recent if event["kind"] == "purge"]) == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"items": [{"url": "http://a/"}, {"url": ""}]}, "items[1]: "),
        ({"items": [{"url": "http://a/"}, "x"]}, "items[1]: "),
        ({"items": []}, "items must be a list of 1 to 1000"),
        ({"items": [{"all": True}] * 1001}, "items must be a list of 1 to 1000"),
        ({"items": {"url": "http://a/"}}, "items must be a list of 1 to 1000"),
        ({"items": [{"all": True}], "url": "http://a/"}, "'url' does not go with items"),
        ({"items": [{"url": "http://a/", "tag": "b"}]}, "items[0]: "),
        ({"all": True, "force": "perhaps"}, "force: must be true or false"),
    ],
)
async def test_one_wrong_purge_and_none_is_done(api: AdminClient, body: Any, said: str) -> None:
    status, answer = await api.ask("POST", "/v1/purge", body)
    assert (status, said in answer["detail"]) == (400, True), answer
    assert not api.whole.state_store.done


# -- events ------------------------------------------------------------------------------------------------------------


async def read_events(api: AdminClient, headers: dict[str, str], many: int, query: str = "") -> list[dict[str, Any]]:
    """The first events of a stream."""
    found: list[dict[str, Any]] = []
    sent = {"Authorization": f"Bearer {TOKEN}", **headers}
    async with api.client.get(f"/v1/events{query}", headers=sent) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        number = ""
        while len(found) < many:
            line = (await response.content.readline()).decode()
            if line.startswith("id: "):
                number = line[4:].strip()
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
                assert str(found[-1]["id"]) == number
    return found


async def test_a_listener_that_comes_back_goes_on_where_it_was(api: AdminClient) -> None:
    events = api.whole.supervisor.events
    for number in range(5):
        events.add("test.one", {"number": number})
    ids = [event["id"] for event in events.recent if event["kind"] == "test.one"]
    found = await read_events(api, {"Last-Event-ID": str(ids[1])}, 3)
    assert [event["number"] for event in found] == [2, 3, 4]
    assert all("lost" not in event for event in found)


async def test_a_listener_is_told_of_what_is_no_longer_kept(api: AdminClient) -> None:
    events = api.whole.supervisor.events
    events.add("test.first")
    first = events.recent[-1]["id"]
    for number in range(KEPT + 10):
        events.add("test.one", {"number": number})
    found = await read_events(api, {"Last-Event-ID": str(first)}, 1)
    assert (found[0]["number"], found[0]["lost"]) == (10, 10)


@pytest.mark.parametrize(("last", "lost"), [("17", True), (str(2**52), False)])
async def test_ids_of_another_life_bring_all_that_is_kept(api: AdminClient, last: str, lost: bool) -> None:
    events = api.whole.supervisor.events
    found = await read_events(api, {"Last-Event-ID": last}, 1)
    assert found[0]["id"] == events.recent[0]["id"]
    assert ("lost" in found[0]) is lost
    if lost:
        assert found[0]["lost"] is None


async def test_only_the_kinds_that_are_wanted(api: AdminClient) -> None:
    for kind in ("alpha.one", "beta.one", "alpha.two"):
        api.whole.supervisor.events.add(kind)
    found = await read_events(api, {}, 2, "?kind=alpha.")
    assert [event["kind"] for event in found] == ["alpha.one", "alpha.two"]


def test_ids_go_up_over_restarts_and_facts_are_bounded() -> None:
    first = Events(lambda: 1000.0)
    for _ in range(100):
        first.add("a")
    second = Events(lambda: 1001.0)
    second.add("b", {"error": "x" * 100_000, "count": 3})
    assert second.recent[0]["id"] > first.recent[-1]["id"]
    assert len(str(second.recent[0])) < 3000


# -- pace and audit ----------------------------------------------------------------------------------------------------


async def test_a_flood_without_a_token_is_slowed_and_leaves_the_token_alone(
    api: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_time = partial(KeyedRateLimit, clock=lambda: 0.0)
    monkeypatch.setattr("edge.control.admin.application.KeyedRateLimit", without_time)
    app = admin_app(api.whole.supervisor, Access([Token(TOKEN)]), rate=1)
    async with TestClient(TestServer(app)) as client:
        seen = []
        for _ in range(20):
            async with client.get("/v1/status", headers={"Authorization": "Bearer wrong"}) as response:
                seen.append((response.status, response.headers.get("Retry-After", "")))
        assert seen[:2] == [(401, ""), (401, "")]
        assert seen[-1][0] == 429 and int(seen[-1][1]) >= 1
        async with client.get("/v1/status", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert response.status == 200
            assert response.headers["Server-Timing"].startswith("app;dur=")
    assert api.whole.supervisor.admin_answers[429] >= 10


async def test_what_changes_nothing_stored_is_in_the_audit_too(api: AdminClient) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with api.client.post("/v1/warm", json={"urls": ["http://127.0.0.1/"]}, headers=headers) as response:
        await response.read()
    assert ("note", "cache.warm", "1 URLs") in api.whole.state_store.done


# -- the page ----------------------------------------------------------------------------------------------------------


async def test_the_pages_files_are_open_strict_and_kept_by_browsers(api: AdminClient) -> None:
    for name in ["", *(f"dashboard/{name}" for name in assets())]:
        async with api.client.get(f"/{name}", headers={"Sec-Fetch-Site": "cross-site"}) as response:
            assert response.status == 200
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert response.headers["X-Frame-Options"] == "DENY"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            tag = response.headers["ETag"]
        async with api.client.get(f"/{name}", headers={"If-None-Match": tag}) as response:
            assert response.status == 304
    for name in ("none.js", "../access.py", "%2e%2e/access.py", "static/app.js"):
        async with api.client.get(f"/dashboard/{name}") as response:
            assert response.status in (401, 404)
    async with api.client.get("/", headers={"Host": "evil.example"}) as response:
        assert response.status == 421


def test_the_page_has_nothing_inline_and_nothing_foreign() -> None:
    for name, asset in assets().items():
        text = asset.body.decode()
        if name.endswith(".html"):
            assert "style=" not in text and "<style" not in text and "onclick" not in text
            assert text.count("<script") == 1 and 'src="/dashboard/app.js"' in text
        if name.startswith("vendor/"):
            continue
        assert "innerHTML" not in text and "localStorage" not in text and "sessionStorage" not in text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "").replace("https://www.example.com", "")
