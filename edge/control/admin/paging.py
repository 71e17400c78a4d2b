"""Long lists a page at a time, the same way everywhere: `?limit=` and `?after=`; `next` is the next `after`.

One rule: a page goes on behind the entry that was the last of the page before, in the order of the list. Whoever pages
while the list changes misses nothing that was there all the time; when that very entry is gone, they are told to begin
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from edge.control.admin.errors import NotFound
from edge.control.admin.json import answer, number

MOST = 10_000


def page(
    request: web.Request, name: str, rows: Sequence[Any], key: Callable[[Any], str], default: int = 1000
) -> web.Response:
    """`rows` behind `?after=`, at most `?limit=`; `key` gives a row's name."""
    limit = number(request, "limit", default, 1, MOST)
    after = request.query.get("after")
    start = 0
    if after is not None:
        start = next((at for at, row in enumerate(rows, 1) if key(row) == after), -1)
        if start < 0:
            raise NotFound(f"after: there is no {after[:100]} in the list (any more); begin again")
    found = rows[start : start + limit]
    more = start + limit < len(rows)
    return answer({name: found, "next": key(found[-1]) if more else None})


def numbered(name: str, rows: Sequence[dict[str, Any]], limit: int) -> web.Response:
    """A page of rows that have an `id`; `rows` has one more than `limit` where there is a next page."""
    found = rows[:limit]
    return answer({name: found, "next": found[-1]["id"] if len(rows) > limit else None})
