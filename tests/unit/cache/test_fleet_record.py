"""Values of the shared tier: what is read back is what was written, or it is a miss with a word for why."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from kit.slots import names_of
from kit.tier import response as stored_of

from edge.cache.fleet.record import Garbled, SharedEntry, SharedFormat, is_sound, key_of, left_s, sealed, shifted
from edge.cache.stored import Stored

KEY = b"http://example.com/a"
FORM = SharedFormat()


def response(body: bytes = b"hello", **changes: Any) -> Stored:
    made = stored_of(KEY, body)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def entry(stored: Stored | None = None, **changes: Any) -> SharedEntry:
    return replace(
        SharedEntry(KEY, b"0123456789abcdef", 7, 1.5, stored if stored is not None else response()), **changes
    )


def test_an_entry_comes_back_as_it_was() -> None:
    found = FORM.loads(FORM.dumps(entry()))
    assert isinstance(found, SharedEntry) and found.stored is not None
    assert (found.key, found.line, found.position, found.offset_s) == (KEY, b"0123456789abcdef", 7, 1.5)
    before = response()
    for name in names_of(Stored):
        assert getattr(found.stored, name) == getattr(before, name), name
    names = SharedEntry(KEY, b"0123456789abcdef", 7, 0.0, None, (b"accept", b"accept-language"))
    assert FORM.loads(FORM.dumps(names)) == names


def test_nothing_is_nothing() -> None:
    assert FORM.loads(None) is None


def test_every_bit_flip_is_a_miss() -> None:
    value = FORM.dumps(entry())
    for at in range(len(value)):
        for bit in range(8):
            flipped = bytearray(value)
            flipped[at] ^= 1 << bit
            assert isinstance(FORM.loads(bytes(flipped)), Garbled), (at, bit)


def test_every_cut_and_any_noise_is_a_miss() -> None:
    value, random = FORM.dumps(entry()), Random(1)
    for length in range(len(value)):
        assert isinstance(FORM.loads(value[:length]), Garbled)
    assert isinstance(FORM.loads(value + b"x"), Garbled)
    for _ in range(500):
        noise = random.randbytes(random.randint(0, 300))
        assert isinstance(FORM.loads(noise), Garbled)
        assert isinstance(FORM.loads(b"EDF\x01" + noise), Garbled)
        assert isinstance(FORM.loads(b"EDF\x01" + sealed(noise, b"")), Garbled), "sealed by somebody"


def test_another_version_and_another_secret_are_misses() -> None:
    value = FORM.dumps(entry())
    assert FORM.loads(b"EDF\x02" + value[4:]) == Garbled("another format")
    ours = SharedFormat(key_of(b"a secret of the fleet"))
    assert FORM.loads(ours.dumps(entry())) == Garbled("the seal does not fit")
    assert ours.loads(value) == Garbled("the seal does not fit")
    assert isinstance(ours.loads(ours.dumps(entry())), SharedEntry)


HOSTILE = {
    "smuggled line": {"wire": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\rSet-Cookie: b\r\n"},
    "bare line feed": {"wire": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\nSet-Cookie: b\r\n"},
    "two heads": {"wire": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
    "longer than its body": {"wire": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n"},
    "two lengths": {"wire": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n"},
    "no length": {"wire": b"HTTP/1.1 200 OK\r\n"},
    "chunked": {"wire": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"},
    "another status": {"wire": b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n"},
    "no status": {"status": 100, "wire": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n"},
    "no name": {"wire": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n: x\r\n"},
    "fresh for ever": {"fresh_until": math.inf},
    "no time": {"born": math.nan},
    "a window without end": {"swr_s": math.inf},
    "a window backwards": {"sie_s": -1.0},
    "for anybody, but varies": {"vary": ((b"accept", b"a"),), "simple": True},
    "for anybody, but validated": {"no_cache": True, "simple": True},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_what_contradicts_itself_is_a_miss_whoever_sealed_it(changes: dict[str, Any]) -> None:
    assert is_sound(response())
    assert FORM.loads(FORM.dumps(entry(response(**changes)))) == Garbled("contradicts itself")


def test_times_are_told_by_the_readers_clock() -> None:
    stored = response()
    fresh, received, born = stored.fresh_until, stored.received_at, stored.born
    moved = shifted(stored, -120.0)
    assert (moved.fresh_until, moved.received_at, moved.born) == (fresh - 120, received - 120, born - 120)


def test_what_is_left_counts_the_longest_window() -> None:
    stored = response(swr_s=10.0, sie_s=30.0, outage_s=0.0, keep_s=3600.0)
    assert left_s(stored, stored.fresh_until) == 30.0
    assert left_s(stored, stored.fresh_until + 31) < 0
