"""Silent backends: a second attempt beside the first, the first head wins; attempts that wait for the retry budget.

Time is not waited for: the pool's tick is called on the worker's loop with the time that the test wants.
"""

from __future__ import annotations

from time import monotonic

import pytest
from inprocess import Connect, Gateway, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient, Response
from kit.origin import OK, Pause, ScriptedOrigin, Step
from kit.ports import free_port
from kit.waiting import until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
HEDGE_S, LATER_S = 100.0, 150.0  # no machine stands still for so long
POOL = f'timeouts = {{ first_byte = "1h", head = "1h" }}\nretry = {{ hedge = "{HEDGE_S:g}s", deadline = "1h" }}'


async def tick(gateway: Gateway, later_s: float = LATER_S) -> None:
    """The worker's tick, that much later."""
    await gateway.on_loop(lambda: gateway.worker.pools["origin"].tick(monotonic() + later_s))


async def answer(client: RawClient) -> Response:
    response = await client.read_response()
    assert response is not None
    return response


class Pair:
    """A client before two backends: the first request goes to `first`, which lets it wait."""

    def __init__(self, gateway: Gateway, client: RawClient, first: ScriptedOrigin, second: ScriptedOrigin) -> None:
        self.gateway, self.client, self.first, self.second = gateway, client, first, second

    async def ask(self, request: bytes = GET) -> None:
        await self.client.send(request)
        await self.first.wait_for("heads", 1)


