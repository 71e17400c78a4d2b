"""Host and path to route: the most specific host, then the longest prefix by segments; the memo changes nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.dataplane.core.route import Misdirected, NoRoute, Route
from edge.dataplane.core.router import HOSTS_REMEMBERED, Router
from edge.http.paths import normal_path

POOL: Any = None


def router(*routes: str) -> Router:
    """Each as `host path`; the route's name is the same text."""

    def route(text: str) -> Route:
        host, path = text.encode().split()
        return Route(text, host, path, cast(Any, POOL))

    return Router([route(text) for text in routes])


ALL = router(
    "a.example /",
    "a.example /api",
    "a.example /api/v2/",
    "*.example /",
    "*.b.example /",
    "*.b.example /x",
    "* /any",
    "* /any/more",
)


@pytest.mark.parametrize(
    ("host", "target", "name"),
    [
        (b"a.example", b"/", "a.example /"),
        (b"a.example:8080", b"/", "a.example /"),
        (b"a.example.", b"/apix", "a.example /"),
        (b"a.example", b"/api", "a.example /api"),
        (b"a.example", b"/api?x=/api/v2/", "a.example /api"),
        (b"a.example", b"/api/v2", "a.example /api"),
        (b"a.example", b"/api/v2/y", "a.example /api/v2/"),
        (b"a.example", b"/x/../api/y", "a.example /api"),
        (b"a.example", b"/x/%2E%2e/api", "a.example /api"),
        (b"a.example", b"/api/../y", "a.example /"),
        (b"a.example", b"//api", "a.example /api"),
        (b"a.example", b"/%61pi", "a.example /api"),
        (b"a.example", b"/%2e/api", "a.example /api"),
        (b"a.example", b"/api%2fv2/y", "a.example /api/v2/"),
        (b"a.example", b"/x/..%5Capi", "a.example /api"),
        (b"a.example", b"/api%00.html", "a.example /api"),
        (b"a.example", b"/\\api", "a.example /api"),
        (b"a.example", b"/%2561pi", "a.example /"),
        (b"a.example", b"*", "a.example /"),
        (b"q.example", b"/", "*.example /"),
        (b"q.b.example", b"/x/y", "*.b.example /x"),
        (b"r.q.b.example", b"/", "*.b.example /"),
        (b"b.example", b"/", "*.example /"),
        (b"other", b"/any/x", "* /any"),
        (b"[::1]:80", b"/any", "* /any"),
        (b"", b"/any/more", "* /any/more"),
        (None, b"/any", "* /any"),
    ],
)
def test_find(host: bytes | None, target: bytes, name: str) -> None:
    assert ALL.find(host, target).name == name


def test_no_route_and_no_host() -> None:
    with pytest.raises(NoRoute):
        ALL.find(b"other", b"/anyx")
    with pytest.raises(Misdirected):
        router("a.example /").find(b"b.example", b"/")
    with pytest.raises(Misdirected):
        router("*.example /").find(b"example", b"/")
    assert (NoRoute.status, Misdirected.status) == (404, 421)


@given(st.lists(st.sampled_from((b"a.example", b"x.example", b"b", b"b:80", None)), max_size=20))
@settings(max_examples=50)
def test_what_was_asked_before_changes_nothing(hosts: list[bytes | None]) -> None:
    used = router("a.example /", "*.example /", "* /", "* /p")
    for host in hosts:
        for target in (b"/", b"/p"):
            assert (
                used.find(host, target).name
                == router("a.example /", "*.example /", "* /", "* /p").find(host, target).name
            )


def test_invented_hosts_are_not_remembered_without_end() -> None:
    used = router("*.example /")
    for number in range(HOSTS_REMEMBERED + 10):
        used.find(b"h%d.example" % number, b"/")
    assert len(used._known) <= HOSTS_REMEMBERED


SEGMENTS = st.lists(st.sampled_from((b"", b".", b"..", b"a", b"b.c", b"...", b"%2561", b"%zz")), max_size=7)


@given(SEGMENTS, SEGMENTS)
@settings(max_examples=200)
def test_a_prefix_covers_by_segments(prefix: list[bytes], path: list[bytes]) -> None:
    wanted, asked = normal_path(b"/" + b"/".join(prefix)), normal_path(b"/" + b"/".join(path))
    parts = wanted.rstrip(b"/").split(b"/")
    expected = asked.split(b"/")[: len(parts)] == parts and (not wanted.endswith(b"/") or asked.startswith(wanted))
    route = Route("r", b"*", b"/" + b"/".join(prefix), pool=cast(Any, POOL))
    assert route.covers(asked) is expected
