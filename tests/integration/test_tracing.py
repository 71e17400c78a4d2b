"""Traces: what a collector gets of requests and attempts, whose word decides what is traced, what a backend is told.

The collector is a real HTTP server; what it got is read with OpenTelemetry's own protocol definitions. The gateway's
sink sends once a second, or when it is closed: a test closes the worker before it looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from inprocess import Connect, Gateway, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient, Response
from kit.http2 import Http2Client
from kit.origin import ScriptedOrigin, Step
from kit.waiting import until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from edge.config.loader import load_text
from edge.errors import ConfigError

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STORED = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok"


def asked(path: str = "/a?b=c", context: str = "", method: str = "GET") -> bytes:
    """A request; `context` is its traceparent's flags, or nothing."""
    lines = f"traceparent: 00-{TRACE}-{PARENT}-{context}\r\ntracestate: x=1\r\n" if context else ""
    return f"{method} {path} HTTP/1.1\r\nHost: a.example\r\nUser-Agent: me\r\n{lines}\r\n".encode()


class Traced:
    """A gateway before one origin or more, a client, and the collector."""

    def __init__(self, gateway: Gateway, client: RawClient, collector: ScriptedOrigin) -> None:
        self.gateway, self.client, self.collector = gateway, client, collector

    async def ask(self, request: bytes) -> Response:
        await self.client.send(request)
        answer = await self.client.read_response()
        assert answer is not None
        return answer

    async def spans(self) -> list[Span]:
        """Everything that was sent, once the worker has ended."""
        tracing = self.gateway.worker.tracing
        await self.gateway.stop()
        if tracing is not None:  # the worker waits a moment for what is sent, and not for a collector that stands still
            sending: Any = tracing.sink
            await asyncio.to_thread(sending._closing.join)
        return [
            span
            for request in self.collector.requests
            for resource in parsed(request.body.content if request.body is not None else b"").resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


StartTraced = Callable[..., Awaitable[Traced]]


def parsed(data: bytes) -> ExportTraceServiceRequest:
    found = ExportTraceServiceRequest()
    found.ParseFromString(data)
    return found


def told(span: Span) -> dict[str, Any]:
    """A span's attributes."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in span.attributes}


@pytest.fixture
def traced(edge: StartEdge, origins: StartOrigins, raw_client: Connect) -> StartTraced:
    async def start(*ports: int, log: str = 'sample = "100%"', **lines: str) -> Traced:
        collector = await origins()
        own = f'access = "@LOG@"\notlp = "{collector.url}"\n{log}'
        gateway = await edge(edge_toml(*ports, log=own, **lines))
        return Traced(gateway, await raw_client(gateway.port), collector)

    return start


async def test_a_request_is_a_span_and_its_attempt_one_below(origin: ScriptedOrigin, traced: StartTraced) -> None:
    case = await traced(origin.port)
    await case.ask(asked())
    (sent,) = origin.requests
    version, trace, parent, flags = (sent.get(b"traceparent") or b"").decode().split("-")
    (line,) = await case.gateway.log(1)
    attempt, request = await case.spans()
    assert (version, flags) == ("00", "01")
    assert trace == line["id"] == request.trace_id.hex() == attempt.trace_id.hex()
    assert (request.kind, attempt.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert (request.parent_span_id, attempt.parent_span_id) == (b"", request.span_id)
    assert attempt.span_id.hex() == parent, "the backend's spans stand below the attempt"
    assert request.start_time_unix_nano <= attempt.start_time_unix_nano <= attempt.end_time_unix_nano
    assert attempt.end_time_unix_nano <= request.end_time_unix_nano
    assert (request.name, attempt.name) == ("GET /", "GET")
    facts = told(request)
    assert facts.pop("edge.first_byte_s") > 0
    assert facts == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/a",
        "url.query": "b=c",
        "server.address": "a.example",
        "server.port": 80,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "me",
        "http.route": "/",
        "http.response.status_code": 200,
        "http.response.body.size": 2,
        "edge.request_id": line["id"],
        "edge.route": "*/",
        "edge.verdict": "bypass",
        "edge.attempts": 1,
    }
    assert told(attempt) == {
        "http.request.method": "GET",
        "url.full": f"http://127.0.0.1:{origin.port}/a?b=c",
        "server.address": "127.0.0.1",
        "server.port": origin.port,
        "http.response.status_code": 200,
        "edge.pool": "origin",
        "edge.backend": f"127.0.0.1:{origin.port}",
        "edge.region": "default",
    }
    (batch, *_) = case.collector.requests
    assert (batch.method, batch.target, batch.get(b"content-type")) == (
        b"POST",
        b"/v1/traces",
        b"application/x-protobuf",
    )
    resource = {each.key for each in parsed(batch.body.content).resource_spans[0].resource.attributes}  # type: ignore[union-attr]
    assert resource >= {"service.name", "service.version", "service.instance.id"}


@pytest.mark.parametrize(
    ("sample", "by", "context", "is_traced"),
    [
        ("0%", "anyone", "01", True),
        ("100%", "anyone", "00", False),
        ("0%", "trusted", "01", False),
        ("100%", "trusted", "00", True),
        ("0%", "anyone", "", False),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
async def test_who_decides_what_is_traced(
    sample: str, by: str, context: str, is_traced: bool, cached: bool, origin: ScriptedOrigin, traced: StartTraced
) -> None:
    route = "cache = {}" if cached else "cache = false"
    case = await traced(origin.port, log=f'sample = "{sample}"\nsampled_by = "{by}"', route=route)
    origin.default = (STORED,)
    await case.ask(asked(context=context))
    await case.ask(asked(context=context))  # a hit, where the route caches
    sent = origin.requests[0]
    parent = (sent.get(b"traceparent") or b"").decode()
    spans = await case.spans()
    assert bool(spans) is is_traced
    assert len(origin.requests) == (1 if cached else 2)
    if not is_traced and context:
        assert parent == f"00-{TRACE}-{PARENT}-{context}", "who does not trace passes on what came"
    elif is_traced:
        requests = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
        assert len(requests) == 2
        assert {(span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) for span in requests} == {
            (TRACE, PARENT, "x=1")
        }
        assert parent.startswith(f"00-{TRACE}-") and parent.endswith("-01") and PARENT not in parent
    else:
        assert parent.endswith("-00")
    if context:
        assert sent.get(b"tracestate") == b"x=1"


async def test_each_attempt_is_a_span(origins: StartOrigins, traced: StartTraced) -> None:
    first, second = await origins(), await origins()
    first.default = (Step.CLOSE,)
    case = await traced(first.port, second.port)
    while not first.requests:
        assert (await case.ask(asked("/x"))).status == 200
    spans = [span for span in await case.spans() if told(span).get("edge.attempts", 1) > 1 or not span.name[3:]]
    (request,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    lost, won = [span for span in spans if span.parent_span_id == request.span_id]
    assert told(lost)["error.type"] == "connection_terminated"
    assert lost.status.code == Status.STATUS_CODE_ERROR
    assert (told(won)["http.request.resend_count"], told(won)["http.response.status_code"]) == (1, 200)
    assert won.status.code == request.status.code == Status.STATUS_CODE_UNSET


async def test_an_error_is_told_as_one(origin: ScriptedOrigin, traced: StartTraced) -> None:
    case = await traced(origin.port, pool="retry = { attempts = 0 }")
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Step.CLOSE)
    assert (await case.ask(asked())).status == 502
    assert (await case.ask(asked(method="BREW"))).status == 502
    spans = await case.spans()
    assert {span.status.code for span in spans} == {Status.STATUS_CODE_ERROR}
    assert all("error.type" in told(span) for span in spans)
    odd = next(span for span in spans if told(span)["http.request.method"] == "_OTHER")
    assert odd.name == "HTTP /" and told(odd)["http.request.method_original"] == "BREW"


async def test_a_hit_is_traced_as_often_as_is_asked(origin: ScriptedOrigin, traced: StartTraced) -> None:
    case = await traced(origin.port, log='sample = "50%"', route="cache = {}")
    origin.default = (STORED,)
    chances = iter((0.9, 0.1, 0.9, 0.1))  # one for each request, whichever way it takes
    tracing = case.gateway.worker.tracing
    assert tracing is not None
    tracing._chance = chances.__next__
    for _ in range(4):
        assert (await case.ask(asked())).status == 200
    assert next(chances, None) is None
    lines = await case.gateway.log(4)
    spans = await case.spans()
    assert [line["verdict"] for line in lines] == ["miss", "hit", "hit", "hit"]
    assert [told(span)["edge.verdict"] for span in spans] == ["hit", "hit"]
    assert [span.trace_id.hex() for span in spans] == [lines[1]["id"], lines[3]["id"]]


async def test_http2_requests_are_traced(origin: ScriptedOrigin, edge: StartEdge, origins: StartOrigins) -> None:
    collector = await origins()
    log = f'access = "@LOG@"\notlp = "{collector.url}"\nsample = "100%"'
    gateway = await edge(edge_toml(origin.port, log=log, listen='http = ["127.0.0.1:0"]\nh2c = true'))
    client = await Http2Client.connect(gateway.port)
    assert (await client.get(b"/x", extra=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])).status == 200
    await client.close()
    request = (await Traced(gateway, None, collector).spans())[-1]  # type: ignore[arg-type]
    assert (request.trace_id.hex(), told(request)["network.protocol.version"]) == (TRACE, "2")


async def test_what_no_collector_takes_is_counted_and_told(origin: ScriptedOrigin, traced: StartTraced) -> None:
    case = await traced(origin.port)
    case.collector.default = (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",)
    await case.ask(asked())
    counts = case.gateway.worker.spans
    await until(lambda: counts.lost == 2)
    store = case.gateway.worker.store
    assert store is not None
    told = await until(store.take_events)
    assert [event["kind"] for event in told] == ["traces.failed"]
    assert counts.sent == 0


async def test_more_than_may_wait_is_dropped_and_counted(
    origin: ScriptedOrigin, traced: StartTraced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.adapters.otlp.WAITING", 4)
    monkeypatch.setattr("edge.adapters.otlp.BATCH", 4)
    case = await traced(origin.port)
    case.collector.default = (Step.SILENCE,)
    for _ in range(4):
        await case.ask(asked())
    counts = case.gateway.worker.spans
    await case.gateway.turned()
    assert counts.dropped == 4, "a request and its attempt are two; the batch that is being sent waits too"


async def test_without_a_collector_nothing_is_imported_or_made(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port))
    assert gateway.worker.tracing is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('otlp = "collector:4318"', 'must be a URL such as "http://127.0.0.1:4318"'),
        ('otlp = "http://u:p@127.0.0.1:4318"', "***@"),
        ('otlp = "http://127.0.0.1:4318"\nsample = "101%"', "between 0% and 100%"),
        ('otlp = "http://127.0.0.1:4318"\nsampled_by = "nobody"', 'must be "anyone" or "trusted"'),
    ],
)
def test_mistakes_are_told(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(edge_toml(1, log=line), "edge.toml")
    assert said in caught.value.problems[0] and "u:p" not in caught.value.problems[0]


@pytest.mark.parametrize(
    ("url", "posts"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://c.example/otlp", "https://c.example/otlp/v1/traces"),
        ("https://c.example/v1/traces", "https://c.example/v1/traces"),
    ],
)
def test_the_path_of_traces_is_put_to_a_collector(url: str, posts: str) -> None:
    assert load_text(edge_toml(1, log=f'otlp = "{url}"'), "edge.toml").log.otlp == posts
