"""A stored response as bytes, for a tier outside this process's memory, and back.

    magic and format │ CRC-32 of all that follows │ fixed part: lengths, times, flags │ key │ wire │ … │ body

One rule: what is read back is what was written, or it is nothing. A record of another format, a cut one, one with a
flipped bit anywhere and one of another key all raise `Damaged`; nothing in them is used. All that decides whether it
may be served (times, the purge number) is inside the checksum, so that an index which points to a record need not be
trusted.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from edge.cache.body import NAME_BYTES, BodyFile
from edge.cache.checksum import crc32
from edge.cache.stored import Stored, charge, shared
from edge.cache.verdict import Source
from edge.http.ranges import ContentRange

MAGIC = b"EDR\x01"  # the last byte is the format
_SUMMED = 8  # where what the checksum covers begins
# body, key, wire, etag, language, choices, tags, file: lengths (-1: none); status, source, flags; purge number;
# received_at, born, lifetime, fresh_until, four windows; the part's first, last and complete length (-1: unknown)
_FIXED = struct.Struct(">4sI II IiiIII HBB Q 8d 3q")
_HEAD_BYTES = _FIXED.size
_AFTER_SUM = struct.Struct(">II IiiIII HBB Q 8d 3q")  # the fixed part without what stands before `_SUMMED`
_KEY_LENGTH_AT = 12
_BODY_LENGTH, _FILE_LENGTH, _FLAGS, _NUMBER = 2, 9, 12, 13  # which of the fixed part's fields
_MUST_REVALIDATE, _NO_CACHE, _SIMPLE, _PART = 1, 2, 4, 8
_SOURCES = tuple(Source)
_NUMBERS = {source: number for number, source in enumerate(_SOURCES)}
_LENGTH = struct.Struct(">i")


class Damaged(Exception):
    """The bytes are not a whole record of this format, or not the record that was asked for."""


class Kept(NamedTuple):
    """A decoded record. `number` is the journal's number of the last purge when the response was fetched."""

    stored: Stored
    number: int


class Outline(NamedTuple):
    """A record that was read whole, without its body: what later reads of the body are checked against."""

    stored: Stored  # without its body
    number: int
    at: int  # where the body begins in the record
    length: int  # of the body
    before: int  # CRC-32 of what stands before the body
    whole: int  # the record's own

    def with_body(self, body: bytes) -> Stored:
        """The stored response with this body. Raises Damaged where the body does not fit."""
        if len(body) != self.length or crc32(body, self.before) != self.whole:
            raise Damaged("checksum does not fit")
        return self.stored.with_chunks((body,) if body else ())


def outlined(kept: Kept, record: bytes) -> Outline:
    """The outline of a record, given its bytes and what `decode` returned for it."""
    stored = kept.stored
    length = stored.length if stored.file is None else 0
    at = len(record) - length
    before = crc32(memoryview(record)[_SUMMED:at])
    return Outline(stored.with_chunks(()), kept.number, at, length, before, int.from_bytes(record[4:8], "big"))


def encode(stored: Stored, number: int, file: BodyFile | None = None) -> bytes:
    """A record; with `file` (the response's own, or one that was just written from its chunks) without the body."""
    file = file or stored.file
    head = head_of(stored, number, file)
    return head if file is not None else b"".join((head, *stored.chunks))


def head_of(stored: Stored, number: int, file: BodyFile | None = None) -> bytes:
    """What `encode` returns, without the chunks of the body that follow where it is in no file."""
    part, etag, language = stored.part, stored.etag, stored.language
    choices = _packed([each for pair in stored.vary for each in pair]) if stored.vary else b""
    tags = _packed(sorted(stored.tags)) if stored.tags else b""
    named = b"" if file is None else file.name + file.length.to_bytes(8, "big") + file.sums
    flags = (
        (_MUST_REVALIDATE if stored.must_revalidate else 0)
        | (_NO_CACHE if stored.no_cache else 0)
        | (_SIMPLE if stored.simple else 0)
        | (_PART if part is not None else 0)
    )
    first, last, complete = (-1, -1, None) if part is None else (part.first, part.last, part.complete)
    # fmt: off
    fixed = _AFTER_SUM.pack(
        0 if file is not None else stored.length, len(stored.key), len(stored.wire),
        -1 if etag is None else len(etag), -1 if language is None else len(language),
        len(choices), len(tags), len(named), stored.status, _NUMBERS[stored.source], flags, number,
        stored.received_at, stored.born, stored.lifetime_s, stored.fresh_until,
        stored.swr_s, stored.sie_s, stored.outage_s, stored.keep_s,
        first, last, -1 if complete is None else complete,
    )
    # fmt: on
    rest = b"".join((fixed, stored.key, stored.wire, etag or b"", language or b"", choices, tags, named))
    summed = crc32(rest)
    for chunk in stored.chunks if file is None else ():
        summed = crc32(chunk, summed)
    return MAGIC + summed.to_bytes(4, "big") + rest


