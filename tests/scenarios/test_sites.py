"""A WordPress-like and a Next.js-like site behind the gateway, by the configurations of docs/how-to.md.

Strangers and members read at the same time. What a member was shown reaches nobody else; what is the same for all comes
from store, coded. `pytest -s tests/scenarios/test_sites.py` prints what was served from store.
"""

from __future__ import annotations

import http.client
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import brotli
import pytest
from backports import zstd
from kit.ports import LOOPBACK
from kit.processes import ROOT, GatewayProcess
from kit.sites import PICTURE, SCRIPT, STYLE, NextJs, RunningSite, Site, WordPress
from kit.waiting import WAIT_S

MEMBERS = ("ada", "grace", "edsger")
CODINGS = ("br", "gzip", "zstd, br", "gzip, deflate, br, zstd")


class Got(NamedTuple):
    """An answer; `body` without its coding."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def is_hit(self) -> bool:
        return "; hit" in self.fields.get("cache-status", "")

    @property
    def members(self) -> set[str]:
        return set(re.findall(r"member:(\w+)", self.body.decode("latin-1"))) - {"None"}


class Browser:
    """One visitor on a kept connection, with its cookies."""

    def __init__(self, port: int, number: int = 0) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=WAIT_S)
        self._coding = CODINGS[number % len(CODINGS)]
        self.cookies = {"_ga": f"GA1.1.{number}"}
        self.asked = self.hits = 0

    def get(self, target: str, form: dict[str, str] | None = None, **fields: str) -> Got:
        own = {"Host": "site.example", "Accept-Encoding": self._coding, **fields}
        own["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None if form is None else urlencode(form)
        self._connection.request("GET" if form is None else "POST", target, body, own)
        answer = self._connection.getresponse()
        data, told = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        if "set-cookie" in told:
            name, _, value = told["set-cookie"].partition(";")[0].partition("=")
            self.cookies[name] = value
        got = Got(answer.status, told, decoded(data, told.get("content-encoding")))
        self.asked, self.hits = self.asked + 1, self.hits + got.is_hit
        return got

    def close(self) -> None:
        self._connection.close()


def decoded(data: bytes, coding: str | None) -> bytes:
    if coding == "br":
        return bytes(brotli.decompress(data))
    if coding == "zstd":
        return bytes(zstd.decompress(data))
    return zlib.decompress(data, 31) if coding == "gzip" else data


def lines_of(title: str) -> str:
    """The configuration that a section of the page shows."""
    text = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")
    section = next(each for each in re.split(r"(?m)^## ", text) if each.startswith(title))
    return "\n".join(re.findall(r"(?s)```toml\n(.*?)```", section))


class Behind(NamedTuple):
    """A site and the gateway before it."""

    site: RunningSite
    gateway: GatewayProcess

    def visit(self, number: int, *pages: str) -> Browser:
        """A stranger reads these pages with what belongs to them; nothing of a member may be in any of it."""
        visitor = Browser(self.gateway.http_port, number)
        for page in pages:
            got = visitor.get(page)
            assert got.status == 200 and not got.members, f"a stranger got a page of {got.members}"
            assert "set-cookie" not in got.fields
        visitor.close()
        return visitor


def behind(kind: type[Site], title: str, directory: Path) -> Iterator[Behind]:
    site = RunningSite(kind)
    gateway = GatewayProcess.start(
        f'[listen]\nhttp = ["{LOOPBACK}:@HTTP@"]\nworkers = 1\n[admin]\nlisten = "{LOOPBACK}:@ADMIN@"\n'
        f'token_file = "@STATE@/token"\n[state]\npath = "@STATE@"\n[log]\naccess = "off"\n'
        f'[pools.web]\nbackends = [{{ url = "http://{LOOPBACK}:{site.port}" }}]\n{lines_of(title)}',
        directory,
    )
    yield Behind(site, gateway)
    gateway.stop()
    site.stop()


@pytest.fixture
def wordpress(tmp_path: Path) -> Iterator[Behind]:
    yield from behind(WordPress, "WordPress", tmp_path)


@pytest.fixture
def nextjs(tmp_path: Path) -> Iterator[Behind]:
    yield from behind(NextJs, "Next.js", tmp_path)


def report(name: str, place: Behind, visitors: list[Browser]) -> float:
    """The share of strangers' requests that no origin was asked for, printed and returned."""
    asked, hits = sum(each.asked for each in visitors), sum(each.hits for each in visitors)
    origin = sum(place.site.seen.values())
    print(f"\n{name}: {asked} requests of strangers, {hits} from store ({hits / asked:.1%}), {origin} at the origin")
    return hits / asked


# -- WordPress ---------------------------------------------------------------------------------------------------------

ASSETS = ("/wp-content/themes/one/style.css?ver=6.4", "/wp-includes/js/jquery.js?ver=3.7", "/wp-content/uploads/a.jpg")


