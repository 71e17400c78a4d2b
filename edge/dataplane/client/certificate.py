"""Reading the certificate of a client off its connection.

One rule: only what the listener's `client_ca` verified is ever told, and only until it ends. A resumed session brings
the certificate of the handshake that it goes back to, so every connection is looked at, and the end once more.
"""

from __future__ import annotations

import re
import ssl
from hashlib import sha256
from typing import Any

from edge.dataplane.core.certificate import ClientCertificate

_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
_SPECIAL = re.compile(rb'[\\,+"<>;=]|^[ #]| $')
_NOT_SHOWN = re.compile(rb"[^\x20-\x7e]")


def certificate_of(connection: ssl.SSLObject) -> ClientCertificate | None:
    """The client's certificate on a listener with `client_ca`, or None if it sent none.

    Raises ValueError or ssl.SSLError for one that cannot be read.
    """
    encoded, decoded = connection.getpeercert(binary_form=True), connection.getpeercert()
    if not encoded or not decoded:
        return None
    ends_at = float(ssl.cert_time_to_seconds(str(decoded["notAfter"])))
    return ClientCertificate(distinguished(decoded["subject"]), sha256(encoded).hexdigest().encode(), ends_at)


def distinguished(subject: Any) -> bytes:
    """An X.509 name as RFC 4514 text, most specific part first; non-printable characters are escaped."""
    parts = [b"+".join([_part(name, value) for name, value in several]) for several in subject]
    return b",".join(reversed(parts))


def _part(name: str, value: str) -> bytes:
    text = _SPECIAL.sub(lambda found: b"\\" + found[0], value.encode())
    text = _NOT_SHOWN.sub(lambda found: b"\\%02X" % found[0][0], text)
    return b"%b=%b" % (_SHORT.get(name, name).encode("ascii", "replace").replace(b" ", b""), text)
