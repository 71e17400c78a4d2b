"""Waiting, with a bound, for a fact that nothing announces: the state of another process, a counter of another loop.

The one place where tests look again and again. Where something announces the fact, wait for that instead: an event of
the test, `ScriptedOrigin.wait_for`, `Wire.until`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

WAIT_S = 60.0  # of what fails: a busy machine may stand still for seconds, and who succeeds never waits for it
LOOK_S = 0.005

Fact = Callable[[], object]
Asked = Callable[[], Awaitable[object]]


async def until(
    fact: Fact | Asked, wait_s: float = WAIT_S, look_s: float = LOOK_S, said: Callable[[], object] | None = None
) -> Any:
    """Look every `look_s` seconds until the fact is true, and return its value; a coroutine is awaited for it.

    Raises AssertionError after `wait_s` seconds, with the fact's line, its last value and what `said` returns.
    """
    last: object = None
    try:
        async with asyncio.timeout(wait_s):
            while True:
                last = fact()
                if inspect.isawaitable(last):
                    last = await last
                if last:
                    return last
                await asyncio.sleep(look_s)
    except TimeoutError:
        raise AssertionError(_failure(fact, last, wait_s, said)) from None


def until_blocking(
    fact: Fact, wait_s: float = WAIT_S, look_s: float = 0.02, said: Callable[[], object] | None = None
) -> Any:
    """The same for a test without a loop, or a thread of one."""
    deadline = time.monotonic() + wait_s
    while not (last := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(_failure(fact, last, wait_s, said))
        time.sleep(look_s)
    return last


def _failure(fact: Fact | Asked, last: object, wait_s: float, said: Callable[[], object] | None) -> str:
    code = getattr(fact, "__code__", None)
    where = repr(fact) if code is None else f"{code.co_filename}:{code.co_firstlineno}"
    more = "" if said is None else f"; {said()}"
    return f"not true within {wait_s:g} s: {where}; last {last!r}{more}"
