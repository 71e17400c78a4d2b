"""The operator's file: what loads and as what; every mistake is a line with its place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.loader import config_hash, fleet_of, load_text
from edge.config.routing import Timeouts
from edge.config.types import Address, BackendUrl
from edge.errors import ConfigError

MINIMAL = """\
[listen]
http = ["127.0.0.1:8080"]
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:9000"
[[routes]]
pool = "web"
"""

# The page that fixes the operator's surface, with its commented keys in use.
SURFACE = """\
[listen]
http = ["0.0.0.0:8080"]
https = [{ address = "0.0.0.0:8443", certificates = [{ cert = "a.pem", key = "b.pem" }] }]
workers = "auto"
trusted_proxies = ["127.0.0.0/8"]
[limits]
header_timeout = "10s"
idle_timeout = "60s"
max_header = "32KiB"
max_body = "100MiB"
[admin]
listen = "127.0.0.1:9900"
token_file = "var/admin.token"
[state]
path = "var"
[cache]
memory = "256MiB"
max_object = "16MiB"
eviction = "s3-fifo"
disk = { path = "var/cache", size = "10GiB" }
shared = { url = "redis://127.0.0.1:6379/0" }
[geoip]
database = "geoip/edge-country.mmdb"
[regions.eu-west]
tier = 0
weight = 100
location = [53.3, -6.3]
countries = ["IE", "GB", "FR"]
continents = ["EU"]
[regions.us-east]
tier = 1
location = [38.9, -77.5]
continents = ["NA", "SA"]
[pools.web]
balance = "least-connections"
failover = "spill"
health = { path = "/healthz", interval = "5s", timeout = "2s", fall = 3, rise = 2 }
ejection = { consecutive = 5, time = "5s", max = "50%" }
timeouts = { connect = "2s", head = "15s", idle = "30s" }
max_in_flight = 7
[[pools.web.backends]]
url = "http://10.0.1.10:8080"
region = "eu-west"
weight = 2
[[pools.web.backends]]
url = "http://10.0.2.10:8080"
region = "us-east"
max_in_flight = 9
[[routes]]
host = "www.example.com"
path = "/"
pool = "web"
cache = { default_ttl = "0s", stale_if_error = "1d", ignore_query = ["utm_*"] }
geo = { prefer = ["eu-west"], require = [] }
timeouts = { head = "60s" }
[snapshots]
repository = "file:var/backups"
full = "0 3 * * 0"
differential = "0 3 * * 1-6"
incremental = "15m"
keep = { last = 3, hourly = 24, daily = 7, weekly = 4, monthly = 6 }
targets = { rpo = "15m", rto = "60s" }
[log]
access = "var/log/access.jsonl"
level = "info"
"""


def problems(text: str) -> list[str]:
    """The lines for a file that must not load."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "config.toml")
    return caught.value.problems


def only(text: str) -> str:
    """The one line for a file with one mistake."""
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def with_pool(settings: str) -> str:
    return MINIMAL.replace("[pools.web]\n", f"[pools.web]\n{settings}\n")


def with_route(settings: str) -> str:
    return f"{MINIMAL}{settings}\n"


# -- what loads --------------------------------------------------------------------------------------------------------


def test_the_minimal_file_loads_with_working_defaults() -> None:
    config = load_text(MINIMAL, "config.toml")
    assert config.listen.http == (Address("127.0.0.1", 8080),)
    assert config.listen.workers == 1
    assert list(config.regions) == ["default"]
    (backend,) = config.pools["web"].backends
    assert (backend.url, backend.id, backend.region) == (
        BackendUrl("http", "127.0.0.1", 9000),
        "127.0.0.1:9000",
        "default",
    )
    (route,) = config.routes
    assert (route.host, route.path, route.name, route.preserve_host) == ("*", "/", "*/", True)
    assert route.cache is not None
    assert config.pools["web"].health is None
    assert config.pools["web"].ejection is not None
    assert (config.snapshots, config.fleet, fleet_of(config)) == (None, None, None)


