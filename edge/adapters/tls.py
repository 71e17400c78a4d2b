"""TLS contexts: what listeners show to clients, and how backends are verified.

One rule: verification is on unless the operator turned it off by name; nothing older than TLS 1.2 is spoken.
"""

from __future__ import annotations

import os
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from edge.errors import ConfigError

Pair = tuple[str, str]  # paths of a certificate chain and its key
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: with forward secrecy and authenticated; all of TLS 1.3 are


def listening_context() -> ssl.SSLContext:
    """The TLS context of a listener, without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # in TLS 1.3: who resumes is given the next one; a second one costs a 50th of a handshake
    return context


@contextmanager
def quiet_names() -> Iterator[None]:
    """A handshake for a name (SNI) that is not ASCII fails; Python would print a traceback for each of them."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes)):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """The context of one certificate. Raises ConfigError naming the file that cannot be used."""
    return loaded(listening_context(), cert, key)


def authorities(path: str) -> str:
    """The certificates of a file against which clients' are to be verified. Raises ConfigError."""
    if (why := unreadable(path)) is not None:
        raise ConfigError([f"client_ca {path}: {why}"])
    try:
        with open(path, encoding="ascii") as file:
            found = file.read()
        listening_context().load_verify_locations(cadata=found)
    except (OSError, ValueError) as error:
        raise ConfigError([f"client_ca {path}: {_why(error)}"]) from None
    return found


def client_context(ca: str | None, cert: str | None, key: str | None, verify: bool) -> ssl.SSLContext:
    """The TLS context for an https backend. Raises ConfigError naming the file that cannot be used."""
    if ca is not None and (why := unreadable(ca)) is not None:
        raise ConfigError([f"tls.ca {ca}: {why}"])
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"tls.ca {ca}: {_why(error)}"]) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        loaded(context, cert, key)
    return context


def stamps(*paths: str | None) -> tuple[tuple[int, ...] | None, ...]:
    """Size and times of files, which change when one is replaced or written."""
    return tuple(None if path is None else _stamp(path) for path in paths)


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def renewing_context(cert: str, key: str) -> ssl.SSLContext:
    """A context of one certificate that reads its files again when they have changed; what is broken changes nothing.

    Looked at when a client begins a handshake, so for listeners that few use.
    """
    context = server_context(cert, key)
    seen = _changed_at(cert, key)

    def look(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        nonlocal seen, context
        now = _changed_at(cert, key)
        if now != seen:
            seen = now
            with suppress(ConfigError):
                connection.context = context = server_context(cert, key)
                context.sni_callback = look
                return
        if connection.context is not context:
            connection.context = context

    context.sni_callback = look
    return context


def _changed_at(*paths: str) -> list[tuple[int, int]]:
    found = []
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            found.append((status.st_mtime_ns, status.st_ino))
    return found


def loaded(context: ssl.SSLContext, cert: str, key: str | None) -> ssl.SSLContext:
    """A context with a certificate and its key. Raises ConfigError naming the file that cannot be used."""
    for what, path in (("certificate", cert), ("key", key or cert)):
        if (why := unreadable(path)) is not None:
            raise ConfigError([f"{what} {path}: {why}"])
    try:
        context.load_cert_chain(cert, key, _no_passphrase)
    except (OSError, ValueError) as error:
        raise ConfigError([f"certificate {cert}: {_why(error)}"]) from None
    return context


def _no_passphrase() -> str:
    """Never asked for on a terminal: a gateway starts alone."""
    raise ValueError("its key is encrypted; a gateway needs one without a passphrase")


def unreadable(path: str) -> str | None:
    """Why a file cannot be read; None when it can. A pipe is no such file: it would be waited on."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return None if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else "not a regular file"
    except OSError as error:
        return error.strerror or "cannot be read"


def expiry(cert: str) -> float | None:
    """When the first certificate of a file ends to be valid, in epoch seconds; None when it does not say."""
    found = _decoded(cert).get("notAfter")
    return float(ssl.cert_time_to_seconds(found)) if isinstance(found, str) else None


def issuer_of(cert: str) -> str:
    """The issuer of a file's first certificate, as a name for people."""
    parts = {name: value for several in _decoded(cert).get("issuer", ()) for name, value in several}
    found = parts.get("commonName") or parts.get("organizationName") or parts.get("organizationalUnitName")
    return str(found or "")


def names_of(cert: str) -> list[str]:
    """The DNS names of a certificate file, lower case."""
    return [value.lower() for kind, value in _decoded(cert).get("subjectAltName", ()) if kind == "DNS"]


def _decoded(cert: str) -> dict[str, Any]:
    decode = ssl._ssl._test_decode_cert  # type: ignore[attr-defined]  # the one decoder in the standard library
    found: dict[str, Any] = decode(cert)
    return found


_WORDS = {
    "KEY_VALUES_MISMATCH": "its key is that of another certificate",
    "NO_START_LINE": "holds no certificate or no key in PEM form",
    "BAD_BASE64_DECODE": "is damaged: not valid PEM",
}


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        return _WORDS.get(reason, reason.lower().replace("_", " "))
    if isinstance(error, ssl.SSLError):
        return "holds no certificate or no key in PEM form"
    return getattr(error, "strerror", None) or str(error) or "cannot be read"
