"""Rules of routes for clients that speak HTTP/2: the same answers as over HTTP/1.1, framed their way."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from inprocess import StartEdge, edge_toml
from kit.http2 import Http2Client
from kit.origin import ScriptedOrigin

LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true'
PAGE = b"".join(b"<p>line %d of a page that is worth coding</p>\n" % number for number in range(3000))
KINDS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nServer: org\r\nCache-Control: max-age=60\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(PAGE), PAGE),
    "chunked": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nServer: org\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(PAGE), PAGE),
}
RULES = """
compress = true
rate_limit = { rate = "4/h" }
response_headers = { set = { "X-Host" = "{authority}" }, remove = ["Server"] }
"""


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("cache", ["cache = true", "cache = false"])
async def test_coded_with_its_headers_and_limits(
    kind: str, cache: str, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    origin.default = (KINDS[kind],)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, route=cache + RULES))
    client = await Http2Client.connect(gateway.port)
    for left in (3, 2, 1, 0):
        found = await client.get(b"/x", extra=[(b"accept-encoding", b"gzip")])
        assert (found.status, found.get(b"content-encoding"), found.get(b"vary")) == (200, b"gzip", b"Accept-Encoding")
        assert (found.get(b"x-host"), found.get(b"server")) == (b"a", None)
        assert (found.get(b"ratelimit") or b"").startswith(b'"default";r=%d;' % left)
        assert zlib.decompress(found.body, 31) == PAGE
    refused = await client.get(b"/x")
    assert refused.status == 429 and int(refused.get(b"retry-after") or 0) > 800
    await client.close()


async def test_answers_of_the_routes_own_and_pages(origin: ScriptedOrigin, edge: StartEdge, tmp_path: Path) -> None:
    (tmp_path / "sorry.html").write_text("<h1>sorry</h1>")
    origin.default = (b"HTTP/1.1 502 Bad\r\nContent-Length: 100\r\n\r\n" + b"x" * 100,)
    text = edge_toml(
        origin.port, listen=LISTEN, route=f'cache = false\nerror_pages = {{ "502" = "{tmp_path}/sorry.html" }}'
    )
    text += '[[routes]]\npath = "/r"\nredirect = { to = "https://{host}{uri}" }\n'
    text += '[[routes]]\npath = "/s"\nrespond = { status = 204 }\n'
    gateway = await edge(text)
    client = await Http2Client.connect(gateway.port)
    for _ in range(2):
        found = await client.get(b"/r/x")
        assert (found.status, found.get(b"location"), found.body) == (302, b"https://a/r/x", b"")
        assert (await client.get(b"/s")).status == 204
        page = await client.get(b"/x")
        assert (page.status, page.body, page.get(b"content-length")) == (502, b"<h1>sorry</h1>", b"14")
    await client.close()
