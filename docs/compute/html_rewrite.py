"""HTML is changed as it streams: a banner after <body>, and links of the old host made links of the new one.

curl http://127.0.0.1:8080/
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from aiohttp import web

from edge.sdk import edge

BANNER = b"<p class=banner>We have moved.</p>"
OLD, NEW = b"http://old.example.com", b"https://www.example.com"
LONGEST_TAG = 1024  # what is held back, so that a tag that comes in two pieces is seen whole
BODY = re.compile(rb"<body\b[^>]*>", re.IGNORECASE)
CHANGED = {"etag", "last-modified", "accept-ranges", "content-md5", "digest"}  # of the old bytes


async def rewritten(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same page, changed; at most `LONGEST_TAG` bytes of it wait for more."""
    rest, banner = b"", BANNER
    async for piece in pieces:
        text = (rest + piece).replace(OLD, NEW)
        found = BODY.search(text) if banner else None
        if found is not None:
            text, banner = text[: found.end()] + banner + text[found.end() :], b""
        keep = LONGEST_TAG if banner else len(OLD) - 1
        text, rest = text[:-keep], text[-keep:]
        if text:
            yield text
    if rest:
        yield rest


async def page(request: web.Request) -> web.StreamResponse:
    # No Accept-Encoding goes on: what comes is text, and the gateway may compress what leaves.
    async with await edge().fetch(request.path_qs, host="site.internal", method=request.method) as answer:
        if not answer.headers.get("content-type", "").startswith("text/html") or "content-encoding" in answer.headers:
            return await answer.relay(request)
        fields = [(name, value) for name, value in answer.fields if name.lower() not in CHANGED]
        response = web.StreamResponse(status=answer.status, headers=fields)
        await response.prepare(request)
        async for piece in rewritten(answer.chunks()):
            await response.write(piece)
        await response.write_eof()
        return response


app = web.Application()
app.router.add_get("/{path:.*}", page)
