"""What is compared with a client's bytes matches what a person expects of it, or is refused where it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.heads import fields

from edge.cache.key import cache_key
from edge.cache.names import Names
from edge.cache.policy import is_bypassed
from edge.cache.rules import Rules
from edge.config.loader import load_text
from edge.errors import ConfigError
from edge.http.message import Fields, RequestHead

FILE = """
[listen]
http = ["127.0.0.1:8080"]
[pools.web]
@POOL@
[[pools.web.backends]]
url = "http://127.0.0.1:9000"
[[routes]]
pool = "web"
@ROUTE@
"""


def refused(pool: str = "", route: str = "") -> str:
    with pytest.raises(ConfigError) as found:
        load_text(FILE.replace("@POOL@", pool).replace("@ROUTE@", route), "f")
    assert len(found.value.problems) == 1
    return found.value.problems[0]


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ('path = "/api/*"', 'takes no pattern: write "/api"'),
        ('path = "/*"', 'takes no pattern: write "/"'),
        ('path = "/café"', 'write "/caf%C3%A9"'),
        ('path = "/%61dmin"', 'must be written as "/admin"'),
        ('path = "/caf%c3%a9"', 'must be written as "/caf%C3%A9"'),
        ('path = "/100%"', "begins no escape"),
        ('path = "/a/%2e%2E/b"', "must have no empty, . or .. segments"),
        ('methods = ["*"]', "takes no pattern (left out = all)"),
        ('cache = { bypass = { paths = ["/admin/*"] } }', 'write "/admin"'),
        ('cache = { bypass = { paths = ["/a//b"] } }', "no empty"),
        ('cache = { bypass = { headers = ["X-Debug-*"] } }', "takes no pattern"),
        ('cache = { key_headers = ["*"] }', "takes no pattern"),
        ('cache = { normalise_encoding = ["*"] }', "takes no pattern"),
        ('cache = { targets = ["*-cache-control"] }', "takes no pattern"),
        ('cache = { ignore_query = ["größe"] }', 'write "gr%C3%B6%C3%9Fe"'),
        ('cache = { prefetch = { next = ["/part-*-{n}"] } }', "takes no pattern but {n}"),
        ('cache = { prefetch = { next = ["/é-{n}"] } }', "percent-encoded"),
    ],
)
def test_a_pattern_that_can_match_nothing_is_an_error(route: str, said: str) -> None:
    assert said in refused(route=route)


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ('balance = "hash"\nhash = { on = "cookie:wp_*" }', "takes no pattern"),
        ('balance = "hash"\nhash = { on = "header:*" }', "takes no pattern"),
        ('health = { path = "/salud-é" }', 'write "/salud-%C3%A9"'),
    ],
)
def test_the_same_in_a_pool(pool: str, said: str) -> None:
    assert said in refused(pool=pool)


def asks(cookie: str, target: bytes = b"/") -> RequestHead:
    return RequestHead(b"GET", b"http", b"a.test", target, fields(f"Cookie: {cookie}"))


@pytest.mark.parametrize(
    ("pattern", "cookie", "bypassed"),
    [
        (b"wordpress_*", "a=1; wordpress_logged_in_9=x", True),
        (b"wordpress_*", "wordpress=1", False),
        (b"*_session", "app_session=1", True),
        (b"sess*ion*", "sessXionY=1", True),
        (b"*", "anything=1", True),
        (b"session", "session=1", True),
        (b"session", "sessions=1", False),
    ],
)
def test_cookie_globs_bypass(pattern: bytes, cookie: str, bypassed: bool) -> None:
    assert is_bypassed(asks(cookie), Rules(bypass_cookies=(pattern,))) is bypassed


def key(cookie: str, rules: Rules, target: bytes = b"/") -> bytes:
    request = asks(cookie, target)
    return cache_key(request.scheme, request.authority, request.target, rules, request.fields)


def test_cookie_globs_are_part_of_the_key_in_any_order() -> None:
    rules = Rules(key_cookies=(b"ab_*",))
    assert key("ab_x=1; ab_y=2; z=3", rules) == key("ab_y=2; z=9; ab_x=1", rules)
    assert key("ab_x=1; ab_y=2", rules) != key("ab_x=2; ab_y=1", rules)
    assert key("z=1", rules) == key("z=2", rules)


cookie_text = st.text(alphabet="ab _=:c1", max_size=8)


@given(
    st.lists(st.tuples(cookie_text, cookie_text), max_size=4), st.lists(st.tuples(cookie_text, cookie_text), max_size=4)
)
def test_keys_with_cookie_globs_are_unambiguous(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    rules = Rules(key_cookies=(b"*",))

    def said(pairs: list[tuple[str, str]]) -> tuple[dict[str, str], bytes]:
        found: dict[str, str] = {}
        line = "; ".join(f"{name}={value}" for name, value in pairs)
        for pair in line.split(";"):
            name, _, value = pair.strip(" \t").partition("=")
            found.setdefault(name, value)
        return found, cache_key(b"http", b"a", b"/", rules, Fields([(b"Cookie", line.encode())]))

    (first, first_key), (second, second_key) = said(one), said(other)
    assert (first == second) == (first_key == second_key)


def test_only_the_star_is_special_in_query_arguments() -> None:
    rules = Rules(ignore_query=(b"items[]", b"filter[a]", b"utm_*", b"q?"))
    assert key("", rules, b"/?items[]=1&filter[a]=2&utm_x=3&q?=4&z=1") == key("", rules, b"/?z=1")
    assert key("", rules, b"/?filtera=1") != key("", rules, b"/")
    assert key("", rules, b"/?qq=1") != key("", rules, b"/")


@given(st.binary(max_size=12), st.lists(st.sampled_from([b"a", b"b", b"*", b"ab"]), min_size=1, max_size=6))
def test_globs_are_what_a_regular_expression_would_be(name: bytes, parts: list[bytes]) -> None:
    import re

    pattern = b"".join(parts)
    form = b".*".join(re.escape(part) for part in pattern.split(b"*"))
    assert (name in Names((pattern,))) == bool(re.fullmatch(form, name, re.DOTALL))


def test_a_long_name_costs_no_more_than_its_length() -> None:
    steps = 0

    class Counted(bytes):
        def find(self, *given: object) -> int:  # type: ignore[override]
            nonlocal steps
            steps += 1
            return super().find(*given)  # type: ignore[arg-type]

    assert Counted(b"a" * 8000) not in Names((b"*a*a*a*a*a*b",))
    assert Counted(b"a" * 8000 + b"b") in Names((b"*a*a*a*a*a*b",))
    assert steps <= 10
