"""What a backend is asked for: prefixes and rewrites over the client's bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config.rules import Rewrite
from edge.dataplane.rules.target import TargetRule
from edge.errors import BadRequest
from edge.http.paths import below, normal_path


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"/api", b"/"),
        (b"/api?x=1", b"/?x=1"),
        (b"/api/", b"/"),
        (b"/api/a%20b//c?x=/api", b"/a%20b//c?x=/api"),
        (b"/%61pi/x", b"/x"),
        (b"//api//x", b"//x"),
        (b"/apix", b"/apix"),
        (b"/other", b"/other"),
        (b"*", b"*"),
    ],
)
def test_a_prefix_goes_by_segments(target: bytes, wanted: bytes) -> None:
    assert TargetRule("/api", None).target(target) == wanted


@pytest.mark.parametrize("target", [b"/api/../x", b"/api/%2e%2e/x", b"/api/.", b"/api/x/..", b"/api/.%2E\\x"])
def test_dot_segments_are_not_cut(target: bytes) -> None:
    with pytest.raises(BadRequest):
        TargetRule("/api", None).target(target)


SEGMENT = st.sampled_from([b"api", b"%61pi", b"a", b"", b"..", b".", b"%2e%2E", b"..%2f", b"x%5c..", b"admin"])


@given(st.lists(SEGMENT, max_size=7))
def test_what_is_left_lies_below_what_was_asked(segments: list[bytes]) -> None:
    """The backend's reading of the rest, put behind the prefix, is the gateway's reading of the whole."""
    path = b"/" + b"/".join(segments)
    try:
        rest = TargetRule("/api", None).target(path)
    except BadRequest:
        return
    if below(normal_path(path), b"/api"):
        assert normal_path(b"/api" + rest).rstrip(b"/") == normal_path(path).rstrip(b"/")
    else:
        assert rest == path


@pytest.mark.parametrize(
    ("match", "to", "target", "wanted"),
    [
        ("^/old/(.*)$", "/new/$1", b"/old/a/b?x=1", b"/new/a/b?x=1"),
        ("^/old/(.*)$", "/new/$1", b"/other", b"/other"),
        ("^/u/([0-9]+)$", "/user?id=$1", b"/u/7?x=1", b"/user?id=7&x=1"),
        ("^/u/([0-9]+)$", "/user?id=$1", b"/u/7", b"/user?id=7"),
        ("(a)|(b)", "$2/x", b"/a", b"/x"),
        ("^/(.*)$", "/$$${1}", b"/p", b"/$p"),
        ("^/(.)$", "/$1", b"/\xff", b"/\xff"),
    ],
)
def test_a_path_is_rewritten(match: str, to: str, target: bytes, wanted: bytes) -> None:
    assert TargetRule(None, Rewrite(match=match, to=to)).target(target) == wanted


def test_a_prefix_goes_first() -> None:
    assert TargetRule("/api", Rewrite(match="^/v1/", to="/v2/")).target(b"/api/v1/x") == b"/v2/"
