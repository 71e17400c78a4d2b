"""Authentication that belongs to a connection: NTLM and Negotiate (RFC 4559), against the rule of RFC 9110 11.

One rule: to bind one connection too many costs a connection; one too few gives somebody another one's identity. So a
challenge counts wherever its word may begin one.
"""

from __future__ import annotations

import re

from edge.http.message import Fields

CERTIFICATE_WORDS = (b"X-Client-Cert-Subject", b"X-Client-Cert-Fingerprint")  # of a client's verified certificate
CERTIFICATE_NAMES = frozenset(name.lower() for name in CERTIFICATE_WORDS)
CREDENTIALS = (b"authorization", b"proxy-authorization")
CHALLENGES = (b"www-authenticate", b"proxy-authenticate")
_SCHEME = re.compile(rb"(?:^|[,\s])(?:ntlm|negotiate)(?=[,\s]|$)", re.IGNORECASE)


def binds(fields: Fields, names: tuple[bytes, ...]) -> bool:
    """Whether one of these fields speaks of such a scheme."""
    return any(name in fields and _SCHEME.search(fields.joined(name) or b"") is not None for name in names)
