"""Records: what is read back is what was written, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.slots import names_of
from kit.tier import response

from edge.cache.body import PIECE_BYTES, BodyFile, sums_of
from edge.cache.record import Damaged, decode, encode, key_at
from edge.cache.stored import Stored, shared
from edge.http.ranges import ContentRange

VARY = shared(((b"accept-encoding", b"gzip"), (b"accept-language", None)))  # charged as what others share


def same(one: Stored, two: Stored) -> bool:
    return all(getattr(one, name) == getattr(two, name) for name in names_of(Stored) if name != "size_bytes")


@given(
    st.binary(min_size=1, max_size=80),
    st.binary(max_size=3000),
    st.sampled_from([(), VARY]),
    st.frozensets(st.binary(min_size=1, max_size=9), max_size=3),
    st.integers(0, 2**40),
)
def test_what_is_written_is_read_back(
    key: bytes, body: bytes, vary: object, tags: frozenset[bytes], number: int
) -> None:
    stored = response(key, body, vary=vary, tags=tags)  # type: ignore[arg-type]
    kept = decode(encode(stored, number), key)
    assert kept.number == number
    assert same(kept.stored, stored)
    assert kept.stored.size_bytes == stored.size_bytes
    assert key_at(b"before" + encode(stored, number), 6) == key


def test_a_part_and_a_file_are_read_back() -> None:
    part = response(b"http://a/", b"x" * 10, part=ContentRange(5, 14, None))
    assert same(decode(encode(part, 1)).stored, part)
    body = b"y" * (PIECE_BYTES + 7)
    whole = response(b"http://a/", body)
    file = BodyFile(b"n" * 32, len(body), sums_of(body))
    found = decode(encode(whole, 1, file)).stored
    assert (found.file, found.length, found.chunks, found.simple) == (file, len(body), (), False)
    assert decode(encode(found, 2)).stored.file == file
    assert file.checks(0, body[:PIECE_BYTES]) and file.checks(1, body[PIECE_BYTES:])
    assert not file.checks(1, body[PIECE_BYTES:-1]) and not file.checks(0, b"z" + body[1:PIECE_BYTES])


def test_every_flipped_bit_and_every_cut_is_told() -> None:
    record = encode(response(b"http://a/b", b"body" * 20, vary=VARY, tags=frozenset((b"t",))), 7)
    for at in range(len(record)):
        for bit in range(8):
            damaged = record[:at] + bytes([record[at] ^ 1 << bit]) + record[at + 1 :]
            with pytest.raises(Damaged):
                decode(damaged, b"http://a/b")
        with pytest.raises(Damaged):
            decode(record[:at], b"http://a/b")
    with pytest.raises(Damaged):
        decode(record + b"\0", b"http://a/b")


def test_another_keys_record_is_none(tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        decode(encode(response(b"http://a/b"), 1), b"http://a/c")
