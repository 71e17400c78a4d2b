"""A stored response as machines hand it to one another: the value of one key in the shared tier, and back.

    magic, format │ seal (BLAKE2b over all that follows, keyed by the fleet's secret) │ kind │ line │ position │
    writer's clock offset │ key, length first │ a record (`cache.record`), or the names in Vary

One rule: nothing from the server is believed. A value of another format, a cut one, one with a flipped bit anywhere,
one of another key, and one whose parts contradict each other is a miss with a word for why (`Garbled`); it never
raises and nothing of it is used. Without a secret anybody who may write to the server can make a seal that fits, so
what a response claims is checked as strictly as an origin's head.

Times are told by each machine's own clock. A value carries how far the writer's clock was from the server's, and is
read with the reader's own difference, so that clocks that are minutes apart do not change an age.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from math import isfinite

from edge.cache.record import Damaged, decode, encode
from edge.cache.stored import NO_CONTENT, Stored
from edge.http.field_line import TOKEN

MAGIC = b"EDF\x01"  # the last byte is the format
SEAL_BYTES = 16
LINE_BYTES = 16
_FIXED = struct.Struct(">B16sQdI")  # kind, line, position, offset, length of the key
_HEAD_BYTES = len(MAGIC) + SEAL_BYTES + _FIXED.size
_RESPONSE, _NAMES = 0, 1
MAX_NAMES = 32
_MAX_SECONDS = 10.0**11  # of any time or window: some three thousand years
_TOKEN = re.compile(TOKEN)
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\x00-\x08\x0a-\x1f\x7f]*\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [^\x00-\x08\x0a-\x1f\x7f]*\Z")


@dataclass(frozen=True, slots=True)
class Garbled:
    """A value that is not to be used, and why in a word or two."""

    why: str


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """What a value holds: a response, or the names in Vary by which the key's responses are told apart.

    `position` is that of the last purge in the fleet's stream which the writer had applied, in the stream's `line`;
    `offset_s` is the server's clock less the writer's.
    """

    key: bytes
    line: bytes
    position: int
    offset_s: float
    stored: Stored | None
    names: tuple[bytes, ...] = ()


class SharedFormat:
    """Values of one fleet; `key` is made of what its machines share and nobody else has (`key_of`), or nothing."""

    __slots__ = ("_secret",)

    def __init__(self, key: bytes = b"") -> None:
        self._secret = key

    def dumps(self, entry: SharedEntry) -> bytes:
        """The value of an entry, whose body is in memory."""
        stored = entry.stored
        payload = encode(stored, 0) if stored is not None else b",".join(entry.names)
        fixed = _FIXED.pack(
            _NAMES if stored is None else _RESPONSE, entry.line, entry.position, entry.offset_s, len(entry.key)
        )
        return MAGIC + sealed(b"".join((fixed, entry.key, payload)), self._secret)

    def loads(self, data: bytes | None) -> SharedEntry | Garbled | None:
        """The entry of a value, None where there is none; its response with the writer's times."""
        if data is None:
            return None
        if data[:4] != MAGIC:
            return Garbled("another format")
        if len(data) < _HEAD_BYTES:
            return Garbled("cut")
        if unsealed(data[len(MAGIC) :], self._secret) is None:
            return Garbled("the seal does not fit")
        kind, line, position, offset_s, key_length = _FIXED.unpack_from(data, 4 + SEAL_BYTES)
        key = data[_HEAD_BYTES : _HEAD_BYTES + key_length]
        payload = data[_HEAD_BYTES + key_length :]
        if len(key) != key_length or kind > _NAMES or not -_MAX_SECONDS < offset_s < _MAX_SECONDS:
            return Garbled("contradicts itself")
        if kind == _NAMES:
            names = tuple(payload.split(b","))
            if len(names) > MAX_NAMES or any(_TOKEN.fullmatch(name) is None for name in names):
                return Garbled("contradicts itself")
            return SharedEntry(key, line, position, offset_s, None, names)
        try:
            stored = decode(payload, key).stored
        except (Damaged, struct.error, ValueError, IndexError) as error:
            return Garbled(str(error) if isinstance(error, Damaged) else "contradicts itself")
        if not is_sound(stored):
            return Garbled("contradicts itself")
        return SharedEntry(key, line, position, offset_s, stored)


def line_of(history: str, run: str) -> bytes:
    """The name of a stream as one process of the server has it: what came after a failover may differ."""
    return blake2b(f"{history}\n{run}".encode(), digest_size=LINE_BYTES).digest() if history and run else b""


def sealed(data: bytes, key: bytes) -> bytes:
    """The data behind its seal."""
    return blake2b(data, digest_size=SEAL_BYTES, key=key).digest() + data


def unsealed(data: bytes, key: bytes) -> bytes | None:
    """What is behind a seal, where that fits."""
    seal, rest = data[:SEAL_BYTES], data[SEAL_BYTES:]
    return rest if compare_digest(blake2b(rest, digest_size=SEAL_BYTES, key=key).digest(), seal) else None


def key_of(secret: bytes) -> bytes:
    """A key for seals, of a secret of any length; nothing of nothing."""
    return blake2b(secret).digest() if secret else b""


def is_sound(stored: Stored) -> bool:
    """Whether a response from outside could have been stored here: its head is one, its times and flags agree."""
    times = (stored.received_at, stored.born, stored.fresh_until, stored.lifetime_s)
    windows = (stored.swr_s, stored.sie_s, stored.outage_s, stored.keep_s)
    if not all(isfinite(each) and abs(each) < _MAX_SECONDS for each in times):
        return False
    if not all(0.0 <= each < _MAX_SECONDS for each in windows):
        return False
    if stored.part is not None or stored.file is not None:
        return False
    if stored.simple and (stored.vary or stored.no_cache or stored.status != 200):
        return False
    if len(stored.vary) > MAX_NAMES or any(_TOKEN.fullmatch(name) is None for name, _ in stored.vary):
        return False
    return _is_head(stored.wire, stored.status, stored.length)


def _is_head(wire: bytes, status: int, length: int) -> bool:
    first, *lines = wire.split(b"\r\n")
    found = _STATUS_LINE.match(first)
    if found is None or int(found[1]) != status or not lines or lines.pop() != b"":
        return False
    announced = None
    for line in lines:
        if _LINE.match(line) is None:
            return False
        lowered = line[:19].lower()
        if lowered.startswith(b"content-length: "):
            if announced is not None:
                return False
            announced = line[16:]
        elif lowered.startswith((b"transfer-encoding: ", b"connection: ")):
            return False
    if status in NO_CONTENT:
        return length == 0 and announced is None
    return announced == b"%d" % length


def shifted(stored: Stored, by_s: float) -> Stored:
    """The response with its times told by another clock. It must not have been given to anybody yet."""
    if by_s:
        stored.received_at += by_s
        stored.born += by_s
        stored.fresh_until += by_s
    return stored


def left_s(stored: Stored, now: float) -> float:
    """How long it is of use to others: what is left of freshness and the windows of staleness."""
    return stored.fresh_until + max(stored.swr_s, stored.sie_s, stored.outage_s) - now
