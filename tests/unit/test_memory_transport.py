"""Two protocols joined in memory behave as over sockets: order, pieces, backpressure, both kinds of end."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from kit.protocols import RecordingProtocol
from kit.waiting import WAIT_S

from edge.adapters.memory_transport import HIGH_BYTES, PIECE_BYTES, MemoryTransport, join


class End(RecordingProtocol):
    """One end of a pair; data that comes while it writes is a mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.transport: MemoryTransport = None  # type: ignore[assignment]
        self.busy = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert not self.busy, "re-entrant"
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()

    def write(self, data: bytes) -> None:
        """Whatever the other end does, it does later."""
        self.busy = True
        self.transport.write(data)
        self.busy = False


def pair() -> tuple[End, End]:
    a, b = End(), End()
    join(a, b)
    return a, b


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(["pause", "resume", "turn"])), max_size=30))
def test_every_byte_arrives_once_and_in_order(steps: list[bytes | str]) -> None:
    async def run() -> None:
        a, b = pair()
        for step in steps:
            if isinstance(step, bytes):
                a.write(step)
            elif step == "turn":
                await turns(1)
            elif step == "pause":
                b.transport.pause_reading()
            else:
                b.transport.resume_reading()
        b.transport.resume_reading()
        a.transport.close()
        await asyncio.wait_for(b.lost.wait(), WAIT_S)
        assert b.got == b"".join(step for step in steps if isinstance(step, bytes))
        assert b.notes == ["eof", "lost"] and a.notes == ["lost"]

    asyncio.run(run())


async def test_large_writes_come_in_pieces() -> None:
    a, b = pair()
    a.write(b"x" * (3 * PIECE_BYTES + 1))
    await turns()
    assert [len(piece) for piece in b.pieces] == [PIECE_BYTES] * 3 + [1]
    assert a.notes == ["pause", "resume"]


async def test_a_reader_that_pauses_holds_the_writer_back() -> None:
    a, b = pair()
    b.transport.pause_reading()
    a.write(b"x" * HIGH_BYTES)
    a.write(b"y")
    await turns()
    assert (b.got, a.notes, a.transport.get_write_buffer_size()) == (b"", ["pause"], HIGH_BYTES + 1)
    b.transport.resume_reading()
    await turns()
    assert (len(b.got), a.notes, a.transport.get_write_buffer_size()) == (HIGH_BYTES + 1, ["pause", "resume"], 0)


async def test_half_close_lets_the_other_end_answer() -> None:
    class Polite(End):
        def eof_received(self) -> bool:
            super().eof_received()
            self.transport.write(b"answer")
            return True

    a, b = End(), Polite()
    join(a, b)
    a.transport.write_eof()
    await turns()
    assert a.got == b"answer" and b.notes == ["eof"]


async def test_an_abort_drops_what_was_written_and_is_no_clean_end() -> None:
    a, b = pair()
    a.write(b"x")
    a.transport.abort()
    await asyncio.wait_for(b.lost.wait(), WAIT_S)
    assert (b.got, b.notes, a.notes) == (b"", ["lost"], ["lost"])
    a.write(b"y")
    await turns()
    assert b.got == b""
