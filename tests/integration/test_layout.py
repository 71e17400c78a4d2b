"""Exchanges keep their attributes in fixed places: none of an ordinary request has a dictionary of its own."""

from __future__ import annotations

import gc
from base64 import b64encode
from pathlib import Path

import bcrypt
import pytest
from inprocess import Connect, Gateway, Proxy, StartEdge, app_toml
from kit.builds import pure_only
from kit.origin import ScriptedOrigin

from edge.dataplane.client.http2_exchange import StreamExchange
from edge.dataplane.core import layout
from edge.dataplane.core.exchange import Exchange

pytestmark = pure_only  # a compiled class has fixed places for all of them


def has_dictionary(one: object) -> bool:
    return any(type(each) is dict for each in gc.get_referents(one))


@pytest.mark.parametrize("kind", [Exchange, StreamExchange])
def test_all_usual_attributes_have_a_place(kind: type) -> None:
    one: object = object.__new__(kind)
    for name in layout._USUAL:
        setattr(one, name, object())
    assert not has_dictionary(one)
    one.one_more = object()  # type: ignore[attr-defined]
    assert has_dictionary(one), "this test sees one that is there"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"


def looked_at(gateway: Gateway) -> list[tuple[bytes, bool]]:
    """Of each request that ends from now on: its target, and whether its exchange has a dictionary."""
    worker = gateway.worker
    seen: list[tuple[bytes, bool]] = []
    finished = worker.finished

    def look(exchange: Exchange) -> None:
        finished(exchange)
        seen.append((exchange.target, has_dictionary(exchange)))

    worker.finished = look  # type: ignore[method-assign]
    return seen


async def test_an_ordinary_request_sets_no_others(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    seen = looked_at(gateway)
    origin.route("/chunked", CHUNKED)
    for target in ("/", "/chunked", "/missing"):
        await client.get(target)
    await gateway.turned()
    assert seen == [(target, False) for target in (b"/", b"/chunked", b"/missing")]


async def test_a_request_that_a_hook_changes_sets_no_others(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    hooks = 'hooks = ["hooks_under_test:First"]\ncache = false'
    gateway = await edge(app_toml(f'url = "http://127.0.0.1:{origin.port}"', route=hooks))
    client = await raw_client(gateway.port)
    seen = looked_at(gateway)
    for _ in range(2):
        await client.get("/")
    await gateway.turned()
    assert seen == [(b"/", False)] * 2
    assert [request.get(b"x-always") for request in origin.requests] == [b"1"] * 2


async def test_a_request_that_rules_limit_and_let_in_sets_no_others(
    origin: ScriptedOrigin, proxy: Proxy, tmp_path: Path
) -> None:
    passwords = tmp_path / "htpasswd"
    passwords.write_bytes(b"alice:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    gateway, client = await proxy(
        route=f'cache = false\nauth = {{ basic = "{passwords}" }}\nrate_limit = {{ rate = "100/s" }}'
    )
    seen = looked_at(gateway)
    who = b64encode(b"alice:secret").decode()
    for _ in range(2):
        await client.send(f"GET / HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic {who}\r\n\r\n".encode())
        response = await client.read_response()
        assert response is not None and response.status == 200 and response.get(b"ratelimit")
    await gateway.turned()
    assert seen == [(b"/", False)] * 2
