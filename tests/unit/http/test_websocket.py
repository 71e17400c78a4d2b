"""Frames are followed however their bytes are cut, and the gateway's own word comes between two of them."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.http.websocket import CLOSE_TO_CLIENT, CLOSE_TO_SERVER, Frames


def frame(size: int, masked: bool) -> bytes:
    """A binary frame of zeros."""
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x82, mask | size))
    elif size < 65536:
        head = bytes((0x82, mask | 126)) + struct.pack("!H", size)
    else:
        head = bytes((0x82, mask | 127)) + struct.pack("!Q", size)
    return head + (b"mask" if masked else b"") + bytes(size)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 125, 126, 300, 65535, 65536, 70000]), min_size=1, max_size=5),
    masked=st.booleans(),
    cuts=st.lists(st.integers(0, 200_000), max_size=12),
)
def test_any_cut_gives_the_same_ends(sizes: list[int], masked: bool, cuts: list[int]) -> None:
    frames = [frame(size, masked) for size in sizes]
    ends = set()
    at = 0
    for each in frames:
        at += len(each)
        ends.add(at)
    data = b"".join(frames)
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    found = Frames()
    for start, end in pairwise(places):
        found.feed(data[start:end])
        assert found.between is (end in ends)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [1, 200, 70000])
def test_what_has_begun_is_let_out_and_no_more(size: int, masked: bool) -> None:
    one, two = frame(size, masked), frame(5, masked)
    for begun in range(1, min(len(one), 20)):
        found = Frames()
        found.feed(one[:begun])
        assert found.rest(one[begun:] + two) == len(one) - begun
        assert found.between
    found = Frames()
    found.feed(one[:1])
    assert found.rest(one[1:-1]) == len(one) - 2
    assert not found.between


@pytest.mark.parametrize("close", [CLOSE_TO_CLIENT, CLOSE_TO_SERVER])
def test_the_own_word_is_a_whole_frame(close: bytes) -> None:
    found = Frames()
    found.feed(close)
    assert found.between
