"""The same requests over HTTP/1.1, over HTTP/2, and over HTTP/2 with nothing remembered: one meaning, one outcome.

One rule: answers, what the origin saw and log lines (what the store had to say among them) are the same, but for what
each protocol has of its own: its name, framing, fields of the connection, the clock and ids.
"""

from __future__ import annotations

import random
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from inprocess import Gateway, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient
from kit.http2 import Http2Client, Lines, request_head
from kit.origin import ScriptedOrigin, Step
from kit.ports import free_port

ROUTES = """cache = { default_ttl = "1h", bypass = { cookies = ["session"] }, ignore_query = ["utm"], vary_limit = 8 }
[[routes]]
host = "*"
path = "/pass"
pool = "origin"
cache = false
[[routes]]
host = "only.test"
path = "/"
pool = "origin"
cache = false
response_headers = { set = { "X-Set" = "1" }, remove = ["Server"] }
[[routes]]
host = "*"
path = "/limited"
pool = "origin"
max_body = "10B"
methods = ["GET", "POST"]
[[routes]]
host = "*"
path = "/gone"
redirect = { to = "https://{host}/new", status = 308 }
"""
HEAD = b"HTTP/1.1 %b\r\nServer: x\r\nContent-Length: %d\r\n%b\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n"
BODY = bytes(number % 251 for number in range(40_000))
ANSWERS: dict[bytes, tuple[Any, ...]] = {
    b"/fresh": (
        HEAD
        % (b"200 OK", 2, b'Cache-Control: max-age=600\r\nETag: "a"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n')
        + b"ok",
    ),
    b"/fresh?utm=1": (HEAD % (b"200 OK", 3, b"Cache-Control: max-age=600\r\n") + b"utm",),
    b"/large": (HEAD % (b"200 OK", len(BODY), b"Cache-Control: max-age=600\r\n") + BODY,),
    b"/vary": (HEAD % (b"200 OK", 2, b"Cache-Control: max-age=600\r\nVary: Accept-Language\r\n") + b"vy",),
    b"/private": (HEAD % (b"200 OK", 2, b"Cache-Control: private\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n") + b"me",),
    b"/chunked": (CHUNKED % b"Cache-Control: max-age=60\r\n" + b"4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n",),
    b"/trailers": (CHUNKED % b"Trailer: X-Sum\r\n" + b"2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",),
    b"/none": (b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",),
    b"/missing": (HEAD % (b"404 Not Found", 4, b"") + b"none",),
    b"/hints": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + HEAD % (b"200 OK", 2, b"Cache-Control: no-store\r\n")
        + b"hi",
    ),
    b"/pass/a": (HEAD % (b"200 OK", 2, b"Cache-Control: max-age=600\r\nKeep-Alive: timeout=5\r\n") + b"pa",),
    b"/pass/bad": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", Step.CLOSE),
    b"/limited/x": (HEAD % (b"200 OK", 2, b"") + b"li",),
    b"/gone/x": (HEAD % (b"200 OK", 2, b"") + b"go",),
}
METHODS = [b"GET"] * 12 + [b"HEAD"] * 3 + [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PURGE", b"BREW"]
FIELDS: list[tuple[bytes, bytes]] = [
    (b"range", b"bytes=0-0"),
    (b"range", b"bytes=10-20,30-40"),
    (b"range", b"bytes=999999-"),
    (b"if-none-match", b'"a"'),
    (b"if-none-match", b"*"),
    (b"if-modified-since", b"Mon, 01 Jan 2024 00:00:00 GMT"),
    (b"if-match", b'"other"'),
    (b"cache-control", b"no-cache"),
    (b"cache-control", b"only-if-cached"),
    (b"cache-control", b"max-age=0"),
    (b"accept-language", b"en"),
    (b"accept-language", b"de, en;q=0.5"),
    (b"cookie", b"session=1"),
    (b"cookie", b"other=1"),
    (b"authorization", b"Basic eDp5"),
    (b"x-forwarded-for", b"192.0.2.1"),
    (b"x-original-url", b"/admin"),
    (b"content-type", b"text/plain"),
    (b"te", b"trailers"),
    (b"x-empty", b""),
    (b"x-tab", b"a\tb"),
    (b"x-high", b"\xe4\xff"),
    (b"expect", b"unknown"),
    (b"x-control", b"a\x01b"),
]
TARGETS = [*ANSWERS, b"/%66resh", b"/a/../fresh", b"/fresh//", b"/x%00", b"/a%2fb", b"/?" + b"q" * 3000]
HOSTS = [b"a.test"] * 6 + [b"A.TEST", b"a.test:80", b"only.test", b"b.test:8080", b"[::1]", b"bad..host:99999"]
OWN = {b"date", b"age", b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"trailer"}


@dataclass(frozen=True)
class Asked:
    """One request, in no protocol."""

    method: bytes
    target: bytes
    host: bytes
    fields: Lines
    body: bytes | None


@dataclass(frozen=True)
class Seen:
    """What came of it."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    interim: tuple[int, ...]


def written(seed: int) -> list[Asked]:
    """A sequence of requests."""
    chance = random.Random(seed)
    out = []
    for _ in range(25):
        method = chance.choice(METHODS)
        body = chance.choice([b"", b"abc", b"x" * 20, b"y" * 30_000]) if method in (b"POST", b"PUT") else None
        fields = chance.sample(FIELDS, chance.choice([0, 0, 0, 1, 1, 2, 3]))
        names = [name for name, _ in fields]
        fields = [line for at, line in enumerate(fields) if line[0] not in names[:at]]
        out.append(Asked(method, chance.choice(TARGETS), chance.choice(HOSTS), fields, body))
    return out


def seen(status: int, fields: Any, body: bytes, trailers: Any, interim: Any) -> Seen:
    """What each protocol has of its own left out. Lengths are compared where there is a body to be compared."""
    kept = tuple((name.lower(), value) for name, value in fields if name.lower() not in OWN)
    boundary = next((v.partition(b"boundary=")[2] for n, v in kept if n == b"content-type" and b"boundary=" in v), b"")
    if boundary:
        kept = tuple((name, value.replace(boundary, b"B")) for name, value in kept)
        body = body.replace(boundary, b"B")
    return Seen(status, kept, body, tuple((name.lower(), value) for name, value in trailers), tuple(interim))


async def over_http1(gateway: Gateway, asked: Asked, port: int) -> Seen:
    """On a connection of its own: an error may end it."""
    client = await RawClient.connect(port)
    lines = b"".join([b"%b: %b\r\n" % line for line in asked.fields])
    if asked.body is not None:
        lines += b"Content-Length: %d\r\n" % len(asked.body)
    await client.send(
        b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (asked.method, asked.target, asked.host, lines) + (asked.body or b"")
    )
    response = await client.read_response(asked.method)
    assert response is not None
    await client.close()
    trailers = response.body.trailers or ()
    return seen(
        response.status, response.fields, response.body.content, trailers, [each.status for each in response.interim]
    )


async def over_http2(client: Http2Client, asked: Asked, scheme: bytes) -> Seen:
    """On one connection, as far as it goes."""
    extra = list(asked.fields)
    if asked.body is not None:
        extra.append((b"content-length", b"%d" % len(asked.body)))
    head = request_head(asked.target, asked.method, asked.host, scheme, extra)
    stream = client.ask(head, ends=asked.body is None)
    answer = client.answers[stream]
    at, body = 0, asked.body
    while body is not None and not answer.over:
        window = min(client.connection.local_flow_control_window(stream), 16384)
        if body and window <= 0:
            await client.more()
            continue
        piece, at = body[at : at + window], at + window
        client.upload(stream, piece, ends=at >= len(body))
        if at >= len(body):
            break
    await client.answer(stream)
    assert answer.reset in (None, 0)
    return seen(answer.status, answer.fields, answer.body, answer.trailers, [status for status, _ in answer.interim])


def line_of(line: dict[str, Any]) -> dict[str, Any]:
    """A log line without times, ids, the protocol's name and how much of a refused body was read."""
    own = {"time", "id", "us", "upstream_us", "backend", "bytes_in", "age_s", "protocol"}
    return {key: value for key, value in line.items() if key not in own}


def received(origin: ScriptedOrigin) -> list[Any]:
    """What the origin saw, without ids, our protocol in Via, and what tells the length of a body."""
    out = []
    for request in origin.requests:
        fields = sorted(
            (n.lower(), v.removesuffix(b"2.0 edge").removesuffix(b"1.1 edge"))
            for n, v in request.fields
            if n.lower() not in (b"x-request-id", b"traceparent", b"cdn-loop")
        )
        body = request.body.content if request.body is not None else b""
        out.append((request.method, request.target, fields, body))
    return out


async def started(origins: StartOrigins, edge: StartEdge, listen: str) -> tuple[ScriptedOrigin, Gateway]:
    origin = await origins()
    for target, script in ANSWERS.items():
        origin.route(target, *script)
    origin.default = (HEAD % (b"200 OK", 5, b"Cache-Control: max-age=60\r\n") + b"other",)
    gateway = await edge(edge_toml(origin.port, listen=listen, route=ROUTES))
    assert gateway.worker.store is not None
    gateway.worker.store.clock = lambda: 1_800_000_000.0  # it stands still: a hit says how much of its life is left
    return origin, gateway


@pytest.mark.parametrize("seed", range(20))
async def test_protocols_agree(seed: int, origins: StartOrigins, edge: StartEdge, tmp_path: Path) -> None:
    listen = 'http = ["127.0.0.1:0"]\nh2c = true'
    asked = written(seed)
    old_origin, old = await started(origins, edge, listen)
    new_origin, new = await started(origins, edge, listen)
    plain_origin, plain = await started(origins, edge, listen)
    plain.worker.quick = plain.worker.http2.reader.remembers = False
    first, second = await Http2Client.connect(new.port), await Http2Client.connect(plain.port)
    for number, each in enumerate(asked):
        wanted = await over_http1(old, each, old.port)
        assert await over_http2(first, each, b"http") == wanted, (number, each)
        assert await over_http2(second, each, b"http") == wanted, (number, each)
    assert received(new_origin) == received(plain_origin) == received(old_origin)
    lines = [[line_of(line) for line in await gateway.log(len(asked))] for gateway in (old, new, plain)]
    for wanted_line, *others in zip(*lines, strict=True):
        for other in others:
            assert {key: (value, other[key]) for key, value in wanted_line.items() if value != other[key]} == {}
    await first.close()
    await second.close()


async def test_tls_changes_the_scheme_alone(origins: StartOrigins, edge: StartEdge, tmp_path: Path) -> None:
    authority = trustme.CA()
    cert = authority.issue_cert("a.test")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    cert.private_key_pem.write_to_path(tmp_path / "k.pem")
    pair = f'{{ cert = "{tmp_path}/c.pem", key = "{tmp_path}/k.pem" }}'
    https = f'[[listen.https]]\naddress = "127.0.0.1:{free_port()}"\ncertificates = [{pair}]'
    listen = f'http = ["127.0.0.1:0"]\nh2c = true\n{https}'
    _, gateway = await started(origins, edge, listen)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    clear, secret = await Http2Client.connect(gateway.port), await Http2Client.connect(gateway.ports[1], context)
    for target in (b"/large", b"/vary", b"/trailers", b"/missing", b"/hints"):
        each = Asked(b"GET", target, b"a.test", [], None)
        assert await over_http2(clear, each, b"http") == await over_http2(secret, each, b"https")
    await clear.close()
    await secret.close()
