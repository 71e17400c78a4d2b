"""Signed URLs: what the origin has is given only to who has a link, until it ends. The origin's answers are hits.

export SIGNING_KEY=…            # a long secret; whoever makes links has it too
python docs/compute/signed_urls.py /report.pdf 3600
"""

from __future__ import annotations

import hmac
import os
import sys
import time
from hashlib import sha256

from aiohttp import web

from edge.sdk import edge

KEY = os.environ["SIGNING_KEY"].encode()


def signature(path: str, expires: int) -> str:
    """Of one path until a time."""
    return hmac.new(KEY, f"{path}\n{expires}".encode(), sha256).hexdigest()


def signed(path: str, seconds: int) -> str:
    """A link that holds for so long."""
    expires = int(time.time()) + seconds
    return f"{path}?expires={expires}&signature={signature(path, expires)}"


async def file(request: web.Request) -> web.StreamResponse:
    path, given = request.rel_url.raw_path, request.query.get("signature", "")
    expires = request.query.get("expires", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        raise web.HTTPForbidden(text="this link is not signed\n")
    if not hmac.compare_digest(given.encode(), signature(path, int(expires)).encode()):
        raise web.HTTPForbidden(text="this link is not signed\n")
    if int(expires) < time.time():
        raise web.HTTPGone(text="this link has ended\n")
    wanted = {name: request.headers[name] for name in ("Range", "If-None-Match") if name in request.headers}
    async with await edge().fetch(path, host="files.internal", method=request.method, headers=wanted) as answer:
        return await answer.relay(request)


app = web.Application()
app.router.add_get("/{path:.*}", file)

if __name__ == "__main__":
    print(signed(sys.argv[1], int(sys.argv[2])))
