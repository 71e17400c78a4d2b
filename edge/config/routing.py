"""The tables that say where a request goes: `[regions]`, `[pools]` with their backends, `[[routes]]`.

Values only, each key with its default and help text; what several tables must agree on is in `config.checks`.
Durations are float seconds, sizes bytes, percentages fractions.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo, field_validator, model_validator

from edge.config.cache import CacheRules, Switch, matching
from edge.config.names import HashOn, Method, PathPrefix, ProbeTarget
from edge.config.paths import FilePath
from edge.config.rule_values import ProbeField
from edge.config.rules import RouteRules
from edge.config.types import (
    AppName,
    AtLeastOne,
    BackendId,
    BackendUrl,
    Cidr,
    Count,
    Duration,
    Many,
    Name,
    Percent,
    PositiveSize,
    Purgers,
    Section,
    Text,
    Timeout,
    Upgrades,
    Url,
    ValueKind,
    Weight,
    entry,
    is_host,
    parse_backend_url,
    shown,
    split_authority,
)

APP_SCHEME = "app"
DEFAULT_REGION = "default"


def parse_location(value: object) -> tuple[float, float]:
    """`[latitude, longitude]` in degrees."""
    pair = value if isinstance(value, list | tuple) else ()
    numbers = [float(item) for item in pair if isinstance(item, int | float) and not isinstance(item, bool)]
    if len(pair) != 2 or len(numbers) != 2 or not (abs(numbers[0]) <= 90 and abs(numbers[1]) <= 180):
        raise ValueError(f"must be [latitude, longitude] in degrees such as [53.3, -6.3], got {_listed(value)}")
    return numbers[0], numbers[1]


def parse_statuses(value: object) -> frozenset[int]:
    """`[200, "300-399"]` as the set of those codes."""
    found: set[int] = set()
    for item in value if isinstance(value, list | tuple) else ():
        match = re.fullmatch(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?", str(item)) if type(item) in (int, str) else None
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f'must hold status codes such as 200 or "200-299", got {shown(item)}')
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    if not found:
        raise ValueError(f'must be a list of status codes such as [200, "300-399"], got {_listed(value)}')
    return frozenset(found)


def parse_probe_host(value: object) -> str:
    """`"www.example.com"`, also with a port."""
    found = split_authority(value, 0) if isinstance(value, str) else None
    if not isinstance(value, str) or found is None or not found[0]:
        raise ValueError(f'must be a host such as "www.example.com", got {shown(value)}')
    return value.lower()


def parse_route_host(value: object) -> str:
    """`"www.example.com"`, `"*.example.com"`, `"*"`, also with a port; lower case."""
    if value == "*":
        return "*"
    text = value.lower() if isinstance(value, str) else ""
    bare = text.removeprefix("*.")
    found = split_authority(bare, 0)
    if found is None or not found[0] or (bare != text and not is_host(found[0])):
        hint = " (write international names in their xn-- form)" if not text.isascii() else ""
        raise ValueError(f'must be a host such as "www.example.com", "*.example.com" or "*", got {shown(value)}{hint}')
    return text


def _listed(value: object) -> str:
    return f"[{', '.join(shown(item) for item in value[:6])}]" if isinstance(value, list) else shown(value)


Country = Annotated[str, PlainValidator(matching("[A-Z]{2}", 'a country code such as "IE"')), ValueKind("country code")]
Subdivision = Annotated[
    str,
    PlainValidator(matching("[A-Z]{2}-[A-Z0-9]{1,3}", 'a subdivision code such as "US-CA"')),
    ValueKind("subdivision"),
]
Continent = Literal["AF", "AN", "AS", "EU", "NA", "OC", "SA"]
Location = Annotated[tuple[float, float], PlainValidator(parse_location), ValueKind("[latitude, longitude]")]
Statuses = Annotated[frozenset[int], PlainValidator(parse_statuses), ValueKind("list of status codes")]
ProbeHost = Annotated[str, PlainValidator(parse_probe_host), ValueKind("host")]
RouteHost = Annotated[str, PlainValidator(parse_route_host), ValueKind("host")]


class Region(Section):
    """`[regions.<name>]`: backends that fail together."""

    tier: Count = entry(0, "Lower tiers serve first; 0 is primary")
    weight: Weight = entry(100, "Share among regions of one tier")
    location: Location | None = entry(None, "Where it is, for the nearest by distance")
    countries: Many[Country] = entry([], "Countries it serves first (ISO 3166-1)")
    continents: Many[Continent] = entry([], "Continents it serves first")
    subdivisions: Many[Subdivision] = entry([], "Parts of countries it serves first (ISO 3166-2)")
    cidrs: Many[Cidr] = entry([], "Client networks it serves first, before all else")
    last_resort: bool = entry(False, "May serve although inactive when nothing else can")
    drained: bool = entry(False, "Starts drained: gets no new requests")


class Health(Section):
    """`health`: active probes of each backend."""

    kind: Literal["http", "tcp"] = entry("http", "Ask for a path, or only connect")
    path: ProbeTarget = entry("/", "What an http probe asks for")
    host: ProbeHost | None = entry(None, "Host to ask for; left out: the backend's own")
    method: Literal["GET", "HEAD", "OPTIONS"] = entry("GET", "How an http probe asks")
    headers: dict[ProbeField, Text] = entry({}, "Further fields of an http probe")
    expect: Statuses = entry(["200-299"], "Statuses that count as healthy")
    body: Text | None = entry(None, "Text that the answer's body must hold")
    interval: Timeout = entry("5s", "Between probes")
    timeout: Timeout = entry("2s", "For the whole probe; shorter than interval")
    fall: AtLeastOne = entry(3, "Failures until unhealthy")
    rise: AtLeastOne = entry(2, "Successes until healthy")
    interval_down: Timeout = entry("6s", "Between probes of an unhealthy backend")
    interval_transition: Timeout = entry("1s", "Between probes while the verdict is about to change")

    @field_validator("timeout")
    @classmethod
    def _below_interval(cls, value: float, info: ValidationInfo) -> float:
        interval = info.data.get("interval")
        if interval is not None and value >= interval:
            raise ValueError(f"must be shorter than interval ({interval:g}s), got {value:g}s")
        return value


class Ejection(Section):
    """`ejection`: taking a backend out for what live requests show."""

    consecutive: AtLeastOne = entry(5, "Gateway failures in a row")
    success_rate: Percent = entry("50%", "Or a success rate below this within the window; 0% = not looked at")
    min_sample: AtLeastOne = entry(20, "Requests in the window before its rate counts")
    window: Timeout = entry("10s", "Window of the success rate")
    time: Timeout = entry("5s", "First ejection; each repeat lasts longer")
    max_time: Timeout = entry("5m", "Longest ejection")
    max: Percent = entry("50%", "Most of a pool's backends that may be out at once")

    @field_validator("max_time")
    @classmethod
    def _not_below_time(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("time", 0.0):
            raise ValueError(f"must not be shorter than time ({info.data['time']:g}s), got {value:g}s")
        return value


class Timeouts(Section):
    """`timeouts`: each wait on a backend."""

    connect: Timeout = entry("1s", "Until connected, TLS included")
    first_byte: Timeout = entry("10s", "From the request sent to the first byte of the answer")
    head: Timeout = entry("15s", "From the request sent to the end of the answer's head")
    body: Timeout = entry("30s", "Between two pieces of the answer's body")
    tunnel: Timeout = entry("1h", "How long nothing may come from either side of an upgraded connection; pings count")
    queue: Timeout = entry("1s", "How long a request waits for a free backend when all are full")


class PoolTimeouts(Timeouts):
    """`timeouts` of a pool: also of connections, which all its routes share."""

    idle: Timeout = entry("30s", "How long an unused connection is kept; the backend's own hint wins when shorter")


class Retry(Section):
    """`retry`: further attempts, on other backends first."""

    attempts: Count = entry(2, "Attempts after the first; 0 = none")
    deadline: Timeout = entry("15s", "No attempt begins later than this after the request came")
    hedge: Duration = entry(
        "1s", "A GET or HEAD silent for so long, and for 10 times what is usual, is sent elsewhere too; 0s = never"
    )
    same_backend: Duration = entry(
        "3s", "With all backends refusing, dropping or answering 503, they are tried again for so long; 0s = never"
    )
    statuses: Statuses = entry([502, 503, 504], "Answers that are tried again elsewhere, for idempotent methods")


class PoolRetry(Retry):
    """`retry` of a pool: also the budget, which all its routes share."""

    budget: Percent = entry("20%", "Most retries, as a share of requests in flight")
    min: Count = entry(3, "Retries in flight that are always allowed")


class HashKey(Section):
    """`hash`: what consistent hashing looks at."""

    on: HashOn = entry(
        "path",
        '"path", "client" (address), "header:<name>" or "cookie:<name>"; without it: any backend',
    )


class UpstreamTls(Section):
    """`tls`: how https backends are spoken to."""

    ca: FilePath | None = entry(None, "CA certificates to trust; left out: the system's")
    cert: FilePath | None = entry(None, "Client certificate")
    key: FilePath | None = entry(None, "Its private key")
    verify: bool = entry(True, "Check the backend's certificate and name")
    server_name: Text | None = entry(None, "Name to ask for and to check; left out: the URL's host")


class Backend(Section):
    """`[[pools.<name>.backends]]`: one address requests can be sent to, or an application in the worker."""

    url: Url | None = entry(None, "http://host:port, https://host:port or unix:/path; this or app")
    app: AppName | None = entry(
        None, "An aiohttp application, a function that makes one, or a handler; runs in the worker; this or url"
    )
    time_limit: Duration = entry(
        "0s", "How long a request may run in the application, streams and WebSockets included; 0s = no limit"
    )
    region: Name = entry(DEFAULT_REGION, "Its region; needed when [regions] are declared")
    weight: Weight = entry(1, "Share of requests")
    max_in_flight: Count = entry(1000, "Most requests in flight; 0 = no limit; left out: the pool's")
    id: BackendId = entry(..., "Name in the log and the API; left out: host and port of the url, or its path")

    @model_validator(mode="before")
    @classmethod
    def _named_by_url(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if ("url" in data) == ("app" in data):
            raise ValueError("must have a url or an app" + (", not both" if "app" in data else ""))
        if "time_limit" in data and "app" not in data:
            raise ValueError("time_limit is for an app; a url's waits are its pool's timeouts")
        if "id" in data:
            return data
        if "app" in data:
            return {**data, "id": data["app"] if isinstance(data["app"], str) else "none"}
        try:
            url = parse_backend_url(data.get("url"))
        except ValueError:
            return {**data, "id": "none"}  # the url's own problem is reported
        return {**data, "id": url.name}

    @property
    def address(self) -> BackendUrl:
        """Where it is; an application has a scheme of its own, and its name for a host."""
        return self.url or BackendUrl(APP_SCHEME, self.app or "", 0)


class Pool(Section):
    """`[pools.<name>]`: interchangeable backends."""

    balance: Literal["round-robin", "least-connections", "latency", "geo", "hash", "random"] = entry(
        "round-robin", "How a backend is picked"
    )
    backends: Annotated[Many[Backend], Field(min_length=1)] = entry(..., "The backends")
    failover: Literal["spill", "switch"] = entry(
        "spill", "spill: the next tier gets what one cannot take; switch: all traffic moves at once"
    )
    failback: Literal["auto", "manual", "never"] = entry("auto", "How traffic returns after a switch")
    healthy_min: Percent = entry("50%", "A region with less available weight counts as down")
    down_after: Duration = entry("3s", "Below healthy_min for so long: switch away")
    up_after: Duration = entry("60s", "Above healthy_min without a break for so long: begin to return")
    ramp: Duration = entry("60s", "Time in which returning traffic grows from 10% to 100%")
    min_dwell: Duration = entry("60s", "Shortest time between two switches")
    health: Switch[Health] = entry(None, "Probes; left out: live traffic only")
    ejection: Switch[Ejection] = entry({}, "Ejection by live failures; false = off")
    panic: Percent = entry("50%", "With less available and no lower tier to help, health is ignored")
    timeouts: PoolTimeouts = entry({}, "Waits on a backend")
    retry: PoolRetry = entry({}, "Further attempts")
    max_in_flight: Count = entry(1000, "Most requests in flight on each backend; 0 = no limit")
    queue: Count = entry(1000, "Most requests that wait for a free backend")
    hash: HashKey = entry({}, "What balance = hash looks at")
    slow_start: Duration = entry("10s", "A backend that returns reaches its full share in this time; 0s = at once")
    fallback: Name | None = entry(None, "Pool that serves when no backend of this one is available")
    fail_open: bool = entry(False, "With all backends unhealthy, try them all the same")
    tls: UpstreamTls = entry({}, "How https backends are spoken to")
    resolve: Timeout = entry(
        "30s", "How often backends' names are resolved again; connections to addresses that are gone are let go"
    )
    proxy_protocol: Literal["v1", "v2"] | None = entry(
        None, "Send backends a PROXY header with the client's address; each connection then serves one client"
    )
    lifetime: Duration = entry(
        "1h", "Longest life of a connection to a backend; then it ends as soon as it is idle; 0s = no limit"
    )


class Geo(Section):
    """`geo`: which regions serve a route."""

    prefer: Many[Name] = entry([], "Regions to try first, in this order")
    require: Many[Name] = entry([], "The only regions that may ever serve (residency fence)")


class Route(RouteRules):
    """`[[routes]]`: the most specific host wins, then the longest path, then the first that its conditions fit."""

    host: RouteHost = entry("*", 'Exact, "*.example.com" or "*"')
    path: PathPrefix = entry("/", "Longest prefix wins, by segments")
    name: Text = entry(..., "Name in the log and in metrics; left out: host and path")
    pool: Name | None = entry(None, "Pool that serves; not needed with redirect or respond")
    cache: Switch[CacheRules] = entry({}, "true, false or a table of rules")
    geo: Geo | None = entry(None, "Choose regions by the client's place")
    methods: Many[Method] = entry([], "The only methods that are served (405 for others); empty = all")
    max_body: PositiveSize = entry("100MiB", "Largest request body; left out: that of [limits]")
    hooks: Many[AppName] = entry([], "Classes or modules with request, response, cache_key: plain functions, in order")
    internal: bool = entry(False, "Only for subrequests of applications; a client gets 404")
    encoded_slashes: bool = entry(False, "Let %2F, %5C and %00 in a path through (400 otherwise); matched as decoded")
    purge_methods: Purgers = entry(
        False, "Whose PURGE is obeyed: true = this machine's, or a list of networks; else PURGE, BAN, REFRESH get 405"
    )
    upgrade: Upgrades = entry(
        ["websocket"], "Protocols that are let through when the backend answers 101; true = WebSocket, false = none"
    )
    timeouts: Timeouts = entry({}, "Waits on a backend; what is left out is the pool's")
    retry: Retry = entry({}, "Further attempts; what is left out is the pool's")

    @model_validator(mode="before")
    @classmethod
    def _named_by_place(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "name" in data:
            return data
        host, path = data.get("host", "*"), data.get("path", "/")
        return {**data, "name": f"{host}{path}" if isinstance(host, str) and isinstance(path, str) else "none"}