def test_the_limits_are_those_of_the_security_table() -> None:
    limits = load_text(MINIMAL, "f").limits
    assert (limits.max_request_line, limits.max_field_line) == (8192, 8192)
    assert (limits.max_header, limits.max_fields) == (32768, 100)
    assert (limits.max_response_header, limits.max_response_fields) == (65536, 200)
    assert (limits.max_trailers, limits.max_chunk_line, limits.max_body) == (8192, 4096, 104857600)
    assert (limits.header_timeout, limits.body_timeout, limits.min_body_rate, limits.body_grace) == (10, 30, 1000, 10)
    assert (limits.idle_timeout, limits.write_timeout, limits.shutdown_grace) == (60, 30, 30)
    assert (limits.max_interim, limits.pipeline_buffer, limits.buffer_high, limits.max_ranges) == (16, 65536, 65536, 5)
    assert limits.connections == 20000
    assert limits.connections_per_client > 0
    timeouts = load_text(MINIMAL, "f").pools["web"].timeouts
    assert (timeouts.connect, timeouts.first_byte, timeouts.head, timeouts.body, timeouts.idle) == (1, 10, 15, 30, 30)


def test_the_whole_surface_loads() -> None:
    config = load_text(SURFACE, "config.toml")
    assert config.listen.workers == "auto"
    assert config.listen.https[0].certificates[0].key == "b.pem"
    assert config.regions["eu-west"].location == (53.3, -6.3)
    assert config.pools["web"].health is not None
    assert config.pools["web"].ejection is not None
    assert config.pools["web"].ejection.max == 0.5
    assert config.snapshots is not None
    assert config.snapshots.incremental is not None
    assert config.snapshots.incremental.interval == 900
    fleet = fleet_of(config)
    assert fleet is not None and config.cache.shared is not None
    assert (config.fleet, fleet.url) == (None, config.cache.shared.url), "what is shared has to be purged"


def test_routes_and_backends_take_what_they_leave_out_from_above() -> None:
    config = load_text(SURFACE + "[[routes]]\npool = 'web'\ncache = { max_object = '1MiB' }\nmax_body = '1GiB'\n", "f")
    first, second = config.routes
    assert first.cache is not None
    assert second.cache is not None
    assert (first.cache.max_object, second.cache.max_object) == (16 * 2**20, 2**20)
    assert (first.max_body, second.max_body) == (100 * 2**20, 2**30)
    assert (first.timeouts.head, first.timeouts.connect) == (60, 2)
    pools = config.pools["web"].timeouts
    assert all(getattr(second.timeouts, name) == getattr(pools, name) for name in Timeouts.model_fields)
    assert [backend.max_in_flight for backend in config.pools["web"].backends] == [7, 9]


@pytest.mark.parametrize(("value", "on"), [("true", True), ("false", False), ("{}", True), ('{ keep = "5s" }', True)])
def test_cache_and_ejection_are_switches_or_tables(value: str, on: bool) -> None:
    assert (load_text(with_route(f"cache = {value}"), "f").routes[0].cache is not None) is on
    ejection = value if "keep" not in value else "{ consecutive = 2 }"
    assert (load_text(with_pool(f"ejection = {ejection}"), "f").pools["web"].ejection is not None) is on


def test_values_are_frozen() -> None:
    config = load_text(MINIMAL, "f")
    with pytest.raises(ValueError, match="frozen"):
        config.limits.max_fields = 5


def test_the_hash_tells_revisions_apart() -> None:
    assert config_hash("a") == config_hash("a") != config_hash("a ")
    assert re.fullmatch("[0-9a-f]{64}", config_hash(MINIMAL))


