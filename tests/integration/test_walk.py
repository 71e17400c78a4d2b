"""What a plain request does not do: `bench.walk` lists the functions that it runs, and some must not be there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kit.builds import pure_only

from bench.walk import KINDS, Walk, walk

pytestmark = pure_only  # the profiler, which lists them, sees no compiled function
APPS = Path(__file__).parent / "apps"
APPLICATION = f'''
python_path = ["{APPS}"]
pools.app = {{ backends = [{{ app = "site_under_test:make" }}] }}
'''
APPLICATIONS = ['pool = "app"', 'pool = "web", hooks = ["hooks_under_test:Answers"]']
RULES = [
    "respond = { status = 204 }",
    'redirect = { to = "https://{host}{uri}" }',
    *(
        f'pool = "web", {rule}'
        for rule in (
            'deny = ["10.0.0.0/8"]',
            'rate_limit = { rate = "10/m", burst = 2 }',
            "concurrency = { per_client = 5 }",
            'auth = { basic = "@FILES@/htpasswd" }',
            'auth = { jwt = { jwks = "@FILES@/jwks.json" } }',
            'auth = { forward = "http://127.0.0.1:1/" }',
            'bandwidth = { rate = "1MiB/s", by = "client" }',
            'mirror = { pool = "web" }',
            'affinity = { cookie = "home" }',
            'rewrite = { match = "^/a", to = "/b" }',
            'request_headers = { set = { X-A = "{client}" }, remove = ["X-B"] }',
            'response_headers = { set = { X-A = "{path}" }, remove = ["Server"] }',
            'error_pages = { "502-504" = "@FILES@/sorry.html" }',
            "compress = true",
            'cache = { ranges = "slice" }',
            'path_regex = "^/.*x"',
            'match = { methods = ["PUT"], cookies = { a = "1" } }',
        )
    ),
    'split = [{ pool = "web", weight = 5 }, { pool = "web2", weight = 95 }], sticky = "cookie"',
]
WALKS = 12  # for the fewest instructions of each function: some come once a second
BY_TIME = ("balance/latency.py", "PeakEwma.observe")  # how long an origin took decides what it does
SECOND_POOL = 'pools.web2 = { backends = [{ url = "http://127.0.0.1:1" }] }'


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
        "miss": {"ColdFetch._storable", "Index.put", "Exchange.finish"},
        "uncacheable": {"ColdFetch.head", "Exchange.finish"},
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


def placed(routes: list[str]) -> str:
    """Routes of these lines, each at a path of its own."""
    return "".join(f', {{ path = "/other{number}", {each} }}' for number, each in enumerate(routes))


@pytest.mark.parametrize("kind", ["hit", "miss", "uncacheable"])
@pytest.mark.parametrize(
    ("lines", "routes"), [(APPLICATION, APPLICATIONS), (SECOND_POOL, RULES)], ids=["applications and hooks", "rules"]
)
def test_what_other_routes_do_costs_a_request_no_call_and_no_instruction(
    lines: str, routes: list[str], kind: str, tmp_path: Path
) -> None:
    (tmp_path / "htpasswd").write_text("alice:$2b$05$SLQesMykFPVFJf.CEDRQ8ON1B0mYVa98/vANHldmpDGF4ocuIkK32\n")
    (tmp_path / "jwks.json").write_text(
        '{"keys": [{"kty": "oct", "k": "b25seS1mb3ItdGhpcy1wYWdlLW9ubHktZm9yLXRoaXMtcGFnZQ"}]}'
    )
    (tmp_path / "sorry.html").write_text("<h1>One moment, please</h1>")
    plain = asyncio.run(walk(kind, "", placed(['pool = "web"'] * len(routes)), WALKS))
    beside = asyncio.run(walk(kind, lines, placed(routes).replace("@FILES@", str(tmp_path)), WALKS))
    assert list(beside.steps.items()) == list(plain.steps.items())
    for each in (plain, beside):
        each.instructions.pop(BY_TIME, None)
    assert plain.instructions.total() > 100
    assert beside.instructions == plain.instructions
