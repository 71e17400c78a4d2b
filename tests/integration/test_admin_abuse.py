"""The admin API towards whoever means it no good: nasty values, foreign names and pages, weak tokens, slow connections.

One rule: every answer is below 500, is a problem in JSON, and reports no bug.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient
from kit.admin import TOKEN, TOKENS, admin_client
from kit.control import Whole
from kit.waiting import WAIT_S, until

from edge.control.access import Access, Unauthenticated
from edge.control.admin.application import CONNECTIONS, admin_app, start_admin
from edge.control.admin_connections import AdminConnections

TOML = """
[listen]
http = ["127.0.0.1:0"]
[log]
access = "off"
[regions.eu]
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:9"
region = "eu"
[[routes]]
name = "all"
pool = "web"
"""


class Gateway:
    """A running gateway and a client of its API."""

    def __init__(self, whole: Whole, client: TestClient[Any, Any]) -> None:
        self.whole = whole
        self.client = client

    async def ask(
        self, method: str, path: str, body: bytes | None = None, token: str = TOKEN, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Authorization": f"Bearer {token}", **named}
        url = self.client.make_url("/").join(_raw(path)) if path else self.client.make_url("/")
        async with self.client.session.request(method, url, data=body, headers=sent) as response:
            return response.status, dict(response.headers), await response.read()

    @property
    def bugs(self) -> list[Any]:
        return [event for event in self.whole.supervisor.events.recent if event["kind"] == "bug"]


def _raw(path: str) -> Any:
    from yarl import URL

    return URL(path, encoded=True)


@pytest_asyncio.fixture
async def gateway(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    """By its parameter, where there is one: how long a body may take."""
    async with admin_client(TOML, ["edge.example"], body_s=getattr(request, "param", WAIT_S)) as found:
        yield Gateway(found.whole, found.client)


# -- nasty values ------------------------------------------------------------------------------------------------------

MANY = "9" * 6000
NASTY = [
    ("GET", f"/v1/audit?limit={MANY}", None),
    ("GET", "/v1/audit?limit=%D9%A3", None),
    ("GET", "/v1/audit?limit=-1", None),
    ("GET", f"/v1/events?follow=0&after={MANY}", None),
    ("GET", "/v1/explain", None),
    ("GET", "/v1/explain?url=http://[", None),
    ("GET", "/v1/explain?url=http://[/&method=GET", None),
    ("GET", "/v1/explain?url=http://a:b:c/", None),
    ("GET", "/v1/explain?url=http://ok:99999/", None),
    ("GET", "/v1/explain?url=http://a.test/%00&client=1.2.3", None),
    ("GET", "/v1/explain?url=http://a.test/&header=a%0d%0ab:c", None),
    ("GET", "/v1/explain?url=http://a.test/&header=%C3%A9:x", None),
    ("GET", "/v1/explain?url=http://a.test/&method=%00", None),
    ("GET", "/v1/regions/%FF", None),
    ("GET", "/v1/regions/%00", None),
    ("GET", "/v1/regions/%1b[31m", None),
    ("GET", "/v1/pools/%E2%80%AE/backends", None),
    ("GET", "/v1/pools/web/backends/%0a", None),
    ("DELETE", "/v1/regions/mars?expires=" + MANY, None),
    ("DELETE", "/v1/regions/mars?reason=%00", None),
    ("PUT", "/v1/regions/x", b"\xff\xfe"),
    ("PUT", "/v1/regions/x", b"[" * 100_000),
    ("PUT", "/v1/regions/x", b'{"tier": ' + MANY.encode() + b"}"),
    ("PUT", "/v1/regions/x", b'{"tier": 1e999}'),
    ("PUT", "/v1/regions/x", b'{"tier": true}'),
    ("PUT", "/v1/regions/x", b'{"location": [1e308, null]}'),
    ("PUT", "/v1/regions/x", b'{"countries": {"a": 1}}'),
    ("PUT", "/v1/regions/x", b'{"countries": [["IE"]]}'),
    ("PUT", "/v1/regions/x", b'{"expires": 5}'),
    ("PUT", "/v1/regions/x", b'{"reason": "\\u0000"}'),
    ("PUT", "/v1/regions/" + "x" * 3000, b"{}"),
    ("PUT", "/v1/regions/%2e%2e%2f", b"{}"),
    ("POST", "/v1/regions/eu/state", b'{"state": 5}'),
    ("POST", "/v1/regions/eu/state", b'{"state": "gone"}'),
    ("POST", "/v1/regions/eu/state", b"null"),
    ("POST", "/v1/regions/mars/failback", b"{}"),
    ("PUT", "/v1/pools/web/backends", b"{}"),
    ("PUT", "/v1/pools/web/backends", b'{"url": "http://["}'),
    ("PUT", "/v1/pools/web/backends", b'{"url": "http://a:99999", "region": "eu"}'),
    ("PUT", "/v1/pools/web/backends/%FF%FE", b'{"url": "http://a:1", "region": "eu"}'),
    ("PUT", "/v1/pools/web/backends", b'{"url": "http://a:1", "region": "eu", "weight": ' + MANY.encode() + b"}"),
    ("PUT", "/v1/pools/nopool/backends", b'{"url": "http://a:1"}'),
    ("POST", "/v1/purge", b""),
    ("POST", "/v1/purge", b"5"),
    ("POST", "/v1/purge", b'{"url": 5}'),
    ("POST", "/v1/purge", b'{"url": "http://["}'),
    ("POST", "/v1/purge", b'{"tag": "\\ud800"}'),
    ("POST", "/v1/purge", b'{"tag": "' + b"a" * 9000 + b'"}'),
    ("POST", "/v1/purge", b'{"prefix": "a b"}'),
    ("POST", "/v1/purge", b"\xff"),
    ("POST", "/v1/warm", b""),
    ("POST", "/v1/warm", b"http://a.test/\xff"),
    ("POST", "/v1/warm", b"[" + MANY.encode() + b"]"),
    ("POST", "/v1/warm", b"[" * 100_000),
    ("POST", "/v1/warm", b'{"urls": ' + MANY.encode() + b"}"),
    ("POST", "/v1/warm", b'{"urls": [5]}'),
    ("POST", "/v1/warm", b"ftp://a.test/"),
    ("POST", "/v1/simulate", b"{}"),
    ("POST", "/v1/simulate", b'{"lose": 5}'),
    ("POST", "/v1/simulate", b'{"lose": ["mars"]}'),
    ("POST", "/v1/simulate", b'{"slow": {"web/127.0.0.1:9": "x"}}'),
    ("POST", "/v1/simulate", b'{"slow": {"web/127.0.0.1:9": ' + MANY.encode() + b"}}"),
    ("POST", "/v1/simulate", b'{"capacity": {"eu": -1}}'),
    ("PATCH", "/v1/regions/eu", b"{}"),
    ("GET", "/v1/../etc", None),
    ("GET", "/%00", None),
]


@pytest.mark.parametrize(("method", "path", "body"), NASTY, ids=[f"{m} {p[:40]} {str(b)[:30]}" for m, p, b in NASTY])
async def test_a_nasty_request_is_a_problem_of_the_asker(
    gateway: Gateway, method: str, path: str, body: bytes | None
) -> None:
    status, headers, said = await gateway.ask(method, path, body)
    assert 400 <= status < 500, said
    assert headers["Content-Type"].startswith("application/problem+json")
    found = json.loads(said)
    assert set(found) == {"type", "title", "status", "detail"}
    assert found["status"] == status
    assert found["detail"].isprintable(), found["detail"]
    assert gateway.bugs == []


@pytest.mark.parametrize("value", [MANY, "²", "-1", "1.5"])
async def test_a_nasty_last_event_id(gateway: Gateway, value: str) -> None:
    status, _, _ = await gateway.ask("GET", "/v1/events?follow=0", None, Last_Event_ID=value)
    assert status == 400


async def test_a_charset_that_nobody_knows_changes_nothing(gateway: Gateway) -> None:
    status, _, _ = await gateway.ask("POST", "/v1/warm", b"ftp://x", Content_Type="text/plain; charset=klingon")
    assert status == 400


async def test_what_breaks_within_is_told_without_a_traceback(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(limit: int, before: int | None = None) -> list[Any]:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(gateway.whole.state_store, "audit", broken)
    status, _, said = await gateway.ask("GET", "/v1/audit")
    assert status == 500
    assert json.loads(said)["detail"] == "a bug in the gateway: ZeroDivisionError; its events tell more"
    assert len(gateway.bugs) == 1


# -- who asks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:9900"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "a b"}, 421),
        ({"Host": "edge.example"}, 200),
        ({"Host": "EDGE.example.:9900"}, 200),
        ({"Host": "localhost:9900"}, 200),
        ({"Host": "[::1]:9900"}, 200),
        ({"Host": "192.0.2.1"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "edge.example", "Origin": "http://edge.example"}, 200),
        ({"Host": "edge.example", "Origin": "https://edge.example"}, 200),
        ({"Host": "edge.example", "Origin": "http://edge.example:81"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
async def test_no_foreign_name_and_no_foreign_page(gateway: Gateway, headers: dict[str, str], status: int) -> None:
    assert (await gateway.ask("GET", "/v1/status", None, **headers))[0] == status


async def test_probes_are_asked_by_any_name(gateway: Gateway) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await gateway.ask("GET", path, None, "x", Host="pod-7.cluster.local"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "least"),
    [
        ("GET", "/v1/status", None, "read"),
        ("GET", "/metrics", None, "read"),
        ("GET", "/v1/config", None, "read"),
        ("GET", "/v1/audit", None, "read"),
        ("POST", "/v1/simulate", b'{"lose": ["eu"]}', "read"),
        ("POST", "/v1/purge", b'{"all": true}', "purge"),
        ("POST", "/v1/warm", b"http://a.test/", "purge"),
        ("POST", "/v1/regions/eu/state", b'{"state": "active"}', "admin"),
        ("PUT", "/v1/regions/us", b"{}", "admin"),
        ("PUT", "/v1/pools/web/backends", b'{"url": "http://a:1", "region": "eu"}', "admin"),
    ],
)
async def test_a_role_allows_so_much_and_no_more(
    gateway: Gateway, method: str, path: str, body: bytes | None, least: str
) -> None:
    roles = ["read", "purge", "admin"]
    for role, token in zip(roles, ("r" * 40, "p" * 40, TOKEN), strict=True):
        status, _, said = await gateway.ask(method, path, body, token)
        if roles.index(role) >= roles.index(least):
            assert status < 300, said
        else:
            assert status == 403
            assert role in json.loads(said)["detail"]


async def test_the_audit_names_the_token_and_not_only_what_its_bearer_says(gateway: Gateway) -> None:
    actors: list[str] = []
    real = gateway.whole.state_store.record_purges
    gateway.whole.state_store.record_purges = lambda orders, place: (
        actors.append(orders[0].change.actor) or real(orders, place)
    )  # type: ignore
    await gateway.ask("POST", "/v1/purge", b'{"all": true, "actor": "root"}', "p" * 40)
    await gateway.ask("POST", "/v1/purge", b'{"all": true}', "p" * 40)
    assert actors == ["deploy (root)", "deploy"]


def test_every_known_token_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    seen: list[bytes] = []
    real = hmac.compare_digest
    monkeypatch.setattr("edge.control.access.hmac.compare_digest", lambda a, b: seen.append(bytes(b)) or real(a, b))
    access = Access(TOKENS)
    for secret in (TOKEN, "r" * 40, "wrong", "\udcff"):
        seen.clear()
        with contextlib.suppress(Unauthenticated):
            access.check("GET", "/v1/status", {"Host": "127.0.0.1", "Authorization": f"Bearer {secret}"})
        assert len(seen) == len(TOKENS)


# -- slow and many -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gateway", [0.3], indirect=True)
async def test_a_slow_body_ends(gateway: Gateway) -> None:
    host, port = gateway.client.host, gateway.client.port
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /v1/purge HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + b"{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()


class Clock:
    """Seconds that the test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now

    async def sweep(self) -> None:
        """Let a whole sweep of the listener look at it: each reads it once."""
        looks = self.looks
        await until(lambda: self.looks >= looks + 2)