@pytest.fixture
async def pair(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> Pair:
    first, second = await origins(), await origins()
    first.default = (Pause("first"), OK)
    gateway = await edge(edge_toml(first.port, second.port, pool=POOL))
    return Pair(gateway, await raw_client(gateway.port), first, second)


async def test_a_silent_backend_s_request_is_answered_by_another(pair: Pair) -> None:
    await pair.ask()
    await tick(pair.gateway, HEDGE_S / 2)
    assert pair.second.counters["heads"] == 0, "too early"
    await tick(pair.gateway)
    assert (await answer(pair.client)).status == 200
    await pair.first.wait_for("gone", 1)
    (line,) = await pair.gateway.log(1)
    assert (line["attempts"], line["backend"]) == (2, f"127.0.0.1:{pair.second.port}")
    assert line["hedge"] == "won"
    assert pair.gateway.worker.router.routes[0].meter.attempts == 2
    silent, other = pair.gateway.worker.pools["origin"].pool.backends
    assert (silent.failures, other.successes) == (1, 1)
    assert (await pair.client.get("/")).status == 200, "the connection of the hedge is kept and clean"


@pytest.mark.parametrize(
    "body",
    [
        (b"Content-Length: 6\r\n\r\nabc", b"def"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n"),
    ],
)
async def test_the_body_streams_from_the_hedge(pair: Pair, body: tuple[bytes, bytes]) -> None:
    pair.second.default = (b"HTTP/1.1 200 OK\r\n" + body[0], Pause("rest"), body[1])
    await pair.ask()
    await tick(pair.gateway)
    head = await pair.client.read_head()
    assert head is not None and head.status == 200
    pair.second.release("rest")
    assert (await pair.client.read_body(head)).body.content == b"abcdef"


async def test_the_first_attempt_may_still_win(pair: Pair) -> None:
    pair.second.default = (Step.SILENCE,)
    await pair.ask()
    await tick(pair.gateway)
    await pair.second.wait_for("heads", 1)
    pair.first.release("first")
    assert (await answer(pair.client)).status == 200
    await pair.second.wait_for("gone", 1)
    (line,) = await pair.gateway.log(1)
    assert line["backend"] == f"127.0.0.1:{pair.first.port}"
    assert (line["attempts"], line["hedge"]) == (2, "lost")
    assert [each.failures for each in pair.gateway.worker.pools["origin"].pool.backends] == [0, 0]


async def test_a_hedge_that_answers_a_gateway_failure_is_no_answer(pair: Pair) -> None:
    pair.second.default = (b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n",)
    await pair.ask()
    await tick(pair.gateway)
    await pair.second.wait_for("responses", 1)
    await until(lambda: pair.gateway.worker.pools["origin"].pool.backends[1].failures == 1)
    await tick(pair.gateway)
    pair.first.release("first")
    assert (await answer(pair.client)).status == 200
    assert pair.second.counters["heads"] == 1, "it was tried once"


async def test_a_hedge_that_cannot_connect_leaves_the_first_alone(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    first = await origins()
    first.default = (Pause("first"), OK)
    gateway = await edge(edge_toml(first.port, free_port(), pool=POOL))
    client = await raw_client(gateway.port)
    await client.send(GET)
    await first.wait_for("heads", 1)
    await tick(gateway)
    await until(lambda: gateway.worker.pools["origin"].pool.backends[1].failures == 1)
    first.release("first")
    assert (await answer(client)).status == 200


async def test_when_the_first_fails_the_hedge_is_all_there_is(pair: Pair) -> None:
    pair.first.default = (Pause("first"), Step.RESET)
    pair.second.default = (Pause("second"), OK)
    await pair.ask()
    await tick(pair.gateway)
    await pair.second.wait_for("heads", 1)
    pair.first.release("first")
    await pair.first.wait_for("closed", 1)
    pair.second.release("second")
    assert (await answer(pair.client)).status == 200
    assert pair.first.counters["heads"] + pair.second.counters["heads"] == 2


async def test_a_route_whose_answers_always_take_long_is_hedged_only_after_ten_times_that(pair: Pair) -> None:
    (route,) = pair.gateway.worker.router.routes
    route.waits.append(HEDGE_S / 5)  # as its answers so far
    await pair.gateway.on_loop(lambda: route.fold(monotonic()))
    await pair.ask()
    await tick(pair.gateway, LATER_S)
    assert pair.second.counters["heads"] == 0
    await tick(pair.gateway, HEDGE_S * 3)
    assert (await answer(pair.client)).status == 200
    assert pair.second.counters["heads"] == 1


async def test_a_post_is_never_hedged(pair: Pair) -> None:
    await pair.ask(POST)
    for _ in range(3):
        await tick(pair.gateway)
    pair.first.release("first")
    assert (await answer(pair.client)).status == 200
    assert pair.second.counters["heads"] == 0


async def test_where_everybody_is_silent_nobody_is_hedged(pair: Pair, raw_client: Connect) -> None:
    pair.second.default = (Pause("second"), OK)
    other = await raw_client(pair.gateway.port)
    await pair.ask()
    await other.send(GET)
    await pair.second.wait_for("heads", 1)
    for _ in range(3):
        await tick(pair.gateway)
    pair.first.release("first")
    pair.second.release("second")
    assert [(await answer(client)).status for client in (pair.client, other)] == [200, 200]
    assert pair.first.counters["heads"] + pair.second.counters["heads"] == 2


async def test_a_client_that_leaves_ends_both_attempts(pair: Pair) -> None:
    pair.second.default = (Step.SILENCE,)
    await pair.ask()
    await tick(pair.gateway)
    await pair.second.wait_for("heads", 1)
    assert pair.gateway.in_flight == 2
    pair.client.reset()
    await until(lambda: pair.gateway.in_flight == 0)
    await pair.first.wait_for("gone", 1)
    await pair.second.wait_for("gone", 1)
    budget = pair.gateway.worker.pools["origin"].budget
    assert (budget.active, budget.retrying) == (0, 0)


async def test_hedging_can_be_switched_off(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    first, second = await origins(), await origins()
    first.default = (Pause("first"), OK)
    gateway = await edge(edge_toml(first.port, second.port, pool=POOL.replace(f"{HEDGE_S:g}s", "0s")))
    client = await raw_client(gateway.port)
    await client.send(GET)
    await first.wait_for("heads", 1)
    await tick(gateway, LATER_S)
    first.release("first")
    assert (await answer(client)).status == 200
    assert second.counters["heads"] == 0


async def test_a_backend_that_lets_many_wait_while_another_answers_is_ejected(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    first, second = await origins(), await origins()
    first.default = (Pause("first"), OK)
    text = edge_toml(first.port, second.port).replace("ejection = false", "")
    gateway = await edge(text)
    clients = [await raw_client(gateway.port) for _ in range(10)]
    for client in clients:  # posts: nothing of them may be repeated, so only their waiting is evidence
        await client.send(POST)
    await first.wait_for("heads", 5)
    await second.wait_for("responses", 5)
    pool = gateway.worker.pools["origin"]
    silent, other = pool.pool.backends
    await tick(gateway, 0.0)
    heard_at = pool._pace(other.id).heard_at
    await gateway.on_loop(lambda: pool.tick(heard_at + 1.5))
    assert (silent.ejections, other.ejections) == (1, 0)
    first.release("first")
    assert [(await answer(client)).status for client in clients] == [200] * 10


async def test_a_death_with_many_in_flight_fails_none_of_them(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    count = 16
    first, second = await origins(), await origins()
    first.default = (Pause("first"), Step.RESET)
    gateway = await edge(
        edge_toml(first.port, second.port, pool='retry = { budget = "0%", min = 2 }\ntimeouts = { queue = "60s" }')
    )
    clients = [await raw_client(gateway.port) for _ in range(count)]
    for client in clients:
        await client.send(GET)
    await first.wait_for("heads", count // 2)
    second.default = (Pause("second"), OK)
    first.release("first")
    await second.wait_for("heads", count // 2 + 2)
    assert gateway.worker.pools["origin"].budget.retrying <= 2
    second.release("second")
    assert [(await answer(client)).status for client in clients] == [200] * count


async def test_a_postponed_attempt_is_given_up_in_time(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    first, second = await origins(), await origins()
    first.default = (Step.RESET,)
    second.default = (Pause("second"), OK)
    gateway = await edge(edge_toml(first.port, second.port, pool='retry = { budget = "0%", min = 0 }'))
    client = await raw_client(gateway.port)
    await client.send(GET)
    await first.wait_for("heads", 1)
    await until(lambda: gateway.in_flight == 0)
    await tick(gateway, 5.0)
    assert (await answer(client)).status == 502
    assert second.counters["heads"] == 0


async def test_kept_connections_that_close_use_up_no_attempt(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    # A region of two that dies: its kept connection closes, it does not answer a new one, nor does its neighbour.
    all_ = [await origins() for _ in range(3)]
    gateway = await edge(edge_toml(*(each.port for each in all_)))
    client = await raw_client(gateway.port)
    for _ in range(3):
        assert (await client.get("/")).status == 200
    for dead in all_[:2]:
        dead.default = (Step.CLOSE,)
    assert (await client.get("/")).status == 200
    assert (await gateway.log(4))[-1]["attempts"] == 4
    assert [each.counters["heads"] for each in all_] == [3, 2, 2]
