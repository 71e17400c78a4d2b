"""Names: one lookup for all who ask, failures and dead addresses remembered, old connections let go, a race."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from math import inf
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio
from fakes import connected

from edge.adapters.backend_link import BackendLink, Peer, response_memo
from edge.adapters.names import FAILED_S, NEXT_S, Address, Name, Names, NameUnresolved
from edge.errors import ConnectFailed
from edge.http.grammar import Limits
from edge.ports import Timeouts

V4 = int(socket.AF_INET)


class Resolver:
    """Answers as told; None is a failure."""

    def __init__(self, *answers: list[str] | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.hold: asyncio.Event | None = None

    async def __call__(self, host: str) -> list[Address]:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if found is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(V4, address) for address in found]


def age(name: Name, seconds: float) -> None:
    """As if that much time had passed since it was asked."""
    name._found_at -= seconds
    name._failed_at -= seconds


async def settled(name: Name) -> None:
    if name._task is not None:
        await name._task


async def test_many_who_ask_at_once_share_one_lookup() -> None:
    resolver = Resolver(["127.0.0.2"])
    resolver.hold = asyncio.Event()
    names = Names(resolver)
    name = names.get("origin.example")
    assert names.get("origin.example") is name
    asking = [asyncio.create_task(name.candidates(30.0)) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()  # its own connection's deadline passed; the others still wait
    await asyncio.sleep(0)
    resolver.hold.set()
    assert await asyncio.gather(*asking[1:]) == [[(V4, "127.0.0.2")]] * 19
    assert resolver.asked == 1


async def test_an_answer_stands_for_its_interval_and_a_failure_takes_nothing_away() -> None:
    resolver = Resolver(["127.0.0.2"], None, ["127.0.0.3"])
    name = Names(resolver).get("origin.example")
    await name.candidates(30.0)
    await name.candidates(30.0)
    assert resolver.asked == 1
    age(name, 30.0)
    assert await name.candidates(30.0) == [(V4, "127.0.0.2")]
    assert resolver.asked == 2
    assert await name.candidates(30.0) == [(V4, "127.0.0.2")], "the failure is remembered"
    assert resolver.asked == 2
    age(name, FAILED_S)
    assert await name.candidates(30.0) == [(V4, "127.0.0.3")]


async def test_a_name_that_is_not_there_is_not_asked_for_by_every_request() -> None:
    resolver = Resolver(None)
    name = Names(resolver).get("nowhere.example")
    for _ in range(50):
        with pytest.raises(NameUnresolved):
            await name.candidates(30.0)
    assert resolver.asked == 1
    age(name, FAILED_S)
    with pytest.raises(NameUnresolved):
        await name.candidates(30.0)
    assert resolver.asked == 2


async def test_addresses_take_turns_and_dead_ones_come_last() -> None:
    name = Names(Resolver(["127.0.0.2", "127.0.0.3", "127.0.0.4"])).get("origin.example")
    first = {(await name.candidates(30.0))[0][1] for _ in range(3)}
    assert first == {"127.0.0.2", "127.0.0.3", "127.0.0.4"}
    order = await name.candidates(30.0)
    name.learn(order, order[2][1])
    for _ in range(6):
        assert (await name.candidates(30.0))[0] == order[2]
    name.learn([order[0]], order[0][1])
    assert order[1] == (await name.candidates(30.0))[2]


# -- a link by name ----------------------------------------------------------------------------------------------------


class Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    """A server on 127.0.0.2 and 127.0.0.3, nobody on 127.0.0.4."""
    loop = asyncio.get_running_loop()
    one = await loop.create_server(Server, "127.0.0.2", 0)
    number = int(one.sockets[0].getsockname()[1])
    two = await loop.create_server(Server, "127.0.0.3", number)
    yield number
    one.close()
    two.close()


def link(resolver: Resolver, port: int, **peer: Any) -> BackendLink:
    limits = Limits()
    return BackendLink(
        Peer("origin.example", port, **peer), Timeouts(idle=30.0), limits, response_memo(limits), Names(resolver)
    )


async def test_a_change_of_address_reaches_kept_connections_within_the_interval(port: int) -> None:
    resolver = Resolver(["127.0.0.2"], ["127.0.0.3"])
    owner = link(resolver, port, resolve_s=30.0)
    idle, busy = (await connected(owner)).connection, (await connected(owner)).connection
    owner.give_back(idle)
    assert owner._name is not None
    now = monotonic()
    owner.tick(now)
    assert resolver.asked == 1, "what is known is new enough"
    owner.tick(now + 31.0)
    await settled(owner._name)
    owner.tick(now + 31.0)
    assert owner.idle == [] and owner.connections == {busy}, "what runs goes on"
    owner.give_back(busy)
    assert not owner.connections
    assert (await connected(owner)).connection.address == "127.0.0.3"
    await owner.close()


async def test_a_lookup_that_fails_or_says_the_same_closes_nothing(port: int) -> None:
    resolver = Resolver(["127.0.0.2", "127.0.0.3"], None, ["127.0.0.3", "127.0.0.2"])
    owner = link(resolver, port, resolve_s=30.0)
    kept = (await connected(owner)).connection
    owner.give_back(kept)
    assert owner._name is not None
    for _ in range(2):
        age(owner._name, 31.0)
        kept.deadline = inf
        owner.tick(monotonic())
        await settled(owner._name)
        owner.tick(monotonic())
    assert resolver.asked == 3
    assert owner.idle == [kept]
    await owner.close()


async def test_a_link_that_is_not_used_asks_nobody(port: int) -> None:
    resolver = Resolver(["127.0.0.2"])
    owner = link(resolver, port)
    owner.tick(monotonic() + 1000.0)
    await asyncio.sleep(0)
    assert resolver.asked == 0


async def test_the_address_that_answers_is_found_among_several_and_the_dead_one_is_remembered(port: int) -> None:
    resolver = Resolver(["127.0.0.4", "127.0.0.2", "127.0.0.3"])
    owner = link(resolver, port)
    reached = [(await connected(owner)).connection.address for _ in range(6)]
    assert set(reached) == {"127.0.0.2", "127.0.0.3"}
    assert owner._name is not None and set(owner._name._dead) == {"127.0.0.4"}
    await owner.close()


async def test_when_no_address_answers_it_is_a_refusal(port: int) -> None:
    owner = link(Resolver(["127.0.0.4", "127.0.0.5"]), port)
    error = (await connected(owner)).error
    assert type(error) is ConnectFailed


async def test_a_silent_address_delays_a_connection_by_a_quarter_of_a_second_at_most(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address never answers its SYN: the second one is tried beside it, well within `connect`."""
    loop = asyncio.get_running_loop()
    plain = loop.sock_connect

    async def connect(sock: socket.socket, address: Any) -> None:
        if address[0] == "127.0.0.4":
            await asyncio.Event().wait()
        await plain(sock, address)

    monkeypatch.setattr(loop, "sock_connect", connect)
    owner = link(Resolver(["127.0.0.3", "127.0.0.4"]), port)
    assert owner._name is not None
    for _ in range(2):
        assert (await connected(owner)).connection.address == "127.0.0.3"
    assert NEXT_S == 0.25
    assert set(owner._name._dead) == {"127.0.0.4"}
    await owner.close()
