"""The worker's tick: a part that fails takes no other part with it, and is counted as a bug."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes import FakeTransport
from kit.builds import pure_only

from edge.adapters.logs import AccessLog
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.worker.worker import Worker
from edge.http.forwarding import Networks
from edge.http.grammar import Limits

pytestmark = pure_only

STANDS_S = 3.0
PARTS = ("refresh", "front", "pool", "meter", "store", "log")


class Ticked:
    """A worker whose parts note that they were done; one of them raises."""

    def __init__(self, broken: str) -> None:
        self.done: set[str] = set()
        self.worker = worker = Worker(WorkerLimits(), Limits(), AccessLog("off"), Networks())

        def part(name: str) -> Any:
            def do(*given: object) -> None:
                self.done.add(name)
                if name == broken:
                    raise RuntimeError(name)

            return do

        meter = cast(Any, SimpleNamespace(fold=part("meter")))
        worker.router = cast(Any, SimpleNamespace(routes=[SimpleNamespace(meter=meter, fold=part("meter"))]))
        worker.pools = cast(Any, {"a": SimpleNamespace(tick=part("pool"))})
        worker.store = cast(Any, SimpleNamespace(tick=part("store")))
        worker.refresh = part("refresh")  # type: ignore[method-assign]
        worker.log = cast(Any, SimpleNamespace(flush=part("log"), refresh=worker.log.refresh, waiting=[]))
        self.downstream = ClientConnection(worker)
        self.downstream.connection_made(cast(Any, FakeTransport()))
        worker.downstreams = cast(Any, [SimpleNamespace(deadline=-inf, expire=part("front"))])


@pytest.mark.parametrize("broken", PARTS)
async def test_a_part_that_raises_takes_no_other_with_it(broken: str, capfd: pytest.CaptureFixture[str]) -> None:
    ticked = Ticked(broken)
    ticked.worker._tick()
    assert ticked.done == set(PARTS)
    assert ticked.worker.bugs == 1
    assert f"RuntimeError: {broken}" in capfd.readouterr().err
    assert ticked.worker._timer is not None
    ticked.worker._timer.cancel()


async def test_the_first_tick_after_a_standstill_ends_nobody() -> None:
    """What came meanwhile is not read yet. Only the first: a loop that is always late ends people too."""
    ticked = Ticked("")
    for parts in ({"front", "pool"}, set(), {"front", "pool"}, set()):
        ticked.done.clear()
        ticked.worker._standstill._looked_at -= STANDS_S
        ticked.worker._tick()
        assert ticked.worker._timer is not None
        ticked.worker._timer.cancel()
        assert set(PARTS) - ticked.done == parts


async def test_a_bug_is_counted_where_standard_error_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class RemovalReason:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", RemovalReason())
    ticked = Ticked("front")
    ticked.worker._tick()
    assert ticked.done == set(PARTS)
    assert ticked.worker.bugs == 1
    assert ticked.worker._timer is not None
    ticked.worker._timer.cancel()
