"""Two small sites with the headers of well-known ones: a WordPress-like and a Next.js-like origin, real HTTP servers.

One rule: what is a member's says whose it is (`member:<name>`), so that a page that reached another client can be told
by its bytes. Requests are counted by path; static files are as compressible as such files are.
"""

from __future__ import annotations

from collections import Counter
from http.cookies import SimpleCookie
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from kit.threaded import QuietHandler, ThreadedServer

SCRIPT = b"".join(b"function part%d(){return document.querySelector('#part-%d')}\n" % (n, n) for n in range(400))
STYLE = b"".join(b".part-%d{margin:%dpx;color:#%06x}\n" % (n, n % 16, n * 7919 % 0xFFFFFF) for n in range(400))
PICTURE = bytes(n * n % 251 for n in range(20_000))
TEXT = "".join(f"<p>Paragraph {n} of what this page has to say.</p>\n" for n in range(120))
MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"
Answer = tuple[int, dict[str, str], bytes]


class Site(QuietHandler):
    """What both have: cookies, forms, counting."""

    disable_nagle_algorithm = True
    seen: Counter[str]

    def do_GET(self) -> None:
        """Any method."""
        form = parse_qs(self.body().decode())
        self.form = {name: values[0] for name, values in form.items()}
        self.cookies = {name: each.value for name, each in SimpleCookie(self.headers.get("Cookie", "")).items()}
        path = urlsplit(self.path).path
        self.seen[f"{self.command} {path}"] += 1
        self.answer(*self.page(path))

    do_POST = do_HEAD = do_GET

    def page(self, path: str) -> Answer:
        """Status, fields and body."""
        raise NotImplementedError

    def html(self, title: str, member: str | None) -> bytes:
        """A page, with a bar for who is known."""
        bar = f"<div id=bar>member:{member}</div>" if member else ""
        return f"<!doctype html><title>{title}</title>{bar}<h1>{title}</h1>\n{TEXT}".encode()


class WordPress(Site):
    """Pages say nothing of caching to strangers, and forbid it for members; static files have validators alone."""

    MEMBER = "wordpress_logged_in_5f4dcc3b"
    NEVER: ClassVar = {
        "Cache-Control": "no-cache, must-revalidate, max-age=0, no-store, private",
        "Expires": "Wed, 11 Jan 1984 05:00:00 GMT",
    }

    def page(self, path: str) -> Answer:
        """By the path, and by who asks."""
        member = self.cookies.get(self.MEMBER)
        kind = {"Content-Type": "text/html; charset=UTF-8", "Link": '</wp-json/>; rel="https://api.w.org/"'}
        if path.startswith(("/wp-content/", "/wp-includes/")):
            return 200, self._static(path), self._file(path)
        if path == "/wp-login.php":
            return self._login(kind)
        if path.startswith("/wp-admin"):
            if member is None:
                return 302, {**self.NEVER, "Location": "/wp-login.php?redirect_to=%2Fwp-admin%2F"}, b""
            return 200, {**kind, **self.NEVER}, self.html("Dashboard", member)
        if path == "/wp-comments-post.php":
            cookie = f"comment_author_5f4dcc3b={self.form['author']}; Path=/"
            return 302, {**self.NEVER, "Location": "/post-1/", "Set-Cookie": cookie}, b""
        author = self.cookies.get("comment_author_5f4dcc3b")
        return 200, {**kind, **(self.NEVER if member else {})}, self.html(path, member or author)

    def _login(self, kind: dict[str, str]) -> Answer:
        if self.command != "POST":
            fields = {**kind, **self.NEVER, "Set-Cookie": "wordpress_test_cookie=1; Path=/"}
            return 200, fields, self.html("Log in", None)
        cookie = f"{self.MEMBER}={self.form['log']}; Path=/; HttpOnly"
        return 302, {**self.NEVER, "Location": "/wp-admin/", "Set-Cookie": cookie}, b""

    def _static(self, path: str) -> dict[str, str]:
        kinds = {"css": "text/css", "js": "application/javascript", "jpg": "image/jpeg"}
        return {"Content-Type": kinds[path.rpartition(".")[2]], "Last-Modified": MODIFIED, "ETag": f'"{len(path)}"'}

    def _file(self, path: str) -> bytes:
        return {"css": STYLE, "js": SCRIPT, "jpg": PICTURE}[path.rpartition(".")[2]]


class NextJs(Site):
    """Prerendered pages with s-maxage, also as payloads for its router (`RSC`), pages of members, hashed files."""

    MEMBER = "next-auth.session-token"
    NEVER: ClassVar = {"Cache-Control": "private, no-cache, no-store, max-age=0, must-revalidate"}
    VARY: ClassVar = {"Vary": "RSC, Next-Router-State-Tree, Next-Router-Prefetch, Accept-Encoding"}

    def page(self, path: str) -> Answer:
        """By the path, and by who asks."""
        member = self.cookies.get(self.MEMBER)
        if path.startswith("/_next/static/"):
            forever = {"Cache-Control": "public, max-age=31536000, immutable"}
            style = path.endswith(".css")
            kind = {"Content-Type": "text/css; charset=UTF-8" if style else "application/javascript; charset=UTF-8"}
            return 200, {**forever, **kind}, STYLE if style else SCRIPT
        if path == "/_next/image":
            webp = "image/webp" in self.headers.get("Accept", "")
            fields = {"Content-Type": "image/webp" if webp else "image/jpeg", "Vary": "Accept"}
            return 200, {**fields, "Cache-Control": "public, max-age=60, must-revalidate"}, PICTURE[webp:]
        if path == "/api/auth/callback/credentials":
            cookie = f"{self.MEMBER}={self.form['username']}; Path=/; HttpOnly; SameSite=Lax"
            return 302, {"Location": "/dashboard", "Set-Cookie": cookie}, b""
        if path == "/api/auth/session":
            return 200, {**self.NEVER, "Content-Type": "application/json"}, f'{{"user":"member:{member}"}}'.encode()
        if path == "/dashboard":
            if member is None:
                return 307, {**self.NEVER, "Location": "/api/auth/signin"}, b""
            again = {"Set-Cookie": f"{self.MEMBER}={member}; Path=/; HttpOnly"}
            return 200, {**self.NEVER, **again, **self._kind()}, self._rendered("Dashboard", member)
        if path == "/account":  # stored for a minute, for the one cookie that it was made for
            return 200, {"Cache-Control": "s-maxage=60", "Vary": "Cookie", **self._kind()}, self.html("Account", member)
        lasting = {"Cache-Control": "s-maxage=31536000, stale-while-revalidate", "x-nextjs-cache": "HIT"}
        tag = {"ETag": f'"{path}-{self._is_payload()}"'}
        return 200, {**lasting, **self.VARY, **self._kind(), **tag}, self._rendered(path, None)

    def _is_payload(self) -> bool:
        return self.headers.get("RSC") == "1"

    def _kind(self) -> dict[str, str]:
        return {"Content-Type": "text/x-component" if self._is_payload() else "text/html; charset=utf-8"}

    def _rendered(self, title: str, member: str | None) -> bytes:
        if self._is_payload():
            return f'0:["{title}",{{"member":"member:{member}"}}]\n'.encode() + TEXT.encode()
        return self.html(title, member)


class RunningSite(ThreadedServer):
    """One of them; `seen` counts its requests by method and path."""

    def __init__(self, kind: type[Site]) -> None:
        self.seen: Counter[str] = Counter()
        super().__init__(type(kind.__name__, (kind,), {"seen": self.seen}))
