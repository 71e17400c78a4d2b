"""A bandwidth under a clock of the test's own: in no second more than the rate and a burst, and exactly whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.clock import StandingClock

from edge.config.rules import RouteRules
from edge.dataplane.rules import bandwidth
from edge.dataplane.rules.bandwidth import FULL_S, MOST, Bandwidth
from edge.dataplane.rules.compiled import compile_rules


@contextmanager
def clock() -> Iterator[StandingClock]:
    """The clock that the rule looks at."""
    found = StandingClock(100.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth, "monotonic", found)
        yield found


@dataclass
class Response:
    """An exchange and who brings its body: pieces are handed over as long as nobody is paused."""

    clock: StandingClock
    worker: Any
    pieces: list[bytes]
    room: int = 1 << 30  # what the client takes before it is slow
    client: str = "192.0.2.1"
    downstream: Any = field(default_factory=lambda: SimpleNamespace(paused=False))
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    ended = False
    at_once = 1
    pace: Any = None
    over: Callable[[], None] = lambda: None
    handed_over: int = 0  # while it was to wait
    at: int = 0

    def client_text(self) -> str:
        return self.client

    def at_end(self, what: Callable[[], None]) -> None:
        self.over = what

    def body(self, data: bytes) -> None:
        self.pace.body(data)

    def send(self, data: bytes) -> None:
        assert not self.ended, "a piece after the end"
        self.sent.append((self.clock.now, data))
        self.room -= len(data)
        if self.room <= 0:
            self.downstream.paused = True
            self.client_paused()

    def end(self, trailers: Any = None) -> None:
        assert not self.ended, "a second end"
        if not self.pace.may_end(trailers):
            return
        self.ended = True
        self.over()

    def client_paused(self) -> None:
        """The backend would be held back."""
        self.pace.paused()

    def client_resumed(self) -> None:
        if not self.pace.resumed():
            return
        while self.at < len(self.pieces) and not self.downstream.paused:
            self.at += 1
            self.body(self.pieces[self.at - 1])
        if self.at == len(self.pieces):
            self.at += 1
            self.end([])

    def takes_more(self, room: int) -> None:
        """As a connection does when its buffer is empty again."""
        self.room = room
        self.downstream.paused = False
        self.client_resumed()

    @property
    def whole(self) -> bytes:
        return b"".join(data for _, data in self.sent)


def most_in_a_second(sent: list[tuple[float, bytes]]) -> int:
    return max(
        (sum(len(data) for at, data in sent if first <= at <= first + 1.0) for first, _ in sent),
        default=0,
    )


BODIES = st.lists(st.lists(st.integers(1, 3000), max_size=12), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    bodies=BODIES,
    rate=st.integers(1000, 5000),
    burst=st.integers(0, 6000),
    by=st.sampled_from(["response", "client", "route"]),
    pauses=st.lists(st.tuples(st.floats(0.2, 0.6), st.integers(0, 3), st.integers(1, 4000)), max_size=30),
)
def test_never_faster_and_exactly_whole(
    bodies: list[list[int]], rate: int, burst: int, by: str, pauses: list[tuple[float, int, int]]
) -> None:
    with clock() as now:
        worker = SimpleNamespace(paced={})
        rule = Bandwidth(rate, burst, by)
        responses = []
        for number, sizes in enumerate(bodies):
            pieces = [bytes([65 + number]) * size for size in sizes]
            responses.append(response := Response(now, worker, pieces, room=2000))
            rule.apply(response)
            response.client_resumed()

        def pass_time(seconds: float) -> None:
            now.now += seconds
            for paced in list(worker.paced):
                paced.tick()

        for seconds, which, room in pauses:
            pass_time(seconds)
            response = responses[which % len(responses)]
            if response.room <= 0 and not response.ended:
                response.takes_more(room)
        ticks = 0
        while not all(each.ended for each in responses):
            for response in responses:
                if response.room <= 0 and not response.ended:
                    response.takes_more(1 << 30)
            pass_time(0.25)
            ticks += 1
            assert ticks <= 8 * len(responses) + 4 * sum(map(sum, bodies)) // rate * 2, "it does not move"
        for response in responses:
            assert response.whole == b"".join(response.pieces)
            assert not response.downstream.paused or response.room <= 0
        shared = [[each.sent for each in responses]] if by != "response" else [[each.sent] for each in responses]
        for group in shared:
            sent = sorted((entry for each in group for entry in each), key=lambda entry: entry[0])
            assert most_in_a_second(sent) <= rate + max(burst, rate * FULL_S) + 1
        assert not worker.paced


def test_what_waits_is_one_piece_however_much_is_brought() -> None:
    with clock() as now:
        response = Response(now, SimpleNamespace(paced={}), [b"x" * 1000] * 50)
        Bandwidth(2000, 0, "response").apply(response)
        response.client_resumed()
        assert (response.at, len(response.whole)) == (2, 1000), "the second piece waits, the third was not asked for"
        assert response.downstream.paused


def test_those_who_share_get_alike() -> None:
    with clock() as now:
        worker = SimpleNamespace(paced={})
        rule = Bandwidth(8000, 0, "client")
        responses = [Response(now, worker, [b"x" * 100_000]) for _ in range(4)]
        for response in responses:
            rule.apply(response)
            response.client_resumed()
        before = [len(each.whole) for each in responses]
        for _ in range(20):
            now.now += 0.25
            for paced in list(worker.paced):
                paced.tick()
        got = [len(each.whole) - had for each, had in zip(responses, before, strict=True)]
        assert max(got) - min(got) <= 40 and sum(got) == pytest.approx(40_000, abs=40)


def test_another_client_has_its_own_and_memory_is_bounded() -> None:
    with clock() as now:
        worker = SimpleNamespace(paced={})
        rule = Bandwidth(1000, 0, "client")
        for number in range(MOST + 10):
            response = Response(now, worker, [b"x" * 500], client=f"2001:db8:0:{number:x}::1")
            rule.apply(response)
            response.client_resumed()
            assert response.ended, "it has its burst"
        assert len(rule._buckets) == MOST
        again = Bandwidth(1000, 0, "client")
        again.take_over(rule)
        late = Response(now, worker, [b"x"], client=f"2001:db8:0:{MOST:x}::2")
        again.apply(late)
        late.client_resumed()
        assert not late.ended, "the same /64 has had it, also before the reload"


def test_the_least_rate_is_one_byte_a_second() -> None:
    bucket = Bandwidth(1, 0, "response")._bucket(cast(Any, None), 100.0)
    sent = 0
    for second in range(100, 111):
        found = bucket.turn(float(second))
        bucket.level -= found
        sent += found
    assert sent == 11, "a full bucket, and ten seconds"


def test_a_route_without_it_has_no_step_for_it() -> None:
    found = compile_rules(RouteRules(), None)  # type: ignore[arg-type]  # nothing needs tools
    assert (found.steps, found.bodies, found.plain) == ((), None, True)
