"""Certificates of a connection: the client's, which its handshake proved, and the hosts that ours covers.

One rule: a client's is there only where the listener's `client_ca` verified it, and counts until it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.http.credentials import CERTIFICATE_NAMES, CERTIFICATE_WORDS
from edge.http.forwarding import port_of
from edge.http.message import Fields, Line


def covers(names: frozenset[bytes], host: bytes) -> bool:
    """Whether a certificate with these names is valid for a Host: an exact name, or one label under a wildcard."""
    port = port_of(host)
    name = host.removesuffix(b":" + port) if port else host
    return name in names or b"*." + name.partition(b".")[2] in names


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """`subject` is its distinguished name (RFC 4514, in ASCII), `fingerprint` its SHA-256 in hexadecimal digits."""

    subject: bytes
    fingerprint: bytes
    ends_at: float  # epoch seconds

    @property
    def lines(self) -> tuple[Line, ...]:
        """The field lines that tell a backend about the certificate."""
        subject, fingerprint = CERTIFICATE_WORDS
        return (subject, self.subject), (fingerprint, self.fingerprint)

    def seen(self, fields: Fields) -> Fields:
        """A request's fields with those lines added and what the client sent under these names removed."""
        return fields.without(CERTIFICATE_NAMES).plus(*self.lines)