def decode(data: bytes, key: bytes | None = None) -> Kept:
    """Decode a record. Raises Damaged, also where it is whole but of another key than `key`."""
    if len(data) < _HEAD_BYTES or data[:4] != MAGIC:
        raise Damaged("no record of this format")
    if crc32(memoryview(data)[_SUMMED:]) != int.from_bytes(data[4:8], "big"):
        raise Damaged("checksum does not fit")
    # fmt: off
    (_, _, body_length, key_length, wire_length, etag_length, language_length, choices_length, tags_length, file_length,
     status, source, flags, number, received_at, born, lifetime_s, fresh_until, swr_s, sie_s, outage_s, keep_s,
     first, last, complete) = _FIXED.unpack_from(data)
    # fmt: on
    at = _HEAD_BYTES
    made = Stored.__new__(Stored)
    made.key = data[at : at + key_length]
    if key is not None and made.key != key:
        raise Damaged("another key's record")
    at += key_length
    made.wire = data[at : at + wire_length]
    at += wire_length
    made.etag = made.language = None
    if etag_length >= 0:
        made.etag = data[at : at + etag_length]
        at += etag_length
    if language_length >= 0:
        made.language = data[at : at + language_length]
        at += language_length
    made.vary, made.tags = (), _NO_TAGS
    if choices_length:
        flat = _unpacked(data[at : at + choices_length])
        made.vary = shared(tuple((name or b"", value) for name, value in zip(flat[::2], flat[1::2], strict=True)))
    at += choices_length
    if tags_length:
        made.tags = frozenset(tag or b"" for tag in _unpacked(data[at : at + tags_length]))
    at += tags_length
    made.file = _file(data[at : at + file_length]) if file_length else None
    at += file_length
    if at + body_length != len(data):
        raise Damaged("lengths do not add up")
    made.chunks = (data[at:],) if body_length else ()
    made.length = body_length if made.file is None else made.file.length
    made.status, made.source = status, _SOURCES[source]
    made.received_at, made.born, made.fresh_until = received_at, born, fresh_until
    made.lifetime_s, made.swr_s, made.sie_s = _same(lifetime_s), _same(swr_s), _same(sie_s)
    made.outage_s, made.keep_s = _same(outage_s), _same(keep_s)
    made.must_revalidate, made.no_cache = bool(flags & _MUST_REVALIDATE), bool(flags & _NO_CACHE)
    made.simple = bool(flags & _SIMPLE) and made.file is None
    made.part = ContentRange(first, last, None if complete < 0 else complete) if flags & _PART else None
    made.size_bytes = charge(made)
    return Kept(made, number)


def holding(record: bytes, body: bytes) -> bytes:
    """A record whose body is in a file, as a record with the body in it. It must be whole."""
    fixed = list(_FIXED.unpack_from(record))
    end = len(record) - fixed[_FILE_LENGTH]
    fixed[_BODY_LENGTH], fixed[_FILE_LENGTH] = len(body), 0
    rest = b"".join((_FIXED.pack(*fixed)[_SUMMED:], record[_HEAD_BYTES:end], body))
    return MAGIC + crc32(rest).to_bytes(4, "big") + rest


def distrusted(record: bytes, number: int, distrust: bool) -> bytes:
    """The record with a purge number of at most `number`; with `distrust`, to be validated before each use."""
    fixed = list(_FIXED.unpack_from(record))
    flags = (fixed[_FLAGS] | _NO_CACHE) & ~_SIMPLE if distrust else fixed[_FLAGS]
    if fixed[_NUMBER] <= number and flags == fixed[_FLAGS]:
        return record
    fixed[_FLAGS], fixed[_NUMBER] = flags, min(fixed[_NUMBER], number)
    rest = _FIXED.pack(*fixed)[_SUMMED:] + record[_HEAD_BYTES:]
    return MAGIC + crc32(rest).to_bytes(4, "big") + rest


def key_at(data: bytes, at: int) -> bytes:
    """The key of the record that begins there. It is not verified: good enough to ask whether the key is in use."""
    length = int.from_bytes(data[at + _KEY_LENGTH_AT : at + _KEY_LENGTH_AT + 4], "big")
    return data[at + _HEAD_BYTES : at + _HEAD_BYTES + length]


def _file(data: bytes) -> BodyFile:
    return BodyFile(data[:NAME_BYTES], int.from_bytes(data[NAME_BYTES : NAME_BYTES + 8], "big"), data[NAME_BYTES + 8 :])


def _packed(values: list[bytes | None] | list[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(-1) if value is None else _LENGTH.pack(len(value)) + value for value in values)


def _unpacked(data: bytes) -> list[bytes | None]:
    found: list[bytes | None] = []
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        found.append(None if length < 0 else data[at : at + length])
        at += max(0, length)
    return found


_NO_TAGS: frozenset[bytes] = frozenset()


@lru_cache(maxsize=1024)
def _same(seconds: float) -> float:
    """One object for equal windows: they come from few rules, and the memory tier counts on their being shared."""
    return seconds
