"""`auth` of a route: passwords, tokens, a service that knows, certificates.

Values only. One rule: what an extra has to be installed for is refused when it is not, at its place in the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

from pydantic import PlainValidator, ValidationInfo, model_validator

from edge.config.names import OneCookie
from edge.config.paths import FilePath, placed
from edge.config.rule_values import RequestField
from edge.config.types import (
    Duration,
    Many,
    Section,
    Text,
    Timeout,
    ValueKind,
    entry,
    shown,
    split_authority,
)


@dataclass(frozen=True, slots=True)
class ServiceUrl:
    """What a rule asks besides the backends."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as a Host field has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.scheme == "https" else 80)
        return host if usual else f"{host}:{self.port}"


def parse_service(value: object) -> ServiceUrl:
    """`"http://127.0.0.1:4180/verify"`."""
    found = re.fullmatch(r"(https?)://([^/?#@]+)(/[!-~]*)?", value) if isinstance(value, str) else None
    place = None if found is None else split_authority(found[2], 443 if found[1] == "https" else 80)
    if found is None or place is None or "#" in (found[3] or ""):
        raise ValueError(f'must be a URL such as "http://127.0.0.1:4180/verify", got {shown(value)}')
    return ServiceUrl(found[1], *place, found[3] or "/")


def parse_jwks(value: object, info: ValidationInfo) -> str:
    """Where the key set is: a URL, or a file's path."""
    if isinstance(value, str) and "://" in value:
        parse_service(value)
        return value
    if not isinstance(value, str) or re.fullmatch(r"[^\x00-\x1f\x7f]+", value) is None:
        raise ValueError(f'must be a URL such as "https://login.example.com/jwks.json" or a file, got {shown(value)}')
    return placed(value, value, info)


Service = Annotated[ServiceUrl, PlainValidator(parse_service), ValueKind("URL")]
Jwks = Annotated[str, PlainValidator(parse_jwks), ValueKind("URL or path")]


class Jwt(Section):
    """`auth.jwt`: a signed token."""

    jwks: Jwks = entry(..., "The keys (JSON Web Key Set): a URL, fetched and kept up to date, or a file")
    issuer: Text | None = entry(None, "What `iss` has to be; left out: anything")
    audience: Text | None = entry(None, "What `aud` has to hold; left out: anything")
    cookie: OneCookie | None = entry(None, "A cookie that holds the token where Authorization has none")
    headers: dict[RequestField, Text] = entry({}, "Fields for the backend, each from a claim")
    leeway: Duration = entry("30s", "How far clocks may differ")


class Auth(Section):
    """`auth`: who may ask; just one of basic, jwt, forward and client_certificate."""

    basic: FilePath | None = entry(None, "A file of htpasswd -B (bcrypt) or of argon2 hashes, read at the start")
    realm: Text = entry("restricted", "What a browser shows when it asks for the password")
    jwt: Jwt | None = entry(None, "A signed token, as Bearer or in a cookie")
    forward: Service | None = entry(None, "A service that is asked about each request: 2xx lets it pass")
    client_certificate: bool = entry(False, "Only clients whose certificate a listener's client_ca verified; else 403")
    copied: Many[RequestField] = entry([], "Fields of that service's answer for the backend, never a client's own")
    timeout: Timeout = entry("5s", "For the service, and for fetching keys; then 503")

    @model_validator(mode="after")
    def _one(self) -> Auth:
        kinds = ("basic", "jwt", "forward", "client_certificate")
        given = [name for name in kinds if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            told = " and ".join(given) or "none"
            raise ValueError(f"must have one of basic, jwt, forward and client_certificate, got {told}")
        if self.basic is not None and find_spec("bcrypt") is None:
            raise ValueError("basic needs bcrypt: pip install 'streamgate[auth]'")
        if self.jwt is not None and find_spec("jwt") is None:
            raise ValueError("jwt needs PyJWT: pip install 'streamgate[auth]'")
        if '"' in self.realm or "\\" in self.realm or not self.realm.isascii():
            raise ValueError(f"realm must be ASCII without quotes and backslashes, got {shown(self.realm)}")
        return self
