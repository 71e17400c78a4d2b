"""What a server of certificates asks for (HTTP-01) is answered by every worker: those that run, and those to come."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping

import pytest_asyncio
from kit import asking
from kit.control import TWO_WORKERS, Whole
from kit.origin import ScriptedOrigin
from kit.waiting import until
from reloading import get

from edge.control.journal import Revision
from edge.control.registry import Change
from edge.frames import FrameKind

PLACE = "/.well-known/acme-challenge/"
TOKEN, TEXT = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJyPCt92wr", b"evaGxfADs6pSRb2LAv9IZf17Dt3juxGJyPCt92wr.print"
TOML = (
    TWO_WORKERS
    + """
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:@PORT@"
[[routes]]
host = "any.example"
pool = "web"
cache = true
[[routes]]
host = "closed.example"
pool = "web"
deny = ["0.0.0.0/0"]
"""
)


@pytest_asyncio.fixture
async def whole() -> AsyncIterator[Whole]:
    """Two workers before an origin that answers everything with `one`, to be stored."""
    origin = ScriptedOrigin()
    origin.default = (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\none",)
    await origin.start()
    found = Whole(TOML.replace("@PORT@", str(origin.port)))
    await found.start()
    yield found
    await found.supervisor.close()
    await origin.stop()


async def show(whole: Whole, tokens: Mapping[str, str]) -> None:
    """As the issuer has it shown; every worker has it when this returns."""
    whole.supervisor.challenges = dict(tokens)
    await whole.supervisor.workers.tell(FrameKind.CHALLENGES, {"tokens": dict(tokens)})


def ports(whole: Whole) -> list[int]:
    """Of the workers, each its own."""
    return [child.addresses[0][1] for child in whole.children]


async def ask(port: int, method: str, target: str, host: str) -> tuple[int, bytes]:
    found = await asyncio.to_thread(asking.ask, port, target, method, fields={"Host": host})
    return found.status, found.body


async def test_each_worker_answers_for_every_host_before_all_rules_and_the_cache(whole: Whole) -> None:
    for port in ports(whole):
        for _ in range(3):  # stored, and answered from the store
            assert await get(port, PLACE + TOKEN) == (200, b"one")
    await show(whole, {TOKEN: TEXT.decode()})
    for port in ports(whole):
        for host in ("any.example", "closed.example", "unknown.example"):
            assert await get(port, PLACE + TOKEN, host) == (200, TEXT)
        assert await ask(port, "HEAD", PLACE + TOKEN, "any.example") == (200, b"")
        assert await ask(port, "GET", f"http://x.example{PLACE}{TOKEN}", "x.example") == (200, TEXT)
        assert (await ask(port, "GET", PLACE + TOKEN, "closed.example"))[1] == TEXT
    await show(whole, {})
    for port in ports(whole):
        assert await get(port, PLACE + TOKEN) == (200, b"one")


async def test_nothing_else_is_answered_so(whole: Whole) -> None:
    await show(whole, {TOKEN: TEXT.decode()})
    for port in ports(whole):
        for path in (PLACE, PLACE + "x" * 40, PLACE + TOKEN[:-1], PLACE + TOKEN + "?q", "/x" + PLACE + TOKEN, "/"):
            assert await get(port, path) == (200, b"one"), path
        assert (await ask(port, "POST", PLACE + TOKEN, "closed.example"))[0] == 403
        assert (await get(port, PLACE + "other", "closed.example"))[0] == 403


async def test_a_worker_that_starts_meanwhile_and_a_reload_have_the_tokens(whole: Whole) -> None:
    await show(whole, {TOKEN: TEXT.decode()})
    whole.children[0].signal(signal.SIGKILL)
    await until(lambda: len(whole.children) == 3 and whole.supervisor.workers.ready)
    text = whole.supervisor.running.sources.text.replace("cache = true", "cache = false")
    await whole.reloading.reload(Change("test"), Revision(0, 0.0, "", text))
    for port in ports(whole)[1:]:
        assert await get(port, PLACE + TOKEN) == (200, TEXT)
