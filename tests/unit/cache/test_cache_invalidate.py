"""What unsafe methods invalidate (RFC 9875)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.heads import request, response, stored

from edge.cache.invalidate import groups, targets

OWN = b"example.com/a/b?c"


def of(*lines: str, method: str = "POST", status: int = 200) -> tuple[bytes, ...]:
    return targets(request(method=method, target="/a/b?c"), response(*lines, status=status))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "PURGE", "get"])
@pytest.mark.parametrize(
    ("status", "invalidates"), [(200, True), (204, True), (302, True), (399, True), (400, False), (500, False)]
)
def test_unsafe_methods_and_their_status(method: str, status: int, invalidates: bool) -> None:
    assert of(method=method, status=status) == ((OWN,) if invalidates else ())


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "SEARCH", "REPORT", "QUERY"])
def test_safe_methods_invalidate_nothing(method: str) -> None:
    assert of("Location: /x", method=method) == ()


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ("/x", b"example.com/x"),
        ("x?y", b"example.com/a/x?y"),
        ("../x", b"example.com/x"),
        ("http://example.com/x%2F", b"example.com/x%2F"),
        ("HTTP://EXAMPLE.COM:80/x#y", b"example.com/x"),
        ("//example.com", b"example.com/"),
        ("?z", b"example.com/a/b?z"),
        ("https://example.com/x", None),
        ("http://example.com:81/x", None),
        ("http://other.example/x", None),
        ("http://[::1/x", None),
        ("http://example.com:port/x", None),
        ("mailto:x", None),
    ],
)
def test_locations_of_the_same_origin(name: str, value: str, uri: bytes | None) -> None:
    assert of(f"{name}: {value}") == ((OWN,) if uri is None else (OWN, uri))


def test_both_locations() -> None:
    assert of("Location: /x", "Content-Location: /y") == (OWN, b"example.com/x", b"example.com/y")
    assert of("Location: /a/b?c") == (OWN,)


def test_groups_reach_only_their_own_origin() -> None:
    head = response('Cache-Group-Invalidation: "g", "h"')
    found = groups(request(method="POST"), head)
    assert found == {b"http://example.com g", b"http://example.com h"}
    assert found & stored("Cache-Control: max-age=9", 'Cache-Groups: "g"').tags
    assert not found & stored("Cache-Control: max-age=9", "Surrogate-Key: http://example.com g").tags
    assert groups(request(), head) == frozenset()
    assert groups(request(method="POST"), response('Cache-Group-Invalidation: "g",')) == frozenset()
    assert groups(request(method="POST"), response(status=500)) == frozenset()


@given(st.binary(max_size=30))
def test_any_bytes(value: bytes) -> None:
    text = value.decode("latin-1")
    found = of(f"Location: {text}", f"Cache-Group-Invalidation: {text}")
    assert all(uri.startswith(b"example.com") for uri in found)
