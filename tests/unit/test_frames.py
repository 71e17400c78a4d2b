"""Frames: whole or not at all, whatever the pieces they come in; what is no frame ends the talk."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.frames import PART_BYTES, Decoder, Frame, FrameError, FrameKind, ack, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FRAMES = st.builds(
    Frame, st.sampled_from(FrameKind), st.dictionaries(st.text(max_size=8), VALUES, max_size=4), st.integers(0, 2**40)
)


@settings(max_examples=150)
@given(st.lists(FRAMES, min_size=1, max_size=5), st.lists(st.integers(1, 40), max_size=60))
def test_any_split_gives_the_same_frames(frames: list[Frame], pieces: list[int]) -> None:
    data = b"".join(map(encode, frames))
    decoder, found, at = Decoder(), [], 0
    for size in [*pieces, len(data)]:
        found += decoder.feed(data[at : at + size])
        at += size
    assert found == frames


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[1,2,3]",
        b'["view",0]',
        b'["view",0,{},1]',
        b'["nothing",0,{}]',
        b'["view","0",{}]',
        b'["view",0,[]]',
        b'["view",0,{}',
    ],
)
def test_what_is_no_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        Decoder().feed(len(payload).to_bytes(4, "big") + payload)


def test_a_frame_that_is_too_large_is_refused_before_it_is_buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FrameError):
        Decoder().feed((PART_BYTES + 1).to_bytes(4, "big"))
    monkeypatch.setattr("edge.frames.MAX_FRAME_BYTES", 2 * PART_BYTES)
    with pytest.raises(FrameError):
        encode(Frame(FrameKind.EVENT, {"text": "x" * (2 * PART_BYTES)}))
    part = (PART_BYTES | 1 << 31).to_bytes(4, "big") + b" " * PART_BYTES
    decoder = Decoder()
    assert decoder.feed(part) == decoder.feed(part) == []
    with pytest.raises(FrameError):
        decoder.feed(b"\x00\x00\x00\x01")


def test_a_large_frame_comes_in_parts() -> None:
    """A purge log of 8,192 URLs of 2 KB each, and more."""
    frame = Frame(FrameKind.CONFIG, {"purge_log": ["u" * 2048] * 9000, "text": "t"})
    data = encode(frame)
    assert len(data) > 4 * PART_BYTES
    decoder, found = Decoder(), []
    for at in range(0, len(data), 1_000_003):
        found += decoder.feed(data[at : at + 1_000_003])
    assert found == [frame]


def test_a_body_that_is_not_json_is_a_bug() -> None:
    with pytest.raises(TypeError):
        encode(Frame(FrameKind.EVENT, {"raw": b"bytes"}))


@pytest.mark.parametrize(
    ("answer", "error", "body"),
    [
        ({"count": 3}, None, {"ok": True, "answer": {"count": 3}}),
        (None, None, {"ok": True, "answer": {}}),
        (None, "no", {"ok": False, "answer": {}, "error": "no"}),
    ],
)
def test_an_answer_carries_its_question(answer: dict[str, Any] | None, error: str | None, body: dict[str, Any]) -> None:
    assert ack(Frame(FrameKind.PURGE, {}, 7), answer, error) == Frame(FrameKind.ACK, body, 7)
