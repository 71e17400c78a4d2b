"""A body through its coder: in no turn of the loop more than a share, nobody brings more meanwhile, exactly whole."""

from __future__ import annotations

import gc
import weakref
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.dataplane.core.passing import ended, passed, paused, resumed
from edge.dataplane.rules import body_coder
from edge.dataplane.rules.body_coder import BodyCoder
from edge.dataplane.rules.codings import stream

SHARE = 100


class Loop:
    """What is put off until the next turn."""

    def __init__(self) -> None:
        self.due: list[Callable[[], object]] = []

    def later(self, go: Callable[[], object]) -> None:
        self.due.append(go)

    again = later

    def turn(self) -> None:
        due, self.due = self.due, []
        for go in due:
            go()


class Counting:
    """A coder that says how much it was given in each turn."""

    def __init__(self) -> None:
        self.inner = stream("gzip", None, True)
        self.given = 0

    def piece(self, data: bytes | bytearray) -> bytes:
        self.given += len(data)
        return self.inner.piece(data)

    def end(self) -> bytes:
        return self.inner.end()


class Pace:
    """Keeps all until it is told to let go, as a bandwidth does."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.kept = b""
        self.ending: Any = None

    def body(self, data: bytes | bytearray) -> None:
        self.kept += data
        self.response.downstream.paused = True

    def may_end(self, trailers: Any) -> bool:
        self.ending = trailers if self.kept else None
        return not self.kept

    def paused(self) -> None:
        """It keeps all anyway."""

    def resumed(self) -> bool:
        return not self.kept

    def let_go(self) -> None:
        kept, self.kept = self.kept, b""
        self.response.downstream.paused = False
        if kept:
            self.response.send(kept)
        if self.ending is not None:
            self.response.end(self.ending)
        elif not self.response.ended and not self.response.full:
            self.response.client_resumed()


class Response:
    """An exchange and who brings its body: pieces are handed over as long as nobody is paused."""

    def __init__(self, pieces: list[bytes], room: int, is_paced: bool) -> None:
        self.pieces, self.at = pieces, 0
        self.room = room  # what the client takes before it is slow
        self.full = False
        self.loop = Loop()
        self.worker = SimpleNamespace(turns=self.loop)
        self.downstream = SimpleNamespace(paused=False)
        self.pace: Any = Pace(self) if is_paced else None
        self.coder: Any = None
        self.sent = b""
        self.ended = False
        self.over: list[Callable[[], None]] = []
        self.counting = Counting()
        BodyCoder(self, self.counting)

    def at_end(self, what: Callable[[], None]) -> None:
        self.over.append(what)

    def bring(self) -> None:
        while self.at < len(self.pieces) and not self.downstream.paused:
            self.at += 1
            passed(self, self.pieces[self.at - 1])
        if self.at == len(self.pieces):
            self.at += 1
            self.end([])

    def send(self, data: bytes | bytearray) -> None:
        assert not self.ended, "a piece after the end"
        self.sent += data
        self.room -= len(data)
        if self.room <= 0 and not self.full:
            self.full = self.downstream.paused = True
            paused(self)

    def end(self, trailers: Any = None) -> None:
        assert not self.ended, "a second end"
        if ended(self, trailers):
            self.finish()

    def finish(self) -> None:
        self.ended = True
        for what in self.over:
            what()

    def client_resumed(self) -> None:
        if resumed(self):
            self.bring()

    def takes_more(self, room: int) -> None:
        """As a connection does when its buffer is empty again."""
        if self.full:
            self.room, self.full, self.downstream.paused = room, False, False
            self.client_resumed()


@pytest.fixture(autouse=True, scope="module")
def small_share() -> Iterator[None]:
    """So that bodies of a few bytes take many turns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_coder, "SHARE_BYTES", SHARE)
        patch.setattr(body_coder, "TURN_S", 0.0)
        yield


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.binary(min_size=1, max_size=5 * SHARE), max_size=8),
    st.integers(1, 400),
    st.booleans(),
    st.lists(st.tuples(st.booleans(), st.integers(1, 400))),
)
def test_a_share_in_each_turn_and_exactly_whole(
    pieces: list[bytes], room: int, is_paced: bool, steps: list[tuple[bool, int]]
) -> None:
    found = Response(pieces, room, is_paced)
    found.bring()
    for takes, more in [*steps, *[(True, 1 << 30)] * (30 + sum(map(len, pieces)))]:
        assert found.counting.given <= SHARE
        found.counting.given = 0
        found.loop.turn()
        if found.ended:
            break
        if takes:
            found.takes_more(more)
            if found.pace is not None:
                found.pace.let_go()
    assert found.ended and zlib.decompress(found.sent, 31) == b"".join(pieces)
    assert found.downstream.paused == found.full, "the client's own state is back"


def test_who_brings_it_waits_and_a_client_that_leaves_takes_it_with_it() -> None:
    found = Response([b"x" * (3 * SHARE), b"y" * SHARE], 1 << 30, False)
    found.bring()
    assert found.downstream.paused and found.at == 1, "the second piece is not brought"
    found.finish()
    assert not found.downstream.paused
    found.loop.turn()
    assert not found.loop.due and found.counting.given == 0


def test_the_coder_goes_when_the_response_ends() -> None:
    """Its tables take a megabyte; they must not wait for the garbage collector."""
    gc.disable()
    try:
        found = Response([b"x" * (3 * SHARE)], 1 << 30, False)
        lives = weakref.ref(found.counting)
        found.bring()
        while not found.ended:
            found.loop.turn()
        del found.counting
        assert lives() is None
    finally:
        gc.enable()


def test_events_do_not_wait_for_a_turn() -> None:
    found = Response([b"data: 1\n\n"], 1 << 30, False)
    found.bring()
    assert zlib.decompress(found.sent, 31) == b"data: 1\n\n"
