"""The operator's file: every key with its default and help text, and the way from TOML text to frozen values.

One rule: a file is taken whole or not at all. `load_text` names every problem at once, each on a line of its own with
its place in the text; nothing is guessed, nothing unknown is ignored. No IO: the caller reads the file, and whether
the files that it names exist is for the caller to see.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, ValidationError, ValidationInfo, field_validator, model_validator

from edge.config.acme import Acme
from edge.config.cache import Cache
from edge.config.checks import cross_problems
from edge.config.fleet import Fleet, Server
from edge.config.http2 import Http2
from edge.config.inheriting import whole_pools, whole_routes
from edge.config.keys import Key, keys_of, problems_of
from edge.config.log import Log
from edge.config.metrics import Metrics
from edge.config.paths import FilePath
from edge.config.positions import Problem
from edge.config.routing import Pool, Region, Route
from edge.config.snapshots import Snapshots
from edge.config.sources import Sources, put_together
from edge.config.types import (
    Address,
    AdminAddress,
    AtLeastOne,
    Count,
    Duration,
    FileMode,
    HostName,
    ListenAddress,
    Many,
    Name,
    PositiveSize,
    Section,
    Size,
    Source,
    Text,
    Timeout,
    ValueKind,
    Workers,
    entry,
    shown,
)
from edge.errors import ConfigError


class Certificate(Section):
    """A certificate of a TLS listener."""

    cert: FilePath = entry(..., "Certificate chain, PEM")
    key: FilePath = entry(..., "Private key, PEM")


def parse_redirect(value: object) -> int | bool:
    """`true`, `false`, or a port."""
    if isinstance(value, bool) or (isinstance(value, int) and 1 <= value <= 65535):
        return value
    raise ValueError(f"must be true, false or a port from 1 to 65535, got {shown(value)}")


RedirectPort = Annotated[int | bool, PlainValidator(parse_redirect), ValueKind("true, false or port")]


class HttpsListener(Section):
    """`listen.https`: one TLS listener."""

    address: ListenAddress = entry(..., "Where to listen")
    protocols: Annotated[Many[Literal["h2", "http/1.1"]], Field(min_length=1)] = entry(
        ["h2", "http/1.1"], "What clients may agree on (ALPN), the most wanted first"
    )
    certificates: Many[Certificate] = entry([], "Chosen by the name that a client asks for; those of acme come after")
    acme: Acme | None = entry(None, "Certificates by ACME, obtained and renewed automatically (needs the extra acme)")
    unknown_names: Literal["default", "refuse"] = entry(
        "default",
        "For clients that send no name, or one that no certificate covers: the first certificate, or no handshake",
    )
    client_ca: FilePath | None = entry(
        None, "Authorities of clients' certificates, PEM; left out: clients are not asked for one"
    )
    client_auth: Literal["require", "optional"] = entry(
        "require", "With client_ca: refuse clients without a certificate, or serve them too"
    )

    redirect_http: RedirectPort = entry(
        False, "Answer requests on http with 308 to here; a number where clients see another port than address has"
    )

    @property
    def redirects_to(self) -> int | None:
        """The port that plain HTTP is sent to."""
        asked = self.redirect_http
        own = self.address.port if isinstance(self.address, Address) else 0
        return (own if asked else None) if isinstance(asked, bool) else asked

    @model_validator(mode="after")
    def _asks(self) -> HttpsListener:
        if self.client_ca is None and "client_auth" in self.model_fields_set:
            raise ValueError("client_auth needs client_ca: the authorities of the certificates")
        if self.redirects_to == 0:
            raise ValueError("redirect_http needs a port to send to: address has none that is known")
        return self

    def pems(self, state: str) -> list[tuple[str, str]]:
        """The files of every certificate and its key, those of ACME in the state directory."""
        given = [(pair.cert, pair.key) for pair in self.certificates]
        named = [] if self.acme is None else [self.acme.pem(state, name) for name in self.acme.names]
        return given + [(pem, pem) for pem in named]


class Listen(Section):
    """`[listen]`."""

    http: Many[ListenAddress] = entry(
        [], "Where to listen for plain HTTP: address and port (0 is any free one), or unix: and a path"
    )
    https: Many[HttpsListener] = entry([], "Where to listen for HTTPS")
    h2c: bool = entry(
        False, "Accept HTTP/2 without TLS on http listeners, from the first byte on (no upgrade): for proxies in front"
    )
    http2: Http2 = entry({}, "Limits of HTTP/2 connections")
    workers: Workers = entry(
        1,
        'Processes with a memory cache each; "auto" = one for each core, or one where a route caches without disk',
    )
    backlog: AtLeastOne = entry(1024, "Connections that the kernel holds before they are accepted")
    socket_mode: FileMode = entry("0660", "Who may connect to Unix sockets: owner, group, others, as of a file")
    trusted_proxies: Many[Source] = entry(
        [], 'Networks whose X-Forwarded-* and Forwarded are believed; "unix": clients of Unix sockets; empty = none'
    )
    proxy_protocol: Many[Source] = entry(
        [], "Networks whose connections begin with a PROXY header, v1 or v2, with the client's address; empty = none"
    )
    cdn_id: Name | None = entry(
        None,
        "This gateway's name in CDN-Loop; a request that has it already gets 508; left out: made from the addresses",
    )


class Limits(Section):
    """`[limits]`: each default is safe on the open internet."""

    header_timeout: Timeout = entry("10s", "For a whole request head, from accept or its first byte; then 408")
    body_timeout: Timeout = entry("30s", "Between two pieces of a request body; then 408")
    body_grace: Timeout = entry("10s", "After this, a request body must come at min_body_rate")
    min_body_rate: Size = entry("1kB", "Least bytes a second of a request body; 0 = any")
    idle_timeout: Timeout = entry("60s", "How long a kept client connection may be silent")
    write_timeout: Timeout = entry("30s", "How long a client may take nothing of its answer; then the connection ends")
    shutdown_delay: Duration = entry(
        "0s", "How long requests are still taken after the stop is asked for, with /readyz failing already"
    )
    shutdown_grace: Timeout = entry("30s", "How long running requests may take to end when the gateway stops")
    max_request_line: PositiveSize = entry("8KiB", "Request line; longer is 414")
    utf8_targets: bool = entry(
        False, "Take raw UTF-8 in a target for its percent-encoding; without it such requests get 400"
    )
    max_field_line: PositiveSize = entry("8KiB", "One field line; longer is 431")
    max_header: PositiveSize = entry("32KiB", "All fields of a request; more is 431")
    max_fields: AtLeastOne = entry(100, "Field lines of a request; more is 431")
    max_response_header: PositiveSize = entry("64KiB", "Head of a backend's answer; larger is 502")
    max_response_fields: AtLeastOne = entry(200, "Field lines of a backend's answer; more is 502")
    max_trailers: PositiveSize = entry("8KiB", "All trailers of a message")
    max_chunk_line: PositiveSize = entry("4KiB", "A chunk-size line with its extensions, which are never forwarded")
    max_body: PositiveSize = entry("100MiB", "Request body; larger is 413; a route may say otherwise")
    max_interim: Count = entry(16, "Interim (1xx) answers of a backend for one request; more is 502")
    max_ranges: Count = entry(5, "Ranges in one request that are answered as such; with more, the whole is sent")
    pipeline_buffer: PositiveSize = entry("64KiB", "Requests kept that came before their turn on a connection")
    replay_buffer: Size = entry("64KiB", "Start of a request body that is kept for another attempt")
    buffer_high: PositiveSize = entry(
        "64KiB", "Per connection and direction: reading stops when this waits to be written"
    )
    buffer_low: Size = entry("16KiB", "Reading goes on when no more than this waits")
    unread_memory: Size = entry(
        "1GiB",
        "Memory of answers that clients of a worker have not taken, all together; beyond it the connections that hold "
        "most are ended; 0 = no bound",
    )
    connections: AtLeastOne = entry(20000, "Client connections in each worker; refused early beyond it")
    connections_per_client: Count = entry(4096, "Connections of one client address in each worker; 0 = no limit")
    handshakes: AtLeastOne = entry(
        2000, "TLS handshakes under way in each worker; beyond it the one that takes longest makes room"
    )
    handshakes_per_client: Count = entry(
        200, "TLS handshakes under way of one client address in each worker; 0 = no limit"
    )
    request_id: Literal["trusted", "keep", "replace"] = entry(
        "keep", "A client's X-Request-Id: kept when well-formed, kept from trusted proxies only, or always made anew"
    )

    return_request_id: bool = entry(False, "Tell the client its request's id in X-Request-Id, in place of a backend's")

    @field_validator("buffer_low")
    @classmethod
    def _below_high(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("buffer_high", value + 1):
            raise ValueError(f"must be less than buffer_high ({info.data['buffer_high']} bytes), got {value} bytes")
        return value

    @field_validator("max_header")
    @classmethod
    def _holds_a_line(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("max_field_line", 0):
            raise ValueError(
                f"must be at least max_field_line ({info.data['max_field_line']} bytes), got {value} bytes"
            )
        return value


class AdminToken(Section):
    """`admin.tokens`: a further token of the admin API."""

    name: Name = entry(..., "Who uses it; stands in the audit")
    file: FilePath = entry(..., "The token; made on first start, mode 0600")
    role: Literal["read", "purge", "admin"] = entry("read", "What it allows: reading; also purge and warm; everything")


class Admin(Section):
    """`[admin]`."""

    listen: AdminAddress = entry("127.0.0.1:9900", "Where the admin API, metrics and the dashboard are")
    token_file: FilePath = entry("var/admin.token", "Bearer token for everything; made on first start, mode 0600")
    tokens: Many[AdminToken] = entry([], "Further tokens, each with a name and a role")
    tls: Certificate | None = entry(None, "Certificate and key; then the admin listener speaks TLS alone")
    socket: FilePath | None = entry(None, "A Unix socket beside it, for its owner alone; the token is asked for too")
    hosts: Many[HostName] = entry([], "Host names under which the API may be used, beside addresses and localhost")
    reload_on_change: bool = entry(False, "Load this file again when it changes; a mistake changes nothing")
    metrics_open: bool = entry(False, "Let /metrics be read without the token")
    connections: AtLeastOne = entry(256, "Most connections; then the one that has been silent longest makes room")
    header_timeout: Timeout = entry("10s", "For a whole request head")
    body_timeout: Timeout = entry("30s", "For a whole request body; then 408")
    rate: AtLeastOne = entry(200, "Requests a second of one token and address, twice as many at once; then 429")


class State(Section):
    """`[state]`."""

    path: FilePath = entry("var", "Directory of the journal, the disk cache and sockets")


class GeoIP(Section):
    """`[geoip]`."""

    database: FilePath = entry("geoip/edge-country.mmdb", "Country database (mmdb); without it geography is unknown")


class Config(Section):
    """A whole file, checked."""

    include: Many[Text] = entry([], "Further files, whose tables are added: names or patterns, as seen from this file")
    python_path: Many[FilePath] = entry([], "Folders to import applications from, after the file's own")
    listen: Listen = entry(..., "Where clients connect")
    limits: Limits = entry({}, "Bounds on everything that comes from outside")
    admin: Admin = entry({}, "Admin API, dashboard and metrics")
    state: State = entry({}, "What survives a restart")
    cache: Cache = entry({}, "The stores")
    geoip: GeoIP = entry({}, "Where clients are")
    regions: dict[Name, Region] = entry({}, 'Regions by name; left out: one, "default"')
    pools: Annotated[dict[Name, Pool], Field(min_length=1)] = entry(..., "Pools by name")
    routes: Annotated[Many[Route], Field(min_length=1)] = entry(..., "Which requests go to which pool, and their rules")
    fleet: Fleet | None = entry(None, "Machines that serve together; cache.shared alone means one on its server")
    snapshots: Snapshots | None = entry(None, "Recovery points")
    metrics: Metrics = entry({}, "Buckets of the histograms")
    log: Log = entry({}, "Access log, messages and traces")

    @field_validator("regions")
    @classmethod
    def _never_empty(cls, value: dict[str, Region]) -> dict[str, Region]:
        return value or {"default": Region()}


def fleet_of(config: Config) -> Fleet | None:
    """The fleet that this machine is in. What is shared has to be purged, so the server of a shared tier has the purge
    stream too where no other is named."""
    shared = config.cache.shared
    if config.fleet is None and shared is not None:
        same = {name: getattr(shared, name) for name in (*Server.model_fields, "namespace")}
        return Fleet(**same)
    return config.fleet


NO_FILES: Mapping[str, str] = {}


def load_text(text: str, filename: str) -> Config:
    """The configuration of one text alone: see `load`."""
    return load(Sources(filename, text))


def load(sources: Sources) -> Config:
    """The configuration that is written there. Raises ConfigError with a line for each problem, in their order."""
    whole = put_together(sources)
    context = {"folder": whole.folder}
    problems: list[Problem] = []
    found: Config | None = None
    try:
        found = Config.model_validate(whole.raw, context=context)
    except ValidationError as error:
        problems += problems_of(error, Config)
    problems += cross_problems(whole.raw)
    if problems or found is None:
        raise ConfigError(whole.lines(problems))
    return inherited(found)


def inherited(config: Config) -> Config:
    """A checked file with what routes and backends leave out taken from their pool, `[limits]` and `[cache]`."""
    pools = whole_pools(config.pools)
    routes = whole_routes(config.routes, pools, config.cache, config.limits.max_body)
    return config.model_copy(update={"pools": pools, "routes": routes})


def config_hash(text: str, files: Mapping[str, str] = NO_FILES) -> str:
    """SHA-256 of a file's text and of those that it includes, hex: tells whether two revisions are the same."""
    found = sha256(text.encode())
    for name, included in sorted(files.items()):
        found.update(f"\0{name}\0{included}".encode())
    return found.hexdigest()


def describe() -> list[Key]:
    """Every key with type, default (as an operator would write it) and help, in the order of the file."""
    return list(keys_of(Config))
