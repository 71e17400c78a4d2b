"""The memo of heads: it cannot be seen from outside, it is bounded in bytes, and what comes once costs it nothing."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.http.grammar import Limits, request_block, response_head
from edge.http.memo import Memo, cost_of

BLOCKS = 150  # so many of the largest fit into one generation
LIMITS = Limits()
RESPONSE_LIMITS = Limits(64 * 1024, 200, 64 * 1024)


def measured(block: bytes, memo: Memo[object]) -> int:
    """Bytes that one kept block takes, its facts with every index made; `#` is another number in each."""
    blocks = [block.replace(b"#", b"%03d" % number) + b"X-N: %03d\r\n\r\n" % number for number in range(BLOCKS)]
    if not block.startswith(b"HTTP"):
        blocks = [each[:-2] for each in blocks]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for each in (one for one in blocks for _ in range(2)):
        copy = bytes(bytearray(each))
        found = memo.get(copy) or memo.slow(copy)
        found.fields.names()  # type: ignore[attr-defined]  # both kinds of facts have them
    spent = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(memo._young) == BLOCKS
    return spent // BLOCKS


SHAPES = {
    "one line": b"Host: a.example\r\n",
    "a browser": b"Host: a.example\r\n" + b"".join(b"X-Field-%d: %b#\r\n" % (n, b"v" * 40) for n in range(12)),
    "many tiny lines": b"Host: a\r\n" + b"".join(b"%c%c:#\r\n" % (97 + n % 26, 97 + n // 26) for n in range(90)),
    "one name many times": b"Host: a\r\n" + b"a:#\r\n" * 90,
    "one long line": b"Host: a\r\nX-Long: #" + b"v" * 6000 + b"\r\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_block_takes_is_not_more_than_what_is_counted(shape: str) -> None:
    requests: Memo[object] = Memo(lambda raw: request_block(raw, LIMITS))
    assert measured(SHAPES[shape], requests) <= 1.1 * cost_of(SHAPES[shape])
    head = b"HTTP/1.1 200 OK\r\n" + SHAPES[shape]
    responses: Memo[object] = Memo(lambda raw: response_head(raw, RESPONSE_LIMITS))
    assert measured(head, responses) <= 1.1 * cost_of(head)


@given(st.lists(st.binary(max_size=30), max_size=40), st.sampled_from((2000, 4000, 100_000)), st.sampled_from((-1, 10)))
@settings(max_examples=100)
def test_it_cannot_be_seen_and_is_bounded(blocks: list[bytes], budget: int, longest: int) -> None:
    memo = Memo(bytes.upper, budget, longest)
    for block in blocks * 3:
        assert (memo.get(block) or memo.slow(block)) == block.upper()
        assert sum(map(cost_of, memo._young)) <= budget // 2
        assert sum(map(cost_of, memo._old)) <= budget // 2
        assert all(len(kept) <= longest for kept in (*memo._young, *memo._old))


def test_what_comes_once_is_not_kept_and_pushes_nothing_out() -> None:
    asked: list[bytes] = []
    memo = Memo(lambda block: asked.append(block) or block, 3000)
    for _ in range(3):
        memo.get(b"again") or memo.slow(b"again")
    for number in range(50_000):
        memo.slow(b"once %d" % number)
    assert memo.get(b"again") == b"again"
    assert asked.count(b"again") == 2
    assert len(memo._young) == 1
