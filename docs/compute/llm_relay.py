"""A relay for streamed language-model answers: each piece is passed on as it comes, tokens are counted and bounded.

curl -N http://127.0.0.1:8080/v1/chat/completions -H 'Authorization: Bearer key' -d '{"stream": true, …}'
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256

from aiohttp import web

from edge.sdk import edge

BUDGET = 100_000  # tokens of one key in this worker, until it is started again
LONGEST_LINE = 256 * 1024
SPENT: web.AppKey[Counter[str]] = web.AppKey("spent", Counter)


def tokens_in(lines: list[bytes]) -> Iterator[int]:
    """How many tokens each event brought: what the model says of it, else one for each piece of text."""
    for line in lines:
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        try:
            event = json.loads(line[5:])
        except ValueError:
            continue
        usage = event.get("usage") or {}
        yield int(usage.get("completion_tokens") or 0) or sum(
            bool((choice.get("delta") or {}).get("content")) for choice in event.get("choices", ())
        )


async def chat(request: web.Request) -> web.StreamResponse:
    credential = request.headers.get("Authorization", "")
    who = sha256(credential.encode()).hexdigest()[:16]  # in counters and logs, never the key itself
    spent = request.app[SPENT]
    if not credential:
        raise web.HTTPUnauthorized
    if spent[who] >= BUDGET:
        raise web.HTTPTooManyRequests(text="the tokens of this key are spent\n")
    sent = {"Authorization": credential, "Content-Type": request.content_type}
    inner = edge().fetch(request.path_qs, host="model.internal", method="POST", headers=sent, body=await request.read())
    async with await inner as answer:
        response = web.StreamResponse(status=answer.status, headers=answer.fields)
        await response.prepare(request)
        rest, count = b"", 0
        async for piece in answer.chunks():
            await response.write(piece)
            *lines, rest = (rest + piece).split(b"\n")
            rest = rest[-LONGEST_LINE:]
            found = sum(tokens_in(lines))
            count += found
            spent[who] += found
        edge().count("tokens", count)
        edge().log(f"{who} took {count} tokens")
        await response.write_eof()
        return response


app = web.Application(client_max_size=1024 * 1024)
app[SPENT] = Counter()
app.router.add_post("/v1/chat/completions", chat)