def wordpress_member(place: Behind, name: str) -> None:
    """A member logs in, reads, and looks after the site."""
    member = Browser(place.gateway.http_port)
    assert member.get("/wp-admin/").status == 302, "not yet a member"
    assert "wordpress_test_cookie" not in member.cookies
    assert member.get("/wp-login.php").status == 200
    came = member.get("/wp-login.php", {"log": name, "pwd": "secret"})
    assert (came.status, came.fields["location"]) == (302, "/wp-admin/")
    for _ in range(3):
        for page in ("/", "/post-1/", "/wp-admin/", "/?utm_source=mail"):
            got = member.get(page)
            assert got.status == 200 and got.members == {name} and not got.is_hit
    assert member.get(ASSETS[0]).status == 200
    member.close()


def test_wordpress(wordpress: Behind) -> None:
    pages = ["/", *(f"/post-{number}/" for number in range(1, 10))]
    first = [wordpress.visit(0, *pages, *ASSETS)]
    with ThreadPoolExecutor(4) as pool:
        members = [pool.submit(wordpress_member, wordpress, name) for name in MEMBERS]
        strangers = [
            pool.submit(
                wordpress.visit, number, f"/?utm_source={number}", pages[number % 10], pages[number % 3], *ASSETS
            )
            for number in range(60)
        ]
        for each in members:
            each.result()
        visitors = [each.result() for each in strangers]
    assert report("WordPress-like", wordpress, first + visitors) >= 0.95
    assert wordpress.site.seen["GET /post-9/"] == 1, "strangers' pages were fetched once"


def test_wordpress_codes_its_files_and_keeps_what_is_one_readers(wordpress: Behind) -> None:
    for number, coding in enumerate(("br", "gzip", "zstd", "zstd")):
        visitor = Browser(wordpress.gateway.http_port, number)
        for path, body in zip(ASSETS, (STYLE, SCRIPT, PICTURE), strict=True):
            for _ in range(2):
                got = visitor.get(path)
            assert got.is_hit and got.body == body
            assert got.fields.get("content-encoding") == (None if path.endswith("jpg") else coding)
        visitor.close()
    assert [wordpress.site.seen[f"GET {path.partition('?')[0]}"] for path in ASSETS] == [1, 1, 1]
    author = Browser(wordpress.gateway.http_port)
    assert author.get("/wp-comments-post.php", {"author": "linus", "comment": "hi"}).status == 302
    assert author.get("/post-1/").members == {"linus"}
    wordpress.visit(1, "/post-1/")
    author.close()


# -- Next.js -----------------------------------------------------------------------------------------------------------

CHUNKS = ("/_next/static/chunks/main-3f2a.js", "/_next/static/css/9b1c.css")
IMAGE = "/_next/image?url=%2Fa.jpg&w=640&q=75"


def nextjs_member(place: Behind, name: str) -> None:
    """A member signs in and goes about, by pages and by the router's payloads."""
    member = Browser(place.gateway.http_port)
    assert member.get("/dashboard").status == 307
    assert member.get("/api/auth/callback/credentials", {"username": name}).status == 302
    for _ in range(3):
        for target, payload in (("/dashboard", "0"), ("/dashboard?_rsc=1", "1"), ("/api/auth/session", "0")):
            got = member.get(target, RSC=payload)
            assert got.status == 200 and got.members == {name} and not got.is_hit
        assert member.get("/account").members == {name}, "stored for this cookie alone"
    assert not member.get("/").members
    member.close()


def test_nextjs(nextjs: Behind) -> None:
    pages = ["/", *(f"/blog/{number}" for number in range(1, 10))]
    # A page varies by Accept-Encoding: each form once.
    first = [nextjs.visit(number, *pages, *CHUNKS, IMAGE) for number in range(len(CODINGS))]
    with ThreadPoolExecutor(4) as pool:
        members = [pool.submit(nextjs_member, nextjs, name) for name in MEMBERS]
        strangers = [
            pool.submit(nextjs.visit, number, pages[number % 10], pages[number % 3], *CHUNKS, IMAGE)
            for number in range(60)
        ]
        for each in members:
            each.result()
        visitors = [each.result() for each in strangers]
    assert report("Next.js-like", nextjs, first + visitors) >= 0.85


def test_nextjs_forms_of_one_url_do_not_meet(nextjs: Behind) -> None:
    visitor = Browser(nextjs.gateway.http_port)
    for _ in range(2):
        page, payload = visitor.get("/blog/1"), visitor.get("/blog/1", RSC="1")
        assert (page.fields["content-type"], payload.fields["content-type"]) == (
            "text/html; charset=utf-8",
            "text/x-component",
        )
        old, new = visitor.get(IMAGE, Accept="image/*"), visitor.get(IMAGE, Accept="image/webp,*/*")
        assert (old.fields["content-type"], new.fields["content-type"]) == ("image/jpeg", "image/webp")
        chunk = visitor.get(CHUNKS[0])
    assert page.is_hit and payload.is_hit and old.is_hit and new.is_hit
    assert chunk.is_hit and chunk.fields["content-encoding"] == "br" and chunk.body == SCRIPT
    visitor.close()
