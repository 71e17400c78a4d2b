"""Whom `auth` knows by a head that came again: its own verdict, as long as that holds, and nobody else's."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from edge.dataplane.rules.authentication import BasicAuth, Unauthorized, Verdicts, identity
from edge.dataplane.rules.passwords import PasswordFile
from edge.http.grammar import Limits, RequestHeaders, request_block

CREDENTIALS = b"Basic YWxpY2U6c2VjcmV0"
NOBODY = PasswordFile("", "htpasswd")


def head() -> RequestHeaders:
    return request_block(b"Host: a\r\nAuthorization: %b\r\n" % CREDENTIALS, Limits())


def request(block: RequestHeaders, at: float) -> Any:
    return SimpleNamespace(block=block, started_at=at, apart=b"", identity=b"", granted=(), reason="")


def rule(verdict: Any, seconds: float = 60.0) -> BasicAuth:
    """A rule that has found out before what these credentials are worth."""
    found = BasicAuth(NOBODY, "members")
    found._verdicts.put(found._verdicts.mark(CREDENTIALS), verdict, seconds)
    return found


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The secrets that were made digests of."""
    made: list[bytes] = []
    inner = Verdicts.mark
    monkeypatch.setattr(Verdicts, "mark", lambda self, secret: (made.append(secret), inner(self, secret))[1])
    return made


def test_the_same_head_is_looked_into_once(marks: list[bytes]) -> None:
    alice, block, now = identity(b"alice"), head(), monotonic()
    auth = rule(alice)
    marks.clear()
    for _ in range(3):
        exchange = request(block, now)
        assert auth.apply(exchange) is None
        assert (exchange.identity, exchange.granted, exchange.apart) == (b"alice", (), alice.apart)
    assert len(marks) == 1


def test_it_is_known_no_longer_than_the_verdict_holds(marks: list[bytes]) -> None:
    block, now = head(), monotonic()
    auth = rule(identity(b"alice"), 60.0)
    auth.apply(request(block, now))
    auth._verdicts.put(auth._verdicts.mark(CREDENTIALS), False, 60.0)
    auth.apply(request(block, now + 50.0))
    with pytest.raises(Unauthorized):
        auth.apply(request(block, now + 61.0))


def test_it_is_known_to_no_other_rule() -> None:
    block, now = head(), monotonic()
    members, others = rule(identity(b"alice")), rule(False)
    for _ in range(3):
        members.apply(request(block, now))
        with pytest.raises(Unauthorized):
            others.apply(request(block, now))


def test_a_copy_that_is_to_be_changed_is_not_known(marks: list[bytes]) -> None:
    block, now = head(), monotonic()
    auth = rule(identity(b"alice"))
    auth.apply(request(block, now))
    marks.clear()
    auth.apply(request(block.alike(), now))
    assert marks == [CREDENTIALS]
