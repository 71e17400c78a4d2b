"""Hooks: plain functions on a route, for what needs no application.

curl -i http://127.0.0.1:8080/ -A 'Mozilla/5.0 (iPhone)'
"""

from __future__ import annotations

from edge.sdk import Changes, RequestHead, Respond, ResponseHead

SAFE = Changes(
    set={"X-Content-Type-Options": "nosniff", "Referrer-Policy": "strict-origin-when-cross-origin"},
    remove=["X-Powered-By"],
)  # what is always the same is best made once


def device(head: RequestHead) -> str:
    """A word for the client, where its User-Agent would be thousands."""
    return "mobile" if "Mobi" in head.get("User-Agent") or "iPhone" in head.get("User-Agent") else "desktop"


class Hooks:
    """Made once for each worker."""

    def request(self, head: RequestHead) -> Changes | Respond | None:
        if head.target.startswith("/wp-"):
            return Respond(404)  # nothing of the kind is here; the backend is not asked
        return Changes(set={"X-Device": device(head)}, remove=["User-Agent"])

    def cache_key(self, head: RequestHead) -> bytes:
        return device(head).encode()  # two stored pages for each URL

    def response(self, head: ResponseHead) -> Changes | None:
        return SAFE if head.get("Content-Type").startswith("text/html") else None
