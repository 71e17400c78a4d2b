"""The certificate of a client, which its handshake proved: what rules and backends are told of it.

One rule: it is there only where the listener's `client_ca` verified it, and counts until it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.http.credentials import CERTIFICATE_NAMES, CERTIFICATE_WORDS
from edge.http.message import Fields, Line


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """`subject` is its distinguished name (RFC 4514, in ASCII), `fingerprint` its SHA-256 in hexadecimal digits."""

    subject: bytes
    fingerprint: bytes
    ends_at: float  # epoch seconds

    @property
    def lines(self) -> tuple[Line, ...]:
        """What a backend is told."""
        subject, fingerprint = CERTIFICATE_WORDS
        return (subject, self.subject), (fingerprint, self.fingerprint)

    def seen(self, fields: Fields) -> Fields:
        """A request's fields as its backend gets them."""
        return fields.without(CERTIFICATE_NAMES).plus(*self.lines)
