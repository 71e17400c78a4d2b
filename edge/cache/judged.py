"""What a response head is to the cache for a plain GET, worked out once for each head and remembered on its facts.

A plain GET has no credentials, directives, conditions or range. So what `storing` says depends on the head and the
rules alone, where no date has to be completed from the clock and nothing (Vary, Cache-Groups) refers to the request.

One rule: what may come out otherwise for another request or at another time is not remembered; `storing` is asked then.
"""

from __future__ import annotations

from edge.cache.freshness import Times, age_at, date_value
from edge.cache.policy import is_for_all
from edge.cache.rules import Rules
from edge.cache.stored import Plan, Stored, build
from edge.cache.storing import storing
from edge.cache.verdict import Reason, word
from edge.http.cache_status import Forward, forwarded, line
from edge.http.dates import parse_date
from edge.http.fields import age_value
from edge.http.grammar import Framing, ResponseFacts
from edge.http.message import Fields, RequestHead, ResponseHead

MOST_RULES = 2  # remembered for each head: a backend seldom serves more routes with rules of their own
_COST_BYTES = 560  # measured: a judgement and the model of what is stored, less its head
_NOBODY = RequestHead(b"GET", b"http", b"", b"/", Fields())
_ASKS_REQUEST = frozenset((b"vary", b"cache-groups"))
_WHATEVER_THE_DATES = frozenset((Reason.NO_STORE, Reason.PRIVATE, Reason.SET_COOKIE, Reason.STATUS))
_IMF_LENGTH = 29  # Only a longer form (RFC 850) has a year of two digits, whose century the clock tells.


class Judged:
    """What the cache may do with responses of one head. With `reason`: never store. With `plan` (later `model`):
    store, with new times. With neither: ask `storing`.
    """

    __slots__ = ("_age", "_date", "model", "next", "plan", "reason", "rules", "status_line", "word")

    def __init__(self, rules: Rules, following: Judged | None) -> None:
        self.rules = rules
        self.next = following
        self.reason: Reason | None = None
        self.word = ""  # the reason, as it is shown
        self.status_line = b""  # Cache-Status of what is not stored
        self.plan: Plan | None = None
        self.model: Stored | None = None  # without a body
        self._date = 0.0
        self._age = 0

    def refuse(self, reason: Reason) -> None:
        """Never store it, for this reason."""
        self.reason, self.word = reason, word(reason, self.rules.name)
        self.status_line = line(forwarded(Forward.URI_MISS, detail=self.word))

    def accept(self, plan: Plan, fields: Fields) -> None:
        """Store it, with its own times each time."""
        self.plan = plan
        self._date = date_value(fields, plan.received_at)
        self._age = age_value(fields) or 0

    @property
    def storable(self) -> bool:
        """Whether `stored` gives what to keep."""
        return self.plan is not None or self.model is not None

    def stored(self, key: bytes, body: bytes, requested_at: float, now: float) -> Stored:
        """The stored response; the body is as long as announced."""
        model = self.model
        if model is None:
            assert self.plan is not None
            model = self.model = build(self.plan, (body,))
            model.chunks = ()
            self.plan = None
        made = Stored.__new__(Stored)
        made.key = key
        made.status = model.status
        made.wire = model.wire
        made.chunks = (body,)
        made.file = None
        made.length = model.length
        made.size_bytes = model.size_bytes + len(key) - len(model.key)
        made.vary = model.vary
        made.language = made.part = None
        made.etag = model.etag
        made.tags = model.tags
        made.received_at = now
        made.born = born = now - age_at(self._date, self._age, requested_at, now)
        made.lifetime_s = model.lifetime_s
        made.fresh_until = born + model.lifetime_s
        made.swr_s, made.sie_s, made.outage_s, made.keep_s = model.swr_s, model.sie_s, model.outage_s, model.keep_s
        made.must_revalidate = model.must_revalidate
        made.no_cache = model.no_cache
        made.simple = model.simple
        made.source = model.source
        return made


def judged(facts: ResponseFacts, rules: Rules, now: float) -> Judged:
    """The judgement of a head under these rules, worked out once."""
    first: Judged | None = facts.judged
    found, count = first, 0
    while found is not None:
        if found.rules is rules:
            return found
        found, count = found.next, count + 1
    made = Judged(rules, first if count < MOST_RULES else None)
    _judge(made, facts, now)
    facts.judged = made
    return made


def cost_beside(head: bytes) -> int:
    """About how many bytes the judgements of a head take at most."""
    return MOST_RULES * (_COST_BYTES + len(head))


def _judge(made: Judged, facts: ResponseFacts, now: float) -> None:
    fields = facts.fields
    if facts.status < 200 or facts.status == 206 or facts.misframed or not _ASKS_REQUEST.isdisjoint(fields.names()):
        return
    head = ResponseHead(facts.status, facts.reason, fields)
    found = storing(_NOBODY, head, made.rules, Times(now, now))
    if isinstance(found, Reason):
        if found in _WHATEVER_THE_DATES or _is_settled(fields):
            made.refuse(found)
    elif facts.framing is Framing.LENGTH and facts.has_date and _is_settled(fields) and is_for_all(found, made.rules):
        made.accept(found, fields)


def _is_settled(fields: Fields) -> bool:
    """Whether lifetimes that come of dates are the same whenever the response comes."""
    date = fields.joined(b"date")
    others = [value for name in (b"expires", b"last-modified") if (value := fields.joined(name)) is not None]
    if date is None:
        return not others
    if len(date) != _IMF_LENGTH or parse_date(date, 0.0) is None:
        return False
    return all(len(value) <= _IMF_LENGTH for value in others)
