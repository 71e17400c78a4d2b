"""Header compression against the `hpack` package and RFC 7541: what it writes we read, what we write it reads.

One rule: on any bytes, either both sides read the same fields and have the same table, or ours ends the connection.
"""

from __future__ import annotations

import random

import hpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kit.http2_corpus import HPACK_FAULTS

from edge.http2 import huffman
from edge.http2.frames import Code, ConnectionFault
from edge.http2.hpack import ListLimits, Table, empty_table, read
from edge.http2.response_fields import HeadCoder, field, integer, status, string

LIMITS = ListLimits()
WIDE = ListLimits(fields=100_000, size=1 << 30)
NAMES = st.sampled_from([b":path", b":method", b"cookie", b"accept", b"x-a", b"x-long-name-of-a-field", b"age"])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=60)), max_size=12)


def fields_of(block: bytes, table: Table | None = None, limits: ListLimits = WIDE) -> list[tuple[bytes, bytes]] | None:
    return read(block, table or empty_table(4096), limits).fields


def test_huffman_code_is_that_of_the_rfc() -> None:
    # RFC 7541 C.4.1, C.4.2, C.4.3, C.6.1
    assert huffman.encode(b"www.example.com").hex() == "f1e3c2e5f23a6ba0ab90f4ff"
    assert huffman.encode(b"no-cache").hex() == "a8eb10649cbf"
    assert huffman.encode(b"custom-key").hex() == "25a849e95ba97d7f"
    assert (
        huffman.decode(bytes.fromhex("d07abe941054d444a8200595040b8166e082a62d1bff"))
        == b"Mon, 21 Oct 2013 20:13:21 GMT"
    )


@given(st.binary(max_size=300))
def test_huffman_reads_what_it_wrote(data: bytes) -> None:
    assert huffman.decode(huffman.encode(data)) == data


@given(st.binary(max_size=40))
@example(b"\xff" * 4)
@example(b"\xff\xff\xff\xfc")
@example(b"")
def test_huffman_takes_what_the_referee_takes(data: bytes) -> None:
    try:
        wanted: bytes | None = hpack.huffman_table.decode_huffman(data)
    except hpack.HPACKDecodingError:
        wanted = None
    try:
        found: bytes | None = huffman.decode(data)
    except ValueError:
        found = None
    assert found == wanted


@given(st.lists(FIELDS, max_size=8), st.booleans())
def test_reads_what_the_referee_writes(lists: list[list[tuple[bytes, bytes]]], short: bool) -> None:
    encoder, table = hpack.Encoder(), empty_table(4096)
    for fields in lists:
        listed = read(encoder.encode(fields, huffman=short), table, WIDE)
        assert listed.fields == fields
        table = listed.table
        theirs = [tuple(map(bytes, entry)) for entry in encoder.header_table.dynamic_entries]
        assert list(table.entries) == theirs


@given(st.lists(FIELDS, min_size=1, max_size=6), st.lists(st.integers(0, 4096), min_size=6, max_size=6))
def test_table_sizes_that_change(lists: list[list[tuple[bytes, bytes]]], sizes: list[int]) -> None:
    encoder, table = hpack.Encoder(), empty_table(4096)
    for fields, size in zip(lists, sizes, strict=False):
        encoder.header_table_size = size
        listed = read(encoder.encode(fields), table, WIDE)
        assert listed.fields == fields
        table = listed.table
        assert table.size == sum(len(n) + len(v) + 32 for n, v in table.entries) <= table.limit == size


@settings(max_examples=400)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_as_the_referee_reads_them(block: bytes) -> None:
    decoder = hpack.Decoder()
    try:
        wanted: list[tuple[bytes, bytes]] | None = [
            (bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)
        ]
    except Exception:  # whatever it raises on what it does not take
        wanted = None
    try:
        listed = read(block, empty_table(4096), WIDE)
    except ConnectionFault:
        return  # more is refused than by the referee, as the table of faults has it
    assert listed.fields == wanted
    assert list(listed.table.entries) == [tuple(map(bytes, e)) for e in decoder.header_table.dynamic_entries]


def test_blocks_cut_anywhere_never_read_as_something_else() -> None:
    encoder = hpack.Encoder()
    block = encoder.encode(
        [(b":method", b"GET"), (b"x-name", b"a value"), (b":path", b"/some/where"), (b"te", b"trailers")]
    )
    whole = fields_of(block)
    assert whole is not None
    for cut in range(len(block)):
        try:
            found = fields_of(block[:cut])
        except ConnectionFault:
            continue
        assert found == whole[: len(found or [])]


RFC_BLOCKS = [
    ("c2_1", "400a637573746f6d2d6b65790d637573746f6d2d686561646572", [(b"custom-key", b"custom-header")], 55),
    ("c2_2", "040c2f73616d706c652f70617468", [(b":path", b"/sample/path")], 0),
    ("c2_3", "100870617373776f726406736563726574", [(b"password", b"secret")], 0),
    ("c2_4", "82", [(b":method", b"GET")], 0),
]


@pytest.mark.parametrize(
    ("block", "fields", "size"), [row[1:] for row in RFC_BLOCKS], ids=[row[0] for row in RFC_BLOCKS]
)
def test_examples_of_the_rfc(block: str, fields: list[tuple[bytes, bytes]], size: int) -> None:
    listed = read(bytes.fromhex(block), empty_table(4096), LIMITS)
    assert (listed.fields, listed.table.size) == (fields, size)