# -- what does not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (with_pool("panic = '101%'"), '4:1 pools.web.panic: must be between 0% and 100%, got "101%"'),
        (with_pool("blance = 'hash'"), '4:1 pools.web.blance: unknown key, did you mean "balance"?'),
        (with_pool("balance = 'hsah'"), 'got "hsah", did you mean "hash"?'),
        (with_pool("max_in_flight = '9'"), '4:1 pools.web.max_in_flight: must be a whole number, got "9"'),
        (with_pool("fail_open = 1"), "4:1 pools.web.fail_open: must be true or false, got 1"),
        (
            with_pool("timeouts = 5"),
            "4:1 pools.web.timeouts: must be a table such as { connect = …, first_byte = … }, got 5",
        ),
        (with_pool("health = { fall = 0 }"), "4:12 pools.web.health.fall: must be at least 1, got 0"),
        (with_pool("health = { rise = 0 }"), "4:12 pools.web.health.rise: must be at least 1, got 0"),
        (
            with_pool("health = { interval = '2s' }"),
            "4:1 pools.web.health.timeout: must be shorter than interval (2s), got 2s",
        ),
        (
            with_pool("health = { timeout = '5s' }"),
            "4:12 pools.web.health.timeout: must be shorter than interval (5s), got 5s",
        ),
        (
            with_pool("ejection = { time = '10m' }"),
            "4:1 pools.web.ejection.max_time: must not be shorter than time (600s)",
        ),
        (with_pool("fallback = 'wbe'"), '4:1 pools.web.fallback: no pool named "wbe", did you mean "web"?'),
        (with_pool("fallback = 'web'"), "4:1 pools.web.fallback: leads back to itself: web → web"),
        (with_pool("tls = { cert = 'a' }"), "4:1 pools.web.tls: needs cert and key together"),
        (with_pool("hash = { on = 'header' }"), "4:10 pools.web.hash.on: must be "),
        (with_route("weight = 1"), "8:1 routes[0].weight: unknown key here; there is regions.<name>.weight"),
        (with_route("path = 'x'"), '8:1 routes[0].path: must be a path such as "/api", got "x"'),
        (with_route("path = '/a/../b'"), "8:1 routes[0].path: must have no empty, . or .. segments"),
        (with_route("host = 'a b'"), "8:1 routes[0].host: must be a host"),
        (with_route("methods = 'GET'"), '8:1 routes[0].methods: must be a list, got "GET": write ["GET"]'),
        (with_route("redirect = '/b'"), '8:1 routes[0].redirect: must be a table such as { to = … }, got "/b"'),
        (
            MINIMAL.replace("[[routes]]", "[routes]"),
            "routes: must be a list, got a table (a list of tables is written [[",
        ),
        (with_route("cache = 'yes'"), '8:1 routes[0].cache: must be true, false or a table, got "yes"'),
        (
            with_route("cache = { status_ttl = { x = '1s' } }"),
            "8:26 routes[0].cache.status_ttl.x: must be a status code",
        ),
        (
            with_route("cache = { prefetch = { next = ['/a'] } }"),
            '8:32 routes[0].cache.prefetch.next[0]: must be a path with one "{n}"',
        ),
        (
            with_route("geo = { prefer = ['mars'] }"),
            '8:19 routes[0].geo.prefer[0]: no region named "mars" (there is: default)',
        ),
        (
            with_route("[[routes]]\npool = 'webb'\npath = '/x'"),
            '9:1 routes[1].pool: no pool named "webb", did you mean "web"?',
        ),
        (with_route("[[routes]]\npool = 'web'"), "8:3 routes[1]: host and path are those of routes[0]"),
        (
            with_route("name = 'a'\n[[routes]]\npool = 'web'\npath = '/x'\nname = 'a'"),
            "12:1 routes[1].name: is the name of routes[0] too",
        ),
        (
            with_route("[limits]\nbuffer_low = '64KiB'"),
            "9:1 limits.buffer_low: must be less than buffer_high (65536 bytes)",
        ),
        (
            with_route("[limits]\nmax_header = '1KiB'"),
            "9:1 limits.max_header: must be at least max_field_line (8192 bytes)",
        ),
        (with_route("[limits]\nheader_timeout = '0s'"), '9:1 limits.header_timeout: must be more than zero, got "0s"'),
        (with_route("[limits]\nmax_body = 5"), '9:1 limits.max_body: must be a size such as "64KiB" or "10GiB", got 5'),
        (with_route("[admin]\nlisten = '127.0.0.1:8080'"), "9:1 admin.listen: is the address of http[0] too"),
        (
            with_route("[snapshots]\nrepository = 'file:x'\nfull = '61 * * * *'"),
            "10:1 snapshots.full: has a bad minute",
        ),
        (
            with_route("[snapshots]\nrepository = 'file:x'\nkeep = { last = 0 }"),
            "10:1 snapshots.keep: must keep something",
        ),
        (with_route("[snapshots]"), "8:2 snapshots.repository: is missing"),
        (with_route("[pool.x]"), '8:2 pool: unknown key, did you mean "pools"?'),
        (MINIMAL.replace("127.0.0.1:8080", "nowhere"), "2:9 listen.http[0]: must be an address such as"),
        (MINIMAL.replace('["127.0.0.1:8080"]', "[]"), "1:2 listen: has no address"),
        (MINIMAL.replace("http://127", "127"), "5:1 pools.web.backends[0].url: must be a URL such as"),
        (
            MINIMAL.replace('url = "http://127.0.0.1:9000"', "weight = 1"),
            "4:13 pools.web.backends[0]: must have a url or an app",
        ),
        (MINIMAL + "[regions.eu]\n", "4:13 pools.web.backends[0].region: is missing: name one of eu"),
        (MINIMAL + "pool = 'x'\n", "8:1 routes[0].pool: given twice, first at 7:1"),
        (MINIMAL + "x = \n", '8:5 not valid TOML: Invalid value (a text needs quotes: "web")'),
        (
            MINIMAL + "x = 5s\n",
            '8:6 not valid TOML: Expected newline or end of document after a statement (a text needs quotes: "5s")',
        ),
        (
            MINIMAL + "cache = { ttl = '5s' }\n",
            "8:11 routes[0].cache.ttl: unknown key, did you mean default_ttl or status_ttl or override_ttl?",
        ),
        (MINIMAL + f"[{'.'.join('a' * 5000)}]\n", "not valid TOML: nested too deeply"),
        (MINIMAL + f"{'.'.join('a' * 5000)} = 1\n", "not valid TOML: nested too deeply"),
        (MINIMAL + f"x = {'[' * 5000}\n", "not valid TOML: nested too deeply"),
    ],
)
def test_a_mistake_is_a_line_with_its_place(text: str, line: str) -> None:
    assert line in only(text)


