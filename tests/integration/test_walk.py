"""What a plain request does not do: `bench.walk` lists the functions that it runs, and some must not be there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kit.builds import pure_only

from bench.walk import KINDS, Walk, walk

pytestmark = pure_only  # the profiler, which lists them, sees no compiled function
APPS = Path(__file__).parent / "apps"
OTHER_ROUTES = ', { path = "/app", pool = "web" }, { path = "/hooked", pool = "web" }'
APPLICATION = f'''
python_path = ["{APPS}"]
pools.app = {{ backends = [{{ app = "site_under_test:make" }}] }}
'''
APPLICATION_ROUTES = """
, { path = "/app", pool = "app" }, { path = "/hooked", pool = "web", hooks = ["hooks_under_test:Answers"] }
"""


def names(found: Walk) -> set[str]:
    return {name for _, name in found.steps}


@pytest.fixture(scope="module", params=KINDS)
def kind_and_walk(request: pytest.FixtureRequest) -> tuple[str, Walk]:
    return request.param, asyncio.run(walk(request.param))


def test_each_walk_ends_where_it_should(kind_and_walk: tuple[str, Walk]) -> None:
    kind, found = kind_and_walk
    said = names(found)
    assert {"ClientConnection.data_received", "try_fast_hit", "AccessLog.add"} <= said
    ends = {
        "hit": {"ClientConnection.send_stored"},
        "miss": {"Cold._storable", "Index.put", "Exchange.finish"},
        "uncacheable": {"Cold.head", "Exchange.finish"},
        "failover": {"Fetch.on_failed", "proceed", "BackendLink.connect", "Exchange.finish"},
    }
    assert ends[kind] <= said


def test_a_hit_makes_no_exchange_and_a_lone_request_no_fill(kind_and_walk: tuple[str, Walk]) -> None:
    kind, found = kind_and_walk
    said = names(found)
    assert not {"Fill.__init__", "Follower.__init__", "Flight.__init__", "request_block", "response_head"} & said
    if kind == "hit":
        assert not {"Exchange.__init__", "Fetch.__init__", "lookup"} & said
        assert sum(found.steps.values()) < 15


@pytest.mark.parametrize("kind", ["hit", "uncacheable"])
def test_applications_and_hooks_on_other_routes_cost_a_request_no_call(kind: str) -> None:
    plain = asyncio.run(walk(kind, "", OTHER_ROUTES))
    beside = asyncio.run(walk(kind, APPLICATION, APPLICATION_ROUTES))
    assert list(beside.steps.items()) == list(plain.steps.items())
