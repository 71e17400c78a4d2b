"""Byte ranges (RFC 9110 14): reading Range and Content-Range, choosing the bytes, cutting them out of stored chunks.

One rule: a Range that is not wholly understood is ignored, never guessed at. Ranges here are (first, last), inclusive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edge.http.fields import is_long

Spec = tuple[int | None, int | None]  # (first, last); (first, None) to the end; (None, n) the last n bytes
Range = tuple[int, int]
_RANGE = re.compile(rb"bytes=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(rb"([0-9]{0,18})-([0-9]{0,18})")
_CONTENT_RANGE = re.compile(rb"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """What of a representation is held: bytes first to last of `complete`, None when its length is not known."""

    first: int
    last: int
    complete: int | None

    def __len__(self) -> int:
        return self.last - self.first + 1

    @property
    def at_end(self) -> bool:
        """Whether the last byte of the representation is in it."""
        return self.complete is not None and self.last == self.complete - 1


def parse_range(value: bytes | None) -> tuple[Spec, ...] | None:
    """The specs of a Range; None when absent, of another unit, or malformed (then the field does not count)."""
    match = _RANGE.fullmatch(value) if value is not None else None
    if match is None or is_long(match[1]):
        return None
    specs: list[Spec] = []
    for raw in match[1].split(b","):
        text = raw.strip(b" \t")
        if not text:
            continue
        spec = _SPEC.fullmatch(text)
        if spec is None or text == b"-":
            return None
        first = int(spec[1]) if spec[1] else None
        last = int(spec[2]) if spec[2] else None
        if first is not None and last is not None and last < first:
            return None
        specs.append((first, last))
    return tuple(specs) or None


def satisfy(specs: Iterable[Spec], length: int) -> tuple[Range, ...]:
    """The ranges that exist in `length` bytes, in the order asked; empty when none does (416)."""
    found: list[Range] = []
    for first, last in specs:
        if first is None:
            count = min(last or 0, length)
            if count:
                found.append((length - count, length - 1))
        elif first < length:
            found.append((first, length - 1 if last is None else min(last, length - 1)))
    return tuple(found)


def coalesce(found: Sequence[Range]) -> tuple[Range, ...]:
    """Overlapping and touching ranges made one, so that no byte is sent twice; those left keep the order asked."""
    if len(found) < 2:
        return tuple(found)
    merged: list[list[int]] = []  # first, last, earliest place in the order asked
    for place, (first, last) in sorted(enumerate(found), key=lambda pair: pair[1]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
            merged[-1][2] = min(merged[-1][2], place)
        else:
            merged.append([first, last, place])
    return tuple((first, last) for first, last, _ in sorted(merged, key=lambda one: one[2]))


def parse_content_range(value: bytes | None) -> ContentRange | None:
    """The part that a 206 tells of; None when absent, malformed, contradictory or unsatisfied."""
    match = _CONTENT_RANGE.fullmatch(value) if value is not None else None
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    complete = None if match[3] == b"*" else int(match[3])
    if last < first or (complete is not None and last >= complete):
        return None
    return ContentRange(first, last, complete)


def within(specs: tuple[Spec, ...] | None, part: ContentRange, held: int) -> tuple[Range, int] | None:
    """The single range that a stored part of `held` bytes answers, and what to subtract from it to index the body.

    A range with a first byte is counted from the part's first, `-n` from the part's end: the same in a part that
    is what it says. In one that is shorter (framed well, but less than its Content-Range tells), both give what the
    origin gave for them. None when the part does not hold the range.
    """
    if specs is None or len(specs) != 1:
        return None
    first, last = specs[0]
    if first is None:
        if part.complete is None or not part.at_end or not last or last > held:
            return None
        return (part.complete - last, part.complete - 1), part.complete - held
    if last is None or (part.complete is not None and last >= part.complete):
        if not part.at_end:
            return None
        last = part.last
    if first < part.first or last > part.last or first >= part.first + held:
        return None
    return (first, min(last, part.first + held - 1)), part.first


def content_range(first: int, last: int, complete: int | None) -> bytes:
    """The value of Content-Range."""
    return b"bytes %d-%d/%b" % (first, last, b"*" if complete is None else b"%d" % complete)


def cut(chunks: Iterable[bytes], first: int, last: int) -> Iterator[memoryview]:
    """Views of the bytes first to last of a body held in chunks; nothing is copied."""
    at = 0
    for chunk in chunks:
        end = at + len(chunk)
        if end > first:
            yield memoryview(chunk)[max(first - at, 0) : last + 1 - at]
        at = end
        if at > last:
            return