@pytest_asyncio.fixture
async def connections(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[AdminConnections, int, Clock]]:
    """An admin listener with room for eight, whose clock stands still."""
    monkeypatch.setattr("edge.control.admin_connections.SWEEP_S", 0.01)
    whole = Whole(TOML)
    await whole.start()
    app = admin_app(whole.supervisor, Access(TOKENS))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    runner = await start_admin(app, "127.0.0.1", port, 8, 10.0, listener)
    found, clock = app[CONNECTIONS], Clock()
    found._clock = clock
    yield found, port, clock
    await runner.cleanup()
    await whole.supervisor.stop(1.0)


ASK = f"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def status_of(streams: Streams) -> bytes:
    """The status line of the next answer, body read."""
    reader, _ = streams
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return head.partition(b"\r\n")[0]


async def test_bytes_that_are_no_request_end_the_connection(connections: tuple[AdminConnections, int, Clock]) -> None:
    found, port, _ = connections
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01")
    await asyncio.wait_for(ended(reader), WAIT_S)
    await until(lambda: len(found) == 0)
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: "])
async def test_silent_and_half_open_connections_end(
    connections: tuple[AdminConnections, int, Clock], sent: bytes
) -> None:
    found, port, clock = connections
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await until(lambda: len(found) == 1)
    clock.now += 9
    await clock.sweep()
    assert len(found) == 1
    clock.now += 1.5
    await asyncio.wait_for(ended(reader), WAIT_S)
    await until(lambda: len(found) == 0)
    writer.close()


