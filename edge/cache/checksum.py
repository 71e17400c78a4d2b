"""CRC-32 with zlib's polynomial, by the fastest code that is installed; all of it gives the same numbers."""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32  # with the processor's carry-less multiplication; comes with the extra `compress`
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