def test_requests_with_huffman_of_the_rfc() -> None:
    table = empty_table(4096)
    for block, entries, size in (
        ("828684418cf1e3c2e5f23a6ba0ab90f4ff", 1, 57),
        ("828684be5886a8eb10649cbf", 2, 110),
        ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", 3, 164),
    ):
        table = read(bytes.fromhex(block), table, LIMITS).table
        assert (len(table.entries), table.size) == (entries, size)


def test_responses_with_eviction_of_the_rfc() -> None:
    table = empty_table(256)
    limits = ListLimits(table=256)
    for block, size in (
        (
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            222,
        ),
        ("4883640effc1c0bf", 222),
        (
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af270"
            "87f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            215,
        ),
    ):
        table = read(bytes.fromhex(block), table, limits).table
        assert table.size == size


@pytest.mark.parametrize("block", [row[1] for row in HPACK_FAULTS], ids=[row[0] for row in HPACK_FAULTS])
def test_faults_end_the_connection(block: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        read(bytes.fromhex(block), empty_table(4096), LIMITS)
    assert caught.value.code is Code.COMPRESSION_ERROR


def test_a_list_over_the_limits_is_dropped_and_its_table_kept() -> None:
    encoder = hpack.Encoder()
    many = [(b"x-%d" % number, b"v") for number in range(LIMITS.fields + 6)]
    listed = read(encoder.encode(many), empty_table(4096), LIMITS)
    assert listed.fields is None
    after = read(encoder.encode([(b"x-100", b"v"), (b"x-new", b"1")]), listed.table, LIMITS)
    assert after.fields == [(b"x-100", b"v"), (b"x-new", b"1")]
    large = read(encoder.encode([(b"y-%d" % number, b"v" * 3000) for number in range(11)]), after.table, LIMITS)
    assert large.fields is None
    assert read(encoder.encode([(b"x-new", b"1")]), large.table, LIMITS).fields == [(b"x-new", b"1")]


@pytest.mark.parametrize("references", [True, False], ids=["of a large entry", "of small ones"])
def test_a_block_that_grows_far_over_the_limits_ends_the_connection(references: bool) -> None:
    table = read(field_indexed(b"x", b"v" * 3900), empty_table(4096), LIMITS).table
    block = (b"\xbe" if references else b"\x82") * 30_000
    with pytest.raises(ConnectionFault) as caught:
        read(block, table, LIMITS)
    assert caught.value.code is Code.ENHANCE_YOUR_CALM


def field_indexed(name: bytes, value: bytes) -> bytes:
    return b"\x40" + string(name) + string(value)


def test_crumbs_count_before_they_are_joined() -> None:
    crumbs = [(b"cookie", b"a=%d" % number) for number in range(LIMITS.fields + 6)]
    assert fields_of(hpack.Encoder().encode(crumbs), limits=LIMITS) is None


@given(st.integers(0, 1 << 27), st.integers(1, 8))
def test_integers(value: int, bits: int) -> None:
    assert hpack.hpack.decode_integer(integer(value, bits), bits)[0] == value


@given(FIELDS, st.booleans())
def test_the_referee_reads_what_we_write(fields: list[tuple[bytes, bytes]], short: bool) -> None:
    block = b"".join([field(name, value, short) for name, value in fields])
    decoder = hpack.Decoder()
    assert [(bytes(n), bytes(v)) for n, v in decoder.decode(block, raw=True)] == fields
    assert not decoder.header_table.dynamic_entries


@given(st.integers(100, 999))
def test_any_status(code: int) -> None:
    assert hpack.Decoder().decode(status(b"%d" % code)) == [(":status", str(code))]


def test_heads_are_coded_alike_whether_remembered_or_not() -> None:
    wire = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-Long: %b\r\nEmpty:\r\nETag: "a:b"\r\n' % (b"v" * 2000)
    coder = HeadCoder()
    first = coder.head(wire)
    assert {coder.head(wire) for _ in range(4)} == {first}
    found = [(n, v) for n, v in hpack.Decoder().decode(first)]
    assert found == [
        (":status", "200"),
        ("content-type", "text/html"),
        ("x-long", "v" * 2000),
        ("empty", ""),
        ("etag", '"a:b"'),
    ]


def test_lines_that_are_remembered_are_bounded() -> None:
    coder = HeadCoder(64 * 1024)
    for number in range(3000):
        for _ in range(2):
            coder.lines(b"X-%d: %d\r\n" % (number, random.randrange(10)))
    assert len(coder._lines) * 250 <= 64 * 1024 + 1000


def test_the_head_of_a_hit_is_that_of_its_second() -> None:
    coder, wire = HeadCoder(), b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    for age, ttl in [(0, 60), (0, 60), (1, 59), (1, 58), (1, 58), (0, 60)] * 2:
        found = hpack.Decoder().decode(coder.hit(wire, age, ttl))
        assert found[:2] == [(":status", "200"), ("content-type", "text/html")]
        assert found[2:] == [("age", str(age)), ("cache-status", f"edge; hit; ttl={ttl}")]
    assert coder.head(wire) == HeadCoder().head(wire)