def test_all_mistakes_come_at_once_in_the_order_of_the_text() -> None:
    text = """\
[listen]
http = ["0.0.0.0:99999"]
[limits]
max_fileds = 5
[pools.api]
balance = "roundrobin"
health = { interval = "2s", timeout = "2s" }
  [[pools.api.backends]]
  url = "http://a:1"
  weight = 0
[[pools.api.backends]]
url = "http://a:1"
region = "mars"
[[routes]]
pool = "apu"
"""
    assert [line.removeprefix("config.toml:").partition(": ")[0] for line in problems(text)] == [
        "2:9 listen.http[0]",
        "4:1 limits.max_fileds",
        "6:1 pools.api.balance",
        "7:29 pools.api.health.timeout",
        "10:3 pools.api.backends[0].weight",
        "12:1 pools.api.backends[1].url",
        "13:1 pools.api.backends[1].region",
        "15:1 routes[0].pool",
    ]
    assert "config.toml:10:3 pools.api.backends[0].weight: must be at least 1, got 0" in problems(text)


def test_an_empty_file_names_what_is_missing() -> None:
    headers = {"listen": "[listen]", "pools": "[pools.<name>]", "routes": "[[routes]]"}
    assert problems("") == [f"config.toml:1:1 {name}: is missing: write {header}" for name, header in headers.items()]


