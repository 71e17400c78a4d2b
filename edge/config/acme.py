"""`listen.https.acme`: certificates that a listener gets, and renews, by itself (RFC 8555).

One rule: what HTTP-01 cannot prove (wildcards, addresses) is refused here, and so is a directory without TLS. Where the
files are follows from these values alone, so that whoever writes them and whoever reads them need not tell each other.
"""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.util import find_spec
from typing import Annotated

from pydantic import Field, PlainValidator, field_validator, model_validator

from edge.config.cache import matching
from edge.config.paths import FilePath
from edge.config.types import Many, Section, ValueKind, entry, is_host, shown

DIRECTORIES = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
FOLDER = "acme"  # in the state directory
_URL = re.compile(r"https://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-~]*)?")


def parse_directory(value: object) -> str:
    """`"letsencrypt"`, `"letsencrypt-staging"`, or the URL of another server's directory."""
    if isinstance(value, str) and (value in DIRECTORIES or (_URL.fullmatch(value) and "#" not in value)):
        return value
    raise ValueError(f'must be "letsencrypt", "letsencrypt-staging" or an https URL, got {shown(value)}')


def parse_certified_name(value: object) -> str:
    """A DNS name that a server can ask over HTTP; lower case."""
    if isinstance(value, str) and value.startswith("*."):
        raise ValueError(f"{shown(value)}: a wildcard cannot be proved over HTTP; give the certificate as files")
    if not isinstance(value, str) or not is_host(value) or "_" in value or value.rpartition(".")[2].isdigit():
        raise ValueError(f'must be a host name such as "www.example.com", got {shown(value)}')
    return value.lower()


Directory = Annotated[str, PlainValidator(parse_directory), ValueKind('"letsencrypt", "letsencrypt-staging" or URL')]
CertifiedName = Annotated[str, PlainValidator(parse_certified_name), ValueKind("host name")]
Email = Annotated[
    str,
    PlainValidator(matching(r"[^\s@<>,;:\x00-\x1f\x7f]+@[A-Za-z0-9.-]+", 'an address such as "ops@example.com"')),
    ValueKind("e-mail address"),
]


class Acme(Section):
    """`listen.https.acme`: one certificate for each name. Who sets it agrees to the server's terms of service."""

    directory: Directory = entry(
        ..., "Certificate authority: letsencrypt, letsencrypt-staging (for trying) or a directory's URL"
    )
    names: Annotated[Many[CertifiedName], Field(min_length=1, max_length=100)] = entry(
        ..., "Host names; each must lead to port 80 of this machine, and that to listen.http"
    )
    email: Email | None = entry(None, "Mail address that the authority may write to")
    ca: FilePath | None = entry(
        None, "CA certificates to verify a private authority's server; left out: the public ones"
    )

    @field_validator("names")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for at, name in enumerate(value):
            if name in value[:at]:
                raise ValueError(f"{shown(name)} is there twice")
        return value

    @model_validator(mode="after")
    def _installed(self) -> Acme:
        if find_spec("acme") is None:
            raise ValueError("needs a package: pip install 'streamgate[acme]'")
        return self

    @property
    def url(self) -> str:
        """The URL of the directory."""
        return DIRECTORIES.get(self.directory, self.directory)

    @property
    def folder(self) -> str:
        """Where the account and the certificates of this directory are, in the state directory."""
        if self.directory in DIRECTORIES:
            return f"{FOLDER}/{self.directory}"
        authority = re.sub(r"[^a-z0-9.-]", "-", self.url.removeprefix("https://").partition("/")[0].lower())
        return f"{FOLDER}/{authority}-{sha256(self.url.encode()).hexdigest()[:8]}"

    def pem(self, state: str, name: str) -> str:
        """The file with a name's certificate chain and key."""
        return f"{state}/{self.folder}/{name}.pem"
