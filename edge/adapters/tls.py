"""TLS contexts: what listeners show to clients, and how backends are verified.

One rule: verification is on unless the operator turned it off by name; nothing older than TLS 1.2 is spoken.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from edge.errors import ConfigError


def server_context(certificates: Sequence[tuple[str, str]]) -> ssl.SSLContext:
    """A listener's context from (certificate chain, key) files; the client's name chooses among several.

    Raises ConfigError naming the file that cannot be used.
    """
    contexts = [_loaded(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), cert, key) for cert, key in certificates]
    first = contexts[0]
    first.set_alpn_protocols(["http/1.1"])
    by_name = {
        name: context for (cert, _), context in zip(certificates, contexts, strict=True) for name in _names(cert)
    }
    if len(contexts) > 1:

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            wanted = (name or "").lower()
            found = by_name.get(wanted) or by_name.get("*." + wanted.partition(".")[2])
            if found is not None:
                connection.context = found

        first.sni_callback = choose
    return first


def client_context(ca: str | None, cert: str | None, key: str | None, verify: bool) -> ssl.SSLContext:
    """How an https backend is spoken to. Raises ConfigError naming the file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"tls.ca {ca}: {_why(error)}"]) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        _loaded(context, cert, key)
    return context


def _loaded(context: ssl.SSLContext, cert: str, key: str | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"certificate {cert}: {_why(error)}"]) from None
    return context


def _names(cert: str) -> list[str]:
    """The DNS names of a certificate file, lower case."""
    decode = ssl._ssl._test_decode_cert  # type: ignore[attr-defined]  # the one decoder in the standard library
    found = decode(cert)
    return [value.lower() for kind, value in found.get("subjectAltName", ()) if kind == "DNS"]


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or "cannot be read"
