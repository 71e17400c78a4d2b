"""The content codings that the gateway makes: whole bodies at once, and bodies as they come.

One rule: each has a bound on its memory, set by a small window, for a thousand clients may be reading at once. What is
not installed is not offered.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, Protocol

GZIP = 31  # zlib's word for the gzip format
WINDOW_LOG = 18  # of streams: 256 KiB
USUAL_LEVELS = {"zstd": 3, "br": 4, "gzip": 6}
HIGHEST = {"zstd": 19, "br": 11, "gzip": 9}
KNOWN = ("zstd", "br", "gzip")


class Coder(Protocol):
    """Codes one body piece by piece."""

    def piece(self, data: bytes | bytearray) -> bytes: ...
    def end(self) -> bytes: ...


def available() -> tuple[str, ...]:
    """The codings whose libraries are installed, best first."""
    return tuple(name for name in KNOWN if name != "br" or find_spec("brotli") is not None)


def load(names: Iterable[str]) -> None:
    """Import what these codings need: not when the first response waits for it."""
    for name in names:
        stream(name, None, False)


def _brotli() -> Any:
    import brotli  # the extra `compress`; here, for a start without it has no use for it

    return brotli


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def whole(name: str, level: int | None, data: bytes) -> bytes:
    """A whole body in one coding. Lets go of the interpreter lock while it works."""
    chosen = USUAL_LEVELS[name] if level is None else min(level, HIGHEST[name])
    if name == "br":
        return bytes(_brotli().compress(data, quality=chosen, lgwin=22))
    if name == "zstd":
        return bytes(_zstd().compress(data, chosen))
    coder = _gzip(chosen)
    return bytes(coder.compress(data) + coder.flush())


def stream(name: str, level: int | None, flushes: bool) -> Coder:
    """A coder of one stream; with `flushes` each piece can be read as soon as it is there. It works on the loop, so a
    higher level than the usual one is for whole bodies alone."""
    chosen = min(level or USUAL_LEVELS[name], USUAL_LEVELS[name])
    if name == "br":
        made = _brotli().Compressor(quality=chosen, lgwin=WINDOW_LOG)
        return _Stream(made.process, made.flush if flushes else None, made.finish)
    if name == "zstd":
        zstd = _zstd()
        level_key, window_key = zstd.CompressionParameter.compression_level, zstd.CompressionParameter.window_log
        options: dict[int, int] = {level_key: chosen, window_key: WINDOW_LOG}
        coder = zstd.ZstdCompressor(options=options)
        return _Stream(coder.compress, (lambda: coder.flush(coder.FLUSH_BLOCK)) if flushes else None, coder.flush)
    gzip = _gzip(chosen)
    return _Stream(gzip.compress, (lambda: gzip.flush(zlib.Z_SYNC_FLUSH)) if flushes else None, gzip.flush)


def _gzip(level: int) -> Any:
    if find_spec("isal") is None:
        return zlib.compressobj(level, zlib.DEFLATED, GZIP)
    from isal import isal_zlib  # five times as fast as zlib; the same format

    return isal_zlib.compressobj(min(3, (level + 2) // 4), isal_zlib.DEFLATED, GZIP)


class _Stream:
    """Gives every library's stream encoder the same methods."""

    __slots__ = ("_add", "_end", "_flush")

    def __init__(
        self, add: Callable[[bytes | bytearray], bytes], flush: Callable[[], bytes] | None, end: Callable[[], bytes]
    ) -> None:
        self._add, self._flush, self._end = add, flush, end

    def piece(self, data: bytes | bytearray) -> bytes:
        """Code a piece; may return nothing yet."""
        made = self._add(data)
        return bytes(made if self._flush is None else made + self._flush())

    def end(self) -> bytes:
        """The rest of the coded body."""
        return bytes(self._end())
