"""All connections to one backend: newest first, none past its time, none for a backend that left; how names resolve."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from math import inf
from time import monotonic
from typing import Any, cast

import pytest
from fakes import FakeTransport, connected
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.adapters.backend_link import IDLE_MARGIN_S, BackendLink, Peer, response_memo
from edge.adapters.dialing import STOOD_STILL_S
from edge.adapters.names import NameUnresolved
from edge.adapters.upstream_connection import UpstreamConnection
from edge.errors import ConnectFailed, ConnectTimeout
from edge.http.grammar import Limits
from edge.ports import Timeouts

Patch = pytest.MonkeyPatch


def link(host: str = "127.0.0.1", port: int = 1, **peer: Any) -> BackendLink:
    return BackendLink(Peer(host, port, **peer), Timeouts(idle=30.0), Limits(), response_memo(Limits()))


def connection(owner: BackendLink) -> UpstreamConnection:
    made = UpstreamConnection(owner)
    made.connection_made(cast(Any, FakeTransport()))
    owner.connections.add(made)
    return made


def test_the_newest_kept_connection_is_taken_first_and_is_marked_reused() -> None:
    owner = link()
    first, second, third = (connection(owner) for _ in range(3))
    for each in (first, second, third):
        owner.give_back(each)
        assert each.deadline < inf
    cast(Any, third.transport).close()  # it is closing, and nobody was told yet
    assert owner.take() is second
    assert second.reused
    assert second.deadline == inf
    assert owner.take() is first
    assert owner.take() is None


@given(st.lists(st.sampled_from(("new", "take", "give", "drop", "late")), max_size=30))
@settings(max_examples=100)
def test_idle_is_always_part_of_the_open_ones_and_none_is_there_twice(steps: list[str]) -> None:
    owner, out = link(), []
    for step in steps:
        if step == "new":
            out.append(connection(owner))
        elif step == "take" and (taken := owner.take()) is not None:
            out.append(taken)
        elif step == "give" and out:
            owner.give_back(out.pop())
        elif step == "drop" and owner.connections:
            dropped = sorted(owner.connections, key=id)[0]
            dropped.cancel()
            out = [each for each in out if each is not dropped]
        elif step == "late":
            owner.tick(inf)
            assert not owner.idle
            out = [each for each in out if each in owner.connections]
        assert set(owner.idle) <= owner.connections
        assert len(set(owner.idle)) == len(owner.idle)
        assert not set(owner.idle) & set(out)


def test_the_origin_s_own_hint_shortens_the_idle_time_less_a_margin() -> None:
    owner = link()
    plain, hinted, short = (connection(owner) for _ in range(3))
    owner.hint(hinted, 5.0)
    owner.hint(short, 0.0)
    for each in (plain, hinted, short):
        owner.give_back(each)
    assert plain.deadline - hinted.deadline == pytest.approx(30.0 - (5.0 - IDLE_MARGIN_S), abs=0.5)
    owner.tick(short.deadline)
    assert owner.idle == [plain, hinted]
    owner.tick(hinted.deadline)
    assert owner.idle == [plain]


def test_a_connection_is_not_kept_past_its_lifetime() -> None:
    owner = link()
    young, old = connection(owner), connection(owner)
    young.retire_at = monotonic() + 5.0
    old.retire_at = monotonic() - 1.0
    for each in (young, old):
        owner.give_back(each)
    assert owner.idle == [young] and owner.connections == {young}
    assert young.deadline == young.retire_at, "sooner than its idle time would end"
    owner.tick(young.retire_at)
    assert not owner.connections


async def test_a_backend_that_left_keeps_no_connection() -> None:
    owner = link()
    idle, running = connection(owner), connection(owner)
    owner.give_back(idle)
    owner.close_idle()
    assert not owner.idle
    assert owner.connections == {running}, "a running exchange goes on"
    owner.give_back(running)
    assert not owner.connections
    await connected(owner)  # it came back
    again = connection(owner)
    owner.give_back(again)
    assert owner.idle == [again]
    await owner.close()
    assert not owner.connections


# -- connecting --------------------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_an_error_of_the_attempt() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        waiter = await connected(link(port=bound.getsockname()[1]))
    assert type(waiter.error) is ConnectFailed


async def test_a_silent_address_is_a_connect_timeout(monkeypatch: Patch) -> None:
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    waiter = await connected(link(), timeout=0.01)
    assert isinstance(waiter.error, ConnectTimeout)


async def test_a_process_that_stood_still_connects_once_more(monkeypatch: Patch) -> None:
    """Its timer runs before it hears that it is connected, which says nothing of the backend."""
    loop = asyncio.get_running_loop()
    plainly, tries = loop.create_connection, 0

    async def stands_still(*given: Any, **how: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            time.sleep(2 * STOOD_STILL_S)  # noqa: ASYNC251 (what it is about)
            await asyncio.Event().wait()
        return await plainly(*given, **how)

    monkeypatch.setattr(loop, "create_connection", stands_still)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        owner = link(port=listening.getsockname()[1])
        waiter = await connected(owner, timeout=0.05)
        assert (waiter.error, tries) == (None, 2)
        await owner.close()


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 64 + ".example", "\udcff"])
async def test_a_name_that_does_not_resolve_is_an_error_of_the_attempt(name: str, monkeypatch: Patch) -> None:
    async def refused(host: str, *_: Any, **__: Any) -> None:
        host.encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", refused)
    waiter = await connected(link(name))
    assert isinstance(waiter.error, NameUnresolved)
    assert waiter.error.proxy_status == "dns_error"


async def test_a_literal_address_is_never_looked_up(monkeypatch: Patch) -> None:
    seen: list[tuple[str, int]] = []

    async def refuse(_: Any, address: str, __: int, *, family: int, **___: Any) -> None:
        seen.append((address, family))
        raise OSError("no")

    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError("looked up")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_connection", refuse)
    monkeypatch.setattr(loop, "getaddrinfo", never)
    await connected(link("192.0.2.1"))
    await connected(link("::1"))
    assert seen == [("192.0.2.1", socket.AF_INET), ("::1", socket.AF_INET6)]


async def test_sni_is_the_configured_name_or_the_host(monkeypatch: Patch) -> None:
    names: list[str | None] = []

    async def refuse(*_: Any, server_hostname: str | None, **__: Any) -> None:
        names.append(server_hostname)
        raise ssl.SSLCertVerificationError(1, "certificate verify failed")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
    context = ssl.create_default_context()
    found = await connected(link("192.0.2.1", tls=context))
    await connected(link("192.0.2.1", tls=context, server_name="a.example"))
    await connected(link("192.0.2.1"))
    assert names == ["192.0.2.1", "a.example", None]
    assert found.error is not None
    assert found.error.proxy_status == "tls_certificate_error"
