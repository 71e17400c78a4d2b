"""TLS session tickets that every worker of the gateway can open, so that a client resumes whichever it comes to.

    secret of a step ─► keys of each listener         each STEP_S: secret ─► hash ─► secret of the next step; forgotten

One rule: a ticket opens nothing but sessions of its own listener under the same settings, and nothing that was secret
before a step can be found out after it. Secrets live in memory alone: the supervisor makes the first, workers get it
when they start, and all of them step by the clock.

Python's ssl has no call that sets a context's ticket keys, so OpenSSL's own is made, by ctypes in the
library that ssl itself is linked to. What it is given is the handle that stands first in CPython's context object;
before anything is written, OpenSSL has to tell through it the very options that Python tells. Where any of that is not
so, `share` says False: then each worker has keys of its own, and a client resumes at the worker that it left.
"""

from __future__ import annotations

import ctypes
import os
import ssl
import sys
from collections.abc import Callable
from functools import cache
from hashlib import shake_256
from typing import Any

STEP_S = 12 * 3600.0  # of the same order as others' rotation; a ticket is good for two hours
_SET_KEYS, _GET_KEYS = 59, 58  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS, SSL_CTRL_GET_TLSEXT_TICKET_KEYS of ssl.h
_KEYS_BYTES = 80  # a name of 16 bytes, and keys of 32 for HMAC and AES


class TicketSecret:
    """The secret of a step; `at` goes on to that of now."""

    def __init__(self, secret: bytes, step: int) -> None:
        self._secret = secret
        self.step = step

    @classmethod
    def new(cls, now: float) -> TicketSecret:
        """A new random secret."""
        return cls(os.urandom(32), int(now // STEP_S))

    @classmethod
    def told(cls, told: list[Any]) -> TicketSecret:
        """The secret from what `tell` returned."""
        return cls(bytes.fromhex(told[0]), told[1])

    def tell(self, now: float) -> list[Any]:
        """The secret as bytes, for a worker that starts."""
        self.at(now)
        return [self._secret.hex(), self.step]

    def at(self, now: float) -> None:
        """Forget the secrets of steps that are over; a clock that was set back changes nothing."""
        while self.step < int(now // STEP_S):
            self._secret = shake_256(b"next" + self._secret).digest(32)
            self.step += 1

    def keys(self, what: bytes) -> bytes:
        """The keys of a listener with these settings."""
        return shake_256(b"keys" + self._secret + what).digest(_KEYS_BYTES)


def share(context: ssl.SSLContext, keys: bytes) -> bool:
    """Let a context use these ticket keys; False where that is not possible."""
    library = _library()
    if library is None:
        return False
    handle = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    if not handle.value or library.options(handle) != int(context.options):
        return False
    found = ctypes.create_string_buffer(_KEYS_BYTES)
    library.control(handle, _SET_KEYS, _KEYS_BYTES, keys)
    library.control(handle, _GET_KEYS, _KEYS_BYTES, found)
    return found.raw == keys


class _Library:
    """The two calls that are needed."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self.options: Callable[..., int] = loaded.SSL_CTX_get_options
        loaded.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
        loaded.SSL_CTX_get_options.restype = ctypes.c_uint64
        self.control: Callable[..., int] = loaded.SSL_CTX_ctrl
        loaded.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
        loaded.SSL_CTX_ctrl.restype = ctypes.c_long


@cache
def _library() -> _Library | None:
    """The library that ssl is linked to, found through ssl's own module and no other way: a second copy of OpenSSL in
    the process would read the handle wrongly."""
    own = getattr(ssl._ssl, "__file__", None)  # type: ignore[attr-defined]
    if own is None or sys.implementation.name != "cpython" or ssl.OPENSSL_VERSION_INFO < (3, 0):
        return None
    try:
        return _Library(ctypes.CDLL(own))
    except (OSError, AttributeError):
        return None
