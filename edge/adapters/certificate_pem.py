"""Certificates as bytes: keys, what a file holds, and the self-signed one that serves until there is a better one.

One rule: a file has its key before its chain, so that both are taken or neither. Needs the package cryptography, which
comes with the extra `acme`; nobody reads this module who has no use for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SELF_SIGNED_S = 90 * 86400.0


class NotUsable(ValueError):
    """Why a certificate cannot be used; one clear line."""


@dataclass(frozen=True, slots=True)
class Life:
    """From when to when, in epoch seconds. `self_signed`: it only stands in for one that is to come."""

    begins: float
    ends: float
    self_signed: bool


def new_key() -> bytes:
    """A private key, P-256, PEM."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def self_signed(name: str, now: float) -> bytes:
    """Key and certificate of a name, by nobody but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    begins = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder(issuer, issuer, key.public_key(), x509.random_serial_number())
        .not_valid_before(begins - timedelta(hours=1))  # of clients whose clocks are late
        .not_valid_after(begins + timedelta(seconds=SELF_SIGNED_S))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256())
    )
    return _pem(key) + certificate.public_bytes(Encoding.PEM)


def life(pem: bytes) -> Life:
    """When the first certificate begins and ends (epoch seconds). Raises NotUsable."""
    leaf = _chain(pem)[0]
    return Life(
        leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp(), leaf.issuer == leaf.subject
    )


def joined(key: bytes, chain: bytes, name: str, now: float) -> bytes:
    """A file's bytes of a key and the chain that came for it. Raises NotUsable where it is not what was asked for."""
    certificates, own = _chain(chain), load_pem_private_key(key, None)
    leaf = certificates[0]
    if leaf.public_key() != own.public_key():
        raise NotUsable("the certificate is for another key")
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        covered = name in (each.lower() for each in names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        covered = False
    if not covered:
        raise NotUsable(f"the certificate is not for {name}")
    if leaf.not_valid_after_utc.timestamp() <= now:
        raise NotUsable("the certificate has ended already")
    return key + b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _chain(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise NotUsable("no certificate in PEM form") from None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
