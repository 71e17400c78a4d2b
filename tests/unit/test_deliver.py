"""What the gateway answers by itself: small, named, and silent about the inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.heads import split_lines

from edge import errors
from edge.dataplane.core.error_response import error_response, status_line
from edge.dataplane.core.route import Misdirected, NoRoute
from edge.errors import EdgeError
from edge.http.grammar import Limits

DATE = b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgeError)]
KINDS = [*(kind for kind in KINDS if kind is not errors.ConfigError), NoRoute, Misdirected]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_a_small_answer_with_a_reason(kind: type[EdgeError]) -> None:
    error = kind() if kind is errors.MethodNotAllowed else kind("why")
    lines, body = error_response(error, DATE)
    found = split_lines(lines, Limits())
    assert found is not None
    names = [name for name, _ in found]
    assert len(names) == len(set(names))
    assert dict(found)[b"Proxy-Status"] == b'edge; error=%b; details="%b"' % (
        kind.proxy_status.encode(),
        error.detail.encode(),
    )
    assert len(body) < 100
    assert body.startswith(b"%d " % kind.status)
    assert (b"Retry-After" in names) is (kind.status == 503)


@given(st.text(max_size=40))
def test_a_detail_cannot_leave_its_quotes(detail: str) -> None:
    lines, _ = error_response(EdgeError(detail), DATE)
    assert split_lines(lines, Limits()) is not None
    value = lines.partition(b"Proxy-Status: ")[2]
    assert value.count(b'"') in (0, 2)
    assert b"\\" not in value


def test_status_lines() -> None:
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(599) == b"HTTP/1.1 599 \r\n"
    assert b"Allow: GET" in error_response(errors.Denied("x", 405), DATE)[0]
