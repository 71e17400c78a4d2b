"""Which keys the disk tier's index cannot have: one bit for each hash, in memory that all workers of a run share.

    put ─► bit, then the row             look-up ─► bit not set: the index is not asked

Most look-ups of a cache that is being filled find nothing, and SQLite reads pages anew after each commit of another
connection: asking it costs the loop several times what a bit does.

One rule: whoever adds a row sets its bit before, inside the turn. So a bit that is not set means that there is no row.
Bits of rows that went stay until they are many: then the other half of the memory is filled from the index, and used
from there on. Until the first filling is done every key may be there.

Only workers of the same run set bits. What a gateway stores that drains beside its successor is found after the
successor's next filling; until then it is a miss like any other.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from mmap import mmap
from threading import Thread
from time import sleep

from edge.adapters.disk_index import connect
from edge.adapters.disk_place import TURN, Place, held
from edge.adapters.disk_start import alive

BYTES_PER_OBJECT = 2048  # of the budget; 8 bits for each
MIN_BYTES, MAX_BYTES = 64 * 1024, 32 * 1024 * 1024  # of a half
_HEAD = 64
_HALF = 0  # which half is used: 1 or 2; 0: none yet
_FILLER, _SET, _ENOUGH = slice(8, 16), slice(16, 24), slice(24, 32)  # who fills; bits set, and how many are too many
_STEP = 512  # rows, and a rest
_CLEARED = 256 * 1024
_REST_S = 0.002
_ROWS = "SELECT hash FROM objects WHERE hash > ? ORDER BY hash LIMIT ?"

Share = Callable[[str, int], mmap | None]  # memory of a name that all workers of this run share


class Filter:
    """One worker's view. `may_have` can be called from any thread, `add` from the writer's, the rest on the loop."""

    __slots__ = ("_bits", "_closing", "_first", "_half", "_mask", "_place", "_second", "_thread")

    def __init__(self, place: Place, memory: mmap | bytearray) -> None:
        self._place = place
        self._bits = memory
        self._half = (len(memory) - _HEAD) // 2
        self._mask = self._half - 1
        self._first, self._second = _HEAD, _HEAD + self._half
        self._thread: Thread | None = None
        self._closing = False

    @classmethod
    def of(cls, place: Place, size: int, share: Share) -> Filter | None:
        """The filter for a tier of `size` bytes; None where no memory can be shared."""
        memory = share(f"disk {place.path} {place.salt.hex()} {size}", filter_bytes(size))
        return None if memory is None else cls(place, memory)

    def may_have(self, hashed: int) -> bool:
        """False means that the index has no row with this hash."""
        bits = self._bits
        half = bits[_HALF]
        if not half:
            return True
        at = (self._first if half == 1 else self._second) + (hashed >> 3 & self._mask)
        return bool(bits[at] >> (hashed & 7) & 1)

    def add(self, hashes: Sequence[int]) -> None:
        """Set the bits of rows that are about to be added; inside the turn."""
        bits, mask = self._bits, self._mask
        filling = self._get(_FILLER)  # before `_HALF`, which whoever fills sets first when it is done
        half = bits[_HALF]
        starts = (self._first, self._second) if filling or not half else (self._start(half),)
        for start in starts:
            for hashed in hashes:
                bits[start + (hashed >> 3 & mask)] |= 1 << (hashed & 7)
        self._put(_SET, self._get(_SET) + len(hashes))

    def _start(self, half: int) -> int:
        return self._first if half == 1 else self._second

    def _get(self, field: slice) -> int:
        return int.from_bytes(self._bits[field], "big")

    def _put(self, field: slice, value: int) -> None:
        self._bits[field] = value.to_bytes(8, "big")

    # -- filling -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Start a refill in a thread when one is due and no other worker does it. Call it periodically."""
        if self._bits[_HALF] and self._get(_SET) < self._get(_ENOUGH):
            return
        if self._thread is not None and self._thread.is_alive():
            return
        if not alive(self._get(_FILLER)):
            self._thread = Thread(target=self._fill, name="disk-filter", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop; a running refill is given up."""
        self._closing = True
        if self._thread is not None:
            self._thread.join(10.0)

    def _fill(self) -> None:
        """Fill the unused half, then switch to it."""
        bits = self._bits
        with suppress(sqlite3.Error, OSError):  # whoever asks the index next is told why it cannot be read
            with held(self._place.store / TURN):  # a bit from before has its row by now, one from after stays
                if alive(self._get(_FILLER)):
                    return  # another worker was quicker
                self._put(_FILLER, os.getpid())
                half = 2 if bits[_HALF] == 1 else 1
                start = self._start(half)
                self._clear(start)
            count = self._scan(start)
            if not self._closing:
                self._put(_SET, count)
                self._put(_ENOUGH, max(2 * self._half, 2 * count))  # a quarter of the bits
                bits[_HALF] = half
        self._put(_FILLER, 0)

    def _clear(self, start: int) -> None:
        zeros = bytes(min(_CLEARED, self._half))
        for at in range(start, start + self._half, len(zeros)):
            self._bits[at : at + len(zeros)] = zeros

    def _scan(self, start: int) -> int:
        """Set the bits of all rows; returns how many there are."""
        bits, mask = self._bits, self._mask
        last, count = -(1 << 63), 0
        with closing(connect(self._place)) as db:
            while not self._closing and (rows := db.execute(_ROWS, (last, _STEP)).fetchall()):
                for (hashed,) in rows:
                    bits[start + (hashed >> 3 & mask)] |= 1 << (hashed & 7)
                last = rows[-1][0]
                count += len(rows)
                sleep(_REST_S)
        return count


def filter_bytes(size: int) -> int:
    """The memory for a tier of `size` bytes: two halves, each a power of two."""
    wanted = max(MIN_BYTES, min(MAX_BYTES, size // BYTES_PER_OBJECT))
    return _HEAD + 2 * (1 << (wanted - 1).bit_length())