async def ended(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass


async def test_a_half_open_connection_ends_after_an_answer_too(
    connections: tuple[AdminConnections, int, Clock],
) -> None:
    found, port, clock = connections

    def rests() -> bool:
        return any(each.fresh for each in found._open.values())

    streams = await asyncio.open_connection("127.0.0.1", port)
    streams[1].write(ASK)
    assert b" 200 " in await status_of(streams)
    await until(rests)
    clock.now += 55
    streams[1].write(ASK[:20])
    await until(lambda: not rests())
    clock.now += 9
    streams[1].write(ASK[20:])
    assert b" 200 " in await status_of(streams)
    await until(rests)
    streams[1].write(ASK[:20])
    await until(lambda: not rests())
    clock.now += 10.5
    await asyncio.wait_for(ended(streams[0]), WAIT_S)
    streams[1].close()


async def test_an_idle_connection_ends(connections: tuple[AdminConnections, int, Clock]) -> None:
    found, port, clock = connections
    streams = await asyncio.open_connection("127.0.0.1", port)
    streams[1].write(ASK)
    assert b" 200 " in await status_of(streams)
    await until(lambda: any(each.fresh for each in found._open.values()))
    clock.now += 61
    await asyncio.wait_for(ended(streams[0]), WAIT_S)
    streams[1].close()


async def test_silent_connections_lock_nobody_out(connections: tuple[AdminConnections, int, Clock]) -> None:
    found, port, _ = connections
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    try:
        await until(lambda: found.refused == 32)
        assert len(found) == 8
        streams = await asyncio.open_connection("127.0.0.1", port)
        streams[1].write(ASK)
        assert b" 200 " in await status_of(streams)
        assert len(found) == 8
        streams[1].close()
    finally:
        for each in silent:
            each.close()


async def test_who_takes_nothing_of_its_answer_is_let_go(
    connections: tuple[AdminConnections, int, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, port, clock = connections
    quiet = socket.socket()
    quiet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    quiet.connect(("127.0.0.1", port))
    quiet.setblocking(False)
    monkeypatch.setattr("edge.control.admin.application.Views.status", lambda shown: {"much": "x" * 20_000_000})
    await asyncio.get_running_loop().sock_sendall(quiet, ASK)

    def waits() -> bool:
        return any(each.transport and each.transport.get_write_buffer_size() for each in found._open.values())

    await until(waits)
    await clock.sweep()
    clock.now += 29
    await clock.sweep()
    assert len(found) == 1
    clock.now += 2
    await until(lambda: len(found) == 0)
    quiet.close()
