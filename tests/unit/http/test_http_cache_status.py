"""The Cache-Status member (RFC 9211)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.http.cache_status import Forward, forwarded, hit, line, unanswered
from edge.http.structured import parse_list


def test_the_forms() -> None:
    assert hit(376.9) == b"edge; hit; ttl=376"
    assert hit(-0.5, "stale") == b"edge; hit; ttl=-1; detail=stale"
    assert forwarded(Forward.URI_MISS, stored=True, collapsed=True) == b"edge; fwd=uri-miss; stored; collapsed"
    assert forwarded(Forward.STALE, status=304, ttl_s=60) == b"edge; fwd=stale; fwd-status=304; ttl=60"
    assert forwarded(Forward.BYPASS, detail="rule:my-rule") == b"edge; fwd=bypass; detail=rule:my-rule"
    assert unanswered("only-if-cached") == b"edge; detail=only-if-cached"
    assert line(b"edge; hit") == b"Cache-Status: edge; hit\r\n"


@given(st.text(max_size=20), st.floats(-1e9, 1e9))
def test_always_a_valid_list_of_one(detail: str, ttl: float) -> None:
    for value in (hit(ttl, detail), forwarded(Forward.MISS, ttl_s=ttl, detail=detail)):
        found = parse_list(value)
        assert found is not None
        assert len(found) == 1
