"""Requests from field blocks: HTTP/2's own rules, the one header block for HTTP/1.1's grammar, and the memory.

One rule: with the memory off, and whatever came before, the same blocks are the same requests.
"""

from __future__ import annotations

import random

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.http2_corpus import HEAD, LEFT_TO_THE_GRAMMAR, MALFORMED, Lines, without

from edge.http.grammar import Limits, request_block
from edge.http2.frames import ConnectionFault
from edge.http2.hpack import ListLimits, Table
from edge.http2.request_fields import RequestFields, request_fields, trailer_lines
from edge.http2.requests import RequestReader


def facts_of(extra: Lines, head: Lines = HEAD) -> RequestFields:
    return request_fields([*head, *extra])


def test_a_request_becomes_one_header_block() -> None:
    facts = facts_of([(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2"), (b"te", b"trailers")])
    assert facts.malformed == ""
    assert (facts.method, facts.scheme, facts.authority, facts.path) == (b"GET", b"https", b"a.test", b"/")
    assert facts.raw == b"host: a.test\r\naccept: */*\r\nte: trailers\r\ncookie: a=1; b=2\r\n"
    read = request_block(facts.raw, Limits())
    assert read.error is None
    assert read.host == b"a.test"
    assert read.quick


@pytest.mark.parametrize(("reason", "fields"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_malformed_requests(reason: str, fields: Lines) -> None:
    assert request_fields(fields).malformed == reason


@pytest.mark.parametrize(
    ("status", "fields"), [row[1:] for row in LEFT_TO_THE_GRAMMAR], ids=[r[0] for r in LEFT_TO_THE_GRAMMAR]
)
def test_the_rest_is_judged_by_one_grammar(status: int, fields: Lines) -> None:
    facts = request_fields(fields)
    assert facts.malformed == ""
    error = request_block(facts.raw, Limits()).error
    assert error is not None
    assert error.status == status


def test_host_may_stand_in_for_authority() -> None:
    facts = request_fields([*without(b":authority"), (b"x", b"1"), (b"host", b"A.test")])
    assert (facts.malformed, facts.raw) == ("", b"host: A.test\r\nx: 1\r\n")
    assert request_fields([*HEAD, (b"host", b"A.TEST")]).raw == b"host: a.test\r\n"


def test_trailers() -> None:
    assert trailer_lines([(b"x-sum", b"1")]) == [(b"x-sum", b"1")]
    for bad in ((b":path", b"/"), (b"X", b"1"), (b"x", b"1\r\n"), (b"connection", b"close"), (b"x", b" 1")):
        assert trailer_lines([(b"x-sum", b"1"), bad]) is None


# -- the memory --------------------------------------------------------------------------------------------------------


def same(one: RequestFields | None, other: RequestFields | None) -> bool:
    if one is None or other is None:
        return one is other
    names = ("malformed", "method", "scheme", "authority", "protocol", "length", "raw")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def compare(blocks: list[bytes], readers: list[RequestReader]) -> None:
    """The same blocks on connections of readers with a warm, a cold and no memory."""
    tables: list[Table] = [reader.first_table for reader in readers]
    for block in blocks:
        found: list[object] = []
        for number, reader in enumerate(readers):
            try:
                facts, path, tables[number] = reader.request(block, tables[number])
            except ConnectionFault as fault:
                found.append(fault.reason)
            else:
                found.append((facts, path))
        first = found[0]
        for other in found[1:]:
            if isinstance(first, str) or isinstance(other, str):
                assert first == other
                continue
            assert same(first[0], other[0])  # type: ignore[index]
            if first[0] is not None and not first[0].malformed:  # type: ignore[index]
                assert first[1] == other[1]  # type: ignore[index]
        if isinstance(first, str):
            return
        assert len({table.entries for table in tables}) == 1
        assert len({table.size for table in tables}) == 1


PATHS = st.sampled_from([b"/", b"/index.html", b"/a", b"/b?c=d", b"*", b"", b"x", b"/a b", b"/" + b"p" * 200, b"/#"])
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"CONNECT"]),
        PATHS,
        st.lists(
            st.sampled_from([(b"cookie", b"a=1"), (b"x-a", b"1"), (b"user-agent", b"Mozilla/5.0"), (b"te", b"x")]),
            max_size=3,
        ),
        st.sampled_from([0, 1, 2, 3]),
    ),
    max_size=6,
)


class PathLiteral(hpack.Encoder):  # type: ignore[misc]  # as browsers and nghttp2 do it: `:path` is never indexed
    def add(self, to_add, sensitive, huffman=False):  # type: ignore[no-untyped-def]
        return super().add(to_add, sensitive or (to_add[0] == b":path" and to_add[1] != b"/"), huffman)


def block_of(encoder: hpack.Encoder, method: bytes, path: bytes, extra: Lines, order: int) -> bytes:
    head = [(b":method", method), (b":scheme", b"https"), (b":authority", b"a.test")]
    head.insert(order, (b":path", path))
    return bytes(encoder.encode([*head, *extra]))


@given(REQUESTS, st.booleans())
def test_the_memory_cannot_be_seen(requests: list[tuple[bytes, bytes, Lines, int]], literal: bool) -> None:
    off, warm = RequestReader(ListLimits()), RequestReader(ListLimits())
    off.remembers = False
    for _ in range(3):
        encoder = PathLiteral() if literal else hpack.Encoder()
        compare([block_of(encoder, *request) for request in requests], [off, warm, RequestReader(ListLimits())])


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_the_memory_cannot_be_seen_with_any_bytes(blocks: list[bytes]) -> None:
    off, warm = RequestReader(ListLimits()), RequestReader(ListLimits())
    off.remembers = False
    for _ in range(3):
        compare(blocks, [off, warm])


@given(
    st.lists(
        st.sampled_from(
            [
                b"\x82",
                b"\x87",
                b"\x84",
                b"\x90",
                b"\x04\x02/a",
                b"\x14\x01x",
                b"\x41\x01a",
                b"\xbe",
                b"\x20",
                b"\x05\x02/b",
            ]
        ),
        max_size=7,
    )
)
def test_the_memory_cannot_be_seen_with_pieces(pieces: list[bytes]) -> None:
    off, warm = RequestReader(ListLimits()), RequestReader(ListLimits())
    off.remembers = False
    for _ in range(3):
        compare([b"".join(pieces)] * 2, [off, warm])


def test_a_path_that_was_cut_out_counts_and_is_proven() -> None:
    reader = RequestReader(ListLimits(size=400))
    encoder = PathLiteral()
    encoder.encode(HEAD)
    table = reader.request(hpack.Encoder().encode(HEAD), reader.first_table)[2]
    for _ in range(3):
        facts, path, after = reader.request(b"\x82\x87\xbe\x04\x02/a", table)
        assert facts is not None
        assert (facts.malformed, path, after) == ("", b"/a", table)
    facts, path, _ = reader.request(b"\x82\x87\xbe\x04\x03/ a", table)
    assert facts is not None
    assert facts.malformed == "path"
    facts, path, _ = reader.request(b"\x82\x87\xbe\x04\x7f\xf1\x01" + b"/" + b"p" * 367, table)
    assert facts is None  # over the limits
    facts, path, _ = reader.request(b"\x82\x87\xbe\x04\x02/a\x04\x02/b", table)
    assert facts is not None
    assert facts.malformed == "pseudo_field"


def test_repeated_requests_are_the_same_object() -> None:
    reader = RequestReader(ListLimits())
    found = []
    for connection in range(4):
        encoder, table = PathLiteral(), reader.first_table
        for number in range(3):
            block = bytes(
                encoder.encode([*without(b":path"), (b":path", b"/%d/%d" % (connection, number)), (b"x-a", b"1")])
            )
            facts, path, table = reader.request(block, table)
            assert path == b"/%d/%d" % (connection, number)
        found.append(facts)
    assert found[-1] is found[-2]


def test_the_memory_is_bounded() -> None:
    budget = 512 * 1024
    reader = RequestReader(ListLimits(), budget)
    chance = random.Random(7)
    for _ in range(600):
        block = bytes(hpack.Encoder().encode([*HEAD, (b"x-a", b"%d" % chance.randrange(300) * 50)]))
        for _ in range(2):
            reader.request(block, reader.first_table)
    assert reader._blocks.spent <= budget // 2
    assert 0 < len(reader._blocks) < 300


def test_whole_blocks_hold_no_facts_that_are_forgotten() -> None:
    """They are remembered besides the facts, which are what costs."""
    reader = RequestReader(ListLimits(), 64 * 1024)
    chance = random.Random(7)
    for _ in range(3000):
        encoder = PathLiteral()
        often = chance.randrange(chance.choice((3, 3, 3, 60)))
        lines = [*without(b":path"), (b":path", b"/%d" % chance.randrange(3)), (b"x-a", b"%d" % often)]
        reader.request(bytes(encoder.encode(lines)), reader.first_table)
    kept = {id(facts) for blocks in (reader._blocks._young, reader._blocks._old) for (facts, _), _ in blocks.values()}
    held = {id(found[0]) for blocks in (reader._whole._young, reader._whole._old) for found, _ in blocks.values()}
    assert held and reader._blocks.turns > 10
    assert len(held - kept) <= len(kept)  # those of one turn, until the next block is kept
