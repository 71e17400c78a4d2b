"""One path for all: what is compared is what the strictest origin would understand; what goes on stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.http.paths import below, hides_separator, literal_path, normal_path


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/a/b?c=/../d", b"/a/b"),
        (b"/%61dmin", b"/admin"),
        (b"//admin", b"/admin"),
        (b"/./admin", b"/admin"),
        (b"/x/../admin", b"/admin"),
        (b"/x/%2E%2e/admin", b"/admin"),
        (b"/x/.%2e/admin/", b"/admin/"),
        (b"/admin%2fx", b"/admin/x"),
        (b"/admin%5Cx", b"/admin/x"),
        (b"/admin%00x", b"/admin/x"),
        (b"/admin\\x", b"/admin/x"),
        (b"/static/..%2faccount", b"/account"),
        (b"/a/..", b"/"),
        (b"/a/b/..", b"/a/"),
        (b"/../..", b"/"),
        (b"/caf%c3%a9", "/café".encode()),
        (b"/%2561", b"/%61"),
        (b"/100%", b"/100%"),
        (b"/a//", b"/a/"),
        ("/café/%7e".encode(), "/café/~".encode()),
    ],
)
def test_normal_path(target: bytes, path: bytes) -> None:
    assert normal_path(target) == path


PARTS = st.lists(
    st.sampled_from(
        (b"/", b"//", b".", b"..", b"%2e", b"%2E.", b"a", b"%2f", b"%5c", b"%00", b"\\", b"%61", b"%", b"?")
    ),
    max_size=9,
).map(lambda parts: b"/" + b"".join(parts))


@given(PARTS)
@settings(max_examples=300)
def test_no_segment_of_a_normal_path_is_special(target: bytes) -> None:
    path = normal_path(target)
    segments = path.split(b"/")
    assert segments[0] == b"" and not {b".", b".."} & set(segments)
    assert b"//" not in path and b"\\" not in path and b"\0" not in path
    assert hides_separator(target) or literal_path(target) == path


@pytest.mark.parametrize(
    ("path", "prefix", "covered"),
    [
        (b"/api", b"/api", True), (b"/api/x", b"/api", True), (b"/apix", b"/api", False), (b"/api", b"/api/", False),
        (b"/api/x", b"/api/", True), (b"/x", b"/", True), (b"/x", b"", True), (b"/", b"/api", False),
    ],
)  # fmt: skip
def test_below(path: bytes, prefix: bytes, covered: bool) -> None:
    assert below(path, prefix) is covered