FENCED = MINIMAL.replace("[[routes]]", 'region = "eu"\n[regions.eu]\n[regions.us]\n[[routes]]')


def test_a_fence_must_hold_a_backend() -> None:
    assert load_text(FENCED + "geo = { require = ['eu', 'us'] }\n", "f").routes[0].geo is not None
    assert only(FENCED + "geo = { require = ['us'] }\n").endswith(
        ' routes[0].geo.require: holds no backend of pool "web"'
    )
    drained = FENCED.replace("[regions.eu]\n", "[regions.eu]\ndrained = true\n")
    assert 'routes[0].geo.require: holds no backend of pool "web" but drained ones' in only(
        drained + "geo.require = ['eu']\n"
    )


def test_fallbacks_that_go_round_are_named() -> None:
    text = with_pool("fallback = 'b'") + "[pools.b]\nfallback = 'web'\nbackends = [{ url = 'http://b' }]\n"
    assert [line.partition(" ")[2] for line in problems(text)] == [
        "pools.web.fallback: leads back to itself: web → b → web",
        "pools.b.fallback: leads back to itself: b → web → b",
    ]


def test_one_backend_twice() -> None:
    again = "[[pools.web.backends]]\nurl = '{}'\n[[routes]]"
    assert "pools.web.backends[1].url: is the url of backends[0] too" in only(
        MINIMAL.replace("[[routes]]", again.format("HTTP://127.0.0.1:9000"))
    )
    assert "pools.web.backends[1].id: is the id of backends[0] too" in only(
        MINIMAL.replace("[[routes]]", again.format("https://127.0.0.1:9000"))
    )


def test_no_line_shows_a_password() -> None:
    text = MINIMAL.replace("http://", "http://user:hunter2@") + "[cache.shared]\nurl = 'redis://:hunter2@/x/y'\n"
    assert len(problems(text)) == 2
    assert "hunter2" not in "\n".join(problems(text))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_stands_in_a_key_it_loads_or_every_line_has_a_place(data: st.DataObject) -> None:
    """A value of any shape in any place never breaks the checks."""
    raw: Any = tomllib.loads(SURFACE)
    spots = [spot for spot in _spots(raw) if spot[1] != "url"]
    table, name = data.draw(st.sampled_from(spots))
    table[name] = data.draw(
        st.sampled_from([0, -1, "", "x", "5s", True, [], [1], ["x"], {}, {"x": 1}, [{}], [{"x": []}], 1.5])
    )
    text = "\n".join(f"{key} = {_inline(value)}" for key, value in raw.items())
    found: list[str] = []
    try:
        load_text(text, "config.toml")
    except ConfigError as error:
        found = error.problems
    assert all(re.match(r"config\.toml:\d+:\d+ \S", line) for line in found)


def _spots(raw: Any) -> Iterator[tuple[Any, Any]]:
    for name, value in list(raw.items() if isinstance(raw, dict) else enumerate(raw)):
        yield raw, name
        if isinstance(value, dict | list):
            yield from _spots(value)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_inline(item)}' for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.mark.parametrize(
    ("buckets", "said"),
    [
        ('["1s", "1ms"]', "must be ascending durations, each once"),
        ('["1s", "1s"]', "must be ascending durations, each once"),
        ("[]", "must not be empty"),
        ('["0.01ms", "1s"]', "must begin at 0.1ms or above"),
        ('["0s"]', "must be more than zero"),
        (str([f"{number}s" for number in range(1, 80)]), "at most 64"),
    ],
)
@pytest.mark.parametrize("key", ["buckets", "total_buckets"])
def test_buckets_are_ascending_durations(key: str, buckets: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(f"{MINIMAL}[metrics]\n{key} = {buckets}\n", "edge.toml")
    assert said in caught.value.problems[0] and caught.value.problems[0].startswith("edge.toml:9:")
