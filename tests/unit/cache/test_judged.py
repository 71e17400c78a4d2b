"""What is remembered of a head: the same as `storing` says at any time, bounded in number and in bytes."""

from __future__ import annotations

import tracemalloc

import pytest
from kit.slots import values_of

from edge.cache.freshness import Times
from edge.cache.judged import MOST_RULES, Judged, cost_beside, judged
from edge.cache.rules import Rules, SetCookie
from edge.cache.stored import Plan, Stored, build
from edge.cache.storing import storing
from edge.http.grammar import Limits, ResponseFacts, response_head
from edge.http.message import Fields, RequestHead, ResponseHead

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT
DATE = b"Date: Fri, 15 Jan 2027 08:00:00 GMT"
KEY = b"http://a.example/x"
REQUEST = RequestHead(b"GET", b"http", b"a.example", b"/x", Fields())
STORED = (
    (b"Cache-Control: max-age=60", DATE),
    (b"Cache-Control: max-age=60", b"Date: fri, 15 jan 2027 08:00:00 gmt", b"Age: 5"),
    (b"Expires: Fri, 15 Jan 2027 09:00:00 GMT", DATE),
    (b"Last-Modified: Fri, 15 Jan 2027 07:00:00 GMT", DATE),
    (b"Cache-Control: max-age=60, stale-if-error=5", b"Surrogate-Key: a b", DATE),
)
REFUSED = (
    (b"Cache-Control: no-store",),
    (b"Cache-Control: private, max-age=5",),
    (b"Cache-Control: max-age=5", b"Set-Cookie: a=1"),
    (b"X: 1",),
    (b"Cache-Control: no-store, max-age=5", b"X: 1", DATE),
)
ASKED = (
    (b"Cache-Control: max-age=60",),  # a Date is added when it is stored
    (b"Cache-Control: max-age=60", b"Date: Friday, 15-Jan-27 08:00:00 GMT"),  # the clock tells the century
    (b"Cache-Control: max-age=60", b"Date: never, this is no date at all"),
    (b"Cache-Control: max-age=60", b"Date: Fry, 15 Jan 2027 08:00:00 GMT"),  # as long as one
    (b"Expires: Friday, 15-Jan-27 09:00:00 GMT", DATE),
    (b"Last-Modified: Fri, 15 Jan 2027 07:00:00 GMT",),
    (b"Cache-Control: max-age=60", b"Vary: Accept", DATE),
    (b"Cache-Control: max-age=60", b'Cache-Groups: "g"', DATE),
    (b"Last-Modified: Sat, 16 Jan 2027 08:00:00 GMT", DATE),
    (b"Cache-Control: max-age=0", b'ETag: "a"', DATE),  # only to be validated: its first client's
)


def facts_of(lines: tuple[bytes, ...], status: int = 200) -> ResponseFacts:
    block = b"".join(line + b"\r\n" for line in (b"HTTP/1.1 %d OK" % status, *lines, b"Content-Length: 4", b""))
    return response_head(block, Limits())


def plan_of(facts: ResponseFacts, rules: Rules, now: float, delay: float) -> Plan | None:
    head = ResponseHead(facts.status, facts.reason, facts.fields)
    found = storing(REQUEST, head, rules, Times(now - delay, now))
    return found if isinstance(found, Plan) else None


def shown(stored: Stored) -> dict[str, object]:
    return values_of(stored)


@pytest.mark.parametrize("lines", STORED)
def test_what_is_stored_is_what_storing_says_at_any_time(lines: tuple[bytes, ...]) -> None:
    facts, rules = facts_of(lines), Rules()
    for now, delay in ((NOW, 0.0), (NOW + 0.9, 0.5), (NOW + 20, 0.1), (NOW - 20, -3.0), (NOW + 1e9, 0.0)):
        found = judged(facts, rules, now)
        assert found.storable
        assert found.reason is None
        plan = plan_of(facts, rules, now, delay)
        assert plan is not None
        assert shown(found.stored(KEY, b"body", now - delay, now)) == shown(build(plan, (b"body",)))


@pytest.mark.parametrize("lines", REFUSED)
def test_what_is_refused_is_refused_at_any_time(lines: tuple[bytes, ...]) -> None:
    facts, rules = facts_of(lines), Rules(set_cookie=SetCookie.REFUSE)
    head = ResponseHead(facts.status, facts.reason, facts.fields)
    for now in (NOW, NOW + 20, NOW + 1e9, NOW - 1e9):
        assert judged(facts, rules, now).reason is storing(REQUEST, head, rules, Times(now, now))


@pytest.mark.parametrize("lines", ASKED)
def test_what_may_come_out_otherwise_is_not_judged(lines: tuple[bytes, ...]) -> None:
    found = judged(facts_of(lines), Rules(), NOW)
    assert (found.reason, found.storable) == (None, False)


@pytest.mark.parametrize("status", [206, 204, 304])
def test_a_status_with_another_body_is_not_taken_for_a_whole_one(status: int) -> None:
    assert not judged(facts_of(STORED[0], status), Rules(), NOW).storable


def test_content_where_there_may_be_none_is_judged_anew() -> None:
    facts = facts_of((b"Cache-Control: no-store",))
    judged(facts, Rules(), NOW)
    other = facts.with_content()
    assert other.judged is None
    assert judged(other, Rules(), NOW).reason is None


def test_each_rules_have_their_own_and_no_more_than_some_are_remembered() -> None:
    facts = facts_of((b"X: 1", DATE))
    every = [Rules(default_ttl_s=float(ttl)) for ttl in (0, 10, 20, 30, 40)]
    for _ in range(3):
        for rules in every:
            found = judged(facts, rules, NOW)
            assert found is judged(facts, rules, NOW)
            assert found.storable == (rules.default_ttl_s > 0)
            count, one = 0, facts.judged
            while isinstance(one, Judged):
                count, one = count + 1, one.next
            assert count <= MOST_RULES


def test_the_model_holds_no_body() -> None:
    found = judged(facts_of(STORED[0]), Rules(), NOW)
    found.stored(KEY, b"body", NOW, NOW)
    assert found.model is not None
    assert found.model.chunks == ()


@pytest.mark.parametrize("lines", [0, 10, 60])
def test_what_judgements_take_is_not_more_than_what_is_counted(lines: int) -> None:
    more = tuple(b"X-Field-%d: %b" % (number, b"v" * 40) for number in range(lines))
    heads = [facts_of((*STORED[0], b'ETag: "%d"' % number, *more)) for number in range(200)]
    every = [Rules(name=str(number)) for number in range(MOST_RULES)]
    for facts in heads:
        facts.fields.names()  # the head's own, and counted with it
    judged(facts_of(STORED[0]), every[0], NOW).stored(KEY, b"body", NOW, NOW)  # what is made once
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for rules in every:
        for facts in heads:
            judged(facts, rules, NOW).stored(KEY, b"body", NOW, NOW)
    spent = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert spent // 200 <= 1.1 * cost_beside(heads[0].wire)
