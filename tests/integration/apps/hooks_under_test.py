"""Hooks of `test_hooks`."""

from __future__ import annotations

import time
from collections import Counter

from edge.sdk import Changes, RequestHead, Respond, ResponseHead

calls: Counter[str] = Counter()
ALWAYS = Changes(set={"X-Always": "1"}, remove=["Server", "Cache-Status"])


class Hooks:
    """One way for each path."""

    def request(self, head: RequestHead) -> object:
        calls["request"] += 1
        match head.target.partition("?")[0]:
            case "/facts":
                text = " ".join((head.method, head.target, head.host, head.scheme, head.client, head.route))
                return Respond(200, f"{text} {head.get('X-A')} {head.cookie('c')} {len(head.fields)}", {"X-B": "2"})
            case "/teapot":
                return Respond(418)
            case "/secret":
                return None if head.get("Authorization") == "Bearer good" else Respond(401, "who?", {"X-Why": "token"})
            case "/by-cookie":
                return Changes(set={"X-Variant": head.cookie("variant", "a")}, remove=["Cookie", "User-Agent"])
            case "/old":
                return Changes(target="/new?from=old")
            case "/raises":
                raise ValueError("a secret")
            case "/slow":
                time.sleep(0.02)
            case "/bad-type":
                return 5
            case "/bad-name":
                return Changes(set={"X A": "1"})
            case "/bad-value":
                return Changes(set={"X-A": "1\r\nX-B: 2"})
            case "/bad-framing":
                return Changes(set={"Transfer-Encoding": "chunked"})
            case "/bad-target":
                return Changes(target="/a b")
            case "/bad-status":
                return Respond(99)
        return None


class Answers:
    """On the way back."""

    def response(self, head: ResponseHead) -> object:
        calls["response"] += 1
        match head.request.target.partition("?")[0]:
            case "/raises-late":
                raise ValueError("a secret")
            case "/bad-late":
                return Changes(set={"Content-Length": "1"})
            case "/set":
                seen = f"{head.status} {head.get('X-Origin')} {head.from_cache}"
                return Changes(set={"X-Seen": seen}, remove=["X-Origin"])
        return ALWAYS


class Key:
    """Two languages of one page."""

    def request(self, head: RequestHead) -> Changes:
        return Changes(set={"X-Language": language(head), "X-Id": head.request_id})

    def cache_key(self, head: RequestHead) -> bytes:
        if head.target == "/no-bytes":
            return "text"  # type: ignore[return-value]
        return language(head).encode()


def language(head: RequestHead) -> str:
    return "de" if head.get("Accept-Language").startswith("de") else "en"


SETS = Changes(set={"X-Always": "1", "X-First": "1"})
CHANGES = Changes(set={"X-First": "2"}, remove=["X-Always", "X-Real-IP", "User-Agent"], target="/second")


class First:
    """The same for every request."""

    def request(self, head: RequestHead) -> Changes:
        return SETS


class Second:
    """Takes back some of what `First` set, and some lines of the client's and the gateway's."""

    def request(self, head: RequestHead) -> Changes:
        return CHANGES


class Slow:
    async def request(self, head: RequestHead) -> None:
        return None


class Nothing:
    pass
