"""Host and path to route: the most specific host, then the longest prefix by segments; the memo changes nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.dataplane.router import HOSTS_REMEMBERED, Misdirected, NoRoute, Route, Router, normal_path

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


PATHS = st.lists(st.sampled_from((b"", b".", b"..", b"%2e", b"%2E.", b"a", b"b.c", b"...", b"%2f")), max_size=7).map(
    lambda parts: b"/" + b"/".join(parts)
)


@given(PATHS)
@settings(max_examples=200)
def test_a_normal_path_is_normal(path: bytes) -> None:
    found = normal_path(path)
    assert normal_path(found) == found
    segments = found.replace(b"%2e", b".").replace(b"%2E", b".").split(b"/")
    assert segments[0] == b""
    assert not {b".", b".."} & set(segments)
    assert b"//" not in found


@given(PATHS, PATHS)
@settings(max_examples=200)
def test_a_prefix_covers_by_segments(prefix: bytes, path: bytes) -> None:
    wanted = prefix.rstrip(b"/").split(b"/")
    expected = path.split(b"/")[: len(wanted)] == wanted and (not prefix.endswith(b"/") or path.startswith(prefix))
    assert Route("r", b"*", prefix, pool=None).covers(path) is expected  # type: ignore[arg-type]  # no pool is asked
